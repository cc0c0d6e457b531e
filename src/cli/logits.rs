//! `huozi logits`: the logits of the next token, at every position of a text.

use super::args::LogitsCommand;
use super::load::{self, record};
use super::printer::{Printer, SCHEMA, escaped, json_line};
use super::settings::Config;
use super::signal::Signals;
use super::tokenize;
use crate::engine::{EngineError, Phase, Want};
use crate::eval;
use crate::open::Room;
use crate::sample::log_probs::{LogSoftmax, likeliest};
use anyhow::{Context, Result, anyhow};
use huozi_quant::output::{self, OutputTarget};
use huozi_token::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
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
    let json = if args.json { Some(record(&model, engine.info())?) } else { None };

    let mut sink: Box<dyn Rows> = match &args.output {
        Some(path) => Box::new(Raw::create(path)?),
        None => Box::new(Lines {
            out: printer.bulk(),
            tokenizer: &tokenizer,
            ids: &ids,
            top_k: if args.all { None } else { Some(args.top_k) },
            json,
            begun: false,
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
    /// Rows of JSON, each with what [`record`] says of the model and the engine.
    json: Option<Map<String, Value>>,
    /// The first line of the text has been written.
    begun: bool,
}

/// A position as JSON.
#[derive(Serialize)]
struct JsonRow<'a> {
    schema: u32,
    position: usize,
    id: u32,
    piece: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<Vec<Likely<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<&'a [f32]>,
    #[serde(flatten)]
    record: &'a Map<String, Value>,
}

/// One of the likeliest next tokens.
#[derive(Serialize)]
struct Likely<'a> {
    id: u32,
    /// Holds U+FFFD where the bytes are no whole character.
    piece: Cow<'a, str>,
    logit: f32,
    logprob: f64,
    #[serde(skip)]
    probability: f32,
}

impl<W: Write> Rows for Lines<'_, W> {
    fn row(&mut self, position: usize, logits: &[f32]) -> io::Result<()> {
        let id = self.ids[position];
        let vocab = self.tokenizer.vocab();
        let top = self.top_k.map(|k| {
            let softmax = LogSoftmax::of(logits);
            let likely = |id: u32| Likely {
                id,
                piece: String::from_utf8_lossy(vocab.bytes(id)),
                logit: logits[id as usize],
                logprob: softmax.at(id),
                probability: softmax.at(id).exp() as f32,
            };
            Vec::from_iter(likeliest(logits, k).into_iter().map(likely))
        });
        if let Some(record) = &self.json {
            let logits = top.is_none().then_some(logits);
            let piece = String::from_utf8_lossy(vocab.bytes(id));
            let row = JsonRow { schema: SCHEMA, position, id, piece, top, logits, record };
            return json_line(&mut self.out, &row);
        }
        let first = !std::mem::replace(&mut self.begun, true);
        let Some(top) = top else {
            if first {
                writeln!(self.out, "# position\tid\tlogit")?;
            }
            for (token, logit) in logits.iter().enumerate() {
                writeln!(self.out, "{position}\t{token}\t{logit}")?;
            }
            return Ok(());
        };
        if first {
            writeln!(
                self.out,
                "# position\tid\tpiece; below it the likeliest next: \tid\tlogit\tprobability\tpiece"
            )?;
        }
        writeln!(self.out, "{position}\t{id}\t{}", escaped(vocab.bytes(id)))?;
        for Likely { id, logit, probability, .. } in top {
            writeln!(self.out, "\t{id}\t{logit}\t{probability}\t{}", escaped(vocab.bytes(id)))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
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
