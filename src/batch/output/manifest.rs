//! What was run, beside its results: `OUT.manifest.json`.
//!
//! A run may be taken up again only by one that gives the same answers, and parts may be merged only where
//! one process would have given the same: all that an answer depends on is in [`RunIdentity`].

use super::error::OutputError;
use super::shard::Shard;
use huozi_quant::message::{counted, shown};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Version of the format.
const SCHEMA: u32 = 1;
/// A manifest of a shard has a few bytes for each of its rows.
const MAX_BYTES: u64 = 256 << 20;
/// Differences that a message lists.
const MAX_LISTED: usize = 6;

/// All that the answers of a run depend on. Threads, memory, the number of rows at the same time, speculation
/// and the order of the results are not in it: they change no answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunIdentity {
    /// Version of `huozi`.
    pub version: String,
    /// The model.
    pub model: ModelIdentity,
    /// `native` or `ggml`.
    pub engine: String,
    /// Type of the KV cache.
    pub kv_type: String,
    /// The class of instruction sets that compute the same bits, see `Isa::bits_class` of `huozi_quant`.
    pub isa_class: String,
    /// The date that the chat template was given; `None` where it asks for none.
    pub date: Option<String>,
    /// The rows.
    pub input: InputIdentity,
    /// Settings of the run that change answers: sampling, seed, maximum of tokens, system prompt, ...
    pub settings: Map<String, Value>,
    /// The share of the rows; `None` for all of them.
    pub shard: Option<Shard>,
}

/// A model. Only the fingerprint tells it from another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Its name, for people.
    pub name: String,
    /// [`open::fingerprint`](crate::open::fingerprint).
    pub fingerprint: String,
}

/// The rows of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InputIdentity {
    /// SHA-256 of the uncompressed text, 64 hex digits.
    pub sha256: String,
    /// Number of rows, those with errors included.
    pub rows: usize,
    /// How they are read: the format, a column.
    pub form: String,
}

/// The content of `OUT.manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    schema: u32,
    /// A [`RunIdentity`]; as JSON, so that whatever differs can be named.
    run: Value,
    /// The file name for error lines; `None`: they are beside the results.
    pub errors: Option<String>,
    /// What came of it; `None` until the run is complete.
    pub result: Option<RunRecord>,
}

/// The results of a complete run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// Lines of results and errors.
    pub rows: usize,
    /// Error lines.
    pub failed: usize,
    /// `OUT`.
    pub results: FileRecord,
    /// The file with error lines.
    pub errors: Option<FileRecord>,
}

/// A finished file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name, without folders.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, 64 hex digits.
    pub sha256: String,
    /// Its lines.
    pub lines: usize,
    /// Of a shard: which rows of the input the lines are: differences from row to row (less one; the first
    /// from -1) as zigzag LEB128 in Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<String>,
}

/// Where the manifest of an output is: `OUT.manifest.json`.
#[must_use]
pub fn manifest_path(out: &Path) -> PathBuf {
    beside(out, ".manifest.json")
}

/// The path with something more at its end.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Manifest {
    /// Of a run that begins.
    pub(super) fn new(run: &RunIdentity, errors: Option<&Path>) -> Self {
        Self { schema: SCHEMA, run: as_read(run), errors: errors.map(file_name), result: None }
    }

    /// The manifest beside an output; `None` where there is none.
    ///
    /// # Errors
    /// What cannot be read, and what is no manifest of this version.
    pub fn read(out: &Path) -> Result<Option<Self>, OutputError> {
        let path = manifest_path(out);
        let io = |action| OutputError::io(&path, action);
        let bad = |why: String| OutputError::Manifest { path: path.clone(), why };
        // Opening a FIFO would wait for its writer.
        if fs::metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            return Err(bad("it is no regular file".to_owned()));
        }
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io("open"))?,
        };
        let meta = file.metadata().map_err(io("read"))?;
        if !meta.is_file() {
            return Err(bad("it is no regular file".to_owned()));
        }
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(io("read"))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(bad(format!("it has more than {} MiB", MAX_BYTES >> 20)));
        }
        let value: Value = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        match value.get("schema") {
            Some(schema) if *schema == SCHEMA => {}
            Some(schema) => return Err(bad(format!("it has schema {schema}, this version reads {SCHEMA}"))),
            None => return Err(bad("it has no \"schema\"".to_owned())),
        }
        let manifest: Self = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
        if !manifest.run.is_object() {
            return Err(bad("its \"run\" is no object".to_owned()));
        }
        Ok(Some(manifest))
    }

    /// Writes it beside an output: as a whole or not at all.
    pub(super) fn write(&self, out: &Path) -> Result<(), OutputError> {
        let path = manifest_path(out);
        let new = beside(&path, ".new");
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|e| OutputError::Manifest { path: path.clone(), why: e.to_string() })?;
        text.push(b'\n');
        let mut file = create(&new)?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        if let Err(source) = written {
            // The space may be what the rows need.
            let _ = fs::remove_file(&new);
            return Err(OutputError::Io { path, action: "write", source });
        }
        rename(&new, &path)
    }

    /// What was run.
    ///
    /// # Errors
    /// A field that is missing or has another type; `out` is for the message.
    pub fn identity(&self, out: &Path) -> Result<RunIdentity, OutputError> {
        serde_json::from_value(self.run.clone())
            .map_err(|e| OutputError::Manifest { path: manifest_path(out), why: format!("\"run\": {e}") })
    }

    /// The date that the chat template was given: a run that is taken up again on another day goes on with
    /// it.
    #[must_use]
    pub fn date(&self) -> Option<&str> {
        self.run.get("date")?.as_str()
    }

    /// How another run differs, a sentence each.
    pub(super) fn differences(&self, run: &RunIdentity) -> Vec<String> {
        self.differences_but(run, &[])
    }

    /// [`Self::differences`] other than that of the shard.
    pub(super) fn differences_but_shard(&self, run: &RunIdentity) -> Vec<String> {
        self.differences_but(run, &["shard"])
    }

    fn differences_but(&self, run: &RunIdentity, ignored: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        compare("", &self.run, &as_read(run), &mut |name, was, is| {
            let top = name.split('.').next().unwrap_or(name);
            // A file may be renamed.
            if name != "model.name" && !ignored.contains(&top) {
                found.push(difference(name, was, is));
            }
        });
        if found.len() > MAX_LISTED {
            let more = found.len() - MAX_LISTED;
            found.truncate(MAX_LISTED);
            found.push(format!("and {}", counted(more, "other difference")));
        }
        found
    }
}

/// As it is after writing and reading: numbers may lose their last bit.
fn as_read(run: &RunIdentity) -> Value {
    let written = serde_json::to_string(run).unwrap_or_default();
    serde_json::from_str(&written).unwrap_or_default()
}

/// Calls `differs` with the name of every value that is not the same.
fn compare(name: &str, was: &Value, is: &Value, differs: &mut impl FnMut(&str, &Value, &Value)) {
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            let new = is.keys().filter(|key| !was.contains_key(*key));
            for key in was.keys().chain(new) {
                let below = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let [was, is] = [was, is].map(|object| object.get(key).unwrap_or(&Value::Null));
                compare(&below, was, is, differs);
            }
        }
        _ if was != is => differs(name, was, is),
        _ => {}
    }
}

fn difference(name: &str, was: &Value, is: &Value) -> String {
    let label = match name {
        "version" => "version of huozi",
        "model.fingerprint" => "fingerprint of the model",
        "kv_type" => "KV type",
        "isa_class" => "class of the instruction set",
        "input.sha256" => "SHA-256 of the input",
        "input.rows" => "rows of the input",
        "input.form" => "form of the input",
        name => name.strip_prefix("settings.").unwrap_or(name),
    };
    let label = shown(label);
    let [was, is] = [was, is].map(|value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if !text.is_empty() => shown(text),
        value => shown(&value.to_string()),
    });
    if was == is {
        return format!("{label}: differs after its first characters ({was})");
    }
    format!("{label}: was {was}, is {is}")
}

/// Without folders.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A new file in place of whatever has the name.
pub(super) fn create(path: &Path) -> Result<File, OutputError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(OutputError::io(path, "replace")(e)),
        _ => {}
    }
    File::options().write(true).create_new(true).open(path).map_err(OutputError::io(path, "create"))
}

/// Gives a written file its name, durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), OutputError> {
    fs::rename(from, to).map_err(OutputError::io(to, "write"))?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Some file systems know no synchronising of folders.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}
