//! Where the last tokens of a text stood before, and what followed them there.
//!
//! Hash chains, as compressors of the LZ77 family have them: the last place of every pair of ids, and from
//! each place the one before it with the same pair. A new id costs one entry; a search visits a bounded
//! number of places.

use std::collections::HashMap;

/// Maximum number of places that a search compares.
const PLACES: usize = 16;
/// Maximum number of ids that are compared at a place.
const LONGEST: usize = 32;

/// An index of a text that only grows.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// Where each pair of ids ended last: the position after it. An id follows there.
    latest: HashMap<[u32; 2], usize>,
    /// By such a position: where the same pair ended before; 0 where it did not.
    earlier: Vec<usize>,
}

impl Lookup {
    /// Appends at most `most` ids to `draft`: those that followed the longest repeated end of `ids`, of
    /// equally long ones the last. Gives how many ids are repeated there, 0 if none. `ids` begins with those
    /// of the call before.
    pub fn draft(&mut self, ids: &[u32], most: usize, draft: &mut Vec<u32>) -> usize {
        for end in self.earlier.len().max(2)..ids.len() {
            self.earlier.resize(end, 0);
            let before = self.latest.insert([ids[end - 2], ids[end - 1]], end);
            self.earlier.push(before.unwrap_or(0));
        }
        let [.., a, b] = *ids else { return 0 };
        let (mut best, mut longest) = (0, 0);
        let mut place = self.latest.get(&[a, b]).copied().unwrap_or(0);
        for _ in 0..PLACES {
            if place == 0 {
                break;
            }
            let backwards = ids[..place].iter().rev().zip(ids.iter().rev()).take(LONGEST);
            let length = backwards.take_while(|(a, b)| a == b).count();
            if length > longest {
                (best, longest) = (place, length);
            }
            place = self.earlier[place];
        }
        if longest == 0 {
            return 0;
        }
        // A text that repeats itself up to its end goes on with what is drafted here.
        let start = draft.len();
        for i in 0..most {
            let id = ids.get(best + i).copied().unwrap_or_else(|| draft[start + best + i - ids.len()]);
            draft.push(id);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use huozi_quant::random::Random;

    fn draft(lookup: &mut Lookup, ids: &[u32], most: usize) -> (usize, Vec<u32>) {
        let mut draft = Vec::new();
        (lookup.draft(ids, most, &mut draft), draft)
    }

    #[test]
    fn the_longest_repeated_end_of_equal_ones_the_last() {
        let mut lookup = Lookup::default();
        assert_eq!(draft(&mut lookup, &[], 3), (0, vec![]));
        assert_eq!(draft(&mut lookup, &[1], 3), (0, vec![]));
        assert_eq!(draft(&mut lookup, &[1, 2, 3], 3), (0, vec![]));
        assert_eq!(draft(&mut lookup, &[1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3], 2), (3, vec![7, 9]));
        let ids = [1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3, 5, 2, 3];
        assert_eq!(draft(&mut lookup, &ids, 2), (2, vec![5, 2]));
        // Past its end a repetition goes on.
        assert_eq!(draft(&mut Lookup::default(), &[4, 6, 7, 6, 7], 5), (2, vec![6, 7, 6, 7, 6]));
        assert_eq!(draft(&mut Lookup::default(), &[5, 5, 5], 4), (2, vec![5; 4]));
    }

    #[test]
    fn an_index_that_grows_finds_what_a_search_of_the_whole_finds() {
        let mut random = Random::new(4);
        let ids: Vec<u32> = (0..600).map(|_| random.below(6) as u32).collect();
        let (mut grown, mut found) = (Lookup::default(), 0);
        let mut n = 0;
        while n < ids.len() {
            n = (n + 1 + random.below(3) as usize).min(ids.len());
            let ids = &ids[..n];
            let (length, got) = draft(&mut grown, ids, 4);
            assert_eq!((length, got), draft(&mut Lookup::default(), ids, 4));
            let common = |end: &usize| (2..=*end).take_while(|&k| ids[end - k..*end] == ids[n - k..]).last();
            let places = (2..n).rev().filter(|end| common(end).is_some()).take(PLACES);
            assert_eq!(length, places.filter_map(|end| common(&end)).max().unwrap_or(0));
            found += usize::from(length > 2);
        }
        assert!(found > 100, "{found}");
    }
}
