//! Importance of each column, as `llama-imatrix` writes it: the mean square of the activation that meets the column.
//!
//! Two formats, told apart by their first bytes. The older one, all numbers 32 bits, little-endian:
//!
//! ```text
//! entries i32 | entries x { length i32 | name | calls i32 | values i32 | values f32 x calls } | chunks i32 | length i32 | text file
//! ```
//!
//! The newer one is a GGUF file with two F32 tensors per entry: `NAME.in_sum2`, sums of squares, and `NAME.counts`, how
//! many activations were summed. Names are GGUF's names of tensors.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use huozi_quant::Format;
use huozi_quant::gguf::check::{hex, sum};
use huozi_quant::gguf::{MetaValue, Reader, TensorInfo};

use crate::Error;
use crate::names::{Target, TensorRole, some_of};
use crate::source::{Inode, quoted};

/// That of a 7B model has 5 MB.
const MAX_BYTES: u64 = 64 << 20;

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// An importance matrix.
#[derive(Debug)]
pub(crate) struct Imatrix {
    file: String,
    digest: String,
    /// Per tensor, per column; finite and not negative.
    entries: HashMap<String, Vec<f32>>,
    dataset: Option<String>,
    chunks: Option<u32>,
}

impl Imatrix {
    /// Reads either format. `opened`: gets the file.
    pub fn read(path: &Path, opened: &mut HashSet<Inode>) -> Result<Self, Error> {
        let bad = |what: String| Error::Imatrix { file: path.to_owned(), what };
        let fail = |e| Error::input(path, "read the importance matrix")(e);
        let file = File::open(path).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        opened.insert((meta.dev(), meta.ino()));
        let mut bytes = Vec::new();
        // Whatever its length says: a pipe has none, and a device no end.
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(bad(format!("expected an importance matrix of at most {MAX_BYTES} bytes")));
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let digest = hex(&sum(&bytes));
        let mut read = if bytes.starts_with(b"GGUF") {
            from_gguf(&file, bytes).map_err(|e| bad(e.to_string()))?
        } else {
            from_dat(&bytes).ok_or_else(|| {
                bad("is neither a GGUF file nor the older format of llama-imatrix, or is cut short".into())
            })?
        };
        (read.file, read.digest) = (file, digest);
        let odd = |v: &&Vec<f32>| !v.iter().all(|x| x.is_finite() && *x >= 0.0);
        if let Some((name, _)) = read.entries.iter().find(|(_, v)| odd(v)) {
            return Err(bad(format!("entry {} has values that are negative or no numbers", quoted(name))));
        }
        if read.entries.is_empty() {
            return Err(bad("has no entries".into()));
        }
        Ok(read)
    }

    /// Importance of the target's columns, if there is an entry for it. Vectors have none.
    pub fn of(&self, target: &Target) -> Option<&[f32]> {
        if target.role == TensorRole::Vector {
            return None;
        }
        self.entries.get(&target.name).map(Vec::as_slice).filter(|v| v.len() as u64 == target.cols)
    }

    /// Which matrices have no entry; the embedding is never multiplied with, so it is not missed.
    ///
    /// # Errors
    /// An entry of another width: it belongs to another model.
    pub fn missing<'a>(
        &self,
        path: &Path,
        targets: impl Iterator<Item = &'a Target>,
    ) -> Result<Option<String>, Error> {
        let mut missing = Vec::new();
        for target in targets.filter(|t| !matches!(t.role, TensorRole::Vector | TensorRole::TokenEmbd)) {
            match self.entries.get(&target.name) {
                None => missing.push(target.name.clone()),
                Some(v) if v.len() as u64 != target.cols => {
                    let what =
                        format!("entry {} has {} columns, the model {}", target.name, v.len(), target.cols);
                    return Err(Error::Imatrix { file: path.to_owned(), what });
                }
                Some(_) => {}
            }
        }
        let text = || format!("without importance, for {} has no entry: {}", self.file, some_of(&missing));
        Ok((!missing.is_empty()).then(text))
    }

    /// The sum of the file.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the new file says about it, as llama-quantize does.
    pub fn meta(&self) -> Vec<(String, MetaValue)> {
        let mut meta = vec![("quantize.imatrix.file".to_owned(), MetaValue::Str(self.file.clone()))];
        let mut put = |key: &str, value| meta.push((format!("quantize.imatrix.{key}"), value));
        if let Some(dataset) = &self.dataset {
            put("dataset", MetaValue::Str(dataset.clone()));
        }
        put("entries_count", MetaValue::U32(self.entries.len() as u32));
        if let Some(chunks) = self.chunks {
            put("chunks_count", MetaValue::U32(chunks));
        }
        meta
    }

    fn new() -> Self {
        let (file, digest) = (String::new(), String::new());
        Self { file, digest, entries: HashMap::new(), dataset: None, chunks: None }
    }
}

fn from_gguf(name: &str, bytes: Vec<u8>) -> Result<Imatrix, huozi_quant::gguf::Error> {
    let reader = Reader::from_bytes(name, bytes)?;
    let meta = reader.meta();
    let mut read = Imatrix::new();
    read.chunks = meta.uint("imatrix.chunk_count")?.and_then(|n| u32::try_from(n).ok());
    read.dataset = meta.strings("imatrix.datasets")?.and_then(|all| all.iter().next().map(str::to_owned));
    let values = |t: &TensorInfo| {
        let mut values = vec![0.0; t.rows() * t.cols()];
        t.format.decode(&reader.bytes(t), &mut values);
        values
    };
    // F32 only: other formats could stand for many more numbers than the file has bytes.
    for sums in reader.tensors().iter().filter(|t| t.format == Format::F32) {
        let Some(of) = sums.name.strip_suffix(SUMS) else { continue };
        // Several counts are those of experts, which no BLOOM has.
        let count = reader.tensor(&format!("{of}{COUNTS}")).filter(|t| t.format == Format::F32);
        let count = count.map(values).filter(|c| c.len() == 1);
        let Some(count) = count else { return Err(meta.missing(&format!("{of}{COUNTS}"), "one count")) };
        let mut values = values(sums);
        // As llama-quantize takes a tensor that met no activation.
        values.iter_mut().for_each(|x| *x = if count[0] > 0.0 { *x / count[0] } else { 1.0 });
        read.entries.insert(of.to_owned(), values);
    }
    Ok(read)
}

fn from_dat(bytes: &[u8]) -> Option<Imatrix> {
    let mut rest = bytes;
    let int = |rest: &mut &[u8]| -> Option<usize> {
        let (first, after) = rest.split_first_chunk()?;
        *rest = after;
        usize::try_from(i32::from_le_bytes(*first)).ok()
    };
    let take = |rest: &mut &[u8], n: usize| -> Option<Vec<u8>> {
        let (first, after) = rest.split_at_checked(n)?;
        *rest = after;
        Some(first.to_vec())
    };
    let mut read = Imatrix::new();
    for _ in 0..int(&mut rest)? {
        let length = int(&mut rest)?;
        let name = String::from_utf8(take(&mut rest, length)?).ok()?;
        let calls = int(&mut rest)?.max(1);
        let length = int(&mut rest)?.checked_mul(4)?;
        let values = take(&mut rest, length)?;
        let (words, _) = values.as_chunks();
        let values = words.iter().map(|w| f32::from_le_bytes(*w) / calls as f32).collect();
        read.entries.insert(name, values);
    }
    // Older files end here.
    if !rest.is_empty() {
        read.chunks = int(&mut rest).and_then(|n| u32::try_from(n).ok());
        let length = int(&mut rest).unwrap_or(0);
        read.dataset = take(&mut rest, length).and_then(|text| String::from_utf8(text).ok());
    }
    Some(read)
}
