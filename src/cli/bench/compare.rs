//! `huozi bench --compare`: the native engine and llama.cpp in turn, each in a process of its own.

use super::super::args::{self, Output};
use super::super::exit;
use super::super::load;
use super::super::printer::{Printer, SCHEMA};
use super::super::settings::Config;
use super::super::show::Counter;
use super::super::signal::Signals;
use super::subject::{kv, options};
use super::table::{csv_head, csv_row, text};
use crate::bench::compare::{Pairs, Verdict, lacking};
use crate::bench::median;
use crate::engine::{EngineKind, KvType};
use crate::open::OpenOptions;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A setting of the peer whose rate in the first pair is below this share of the other setting's is not
/// measured again: the difference is larger than that of two equal measurements on a busy machine.
const GIVEN_UP: f64 = 0.85;

/// One side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Peer { flash: bool },
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "huozi",
            Self::Peer { flash: false } => "llama.cpp, flash attention off",
            Self::Peer { flash: true } => "llama.cpp, flash attention on",
        }
    }
}

/// A row of the comparison as it grows.
struct Line {
    pairs: Pairs,
    /// Our share of the floor, as often as it was measured.
    shares: Vec<f64>,
    /// The last row of either side.
    ours: Value,
    peer: Value,
}

/// Runs the comparison.
pub(super) fn run(
    args: &args::BenchCommand,
    config: &Config,
    threads: &[usize],
    signals: &Signals,
    printer: &mut Printer,
) -> Result<()> {
    // Opened here, so that a bad file is reported once and not by a child process.
    let ggml = OpenOptions { engine: EngineKind::Ggml, ..options(args) };
    let model = load::open(&config.model(args.model.as_deref())?, &ggml)?.path().to_owned();
    let kv = kv(args);
    let list = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut common: Vec<OsString> = vec!["bench".into(), "-m".into(), model.into()];
    for (flag, value) in [
        ("-p", list(&args.n_prompt)),
        ("-n", list(&args.n_gen)),
        ("-d", list(&args.n_depth)),
        ("-b", list(&args.batch)),
        ("-t", list(threads)),
        ("-s", args.seed.to_string()),
        ("--kv-type", kv.name().to_owned()),
    ] {
        common.extend([flag.into(), value.into()]);
    }
    for (prompt, n) in &args.pg {
        common.extend(["--pg".into(), format!("{prompt},{n}").into()]);
    }
    common.extend(["-r", "1", "-o", "jsonl", "-q"].map(OsString::from));
    common.extend(args.no_mmap.then(|| "--no-mmap".into()));
    common.extend(args.no_memory_check.then(|| "--no-memory-check".into()));

    let mut lines: Vec<Line> = Vec::new();
    let mut counter = Counter::new(args.repetitions as u64, false, args.quiet);
    let result = signals.while_busy(|cancel| -> Result<()> {
        for pair in 0..args.repetitions {
            // The second one runs on a warmer machine, so the order alternates.
            let mut order = vec![Side::Ours];
            let peers: Vec<Side> = [pair % 2 == 1, pair % 2 == 0]
                .into_iter()
                // llama.cpp has quantised values with flash attention only.
                .filter(|&flash| flash || kv != KvType::Q8)
                .filter(|&flash| pair == 0 || lines.iter().any(|line| worth(&line.pairs, flash)))
                .map(|flash| Side::Peer { flash })
                .collect();
            order.splice(if pair % 2 == 0 { 0..0 } else { 1..1 }, peers);
            for side in order {
                counter
                    .set(pair as u64, &format!("pair {} of {}: {}", pair + 1, args.repetitions, side.name()));
                let rows = child(&common, side, cancel)?;
                take(&mut lines, side, rows, pair)?;
            }
        }
        Ok(())
    });
    drop(counter);
    if result.is_err() {
        signals.check()?;
    }
    result?;
    print(args.output(), &lines, printer)
}

/// Whether this setting of the peer is to be measured again.
fn worth(pairs: &Pairs, flash: bool) -> bool {
    let (this, other) = if flash { (&pairs.on, &pairs.off) } else { (&pairs.off, &pairs.on) };
    match (this.first(), other.first()) {
        (Some(this), Some(other)) => this / other >= GIVEN_UP,
        _ => true,
    }
}

/// Notes the rows of one child.
fn take(lines: &mut Vec<Line>, side: Side, rows: Vec<Value>, pair: usize) -> Result<()> {
    for (i, row) in rows.into_iter().enumerate() {
        let rate = row["median_ts"].as_f64().filter(|r| *r > 0.0);
        let rate = rate.ok_or_else(|| anyhow!("{} gave a row without a rate", side.name()))?;
        if i == lines.len() {
            let pairs = Pairs { ours: Vec::new(), off: Vec::new(), on: Vec::new() };
            lines.push(Line { pairs, shares: Vec::new(), ours: Value::Null, peer: Value::Null });
        }
        let line = &mut lines[i];
        let known = if line.ours.is_null() { &line.peer } else { &line.ours };
        if !known.is_null() && (&known["test"], &known["n_threads"]) != (&row["test"], &row["n_threads"]) {
            bail!("the two sides measured different rows");
        }
        let rates = match side {
            Side::Ours => &mut line.pairs.ours,
            Side::Peer { flash: false } => &mut line.pairs.off,
            Side::Peer { flash: true } => &mut line.pairs.on,
        };
        // A setting given up for this row, measured for another one.
        if rates.len() == pair {
            rates.push(rate);
        }
        match side {
            Side::Ours => {
                line.shares.extend(row["floor_share"].as_f64());
                line.ours = row;
            }
            Side::Peer { .. } => line.peer = row,
        }
    }
    // Reported with the first row, not after hours.
    match lines.first() {
        Some(line) if !line.peer.is_null() => {
            fair(&line.peer)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Refuses a peer that was built without an instruction set that Huozi uses. `row`: a row of the peer; its
/// `uses` lists the instruction sets that Huozi's kernels use on this CPU.
fn fair(row: &Value) -> Result<()> {
    let uses: Vec<&str> = row["uses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let runs_on = text(&row["runs_on"]);
    let missing = lacking(&uses, runs_on);
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the comparison would be unfair: llama.cpp was built without {}, which this CPU has and huozi uses; \
         `env $(.ci/ggml-env) cargo build --release --features ggml` builds it for this CPU \
         (now it runs on: {runs_on})",
        missing.join(", ")
    );
}

/// Runs one side and gives its rows.
fn child(common: &[OsString], side: Side, cancel: &AtomicBool) -> Result<Vec<Value>> {
    let own = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(own);
    command.args(common);
    match side {
        Side::Ours => command.args(["--engine", "native"]),
        Side::Peer { flash } => {
            command.args(["--engine", "ggml", "--flash-attn", if flash { "on" } else { "off" }])
        }
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting a process of this program")?;
    let mut pipes: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    let [out, err] = pipes.each_mut().map(|pipe| {
        let pipe = pipe.take();
        std::thread::spawn(move || {
            let mut said = Vec::new();
            if let Some(mut pipe) = pipe {
                // The pipe of a child that dies is closed: the text read so far is all.
                let _ = pipe.read_to_end(&mut said);
            }
            String::from_utf8_lossy(&said).into_owned()
        })
    });
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for a process")? {
            break status;
        }
        if cancel.load(Ordering::Relaxed) {
            // The child may have received the signal, too; in any case it must end before this process.
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if cancel.load(Ordering::Relaxed) {
        return Err(exit::Interrupted(exit::INTERRUPTED).into());
    }
    if !status.success() {
        let last = err.lines().last().unwrap_or("no message").trim_start_matches("huozi: ");
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Err(match code {
            // The child's reason is the reason of this process.
            Some(exit::BAD_FILE) => exit::BadFile(last.to_owned()).into(),
            Some(exit::USAGE) => exit::Usage(last.to_owned()).into(),
            Some(exit::NO_ROOM) => io::Error::new(io::ErrorKind::OutOfMemory, last.to_owned()).into(),
            _ => anyhow!("{}: {last} ({status})", side.name()),
        });
    }
    let rows: Result<Vec<Value>, _> = out.lines().map(serde_json::from_str).collect();
    rows.with_context(|| format!("reading what {} printed", side.name()))
}

fn print(output: Output, lines: &[Line], printer: &mut Printer) -> Result<()> {
    let described: Vec<(Value, Verdict, &Line)> = lines
        .iter()
        .map(|line| {
            let verdict = line.pairs.verdict();
            (describe(line, &verdict), verdict, line)
        })
        .collect();
    match output {
        Output::Markdown => {
            if let Some(line) = lines.first() {
                printer.line(&format!("huozi: {}", text(&line.ours["runs_on"])))?;
                printer.line(&format!("peer:  {}\n", text(&line.peer["runs_on"])))?;
            }
            printer.line(
                "| model | threads | test | huozi t/s | floor | llama.cpp t/s | flash | ratio | pairs |",
            )?;
            printer.line("| --- | ---: | --- | ---: | ---: | ---: | --- | ---: | ---: |")?;
            for (_, v, line) in &described {
                printer.line(&format!(
                    "| {} {} | {} | {} | {:.2} | {:.0} % | {:.2} | {} | {:.2} | {:.2} .. {:.2} |",
                    text(&line.ours["model_name"]),
                    text(&line.ours["model_type"]),
                    line.ours["n_threads"],
                    text(&line.ours["test"]),
                    v.ours,
                    median(&line.shares) * 100.0,
                    v.peer,
                    if v.flash { "on" } else { "off" },
                    v.ratio,
                    v.range.0,
                    v.range.1,
                ))?;
            }
        }
        Output::JsonLines => {
            for (value, ..) in &described {
                printer.json(value)?;
            }
        }
        Output::Json => {
            printer.json(&Value::Array(described.into_iter().map(|(value, ..)| value).collect()))?;
        }
        Output::Csv => {
            for (i, (value, ..)) in described.iter().enumerate() {
                if i == 0 {
                    printer.line(&csv_head(value))?;
                }
                printer.line(&csv_row(value))?;
            }
        }
    }
    Ok(())
}

fn describe(line: &Line, verdict: &Verdict) -> Value {
    let (ours, peer) = (&line.ours, &line.peer);
    let other = if verdict.peer_other.is_finite() { json!(verdict.peer_other) } else { Value::Null };
    json!({
        "schema": SCHEMA,
        "test": ours["test"],
        "version": ours["version"],
        "cpu_info": ours["cpu_info"],
        "model_filename": ours["model_filename"],
        "model_type": ours["model_type"],
        "model_size": ours["model_size"],
        "n_threads": ours["n_threads"],
        "type_k": ours["type_k"],
        "runs_on": ours["runs_on"],
        "peer_runs_on": peer["runs_on"],
        "pairs": verdict.ratios.len(),
        "median_ts": verdict.ours,
        "peer_median_ts": verdict.peer,
        "peer_flash_attn": if verdict.flash { "on" } else { "off" },
        "peer_other_median_ts": other,
        "ratio": verdict.ratio,
        "min_ratio": verdict.range.0,
        "max_ratio": verdict.range.1,
        "ratios": verdict.ratios,
        "samples_ts": line.pairs.ours,
        "peer_samples_off_ts": line.pairs.off,
        "peer_samples_on_ts": line.pairs.on,
        "floor_share": median(&line.shares),
        "bound": ours["bound"],
        "floor_read_bytes_per_s": ours["floor_read_bytes_per_s"],
        "floor_macs_per_s": ours["floor_macs_per_s"],
        "peak_rss_bytes": ours["peak_rss_bytes"],
        "peer_peak_rss_bytes": peer["peak_rss_bytes"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(test: &str, rate: f64) -> Value {
        let runs_on = "CPU : AVX2 = 1";
        json!({ "test": test, "n_threads": 2, "median_ts": rate, "uses": ["AVX2"], "runs_on": runs_on })
    }

    #[test]
    fn rows_of_both_sides_are_paired() {
        let mut lines = Vec::new();
        let off = Side::Peer { flash: false };
        let on = Side::Peer { flash: true };
        take(&mut lines, off, vec![row("pp8", 5.0), row("tg8", 2.15)], 0).unwrap();
        take(&mut lines, on, vec![row("pp8", 1.0), row("tg8", 2.2)], 0).unwrap();
        take(&mut lines, Side::Ours, vec![row("pp8", 10.0), row("tg8", 3.0)], 0).unwrap();
        assert!(
            !worth(&lines[0].pairs, true) && worth(&lines[1].pairs, true) && worth(&lines[1].pairs, false)
        );
        let v = lines[0].pairs.verdict();
        assert_eq!((v.ratio, v.flash), (2.0, false));
        let v = describe(&lines[1], &lines[1].pairs.verdict());
        assert_eq!(
            (v["peer_flash_attn"].as_str(), v["peer_other_median_ts"].as_f64()),
            (Some("on"), Some(2.15))
        );
        assert!(take(&mut lines, off, vec![row("pp9", 5.0)], 1).is_err(), "another row");
        assert!(take(&mut lines, off, vec![row("pp8", 0.0)], 1).is_err(), "no rate");
    }

    #[test]
    fn an_unfair_peer_is_refused_with_what_it_lacks() {
        let mut peer = row("pp8", 5.0);
        peer["uses"] = json!(["AVX2", "AVX512", "AVX512_VNNI"]);
        peer["runs_on"] = json!("CPU : AVX2 = 1 | AVX512 = 1 | FMA = 1");
        let error =
            take(&mut Vec::new(), Side::Peer { flash: false }, vec![peer], 0).unwrap_err().to_string();
        assert!(error.contains("without AVX512_VNNI,") && error.contains(".ci/ggml-env"), "{error}");
    }
}
