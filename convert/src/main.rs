//! `huozi-convert`: parses, runs, prints.
#![forbid(unsafe_code)]

mod make_checkpoint;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use huozi_convert::pipeline::{Options, Progress, Report, Source, run};
use huozi_convert::plan::{Preset, Wishes};
use huozi_convert::{Error, Kind};
use huozi_quant::Format;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Converts a BLOOM or Huozi checkpoint, or a GGUF file, to one quantised GGUF file.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = HELP)]
struct Args {
    /// Directory of the checkpoint, a .gguf file, or ORG/NAME in the local Hugging Face cache
    #[arg(value_name = "DIR_OR_GGUF_OR_NAME")]
    source: PathBuf,
    /// Type of the weights, see below; once per output
    #[arg(short = 't', long = "type", alias = "outtype", required = true, hide_possible_values = true)]
    types: Vec<Preset>,
    /// File to write; once per type
    #[arg(short = 'o', long = "output", alias = "outfile", required = true, value_name = "OUT.gguf")]
    outputs: Vec<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Replace an output that exists
    #[arg(long)]
    force: bool,
    /// Name of the model in the file [default: that of the directory]
    #[arg(long)]
    name: Option<String>,
    /// Context in tokens [default: seq_length of config.json, else 2048]
    #[arg(long, alias = "context_length", value_name = "N")]
    context_length: Option<u64>,
    /// Store a tied embedding twice, for ik_llama.cpp and llama.cpp before March 2025
    #[arg(long, alias = "duplicate_output")]
    duplicate_output: bool,
    /// No mixture: the plain format of the type for every matrix
    #[arg(long)]
    pure: bool,
    /// Format of the output, and of a tied embedding unless the next option is given
    #[arg(long, alias = "output_tensor_type", value_name = "TYPE", value_parser = format)]
    output_tensor_type: Option<Format>,
    /// Format of the embedding
    #[arg(long, alias = "token_embedding_type", value_name = "TYPE", value_parser = format)]
    token_embedding_type: Option<Format>,
    /// Convert NaN and infinite weights too (0 where the type can not hold them)
    #[arg(long, alias = "allow_nan")]
    allow_nan: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Types: f32 f16 bf16 q8_0 q6_k q5_k_m q5_k_s q5_1 q5_0 q4_k_m q4_k_s q4_1 q4_0
       iq4_nl iq4_xs q3_k_l q3_k_m q3_k_s q2_k
       (q3_k, q4_k, q5_k mean _m; q4_k_m is the usual choice)

Example:
  huozi-convert HIT-SCIR/huozi-7b-rlhf -t q4_k_m -o huozi.gguf

huozi-convert make-checkpoint SHAPE DIR writes a random checkpoint to try this with (--help tells more).

Exit codes: 0 done, 1 failed, 2 wrong usage, 4 bad input file,
5 not enough disk or memory, 130 / 143 interrupted.";

/// A format of single tensors: no mixtures.
fn format(name: &str) -> Result<Format, String> {
    Format::from_name(name).ok_or_else(|| {
        let all: Vec<String> = Format::ALL.iter().map(|f| f.name().to_lowercase()).collect();
        format!("{name} is no format of a tensor; there are {}", all.join(", "))
    })
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == make_checkpoint::NAME) {
        return make_checkpoint::main();
    }
    let args = Args::parse();
    let (types, outputs) = (args.types.len(), args.outputs.len());
    if types != outputs {
        eprintln!("error: -t is given {types} times and -o {outputs} times; give them in pairs");
        return ExitCode::from(2);
    }
    let (cancel, signal) = match watch_signals() {
        Ok(watched) => watched,
        Err(e) => {
            eprintln!("error: can not watch signals: {e}");
            return ExitCode::from(1);
        }
    };
    let options = Options {
        source: Source::Path(args.source),
        outputs: args.types.into_iter().zip(args.outputs).collect(),
        threads: args.threads.map(usize::from),
        force: args.force,
        name: args.name,
        context_length: args.context_length,
        duplicate_output: args.duplicate_output,
        wishes: Wishes {
            pure: args.pure,
            output: args.output_tensor_type,
            embedding: args.token_embedding_type,
        },
        allow_nan: args.allow_nan,
    };
    let progress = Shown::new();
    let result = run(&options, &progress, &cancel);
    progress.end();
    match result {
        Ok(report) => {
            for note in &report.notes {
                eprintln!("note: {note}");
            }
            match print(&report, args.json) {
                // A reader that went away has what it wanted.
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                    eprintln!("error: can not print the report: {e}");
                    ExitCode::from(1)
                }
                _ => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            let code = exit_code(&error, signal.load(Relaxed));
            eprintln!("error: {:#}", anyhow::Error::new(error));
            ExitCode::from(code)
        }
    }
}

fn exit_code(error: &Error, signal: usize) -> u8 {
    match error.kind() {
        Kind::Failed => 1,
        Kind::Usage => 2,
        Kind::BadInput => 4,
        Kind::NoRoom => 5,
        // 128 + the signal's number, as shells have it.
        Kind::Interrupted => u8::try_from(128 + signal).unwrap_or(130),
    }
}

/// A flag that SIGINT and SIGTERM set, and the number of the signal that came last.
fn watch_signals() -> io::Result<(Arc<AtomicBool>, Arc<AtomicUsize>)> {
    let cancel = Arc::new(AtomicBool::new(false));
    let number = Arc::new(AtomicUsize::new(0));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The number first: whoever sees the flag finds it.
        signal_hook::flag::register_usize(signal, number.clone(), signal as usize)?;
        signal_hook::flag::register(signal, cancel.clone())?;
    }
    Ok((cancel, number))
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let mut object = serde_json::json!({ "schema": 1 });
        if let (Some(object), serde_json::Value::Object(fields)) =
            (object.as_object_mut(), serde_json::to_value(report)?)
        {
            object.extend(fields);
        }
        writeln!(out, "{object}")?;
    } else {
        for file in &report.outputs {
            let formats: Vec<String> =
                file.formats.iter().map(|f| format!("{} {}", f.tensors, f.format)).collect();
            writeln!(
                out,
                "{}: {} {}, {:.2} MiB, {:.2} bits per weight, {:.1} s ({} tensors)",
                file.path.display(),
                report.name,
                file.preset,
                file.bytes as f64 / (1 << 20) as f64,
                file.bits_per_weight,
                report.seconds,
                formats.join(", ")
            )?;
        }
    }
    out.flush()
}

/// Progress on standard error: a bar on a terminal, else a line every ten seconds.
struct Shown {
    bar: Option<ProgressBar>,
    lines: Mutex<Lines>,
    done: AtomicU64,
    total: AtomicU64,
}

struct Lines {
    started: Instant,
    last: Instant,
}

const EVERY: Duration = Duration::from_secs(10);

impl Shown {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
            let style = "{bar:30} {percent:>3}%  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}";
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        let now = Instant::now();
        let lines = Mutex::new(Lines { started: now, last: now });
        Self { bar, lines, done: AtomicU64::new(0), total: AtomicU64::new(0) }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Shown {
    fn start(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
        if let Ok(mut lines) = self.lines.lock() {
            lines.started = Instant::now();
            lines.last = lines.started;
        }
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
            bar.reset_eta();
        }
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
            return;
        }
        let done = self.done.fetch_add(bytes, Relaxed) + bytes;
        // Whoever does not get the lock has nothing to say: another thread is just looking.
        let Ok(mut lines) = self.lines.try_lock() else { return };
        if lines.last.elapsed() < EVERY {
            return;
        }
        lines.last = Instant::now();
        let (seconds, total) = (lines.started.elapsed().as_secs_f64(), self.total.load(Relaxed));
        let rate = done as f64 / seconds;
        eprintln!(
            "{:.0} of {:.0} MB, {:.0} MB/s, {:.0} s left",
            done as f64 / 1e6,
            total as f64 / 1e6,
            rate / 1e6,
            (total.saturating_sub(done)) as f64 / rate
        );
    }

    fn sync(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message("writing to disk");
        }
    }
}
