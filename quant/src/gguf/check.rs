//! Whether a file still holds what its writer put there: its structure, and the SHA-256 that it carries of
//! every tensor.
//!
//! The sums are an array of hexadecimal strings under [`SHA256_KEY`], in the order of the tensors; a sum
//! covers a tensor's bytes without padding. The data is read by range, not through a mapping: a disk that
//! fails gives an error and not a signal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Error, MetaValue, Reader};
use crate::map::How;

/// The metadata key of the sums: an array of strings, one per tensor.
pub const SHA256_KEY: &str = "huozi.tensor_sha256";

/// Characters of a sum.
pub(super) const SUM_CHARS: usize = 64;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// A SHA-256 sum.
pub type Sum = [u8; 32];

/// The value to give [`SHA256_KEY`] in the metadata of a new file with this many tensors: the writer puts the
/// sums in its place when it finishes.
pub fn placeholder(tensors: usize) -> MetaValue {
    MetaValue::Strings(vec!["0".repeat(SUM_CHARS); tensors])
}

/// A sum as 64 hexadecimal digits.
pub fn hex(sum: &Sum) -> String {
    sum.iter().map(|b| format!("{b:02x}")).collect()
}

/// The sum of some bytes.
pub fn sum(bytes: &[u8]) -> Sum {
    Sha256::digest(bytes).into()
}

/// The sum of `bytes` bytes of a file from `start`; `on` receives the length of each piece and may stop with
/// an error.
///
/// # Errors
/// What reading gives, `UnexpectedEof` for a file that is too short, or what `on` gives.
pub fn sum_of(
    file: &File,
    start: u64,
    bytes: u64,
    on: &(dyn Fn(u64) -> io::Result<()> + Sync),
) -> io::Result<Sum> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE.min(usize::try_from(bytes).unwrap_or(PIECE))];
    let mut done = 0;
    while done < bytes {
        let n = (bytes - done).min(PIECE as u64) as usize;
        file.read_exact_at(&mut buffer[..n], start + done)?;
        hash.update(&buffer[..n]);
        done += n as u64;
        on(n as u64)?;
    }
    Ok(hash.finalize().into())
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The tensors of the file.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the file carries sums. Without them only its structure was checked.
    pub sums: bool,
    /// Names of the tensors whose bytes do not give the sum that the file carries, in the order of the file.
    pub damaged: Vec<String>,
}

/// Checks the model at `path`, with all its parts: the structure, then every tensor on the threads of the
/// current rayon pool.
///
/// `on`: receives the bytes read, from any thread; an error from it ends the check.
///
/// # Errors
/// [`Error::Io`], the first broken [`super::Rule`], or a [`SHA256_KEY`] that is no list of one sum per
/// tensor.
pub fn check(path: &Path, on: &(dyn Fn(u64) -> io::Result<()> + Sync)) -> Result<Checked, Error> {
    let reader = Reader::open(path, How::Map)?;
    let bytes = reader.tensors().iter().map(|t| t.bytes).sum();
    let tensors = reader.tensors().len();
    let meta = reader.meta();
    let Some(stored) = meta.strings(SHA256_KEY)? else {
        return Ok(Checked { tensors, bytes, sums: false, damaged: Vec::new() });
    };
    let is_sum = |s: &str| s.len() == SUM_CHARS && s.bytes().all(|b| b.is_ascii_hexdigit());
    if stored.len() != tensors || !stored.iter().all(is_sum) {
        let found = match stored.iter().find(|s| !is_sum(s)) {
            Some(other) if stored.len() == tensors => super::shown(other),
            _ => format!("an array of {}", stored.len()),
        };
        let expected = format!("a sum of {SUM_CHARS} digits for each tensor ({tensors})");
        return Err(meta.refuse(SHA256_KEY, expected, found));
    }
    let io = |file: &str, action, source| Error::Io { file: file.to_owned(), action, source };
    let pairs: Vec<_> = reader.tensors().iter().zip(stored.iter()).collect();
    let same = pairs.par_iter().map(|(t, stored)| {
        // Opened for each tensor: a model may have more parts than a process may have open files.
        let part = &reader.parts()[t.part];
        let file = File::open(part.path()).map_err(|source| io(part.name(), "open", source))?;
        let sum = sum_of(&file, t.offset, t.bytes, on).map_err(|source| io(part.name(), "read", source))?;
        Ok(hex(&sum).eq_ignore_ascii_case(stored))
    });
    let same: Vec<bool> = same.collect::<Result<_, Error>>()?;
    let damaged = pairs.iter().zip(same).filter(|(_, same)| !same).map(|((t, _), _)| t.name.clone());
    Ok(Checked { tensors, bytes, sums: true, damaged: damaged.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;
    use crate::gguf::{Layout, Rule, TensorSpec, Writer};

    #[test]
    fn a_known_sum() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sum(b"abc")), expected);
        let file = tempfile::tempfile().unwrap();
        let long: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i * 7 % 251) as u8).collect();
        file.write_all_at(&long, 0).unwrap();
        let part = sum_of(&file, 3, 2 * PIECE as u64 + 1, &|_| Ok(())).unwrap();
        assert_eq!(part, sum(&long[3..2 * PIECE + 4]));
        assert!(sum_of(&file, 3, 3 * PIECE as u64 + 3, &|_| Ok(())).is_err());
    }

    #[test]
    fn the_writer_s_sums_hold_until_a_bit_flips() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let spec = |name: &str, cols| TensorSpec { name: name.into(), format: Format::F32, dims: vec![cols] };
        let write = |value: Option<MetaValue>| {
            let meta: Vec<_> = value.map(|v| (SHA256_KEY.to_owned(), v)).into_iter().collect();
            let layout = Layout::new(&meta, vec![spec("a", 5), spec("b", 9)]).unwrap();
            let writer = Writer::create(
                File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap(),
                layout,
            );
            let writer = writer.unwrap();
            writer.write_at(1, 0, &[3; 36]).unwrap();
            writer.write_at(0, 0, &[7; 20]).unwrap();
            writer.finish().unwrap();
        };
        let go = || check(&path, &|_| Ok(()));
        write(Some(placeholder(2)));
        let good = Checked { tensors: 2, bytes: 56, sums: true, damaged: Vec::new() };
        assert_eq!(go().unwrap(), good);
        let reader = Reader::open(&path, How::Read).unwrap();
        let sums: Vec<_> = reader.meta().strings(SHA256_KEY).unwrap().unwrap().iter().collect();
        assert_eq!(sums, [hex(&sum(&[7; 20])), hex(&sum(&[3; 36]))]);
        let at = reader.tensors()[1].offset;
        File::options().write(true).open(&path).unwrap().write_all_at(&[2], at + 35).unwrap();
        assert_eq!(go().unwrap().damaged, ["b"]);
        // Without sums the structure is all there is to say, and a wrong number of them is an error.
        write(None);
        assert_eq!(go().unwrap(), Checked { sums: false, ..good });
        for odd in [placeholder(1), MetaValue::Strings(vec!["x".repeat(64); 2]), MetaValue::U32(1)] {
            write(Some(odd));
            let rule = go().unwrap_err().rule();
            assert!(matches!(rule, Some(Rule::Value | Rule::WrongType)), "{rule:?}");
        }
        assert!(check(&dir.path().join("none"), &|_| Ok(())).is_err());
    }
}
