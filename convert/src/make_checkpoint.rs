//! `huozi-convert make-checkpoint`: parses, runs, prints.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use clap::{CommandFactory, Parser, ValueEnum};
use huozi_convert::Error;
use huozi_convert::synth::{CheckpointLayout, CheckpointRecipe, MadeCheckpoint};
use huozi_quant::bloom::shape::Shape;

use crate::print::{ProgressPrinter, say};
use crate::signals::{exit_code, watch_signals};

/// The first argument that selects this command. A checkpoint of this name is `./make-checkpoint`.
pub(crate) const NAME: &str = "make-checkpoint";

/// Writes a random checkpoint of a real shape, to try the pipeline before a large download.
///
/// Weights in F16 of a trained model's scale, the full vocabulary, Huozi's chat markers. What it says means
/// nothing.
#[derive(Parser)]
#[command(name = "huozi-convert make-checkpoint", version, max_term_width = 100, after_help = HELP)]
struct Args {
    /// bloom-7b1, bloom-3b, bloom-1b7, bloom-1b1, bloom-560m, or sizes LAYERSxHIDDENxHEADS[xVOCAB]
    #[arg(value_parser = shape)]
    shape: Shape,
    /// Directory to create; an existing one must be empty
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// File format of the weights
    #[arg(long, value_enum, default_value = "safetensors")]
    layout: Layout,
    /// Seed of the weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
bloom-7b1 takes 14.1 GB of disk space, bloom-560m 1.1 GB.

Example:
  huozi-convert make-checkpoint bloom-560m random
  huozi-convert random -t q4_k_m -o random.gguf

Exit codes: 0 done, 1 failed, 2 wrong usage, 5 not enough disk or memory,
129 / 130 / 143 stopped by SIGHUP, SIGINT, SIGTERM.";

#[derive(Clone, Copy, ValueEnum)]
enum Layout {
    /// model*.safetensors, shards of 5 GB
    Safetensors,
    /// pytorch_model*.bin, shards of 10 GB
    Bin,
}

fn shape(text: &str) -> Result<Shape, String> {
    let known = Shape::named(text).or_else(|| Shape::named(&format!("bloom-{text}")));
    known
        .or_else(|| Shape::from_sizes(text))
        .ok_or_else(|| format!("expected {}, or sizes such as 2x256x4x1000", Shape::NAMES.join(", ")))
}

/// The definition of the arguments, as a subcommand.
pub(crate) fn command() -> clap::Command {
    Args::command().name(NAME)
}

pub(crate) fn main() -> ExitCode {
    let name = format!("huozi-convert {NAME}");
    let args = Args::parse_from([name.into()].into_iter().chain(std::env::args_os().skip(2)));
    let (cancel, signal) = match watch_signals() {
        Ok(watched) => watched,
        Err(e) => {
            say(format_args!("error: cannot watch signals: {e}"));
            return ExitCode::from(1);
        }
    };
    let layout = match args.layout {
        Layout::Safetensors => CheckpointLayout::Safetensors,
        Layout::Bin => CheckpointLayout::Bin,
    };
    let started = Instant::now();
    let progress = ProgressPrinter::new();
    let result = CheckpointRecipe::new(args.shape, layout, args.seed).write(&args.dir, &progress, &cancel);
    progress.end();
    match result {
        Ok(made) => match print(&made, started.elapsed().as_secs_f64(), args.json) {
            // The reader of standard output has closed it: not an error.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                say(format_args!("error: cannot print the report: {e}"));
                ExitCode::from(1)
            }
            _ => ExitCode::SUCCESS,
        },
        Err(error) => {
            let code = exit_code(&error, signal.load(Relaxed));
            match error {
                // Unlike a conversion this cannot be resumed.
                Error::Interrupted => say(format_args!("error: interrupted; nothing was written")),
                error => say(format_args!("error: {:#}", anyhow::Error::new(error))),
            }
            ExitCode::from(code)
        }
    }
}

fn print(made: &MadeCheckpoint, seconds: f64, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let MadeCheckpoint { path, shards, bytes, .. } = made;
    if json {
        let object = serde_json::json!({
            "schema": 1, "path": path.display().to_string(), "shards": shards, "bytes": bytes,
            "seconds": seconds,
        });
        writeln!(out, "{object}")?;
    } else {
        let files = if *shards == 1 { "file" } else { "files" };
        let gb = *bytes as f64 / 1e9;
        writeln!(out, "{}: {gb:.2} GB of weights in {shards} {files}, {seconds:.1} s", path.display())?;
    }
    out.flush()
}
