//! `huozi bench`: tokens per second, and the share of what the machine could do.

mod compare;

use super::args::{self, LoadArgs, Output};
use super::exit::Usage;
use super::load::Watch;
use super::printer::{Printer, bytes};
use super::settings::Config;
use super::show::Counter;
use super::signal::Signals;
use crate::bench::{self, Bound, Cost, Floors, Row, Test};
use crate::engine::{Engine, EngineError, KvType};
use crate::open::{Loaded, OpenOptions, Room, Source};
use anyhow::Result;
use huozi_quant::bloom::plan::{self, Preset};
use huozi_quant::bloom::shape::Shape;
use huozi_quant::bloom::synth;
use huozi_quant::kernels::Isa;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &args::Bench, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    if let (Some(shape), Some(path)) = (&args.shape, &args.write) {
        return write(args, shape, path, signals);
    }
    let tests = Test::all(&args.n_prompt, &args.n_gen, &args.pg, &args.n_depth, &args.batch);
    if tests.is_empty() {
        return Err(Usage("nothing to measure: -p and -n are 0, and there is no --pg".into()).into());
    }
    let threads = match &args.threads[..] {
        [] => vec![config.threads(&LoadArgs::default())?],
        typed => typed.iter().copied().map(Some).collect(),
    };
    if args.compare {
        return compare::run(args, config, &threads, signals, printer);
    }
    let mut table = Table::new(args.output);
    let total = tests.len() * threads.len() * args.repetitions;
    let mut counter = Counter::new(total as u64, false, args.quiet);
    let result = signals.while_busy(|cancel| -> Result<()> {
        let mut subject = Subject::open(args, config, &tests, cancel)?;
        for (i, &threads) in threads.iter().enumerate() {
            let room = Room {
                positions: tests.iter().map(|t| t.kv_positions(huozi_quant::kv::BLOCK)).max().unwrap_or(1),
                sequences: tests.iter().map(|t| t.sequences).max().unwrap_or(1),
                apart: tests.iter().map(Test::positions).max(),
            };
            let isa = Isa::from_env()?;
            let count = threads.unwrap_or_else(crate::engine::default_threads);
            let floors = subject.floors(args, count, isa, cancel)?;
            subject.model.options.threads = threads;
            let watch = Watch::new(args.quiet);
            let progress = &|step, done, total| watch.set(step, done, total);
            let mut engine = subject.model.engine(room, progress, cancel)?;
            drop(watch);
            for (j, &test) in tests.iter().enumerate() {
                let before = (i * tests.len() + j) * args.repetitions;
                let name = test.to_string();
                let mut on = |done: usize| counter.set((before + done) as u64, &name);
                let seconds =
                    bench::measure(engine.as_mut(), test, args.repetitions, args.seed, cancel, &mut on)?;
                let row = Row { test, seconds, cost: subject.cost, floors };
                let described = describe(args, &subject, engine.as_ref(), isa, &row);
                counter.hidden(|| table.row(printer, &row, &described))?;
            }
        }
        Ok(())
    });
    drop(counter);
    checked(result, signals)?;
    table.end(printer)
}

/// What was typed: the configuration's choice is meant for talking.
fn kv(args: &args::Bench) -> KvType {
    args.kv_type.unwrap_or(KvType::F16)
}

/// The options but for the number of threads, which varies between the rows.
fn options(args: &args::Bench) -> OpenOptions {
    OpenOptions {
        engine: args.engine.unwrap_or_default(),
        threads: None,
        kv: kv(args),
        flash_attention: args.flash_attn,
        mmap: !args.no_mmap,
        mlock: args.mlock,
        check_memory: !args.no_memory_check,
        expected_positions: 0,
    }
}

/// An interruption in place of what it made fail.
fn checked<T>(result: Result<T>, signals: &Signals) -> Result<T> {
    if let Err(error) = &result {
        let cancelled = error.chain().any(|cause| {
            matches!(cause.downcast_ref(), Some(bench::Error::Engine(EngineError::Cancelled)))
                || matches!(cause.downcast_ref(), Some(synth::Error::Interrupted))
                || matches!(cause.downcast_ref(), Some(crate::open::Error::Cancelled { .. }))
        });
        if cancelled {
            signals.check()?;
        }
    }
    result
}

fn random_model(args: &args::Bench, (name, shape): &(String, Shape)) -> synth::RandomModel {
    let name = format!("{name} {} of random weights", args.r#type);
    synth::RandomModel { shape: *shape, preset: args.r#type, seed: args.seed, name }
}

fn write(args: &args::Bench, shape: &(String, Shape), path: &Path, signals: &Signals) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(Usage(format!("{} is there already", path.display())).into());
    }
    let model = random_model(args, shape);
    let total = plan::tensor_bytes(&model.shape, model.preset, true);
    let counter = Mutex::new(Counter::new(total, true, args.quiet));
    let progress = |done: u64, _total: u64| {
        if let Ok(mut counter) = counter.try_lock() {
            counter.set(done, "");
        }
    };
    let result = signals.while_busy(|cancel| model.write(path, cancel, &progress));
    drop(counter);
    checked(result.map_err(Into::into), signals)?;
    if !args.quiet {
        eprintln!("huozi: wrote {} ({})", path.display(), bytes(std::fs::metadata(path)?.len()));
    }
    Ok(())
}

/// What is measured.
struct Subject {
    model: Loaded,
    cost: Cost,
    /// `general.name`, or the name of the file.
    name: String,
    /// Its type, e.g. `Q4_K_M`.
    preset: String,
}

impl Subject {
    fn open(args: &args::Bench, config: &Config, tests: &[Test], cancel: &AtomicBool) -> Result<Self> {
        let source = match &args.shape {
            None => Source::File(config.model(args.model.as_deref())?),
            Some(shape) => Source::Random(random_model(args, shape)),
        };
        let expected_positions = tests.iter().map(|t| t.kv_positions(1)).max().unwrap_or(0);
        let options = OpenOptions { expected_positions, ..options(args) };
        let model = crate::open::open(&source, &options, &crate::open::silent, cancel)?;
        let meta = model.meta();
        let name = match &args.shape {
            Some((name, _)) => name.clone(),
            None => model.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        // What no preset of ours is called, e.g. a mixture of llama.cpp's.
        let preset = meta.uint("general.file_type")?.and_then(Preset::from_file_type);
        let preset = preset.map_or("?", Preset::name).to_owned();
        Ok(Self { cost: Cost::of(model.reader()), name, preset, model })
    }

    /// The floors over the model's bytes, through a mapping of their own where there is a file, so that the pages they
    /// touch do not count as memory of the engine.
    fn floors(&self, args: &args::Bench, threads: usize, isa: Isa, cancel: &AtomicBool) -> Result<Floors> {
        let watch = Watch::new(args.quiet);
        // Mapped, also where the engine is to read it: memory is checked only then.
        let reader = self.model.mapped_again(&|step, done, total| watch.set(step, done, total), cancel)?;
        drop(watch);
        Ok(Floors::measure(reader.as_bytes(), threads, isa, cancel)?)
    }
}

/// A row as JSON: llama-bench's keys where it has them, ours beside them.
fn describe(args: &args::Bench, subject: &Subject, engine: &dyn Engine, isa: Isa, row: &Row) -> Value {
    let (info, test, cost) = (engine.info(), row.test, row.cost);
    let rates = row.rates();
    let (mean, deviation) = bench::mean_deviation(&rates);
    let (least, most) = bench::range(&rates);
    let ns = |s: f64| (s * 1e9).round() as u64;
    let (mean_s, deviation_s) = bench::mean_deviation(&row.seconds);
    let (n_prompt, n_gen) = test.work.tokens();
    let (bound, share) = row.share();
    let file_name =
        if subject.model.is_file() { subject.model.path().display().to_string() } else { String::new() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    json!({
        "schema": 1,
        "test": test.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "cpu_info": super::doctor::cpu_name(),
        "engine": args.engine.unwrap_or_default().name(),
        "runs_on": info.runs_on,
        "isa": isa.name(),
        "uses": bench::compare::used(isa.name(), bench::compare::this_cpu_has),
        "model_filename": file_name,
        "model_name": subject.name,
        "model_type": subject.preset,
        "model_size": cost.model_bytes,
        "model_n_params": cost.n_params,
        "n_threads": info.threads,
        "type_k": info.kv.name(),
        "type_v": info.kv.name(),
        "flash_attn": args.flash_attn.map(|f| f.name()),
        "use_mmap": !args.no_mmap && subject.model.is_file(),
        "use_mlock": args.mlock,
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": test.depth,
        "n_sequences": test.sequences,
        "seed": args.seed,
        "time": now,
        "samples_ns": row.seconds.iter().map(|&s| ns(s)).collect::<Vec<_>>(),
        "samples_ts": rates,
        "avg_ns": ns(mean_s),
        "stddev_ns": ns(deviation_s),
        "avg_ts": mean,
        "stddev_ts": deviation,
        "median_ts": row.rate(),
        "min_ts": least,
        "max_ts": most,
        "bytes_per_s": row.bytes_per_second(),
        "macs_per_s": row.macs_per_second(),
        "floor_read_bytes_per_s": row.floors.read,
        "floor_read_bytes": row.floors.read_bytes,
        "floor_macs_per_s": row.mac_floor().per_second,
        "floor_macs_by": row.mac_floor().how,
        "bound": match bound { Bound::Read => "read", Bound::Macs => "macs" },
        "floor_share": share,
        "peak_rss_bytes": bench::peak_rss(),
    })
}

/// Prints rows as they come.
struct Table {
    output: Output,
    rows: Vec<Value>,
    begun: bool,
}

impl Table {
    fn new(output: Output) -> Self {
        Self { output, rows: Vec::new(), begun: false }
    }

    fn row(&mut self, printer: &mut Printer, row: &Row, described: &Value) -> Result<()> {
        let first = !std::mem::replace(&mut self.begun, true);
        match self.output {
            Output::Markdown => {
                if first {
                    let macs = row.mac_floor();
                    printer.line(&format!(
                        "{}; read floor {:.1} GB/s over {}, {} {:.0} GMAC/s\n",
                        text(&described["runs_on"]),
                        row.floors.read / 1e9,
                        bytes(row.floors.read_bytes as u64),
                        macs.how,
                        macs.per_second / 1e9,
                    ))?;
                    printer.line(MARKDOWN_HEAD)?;
                    printer.line("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |")?;
                }
                printer.line(&markdown(row, described))?;
            }
            Output::Csv => {
                if first {
                    printer.line(&csv_head(described))?;
                }
                printer.line(&csv_row(described))?;
            }
            Output::JsonLines => printer.json(described)?,
            Output::Json => self.rows.push(described.clone()),
        }
        Ok(())
    }

    fn end(&mut self, printer: &mut Printer) -> Result<()> {
        if self.output == Output::Json {
            printer.json(&Value::Array(std::mem::take(&mut self.rows)))?;
        }
        Ok(())
    }
}

const MARKDOWN_HEAD: &str = "| model | size | params | threads | test | t/s | range | rate | floor |";

fn markdown(row: &Row, described: &Value) -> String {
    let (least, most) = bench::range(&row.rates());
    let (bound, share) = row.share();
    let rate = match (bound, row.bytes_per_second()) {
        (Bound::Read, Some(rate)) => format!("{:.1} GB/s", rate / 1e9),
        _ => format!("{:.1} GMAC/s", row.macs_per_second() / 1e9),
    };
    format!(
        "| {} {} | {} | {} | {} | {} | {:.2} | {least:.2} .. {most:.2} | {rate} | {:.0} % |",
        text(&described["model_name"]),
        text(&described["model_type"]),
        bytes(row.cost.model_bytes),
        params(row.cost.n_params),
        described["n_threads"],
        row.test,
        row.rate(),
        share * 100.0,
    )
}

/// `7.07 B`, as llama-bench shows it.
fn params(n: u64) -> String {
    let n = n as f64;
    if n >= 1e9 { format!("{:.2} B", n / 1e9) } else { format!("{:.2} M", n / 1e6) }
}

/// A JSON text without its quotes, or nothing.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn csv_head(described: &Value) -> String {
    let keys = described.as_object().into_iter().flatten().map(|(key, _)| csv_field(key));
    keys.collect::<Vec<_>>().join(",")
}

/// The values in the order of the keys; lists separated by blanks, what is not there empty.
fn csv_row(described: &Value) -> String {
    let show = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(s) => csv_field(s),
        Value::Array(list) => {
            let list: Vec<String> =
                list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            csv_field(&list.join(" "))
        }
        other => csv_field(&other.to_string()),
    };
    described.as_object().into_iter().flatten().map(|(_, value)| show(value)).collect::<Vec<_>>().join(",")
}

/// A field as RFC 4180 wants it: quoted where it holds what separates, quotes doubled. Line breaks become blanks.
fn csv_field(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_are_quoted_where_they_must_be() {
        assert_eq!(csv_field("plain 1.5"), "plain 1.5");
        assert_eq!(csv_field("a,b"), "\"a,b\"");
        assert_eq!(csv_field("say \"x\"\n"), "\"say \"\"x\"\" \"");
        let value = json!({ "a": [1, 2.5], "b": null, "c": ["x", "y,z"], "d": true });
        assert_eq!((csv_head(&value), csv_row(&value)), ("a,b,c,d".into(), "1 2.5,,\"x y,z\",true".into()));
    }

    #[test]
    fn params_as_llama_bench() {
        assert_eq!((params(7_069_016_064), params(559_214_592)), ("7.07 B".into(), "559.21 M".into()));
    }
}
