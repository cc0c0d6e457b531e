//! `huozi doctor`: what this machine has, and which models fit.

use super::args::Doctor;
use super::exit::Usage;
use super::printer::{Printer, bytes, escaped};
use super::settings::Config;
use crate::engine::{KvType, MICRO_BATCH};
use crate::model::bloom::LOGIT_ROWS;
use crate::session::catalog::{self, Found, Memory};
use anyhow::Result;
use huozi_quant::Format;
use huozi_quant::kernels::Isa;
use huozi_quant::shape::Shape;
use serde_json::json;
use std::io::Write;

/// A preset as `huozi-convert` makes it.
struct Preset {
    name: &'static str,
    /// Of the matrices in the layers.
    layers: Format,
    /// Of the fused QKV and the second matrix of the MLP in the layers that [`more_bits`] names.
    raised: Format,
    /// Of the embedding, which is the head too.
    embedding: Format,
}

/// The columns of the table: the presets people use.
const PRESETS: [Preset; 5] = [
    Preset { name: "f16", layers: Format::F16, raised: Format::F16, embedding: Format::F16 },
    Preset { name: "q8_0", layers: Format::Q8_0, raised: Format::Q8_0, embedding: Format::Q8_0 },
    Preset { name: "q5_k_m", layers: Format::Q5_K, raised: Format::Q6_K, embedding: Format::Q6_K },
    Preset { name: "q4_k_m", layers: Format::Q4_K, raised: Format::Q6_K, embedding: Format::Q6_K },
    Preset { name: "q4_0", layers: Format::Q4_0, raised: Format::Q4_0, embedding: Format::Q6_K },
];

/// The layers that a `_M` preset gives more bits, in whole numbers as llama-quantize counts.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// Bytes of the tensors of a model of `shape`; the file adds its header, a few MiB of vocabulary.
fn tensor_bytes(shape: &Shape, preset: &Preset) -> u64 {
    let (e, f) = (shape.n_embd as u64, shape.n_ff as u64);
    let matrix = |rows: u64, cols: u64, format: Format| {
        rows * (cols / format.block_weights() as u64) * format.block_bytes() as u64
    };
    // Norms and biases stay f32: what `weights` counts beside the matrices.
    let embedding = shape.n_vocab as u64 * e;
    let in_layer = 3 * e * e + e * e + 2 * e * f;
    let vectors = 4 * (shape.weights() - embedding - shape.n_layer as u64 * in_layer);
    let layers: u64 = (0..shape.n_layer)
        .map(|i| {
            let raised = if more_bits(i, shape.n_layer) { preset.raised } else { preset.layers };
            matrix(3 * e, e, raised)
                + matrix(e, e, preset.layers)
                + matrix(f, e, preset.layers)
                + matrix(e, f, raised)
        })
        .sum();
    vectors + matrix(shape.n_vocab as u64, e, preset.embedding) + layers
}

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &Doctor, config: &Config, printer: &mut Printer) -> Result<()> {
    let isa = Isa::from_env().map_err(|e| Usage(e.to_string()))?;
    let available: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = config.threads(&super::args::LoadArgs::default())?.unwrap_or(cores);
    let memory = Memory::now();
    let features = cpu_features();
    let mut paths: Vec<_> = std::env::var_os("HUOZI_MODEL")
        .filter(|v| !v.is_empty())
        .map(std::path::PathBuf::from)
        .into_iter()
        .chain(config.model.clone())
        .collect();
    paths.extend(catalog::files(&catalog::folders()));
    let models: Vec<Found> = paths.iter().map(|path| Found::look(path)).collect();
    let forecast =
        |shape: &Shape, file| shape.forecast(file, args.ctx_size, KvType::F16, MICRO_BATCH, LOGIT_ROWS);
    let fits = |total: u64| memory.map(|m| total <= m.available);

    if args.json {
        let table: Vec<_> = Shape::NAMES
            .iter()
            .filter_map(|name| Some((name, Shape::named(name)?)))
            .flat_map(|(name, shape)| PRESETS.iter().map(move |preset| (name, shape, preset)))
            .map(|(name, shape, preset)| {
                let f = forecast(&shape, tensor_bytes(&shape, preset));
                json!({ "shape": name, "type": preset.name, "file_bytes": f.file, "total_bytes": f.total, "fits": fits(f.total) })
            })
            .collect();
        let models: Vec<_> = models
            .iter()
            .map(|m| match &m.shape {
                Ok(shape) => {
                    let total = forecast(shape, m.bytes).total;
                    json!({ "path": m.path.display().to_string(), "bytes": m.bytes, "total_bytes": total, "fits": fits(total) })
                }
                Err(error) => json!({ "path": m.path.display().to_string(), "bytes": m.bytes, "error": error }),
            })
            .collect();
        printer.json(&json!({
            "schema": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "arch": std::env::consts::ARCH,
            "cpu": cpu_name(),
            "features": features,
            "isa": isa.name(),
            "isa_available": available,
            "threads": threads,
            "cores": cores,
            "memory_total": memory.map(|m| m.total),
            "memory_available": memory.map(|m| m.available),
            "memory_limit": memory.and_then(|m| m.limit),
            "context": args.ctx_size,
            "fits": table,
            "models": models,
        }))?;
        return Ok(());
    }

    let mut out = printer.bulk();
    writeln!(out, "huozi {} on {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)?;
    if let Some(name) = cpu_name() {
        writeln!(out, "CPU       {}", escaped(name.as_bytes()))?;
    }
    writeln!(
        out,
        "features  {}",
        if features.is_empty() { "none detected".into() } else { features.join(" ") }
    )?;
    let lowered = std::env::var("HUOZI_ISA").is_ok_and(|v| !v.is_empty());
    let by = if lowered { " (HUOZI_ISA)" } else { "" };
    writeln!(out, "kernels   {}{by}; this CPU can run {}", isa.name(), available.join(", "))?;
    writeln!(out, "threads   {threads} of {cores}")?;
    match memory {
        Some(m) => {
            let limit =
                m.limit.map_or(String::new(), |l| format!("; limited to {} by a control group", bytes(l)));
            writeln!(out, "memory    {} available of {}{limit}", bytes(m.available), bytes(m.total))?;
        }
        None => writeln!(out, "memory    unknown on this system")?,
    }
    writeln!(out, "\nmemory needed with a context of {} tokens (- does not fit now)", args.ctx_size)?;
    write!(out, "  {:<12}", "")?;
    for preset in &PRESETS {
        write!(out, " {:>11}", preset.name)?;
    }
    writeln!(out)?;
    for name in Shape::NAMES {
        let Some(shape) = Shape::named(name) else { continue };
        write!(out, "  {name:<12}")?;
        for preset in &PRESETS {
            let total = forecast(&shape, tensor_bytes(&shape, preset)).total;
            let mark = if fits(total) == Some(false) { "-" } else { "" };
            write!(out, " {:>11}", format!("{mark}{}", bytes(total)))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "  Huozi 1.0 and 2.0 have the shape of bloom-7b1.")?;
    if models.is_empty() {
        writeln!(out, "\nno model files found; `huozi demo` needs none")?;
    } else {
        writeln!(out, "\nmodel files")?;
    }
    for model in &models {
        let name = escaped(model.path.display().to_string().as_bytes());
        match &model.shape {
            Ok(shape) => {
                let total = forecast(shape, model.bytes).total;
                let verdict = match fits(total) {
                    Some(true) => "fits",
                    Some(false) => "does not fit",
                    None => "",
                };
                writeln!(out, "  {name}  {}, needs {}  {verdict}", bytes(model.bytes), bytes(total))?;
            }
            Err(error) => writeln!(out, "  {name}  not usable: {}", escaped(error.as_bytes()))?,
        }
    }
    out.flush()?;
    Ok(())
}

fn cpu_name() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|l| l.starts_with("model name") || l.starts_with("Model"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    macro_rules! having {
        ($($name:tt)*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    having!("sse4.2" "avx" "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avxvnni" "avx512bf16")
        .into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect()
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<&'static str> {
    macro_rules! having {
        ($($name:tt)*) => { [$(($name, std::arch::is_aarch64_feature_detected!($name))),*] };
    }
    having!("neon" "fp16" "dotprod" "i8mm" "bf16" "sve" "sve2")
        .into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_real_files() {
        // The tensors of Huozi 2.0 (tied) as converted.
        let shape = Shape::named("bloom-7b1").unwrap();
        let found: Vec<_> = PRESETS.iter().map(|p| (p.name, tensor_bytes(&shape, p))).collect();
        assert_eq!(
            found,
            [
                ("f16", 14_141_259_776),
                ("q8_0", 7_515_570_176),
                ("q5_k_m", 5_220_139_008),
                ("q4_k_m", 4_670_685_184),
                ("q4_0", 4_246_798_336),
            ]
        );
    }
}
