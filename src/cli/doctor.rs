//! `huozi doctor`: the machine's CPU, memory and speed, and the models that fit.

use super::args::DoctorCommand;
use super::exit::Usage;
use super::load::{self, note_threads};
use super::printer::{Printer, SCHEMA, bytes, escaped};
use super::settings::Config;
use super::signal::Signals;
use crate::bench::{Floors, ModelCost};
use crate::engine::{EngineKind, KvType, usable_threads};
use crate::open::{Memory, OpenOptions, forecast, locate};
use crate::session::catalog::{self, Found};
use anyhow::Result;
use huozi_quant::bloom::plan::{Preset, tensor_bytes};
use huozi_quant::bloom::shape::Shape;
use huozi_quant::kernels::Isa;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// The columns of the table: the usual presets.
const PRESETS: [Preset; 5] = [Preset::F16, Preset::Q8_0, Preset::Q5_K_M, Preset::Q4_K_M, Preset::Q4_0];

/// Bytes that are read to measure the memory: more than the caches of most machines hold.
const READ_BYTES: u64 = 512 << 20;

/// What the machine's floors allow a model of `shape` in `preset`: tokens per second of an answer and of a
/// prompt.
fn at_most(floors: &Floors, shape: &Shape, preset: Preset) -> (f64, f64) {
    let cost = ModelCost::of_shape(shape, preset);
    let macs = if cost.float { floors.f32 } else { floors.int8 };
    (floors.read / cost.step_bytes as f64, macs.per_second / cost.layer_macs as f64)
}

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &DoctorCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let isa = Isa::from_env().map_err(|e| Usage(e.to_string()))?;
    let available: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let wanted = config.settings(crate::settings::Patch::default())?.threads;
    let threads = usable_threads(wanted);
    note_threads(wanted, threads, false);
    let memory = Memory::now();
    let features = cpu_features();
    // At most an eighth of the available memory: there may be little of it.
    let read = memory.map_or(READ_BYTES, |m| (m.available / 8).clamp(1 << 20, READ_BYTES));
    let floors = signals.while_busy(|cancel| {
        // Written: pages that were never written all map to one page of zeros.
        let bytes = vec![1u8; usize::try_from(read)?];
        anyhow::Ok(Floors::measure(&bytes, threads, isa, cancel)?)
    });
    if floors.is_err() {
        signals.check()?;
    }
    let floors = floors?;
    let mut paths: Vec<_> = std::env::var_os("HUOZI_MODEL")
        .filter(|v| !v.is_empty())
        .map(std::path::PathBuf::from)
        .into_iter()
        .chain(config.model.clone())
        // The name of a model in the Hugging Face cache stands for its file.
        .map(|path| locate(&path).unwrap_or(path))
        .collect();
    paths.extend(catalog::files(&catalog::folders()));
    let models: Vec<Looked> = paths.iter().map(|path| look(path)).collect();
    let forecast =
        |shape: &Shape, file| forecast(shape, file, EngineKind::Native, KvType::F16, args.ctx_size);
    let fits = |total: u64| memory.map(|m| total <= m.available);

    if args.json {
        let table: Vec<_> = Shape::NAMES
            .iter()
            .filter_map(|name| Some((name, Shape::named(name)?)))
            .flat_map(|(name, shape)| PRESETS.iter().map(move |preset| (name, shape, preset)))
            .map(|(name, shape, preset)| {
                let f = forecast(&shape, tensor_bytes(&shape, *preset, true));
                let (answer, prompt) = at_most(&floors, &shape, *preset);
                json!({
                    "shape": name, "type": preset.name().to_lowercase(), "file_bytes": f.file,
                    "total_bytes": f.total, "fits": fits(f.total),
                    "answer_ts_at_most": answer, "prompt_ts_at_most": prompt,
                })
            })
            .collect();
        let models: Vec<_> = models
            .iter()
            .map(|(m, why)| match (&m.shape, why) {
                (Ok(shape), None) => {
                    let total = forecast(shape, m.bytes).total;
                    let path = m.path.display().to_string();
                    json!({ "model": path, "bytes": m.bytes, "total_bytes": total, "fits": fits(total) })
                }
                _ => json!({ "model": m.path.display().to_string(), "bytes": m.bytes, "error": why }),
            })
            .collect();
        printer.json(&json!({
            "schema": SCHEMA,
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
            "read_bytes_per_s": floors.read,
            "read_bytes": floors.read_bytes,
            "int8_macs_per_s": floors.int8.per_second,
            "int8_macs_by": floors.int8.how,
            "f32_macs_per_s": floors.f32.per_second,
            "f32_macs_by": floors.f32.how,
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
    writeln!(
        out,
        "speed     reads {:.1} GB/s; {:.0} GMAC/s int8 ({}), {:.0} f32 ({})",
        floors.read / 1e9,
        floors.int8.per_second / 1e9,
        floors.int8.how,
        floors.f32.per_second / 1e9,
        floors.f32.how,
    )?;
    writeln!(out, "\nmemory needed with a context of {} tokens (- does not fit now)", args.ctx_size)?;
    table(&mut out, |shape, preset| {
        let total = forecast(shape, tensor_bytes(shape, preset, true)).total;
        let mark = if fits(total) == Some(false) { "-" } else { "" };
        format!("{mark}{}", bytes(total))
    })?;
    writeln!(out, "\ntokens per second of an answer / of a prompt, at most")?;
    table(&mut out, |shape, preset| {
        let (answer, prompt) = at_most(&floors, shape, preset);
        let places = if answer < 10.0 { 1 } else { 0 };
        format!("{answer:.places$} / {prompt:.0}")
    })?;
    writeln!(out, "  `huozi bench` measures what is reached.")?;
    writeln!(out, "  Huozi 1.0 and 2.0 have the shape of bloom-7b1.")?;
    if models.is_empty() {
        writeln!(out, "\nno model files found; `huozi demo` needs none")?;
    } else {
        writeln!(out, "\nmodel files")?;
    }
    for (model, why) in &models {
        let name = escaped(model.path.display().to_string().as_bytes());
        match (&model.shape, why) {
            (Ok(shape), None) => {
                let total = forecast(shape, model.bytes).total;
                let verdict = match fits(total) {
                    Some(true) => "fits",
                    Some(false) => "does not fit",
                    None => "",
                };
                writeln!(out, "  {name}  {}, needs {}  {verdict}", bytes(model.bytes), bytes(total))?;
            }
            _ => {
                let why = why.as_deref().unwrap_or_default();
                writeln!(out, "  {name}  not usable: {}", escaped(why.as_bytes()))?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// A model file, and why `run` would refuse it.
type Looked = (Found, Option<String>);

fn look(path: &Path) -> Looked {
    let found = Found::look(path);
    let unusable = || {
        let error = load::open(path, &OpenOptions::default()).and_then(|model| Ok(model.check_usable()?));
        let error = super::exit::line(&error.err()?);
        Some(error.replacen(&format!("{}: ", path.display()), "", 1))
    };
    let why = found.why().or_else(unusable);
    (found, why)
}

/// A line for each published shape, a column for each of [`PRESETS`].
fn table(out: &mut impl Write, cell: impl Fn(&Shape, Preset) -> String) -> std::io::Result<()> {
    write!(out, "  {:<12}", "")?;
    for preset in &PRESETS {
        write!(out, " {:>11}", preset.name().to_lowercase())?;
    }
    writeln!(out)?;
    for name in Shape::NAMES {
        let Some(shape) = Shape::named(name) else { continue };
        write!(out, "  {name:<12}")?;
        for &preset in &PRESETS {
            write!(out, " {:>11}", cell(&shape, preset))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The CPU as `/proc/cpuinfo` calls it.
pub fn cpu_name() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|l| l.starts_with("model name") || l.starts_with("Model"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    macro_rules! having {
        ($($name:tt)*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    having!(
        "sse4.2" "avx" "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avxvnni"
        "avx512bf16"
    )
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
