//! `huozi-convert`: parses, runs, prints.
#![forbid(unsafe_code)]

mod make_checkpoint;
mod print;
mod scripts;
mod signals;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;

use clap::{CommandFactory, Parser};
use huozi_convert::pipeline;
use huozi_convert::plan::{NamedFormat, Preset, PresetOptions, named_format};
use huozi_convert::{Options, Source, TemplateChoice};
use huozi_quant::Format;
use regex_lite::Regex;
use signals::{exit_code, watch_signals};

/// Converts a BLOOM or Huozi checkpoint, or a GGUF file, to one quantised GGUF file.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = HELP)]
struct Args {
    /// Checkpoint directory, .gguf file (first part of a split one), or ORG/NAME in the Hugging Face cache
    #[arg(value_name = "DIR_OR_GGUF_OR_NAME")]
    source: PathBuf,
    /// Weight type, see below; once per output
    #[arg(short = 't', long = "type", alias = "outtype", required = true, hide_possible_values = true)]
    types: Vec<Preset>,
    /// Output file; once per type
    #[arg(short = 'o', long = "output", alias = "outfile", value_name = "OUT.gguf")]
    #[arg(required_unless_present = "dry_run")]
    outputs: Vec<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Overwrite existing outputs
    #[arg(long)]
    force: bool,
    /// Model name in the file [default: name of the directory]
    #[arg(long)]
    name: Option<String>,
    /// Context in tokens [default: seq_length of config.json, else 2048]
    #[arg(long, aliases = ["context_length", "ctx-size", "ctx_size"], value_name = "N")]
    context_length: Option<u64>,
    /// Store a tied embedding twice, for ik_llama.cpp and llama.cpp before March 2025
    #[arg(long, alias = "duplicate_output")]
    duplicate_output: bool,
    /// Use the plain format of the type for every matrix (no mixture)
    #[arg(long)]
    pure: bool,
    /// Format of the output, and of a tied embedding unless the next option is given
    #[arg(long, alias = "output_tensor_type", value_name = "TYPE", value_parser = named_format)]
    output_tensor_type: Option<Format>,
    /// Format of the embedding
    #[arg(long, alias = "token_embedding_type", value_name = "TYPE", value_parser = named_format)]
    token_embedding_type: Option<Format>,
    /// Format of matrices whose GGUF name matches, e.g. ffn_down=q6_k; may be repeated
    #[arg(long = "tensor-type", alias = "tensor_type", value_name = "REGEX=TYPE")]
    tensor_types: Vec<NamedFormat>,
    /// Leave out source tensors whose name matches, where BLOOM does not need them; may be repeated
    #[arg(long = "skip-tensor", alias = "skip_tensor", value_name = "REGEX")]
    skip_tensors: Vec<Regex>,
    /// Importance matrix of llama-imatrix, .dat or .gguf
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Chat template (Jinja) that replaces the checkpoint's; `none` leaves it out
    #[arg(long, alias = "chat_template", value_name = "FILE|none")]
    chat_template: Option<PathBuf>,
    /// Set a metadata key of the file; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Convert NaN and infinite weights too (as 0 where the type cannot hold them)
    #[arg(long, alias = "allow_nan")]
    allow_nan: bool,
    /// Compare the result with the source before renaming it
    #[arg(long)]
    verify: bool,
    /// Print types, size, memory and time without writing anything
    #[arg(long, alias = "dry_run")]
    dry_run: bool,
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
After an interruption (Ctrl+C, power loss, full disk) the same command resumes.

make-checkpoint SHAPE DIR instead writes a random checkpoint for testing,
completions SHELL prints a shell's completions, man DIR writes manual pages.

Exit codes: 0 done, 1 failed, 2 wrong usage, 4 bad input file,
5 not enough disk or memory, 129 / 130 / 143 stopped by SIGHUP, SIGINT, SIGTERM.";

/// `KEY=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(first) if first == make_checkpoint::NAME => return make_checkpoint::main(),
        Some(first) if scripts::NAMES.iter().any(|name| first == *name) => {
            return scripts::main(Args::command());
        }
        _ => {}
    }
    let args = Args::parse();
    let (types, outputs) = (args.types.len(), args.outputs.len());
    let mut paths = args.outputs;
    let unnamed = args.dry_run && paths.is_empty();
    if unnamed {
        paths = unnamed_paths(&args.types);
    }
    if types != paths.len() {
        print::say(format_args!(
            "error: -t is given {types} times and -o {outputs} times; give them in pairs"
        ));
        return ExitCode::from(2);
    }
    let (cancel, signal) = match watch_signals() {
        Ok(watched) => watched,
        Err(e) => {
            print::say(format_args!("error: cannot watch signals: {e}"));
            return ExitCode::from(1);
        }
    };
    let options = Options {
        source: Source::Path(args.source),
        outputs: args.types.into_iter().zip(paths).collect(),
        threads: args.threads.map(usize::from),
        // These names are made up for a dry run: files of these names do not matter.
        force: args.force || unnamed,
        name: args.name,
        context_length: args.context_length,
        duplicate_output: args.duplicate_output,
        preset_options: PresetOptions {
            pure: args.pure,
            output: args.output_tensor_type,
            embedding: args.token_embedding_type,
            ..PresetOptions::default()
        },
        tensor_types: args.tensor_types,
        skip_tensors: args.skip_tensors,
        metadata: args.metadata,
        chat_template: args.chat_template.map_or_else(Default::default, TemplateChoice::from_argument),
        imatrix: args.imatrix,
        verify: args.verify,
        allow_nan: args.allow_nan,
    };
    let (result, notes) = if args.dry_run {
        match pipeline::forecast(&options, &cancel) {
            Ok(forecast) => (Ok(print::forecast(&forecast, args.json)), forecast.notes),
            Err(error) => (Err(error), Vec::new()),
        }
    } else {
        let progress = print::ProgressPrinter::new();
        let result = pipeline::run(&options, &progress, &cancel);
        progress.end();
        match result {
            Ok(report) => {
                let printed = print::report(&report, args.json);
                (Ok(printed), report.notes.into_iter().skip(progress.notes_printed()).collect())
            }
            Err(error) => (Err(error), Vec::new()),
        }
    };
    for note in notes {
        print::say(format_args!("note: {note}"));
    }
    match result {
        // The reader of standard output has closed it: not an error.
        Ok(Err(e)) if e.kind() != io::ErrorKind::BrokenPipe => {
            print::say(format_args!("error: cannot print the report: {e}"));
            ExitCode::from(if e.kind() == io::ErrorKind::StorageFull { 5 } else { 1 })
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let code = exit_code(&error, signal.load(Relaxed));
            print::say(format_args!("error: {:#}", anyhow::Error::new(error)));
            ExitCode::from(code)
        }
    }
}

/// Distinct names for the files of a dry run.
fn unnamed_paths(types: &[Preset]) -> Vec<PathBuf> {
    let name = |(i, preset): (usize, &Preset)| {
        let before = types[..i].iter().filter(|other| *other == preset).count();
        let number = if before > 0 { format!("-{}", before + 1) } else { String::new() };
        format!("{}{number}.gguf", preset.name().to_lowercase()).into()
    };
    types.iter().enumerate().map(name).collect()
}
