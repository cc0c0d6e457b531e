//! Which rows of a batch a machine takes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A share of the rows: those whose id hashes to `index` of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which share, from 0.
    pub index: u32,
    /// The number of shares, above `index`.
    pub count: u32,
}

/// What was asked for is no share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShardError(String);

impl Shard {
    /// Share `index` of `count`.
    ///
    /// # Errors
    /// Where `index` is not below `count`.
    pub fn new(index: u32, count: u32) -> Result<Self, ShardError> {
        if index < count {
            return Ok(Self { index, count });
        }
        Err(ShardError(format!("shard {index}/{count}: shards are numbered from 0, so I must be below N")))
    }

    /// The share of a task of a Slurm array: its index is `SLURM_ARRAY_TASK_ID`; the number of shares is
    /// `shards`, or else the number of tasks, which says the same only for an array `0-(N-1)` without a step.
    ///
    /// `variable`: the value of an environment variable.
    ///
    /// # Errors
    /// Outside of an array, for an index that is not below the number of shares, and where the array does not
    /// say how many shares there are.
    pub fn slurm(variable: impl Fn(&str) -> Option<String>, shards: Option<u32>) -> Result<Self, ShardError> {
        let value = |name: &str| -> Result<Option<u32>, ShardError> {
            let name = format!("SLURM_ARRAY_TASK_{name}");
            let Some(text) = variable(&name) else { return Ok(None) };
            let number = text.trim().parse();
            number.map(Some).map_err(|_| ShardError(format!("--shard slurm: {name} is no number: {text:?}")))
        };
        let index = value("ID")?.ok_or_else(|| {
            ShardError(
                "--shard slurm: SLURM_ARRAY_TASK_ID is not set: start the job as an array (sbatch \
                 --array=0-7 ...), or name the shard with --shard I/N"
                    .to_owned(),
            )
        })?;
        if let Some(count) = shards {
            return Self::new(index, count).map_err(|_| {
                ShardError(format!(
                    "--shard slurm: SLURM_ARRAY_TASK_ID is {index}, but --shards {count} numbers them from 0 \
                     to {}",
                    count.saturating_sub(1)
                ))
            });
        }
        let array = [value("COUNT")?, value("MIN")?, value("MAX")?, value("STEP")?];
        if let [Some(count), Some(0), Some(max), Some(1)] = array
            && max.checked_add(1) == Some(count)
        {
            return Self::new(index, count);
        }
        let [count, min, max, step] =
            array.map(|value| value.map_or("not set".to_owned(), |n| n.to_string()));
        Err(ShardError(format!(
            "--shard slurm: the array does not say how many shards there are (SLURM_ARRAY_TASK_COUNT \
             {count}, MIN {min}, MAX {max}, STEP {step}; it does where MIN is 0, MAX is COUNT - 1 and STEP \
             is 1): say --shards N"
        )))
    }

    /// Whether it has the row with this id: the first eight bytes of the SHA-256 of the id, as a
    /// little-endian number, modulo `count` are `index`.
    #[must_use]
    pub fn holds(self, id: &str) -> bool {
        id_hash(id) % u64::from(self.count) == u64::from(self.index)
    }

    /// The name that it gives to an output: `out.jsonl.0-of-4`.
    #[must_use]
    pub fn path(self, out: &Path) -> PathBuf {
        let mut name = out.as_os_str().to_owned();
        name.push(format!(".{}-of-{}", self.index, self.count));
        name.into()
    }
}

/// The first eight bytes of the SHA-256 of an id as a little-endian number.
pub(super) fn id_hash(id: &str) -> u64 {
    let digest = Sha256::digest(id.as_bytes());
    digest.iter().take(8).rev().fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let (index, count) = numbers.ok_or_else(|| {
            ShardError(format!("shard {text:?}: must be I/N, such as 0/4, or slurm in a job array"))
        })?;
        Self::new(index, count)
    }
}
