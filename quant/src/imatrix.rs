//! Importance of each column of a matrix, as `llama-imatrix` writes it: the mean square of the activation
//! that the column is multiplied with.
//!
//! Two formats, told apart by their first bytes. The older one, all numbers 32 bits, little-endian:
//!
//! ```text
//! entries i32 | entries x { length i32 | name | calls i32 | values i32 | values f32 x calls }
//! chunks i32 | length i32 | name of the text file
//! ```
//!
//! The newer one is a GGUF file with two F32 tensors per entry: `NAME.in_sum2`, sums of squares, and
//! `NAME.counts`, how many activations were summed. Names are GGUF's names of tensors. Any bytes at all give
//! a matrix or an [`Error`].

use std::collections::HashMap;

use crate::formats::Format;
use crate::gguf::{self, Reader, TensorInfo};

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Why bytes are no importance matrix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A GGUF file that is broken or lacks a count.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// Neither of the two formats.
    #[error("is neither a GGUF file nor the older format of llama-imatrix, or is cut short")]
    Unknown,
    /// An entry that cannot be a mean of squares.
    #[error("entry {} has values that are negative or no numbers", gguf::shown(name))]
    BadEntry {
        /// The name of the entry.
        name: String,
    },
    /// No entry at all.
    #[error("has no entries")]
    Empty,
}

/// An importance matrix.
#[derive(Clone, Debug, Default)]
pub struct ImportanceMatrix {
    /// By name of the tensor: one value per column, finite and not negative.
    pub entries: HashMap<String, Vec<f32>>,
    /// The name of the text that was read.
    pub dataset: Option<String>,
    /// How many chunks of it were read.
    pub chunks: Option<u32>,
}

impl ImportanceMatrix {
    /// Reads either format. `name`: of the file, for messages.
    ///
    /// # Errors
    /// Bytes of no known format, values that are negative or not finite, no entry.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        let read = if bytes.starts_with(b"GGUF") {
            from_gguf(name, bytes)?
        } else {
            from_dat(&bytes).ok_or(Error::Unknown)?
        };
        let bad = |values: &[f32]| !values.iter().all(|x| x.is_finite() && *x >= 0.0);
        if let Some((name, _)) = read.entries.iter().find(|(_, values)| bad(values)) {
            return Err(Error::BadEntry { name: name.clone() });
        }
        if read.entries.is_empty() {
            return Err(Error::Empty);
        }
        Ok(read)
    }
}

fn from_gguf(name: &str, bytes: Vec<u8>) -> Result<ImportanceMatrix, gguf::Error> {
    let reader = Reader::from_bytes(name, bytes)?;
    let meta = reader.meta();
    let mut read = ImportanceMatrix {
        chunks: meta.uint("imatrix.chunk_count")?.and_then(|n| u32::try_from(n).ok()),
        dataset: meta.strings("imatrix.datasets")?.and_then(|all| all.iter().next().map(str::to_owned)),
        ..Default::default()
    };
    let values = |t: &TensorInfo| {
        let mut values = vec![0.0; t.rows() * t.cols()];
        t.format.decode(&reader.bytes(t), &mut values);
        values
    };
    // F32 only: in other formats a small file could declare many more numbers than it has bytes.
    for sums in reader.tensors().iter().filter(|t| t.format == Format::F32) {
        let Some(of) = sums.name.strip_suffix(SUMS) else { continue };
        // Several counts are those of experts, which no BLOOM has.
        let count = reader.tensor(&format!("{of}{COUNTS}")).filter(|t| t.format == Format::F32);
        let count = count.map(values).filter(|c| c.len() == 1);
        let Some(count) = count else { return Err(meta.missing(&format!("{of}{COUNTS}"), "one count")) };
        let mut values = values(sums);
        // llama-quantize does the same for a tensor that met no activation.
        values.iter_mut().for_each(|x| *x = if count[0] > 0.0 { *x / count[0] } else { 1.0 });
        read.entries.insert(of.to_owned(), values);
    }
    Ok(read)
}

fn from_dat(bytes: &[u8]) -> Option<ImportanceMatrix> {
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
    let mut read = ImportanceMatrix::default();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn dat(entries: &[(&str, &[f32])]) -> Vec<u8> {
        let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
        for (name, values) in entries {
            bytes.extend((name.len() as i32).to_le_bytes());
            bytes.extend(name.bytes());
            bytes.extend(2i32.to_le_bytes());
            bytes.extend((values.len() as i32).to_le_bytes());
            values.iter().for_each(|v| bytes.extend((v * 2.0).to_le_bytes()));
        }
        bytes.extend(12i32.to_le_bytes());
        bytes.extend(5i32.to_le_bytes());
        bytes.extend(b"a.txt");
        bytes
    }

    #[test]
    fn the_older_format_is_read_and_a_cut_one_refused() {
        let good = dat(&[("a", &[1.0, 0.5]), ("b", &[0.0])]);
        let read = ImportanceMatrix::from_bytes("i.dat", good.clone()).unwrap();
        assert_eq!((&read.entries["a"][..], &read.entries["b"][..]), (&[1.0, 0.5][..], &[0.0][..]));
        assert_eq!((read.chunks, read.dataset.as_deref()), (Some(12), Some("a.txt")));
        // The numbers at the end may be missing, the entries may not.
        let entries = good.len() - 4 - 4 - 5;
        for cut in 0..good.len() {
            let read = ImportanceMatrix::from_bytes("i.dat", good[..cut].to_vec());
            assert_eq!(read.is_ok(), cut >= entries, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_mean_of_squares_is_refused() {
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            let name = format!("\u{1b}[2J{}", "x".repeat(1000));
            let error = ImportanceMatrix::from_bytes("i.dat", dat(&[(&name, &[bad])])).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::BadEntry { .. }), "{text}");
            assert!(!text.contains('\u{1b}') && text.len() < 300, "{text}");
        }
        let none = ImportanceMatrix::from_bytes("i.dat", dat(&[]));
        assert!(matches!(none, Err(Error::Empty)), "{none:?}");
        let huge = ImportanceMatrix::from_bytes("i.dat", i32::MAX.to_le_bytes().repeat(8));
        assert!(matches!(huge, Err(Error::Unknown)), "{huge:?}");
        let gguf = ImportanceMatrix::from_bytes("i.gguf", b"GGUF....".to_vec());
        assert!(matches!(gguf, Err(Error::Gguf(_))), "{gguf:?}");
    }
}
