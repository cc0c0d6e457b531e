//! `huozi logits`: the logits of the next token, at every position of a text.

use super::args::LogitsCommand;
use super::load;
use super::printer::{Printer, escaped};
use super::settings::Config;
use super::signal::Signals;
use super::tokenize;
use crate::engine::{EngineError, Info, Phase, Want};
use crate::eval;
use crate::open::{Loaded, Room};
use crate::sample::log_probs::log_sum_exp;
use anyhow::{Context, Result, anyhow};
use huozi_quant::output::{self, OutputTarget};
use huozi_token::Tokenizer;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &LogitsCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.model.as_deref())?;
    let model = load::open(&path, &load::measuring(config, &args.model.load)?)?;
    let tokenizer = model.tokenizer()?;
    let ids = tokenize::ids(&args.text, &tokenizer)?;
    load::check_ids(&ids, model.shape().n_vocab)?;
    let mut engine = load::engine(&model, Room::single(ids.len()), config.quiet)?;
    let seq = engine.seq_new();
    let record = if args.json { record(&model, engine.info())? } else { Map::new() };

    let mut sink: Box<dyn Rows> = match &args.output {
        Some(path) => Box::new(Raw::create(path)?),
        None => Box::new(Lines {
            out: printer.bulk(),
            tokenizer: &tokenizer,
            ids: &ids,
            top_k: if args.all { None } else { Some(args.top_k) },
            json: args.json,
            record,
        }),
    };
    let mut failed: Option<io::Error> = None;
    let result = signals.while_busy(|cancel| {
        let want = if args.last { Want::Last } else { Want::All };
        let phase = args.phase.unwrap_or(Phase::Given);
        eval::append(engine.as_mut(), seq, &ids, phase, want, cancel, &mut |position, logits| {
            if failed.is_none() {
                failed = sink.row(position, logits).err();
                if failed.is_some() {
                    cancel.store(true, std::sync::atomic::Ordering::Relaxed);
                }
            }
        })
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
    fn finish(&mut self) -> Result<()>;
}

struct Lines<'a, W: Write> {
    out: W,
    tokenizer: &'a Tokenizer,
    ids: &'a [u32],
    /// `None` is every logit.
    top_k: Option<usize>,
    json: bool,
    /// The model and the engine, in every JSON row.
    record: Map<String, Value>,
}

impl<W: Write> Lines<'_, W> {
    fn json_row(&mut self, mut row: Value) -> io::Result<()> {
        if let Value::Object(row) = &mut row {
            row.extend(self.record.clone());
        }
        writeln!(self.out, "{row}")
    }
}

fn record(model: &Loaded, info: &Info) -> Result<Map<String, Value>> {
    Ok(Map::from_iter([
        ("model".to_owned(), model.path().display().to_string().into()),
        ("model_fingerprint".to_owned(), model.fingerprint()?.into()),
        ("runs_on".to_owned(), info.runs_on.clone().into()),
        ("threads".to_owned(), info.threads.into()),
        ("kv_type".to_owned(), info.kv.name().into()),
    ]))
}

impl<W: Write> Rows for Lines<'_, W> {
    fn row(&mut self, position: usize, logits: &[f32]) -> io::Result<()> {
        let id = self.ids[position];
        let vocab = self.tokenizer.vocab();
        let Some(k) = self.top_k else {
            if self.json {
                return self
                    .json_row(json!({ "schema": 1, "position": position, "id": id, "logits": logits }));
            }
            for (token, logit) in logits.iter().enumerate() {
                writeln!(self.out, "{position}\t{token}\t{logit}")?;
            }
            return Ok(());
        };
        let top = top(logits, k);
        let ln_sum = log_sum_exp(logits);
        let ln_p = |logit: f32| f64::from(logit) - ln_sum;
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
            return self.json_row(
                json!({ "schema": 1, "position": position, "id": id, "piece": piece, "top": top }),
            );
        }
        writeln!(self.out, "{position}\t{id}\t{}", escaped(vocab.bytes(id)))?;
        for &(id, logit) in &top {
            writeln!(self.out, "\t{id}\t{logit:.4}\t{:.4}\t{}", ln_p(logit).exp(), escaped(vocab.bytes(id)))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// The `k` largest logits with their ids, largest first; of equal ones the smaller id first.
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

/// Raw little-endian f32, in a temporary file that is renamed when it is complete.
struct Raw {
    path: PathBuf,
    to: Option<BufWriter<NamedTempFile>>,
}

impl Raw {
    /// For the regular file that `path` stands for, there or not.
    fn create(path: &Path) -> Result<Self> {
        let OutputTarget { path, metadata } = output::file(path)?;
        let file = fresh(&path, metadata.map(|m| m.permissions()));
        let file = file.with_context(|| format!("{}: cannot create", path.display()))?;
        Ok(Self { path, to: Some(BufWriter::new(file)) })
    }
}

/// A temporary file beside `path`, with the permissions of the file it will replace or those of any new one.
fn fresh(path: &Path, permissions: Option<fs::Permissions>) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".huozi-logits-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    Ok(file)
}

impl Rows for Raw {
    fn row(&mut self, _position: usize, logits: &[f32]) -> io::Result<()> {
        let Some(out) = &mut self.to else { return Ok(()) };
        logits.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
    }

    fn finish(&mut self) -> Result<()> {
        let Some(out) = self.to.take() else { return Ok(()) };
        let file = out.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| {
            file.as_file().sync_all()?;
            Ok(file)
        });
        let cannot_write = || format!("{}: cannot write", self.path.display());
        let file = file.with_context(cannot_write)?;
        // Something else may have come to the name while the rows were computed.
        let path = output::file(&self.path)?.path;
        file.persist(&path).map_err(|e| e.error).with_context(cannot_write)?;
        Ok(())
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
        let mut raw = Raw::create(&path).unwrap();
        raw.row(0, &[1.0, -2.5]).unwrap();
        raw.finish().unwrap();
        drop(raw);
        assert_eq!(fs::read(&path).unwrap(), [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_file_of_another_process_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (path, partial) = (dir.path().join("out.f32"), dir.path().join("out.f32.partial"));
        fs::write(&partial, "mine").unwrap();
        // Two processes at once: each file is complete under its name, the last one stays.
        let (mut a, mut b) = (Raw::create(&path).unwrap(), Raw::create(&path).unwrap());
        a.row(0, &[1.0]).unwrap();
        b.row(0, &[2.0, 3.0]).unwrap();
        a.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), 1.0f32.to_le_bytes());
        b.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 8);
        assert_eq!(fs::read(&partial).unwrap(), b"mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_device_is_refused() {
        let before = fs::read_dir("/dev").unwrap().count();
        let error = Raw::create(Path::new("/dev/null")).err().unwrap().to_string();
        assert!(error.contains("/dev/null is a character device") && !error.contains("force"), "{error}");
        assert_eq!(fs::read_dir("/dev").unwrap().count(), before);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_the_file_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("out.f32"), dir.path().join("link"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        Raw::create(&link).unwrap().finish().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
