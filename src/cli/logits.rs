//! `huozi logits`: what the model thinks comes next, at every position.

use super::args::Logits;
use super::load::{self, File};
use super::printer::{Printer, escaped};
use super::settings::Config;
use super::signal::Signals;
use super::tokenize;
use crate::engine::{EngineError, Item, Phase, Want};
use crate::eval::log_sum_exp;
use crate::token::Tokenizer;
use anyhow::{Context, Result, anyhow};
use serde_json::json;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &Logits, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.model.as_deref())?;
    let file = File::open(&path, load::how(&args.model.load))?;
    let tokenizer = file.tokenizer()?;
    let ids = tokenize::ids(&args.text, &tokenizer)?;
    load::check_ids(&ids, file.shape.n_vocab)?;
    let mut engine = load::engine(&file, config, &args.model.load, ids.len())?;
    let seq = engine.seq_new();

    let mut sink: Box<dyn Rows> = match &args.output {
        Some(path) => Box::new(Raw::create(path)?),
        None => Box::new(Lines {
            out: printer.bulk(),
            tokenizer: &tokenizer,
            ids: &ids,
            top_k: if args.all { None } else { Some(args.top_k) },
            json: args.json,
        }),
    };
    let mut failed: Option<io::Error> = None;
    let result = signals.while_busy(|cancel| {
        let mut step = |tokens: &[u32], want| {
            engine.step(
                &[Item { seq, tokens, phase: Phase::Given, want }],
                &mut |_, position, logits| {
                    if failed.is_none() {
                        failed = sink.row(position, logits).err();
                        if failed.is_some() {
                            cancel.store(true, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                },
                cancel,
            )
        };
        step(&ids, if args.last { Want::Last } else { Want::All })
    });
    if let Some(error) = failed {
        return Err(match &args.output {
            Some(path) => anyhow!(error).context(format!("{}: cannot write", path.display())),
            None => error.into(),
        });
    }
    match result {
        Err(EngineError::Cancelled) => {
            signals.check()?;
            Err(EngineError::Cancelled.into())
        }
        Err(error) => Err(error.into()),
        Ok(_) => {
            sink.finish()?;
            Ok(())
        }
    }
}

trait Rows {
    fn row(&mut self, position: usize, logits: &[f32]) -> io::Result<()>;
    fn finish(self: Box<Self>) -> Result<()>;
}

struct Lines<'a, W: Write> {
    out: W,
    tokenizer: &'a Tokenizer,
    ids: &'a [u32],
    /// `None` is every logit.
    top_k: Option<usize>,
    json: bool,
}

impl<W: Write> Rows for Lines<'_, W> {
    fn row(&mut self, position: usize, logits: &[f32]) -> io::Result<()> {
        let id = self.ids[position];
        let vocab = self.tokenizer.vocab();
        let Some(k) = self.top_k else {
            if self.json {
                let row = json!({ "schema": 1, "position": position, "id": id, "logits": logits });
                return writeln!(self.out, "{row}");
            }
            for (token, logit) in logits.iter().enumerate() {
                writeln!(self.out, "{position}\t{token}\t{logit}")?;
            }
            return Ok(());
        };
        let top = top(logits, k);
        let log_sum = log_sum_exp(logits);
        let ln_p = |logit: f32| f64::from(logit) - log_sum;
        if self.json {
            let top: Vec<_> = top
                .iter()
                .map(|&(id, logit)| {
                    json!({
                        "id": id,
                        "piece": String::from_utf8_lossy(vocab.bytes(id)),
                        "logit": logit,
                        "logprob": ln_p(logit),
                    })
                })
                .collect();
            let piece = String::from_utf8_lossy(vocab.bytes(id));
            let row = json!({ "schema": 1, "position": position, "id": id, "piece": piece, "top": top });
            return writeln!(self.out, "{row}");
        }
        writeln!(self.out, "{position}\t{id}\t{}", escaped(vocab.bytes(id)))?;
        for &(id, logit) in &top {
            writeln!(self.out, "\t{id}\t{logit:.4}\t{:.4}\t{}", ln_p(logit).exp(), escaped(vocab.bytes(id)))?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// The `k` largest with their ids, largest first, of equal ones the smaller id first.
fn top(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = logits.iter().enumerate().map(|(id, &x)| (id as u32, x)).collect();
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k == 0 {
        return Vec::new();
    }
    if k < all.len() {
        all.select_nth_unstable_by(k - 1, order);
        all.truncate(k);
    }
    all.sort_unstable_by(order);
    all
}

/// Raw little-endian f32: a file under another name until it is whole; a device or pipe as it comes.
struct Raw {
    path: PathBuf,
    out: BufWriter<Target>,
}

enum Target {
    File(NamedTempFile),
    Stream(fs::File),
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stream(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stream(stream) => stream.flush(),
        }
    }
}

impl Raw {
    fn create(path: &Path) -> Result<Self> {
        let stream = fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
        let target = if stream {
            fs::OpenOptions::new().write(true).open(path).map(Target::Stream)
        } else {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            tempfile::Builder::new()
                .permissions(fs::Permissions::from_mode(0o644))
                .tempfile_in(folder)
                .map(Target::File)
        };
        let target = target.with_context(|| format!("{}: cannot create", path.display()))?;
        Ok(Self { path: path.to_owned(), out: BufWriter::new(target) })
    }
}

impl Rows for Raw {
    fn row(&mut self, _position: usize, logits: &[f32]) -> io::Result<()> {
        for x in logits {
            self.out.write_all(&x.to_le_bytes())?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { path, out } = *self;
        let finish = || {
            match out.into_inner().map_err(io::IntoInnerError::into_error)? {
                Target::Stream(mut stream) => stream.flush()?,
                Target::File(file) => {
                    file.as_file().sync_all()?;
                    file.persist(&path)?;
                }
            }
            Ok::<_, io::Error>(())
        };
        finish().with_context(|| format!("{}: cannot write", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_in_order() {
        let row = [1.0, 3.0, f32::NEG_INFINITY, 3.0, 2.0];
        assert_eq!(top(&row, 3), [(1, 3.0), (3, 3.0), (4, 2.0)]);
        assert_eq!(top(&row, 99).len(), 5);
        assert_eq!(top(&row, 0), []);
    }

    #[test]
    fn an_unfinished_file_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.f32");
        let mut raw = Raw::create(&path).unwrap();
        raw.row(0, &[1.0]).unwrap();
        drop(raw);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut raw = Box::new(Raw::create(&path).unwrap());
        raw.row(0, &[1.0, -2.5]).unwrap();
        raw.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_or_device_is_written_to_not_replaced() {
        let null = Path::new("/dev/null");
        let mut raw = Box::new(Raw::create(null).unwrap());
        raw.row(0, &[1.0]).unwrap();
        raw.finish().unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
    }
}
