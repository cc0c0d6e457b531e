//! The order in which rows run: those whose prompts begin with the same tokens are neighbours.

use super::super::input::{CheckedInput, InputError};
use rayon::prelude::*;

/// Rows of a window where results may come in any order.
pub const WINDOW_ROWS: usize = 16 << 10;
/// Bytes of the ids of its prompts, which are in memory while it is sorted.
const ID_BYTES: usize = 32 << 20;
/// Rows that are read at once.
const CHUNK: usize = 512;

/// Rows in the order in which they run, a window after the other.
pub(super) struct Windows {
    rows: std::vec::IntoIter<u32>,
    /// Rows of a window.
    most: usize,
}

impl Windows {
    /// `rows`: ascending; `most` of them in a window.
    pub fn new(rows: Vec<u32>, most: usize) -> Self {
        Self { rows: rows.into_iter(), most: most.max(1) }
    }

    /// The next window, sorted by the ids of the prompts; rows that fail come first. `None` at the end.
    pub fn next(&mut self, input: &CheckedInput) -> Result<Option<Vec<u32>>, InputError> {
        let mut window: Vec<(Vec<u32>, u32)> = Vec::new();
        let mut bytes = 0;
        while window.len() < self.most && bytes < ID_BYTES {
            let chunk = self.rows.by_ref().take(CHUNK.min(self.most - window.len())).collect::<Vec<_>>();
            if chunk.is_empty() {
                break;
            }
            let read = |row: u32| {
                let ids = input.prepared(row as usize)?.map_or(Vec::new(), |prepared| prepared.job.prompt);
                Ok((ids, row))
            };
            let chunk = chunk.into_par_iter().map(read).collect::<Result<Vec<_>, InputError>>()?;
            bytes += chunk.iter().map(|(ids, _)| size_of_val(&ids[..])).sum::<usize>();
            window.extend(chunk);
        }
        window.par_sort_unstable();
        Ok((!window.is_empty()).then(|| window.into_iter().map(|(_, row)| row).collect()))
    }
}

/// What the prompts of all `rows` begin with; rows that fail do not count.
///
/// # Errors
/// As [`CheckedInput::prepared`].
pub fn common_prefix(input: &CheckedInput, rows: &[u32]) -> Result<Vec<u32>, InputError> {
    let read = |&row: &u32| Ok(input.prepared(row as usize)?.ok().map(|prepared| prepared.job.prompt));
    let shorter = |a: Option<Vec<u32>>, b: Option<Vec<u32>>| match (a, b) {
        (Some(mut a), Some(b)) => {
            a.truncate(a.iter().zip(&b).take_while(|(a, b)| a == b).count());
            Ok(Some(a))
        }
        (a, b) => Ok(a.or(b)),
    };
    let prefix = rows.par_iter().map(read).try_reduce(|| None, shorter)?;
    Ok(prefix.unwrap_or_default())
}
