//! The importance matrix of `--imatrix`: reading the file, and matching its entries with the model.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use huozi_quant::files::diagnose_text;
use huozi_quant::gguf::MetaValue;
use huozi_quant::gguf::check::{hex, sum};
use huozi_quant::imatrix::ImportanceMatrix;

use crate::error::Error;
use crate::names::{Target, TensorRole, some_of};
use crate::source::{self, Inode};

/// The largest file that is read: that of a 7B model has 5 MB.
const MAX_BYTES: u64 = 64 << 20;

/// An importance matrix and the file it was read from.
#[derive(Debug)]
pub(crate) struct Imatrix {
    file: String,
    digest: String,
    matrix: ImportanceMatrix,
}

impl Imatrix {
    /// Reads either format. `opened`: receives the file.
    pub fn read(path: &Path, opened: &mut HashSet<Inode>) -> Result<Self, Error> {
        let bad = |what: String| Error::Imatrix { file: path.to_owned(), what };
        let fail = |e| Error::input(path, "read the importance matrix")(e);
        let file = File::open(path).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        opened.insert((meta.dev(), meta.ino()));
        let mut bytes = Vec::new();
        // Not by its length: a pipe has none, and a device no end.
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(bad(format!("expected an importance matrix of at most {MAX_BYTES} bytes")));
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let digest = hex(&sum(&bytes));
        let matrix = ImportanceMatrix::from_bytes(&file, bytes).map_err(|e| match diagnose_text(path) {
            Ok(Some(diagnosis)) => source::Error::from(diagnosis).into(),
            _ => bad(e.to_string()),
        })?;
        Ok(Self { file, digest, matrix })
    }

    /// Importance of the target's columns, if there is an entry for it. Vectors have none.
    pub fn of(&self, target: &Target) -> Option<&[f32]> {
        if target.role == TensorRole::Vector {
            return None;
        }
        self.matrix.entries.get(&target.name).map(Vec::as_slice).filter(|v| v.len() as u64 == target.cols)
    }

    /// A note on the matrices without an entry. The embedding needs none: rows are looked up in it.
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
            match self.matrix.entries.get(&target.name) {
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

    /// The SHA-256 of the file.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The keys that llama-quantize writes, too.
    pub fn meta(&self) -> Vec<(String, MetaValue)> {
        let mut meta = vec![("quantize.imatrix.file".to_owned(), MetaValue::Str(self.file.clone()))];
        let mut put = |key: &str, value| meta.push((format!("quantize.imatrix.{key}"), value));
        if let Some(dataset) = &self.matrix.dataset {
            put("dataset", MetaValue::Str(dataset.clone()));
        }
        put("entries_count", MetaValue::U32(self.matrix.entries.len() as u32));
        if let Some(chunks) = self.matrix.chunks {
            put("chunks_count", MetaValue::U32(chunks));
        }
        meta
    }
}
