//! A short name for the content of a model file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes read by [`fingerprint`] in each of its places.
const WINDOW: u64 = 4096;
/// Places in the weights that [`fingerprint`] reads.
const WINDOWS: u64 = 256;

/// A fingerprint of a model file, or of the parts of a split one in order, to recognise it again: 16 hex
/// digits computed from the length of each file, its header and 256 windows of its weights. It tells models
/// apart; it is no protection against forgery.
///
/// `files`: each with the bytes of its header.
///
/// # Errors
/// The operating system's error when a file cannot be read.
pub fn fingerprint<'a>(files: impl IntoIterator<Item = (&'a Path, u64)>) -> io::Result<String> {
    let mut hash = Fnv::new();
    let mut buffer = Vec::new();
    for (path, header_bytes) in files {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        hash.update(&length.to_le_bytes());
        buffer.clear();
        (&mut file).take(header_bytes.min(length)).read_to_end(&mut buffer)?;
        hash.update(&buffer);
        let weights = length.saturating_sub(header_bytes);
        for k in 0..WINDOWS {
            file.seek(SeekFrom::Start(header_bytes.min(length) + weights / WINDOWS * k))?;
            buffer.clear();
            (&mut file).take(WINDOW).read_to_end(&mut buffer)?;
            hash.update(&buffer);
        }
    }
    Ok(format!("{:016x}", hash.0))
}

/// FNV-1a, 64 bits. Conversations and KV caches on disk hold its values: another hash would orphan them.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn update(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_files_apart() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            fingerprint([(path.as_path(), 7)]).unwrap()
        };
        let a = of("a", "header weights");
        assert_eq!(a, of("same", "header weights"));
        assert_ne!(a, of("b", "header weighty"));
        assert_ne!(a, of("c", "Header weights"));
        // The hash function is part of the file formats: 14, the header, 256 windows that begin at
        // "weights"[0].
        assert_eq!(a.len(), 16);
    }
}
