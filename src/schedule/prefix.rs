//! Prefixes that sequences of ids have in common: how long they are, and which of them requests wait for.

use std::collections::HashMap;

/// Ids compared at a time.
const CHUNK: usize = 64;

/// How many ids, from the first on, are the same in both.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    let chunks = a.chunks_exact(CHUNK).zip(b.chunks_exact(CHUNK));
    let same = CHUNK * chunks.take_while(|(a, b)| a == b).count();
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

/// A number for each prefix of whole blocks of `ids`, the shortest first. Different prefixes have different
/// numbers but for rare accidents: good for choosing what to keep, not for reusing it.
pub(super) fn keys(ids: &[u32], block: usize) -> Vec<u64> {
    let mut key = 0xcbf2_9ce4_8422_2325;
    let mut next = |block: &[u32]| {
        for &id in block {
            key = (key ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        key
    };
    ids.chunks_exact(block).map(&mut next).collect()
}

/// The prefixes of waiting requests, by [`keys`].
#[derive(Debug, Default)]
pub(super) struct Wanted(HashMap<u64, usize>);

impl Wanted {
    /// A request with these prefixes waits.
    pub fn add(&mut self, keys: &[u64]) {
        keys.iter().for_each(|&key| *self.0.entry(key).or_default() += 1);
    }

    /// It does not any more.
    pub fn remove(&mut self, keys: &[u64]) {
        for key in keys {
            match self.0.get_mut(key) {
                Some(1) | None => drop(self.0.remove(key)),
                Some(n) => *n -= 1,
            }
        }
    }

    /// The longest of these prefixes that a request waits for: how many blocks, and its number.
    pub fn longest(&self, keys: &[u64]) -> Option<(usize, u64)> {
        let blocks = keys.iter().take_while(|key| self.0.contains_key(key)).count();
        Some((blocks, *keys[..blocks].last()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_prefixes_of_all_lengths() {
        let a: Vec<u32> = (0..300).collect();
        for n in [0, 1, 63, 64, 65, 128, 191, 299] {
            let mut b = a.clone();
            b[n] = 1000;
            assert_eq!((common(&a, &b), common(&b, &a)), (n, n));
            assert_eq!((common(&a, &a[..n]), common(&a[..n], &a)), (n, n));
        }
        assert_eq!(common(&a, &a), 300);
    }

    #[test]
    fn wanted_prefixes_are_counted() {
        let a: Vec<u32> = (0..40).collect();
        let mut b = a.clone();
        b[20] = 1000;
        let (a, b) = (keys(&a, 10), keys(&b, 10));
        assert_eq!((a.len(), &a[..2], a[2] == b[2], a[3] == b[3]), (4, &b[..2], false, false));
        let mut wanted = Wanted::default();
        assert_eq!(wanted.longest(&a), None);
        wanted.add(&a[..3]);
        wanted.add(&a[..1]);
        assert_eq!((wanted.longest(&a), wanted.longest(&b)), (Some((3, a[2])), Some((2, a[1]))));
        wanted.remove(&a[..3]);
        assert_eq!(wanted.longest(&b), Some((1, a[0])));
        wanted.remove(&a[..1]);
        assert_eq!(wanted.longest(&a), None);
        assert!(wanted.0.is_empty());
    }
}
