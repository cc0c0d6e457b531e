//! What a batch leaves: result lines, resume, shards.
//!
//! In: rows with what came of them, in the order in which they end. Out: `OUT`, a line of JSON for each row
//! in the form of OpenAI's batch results, and `OUT.manifest.json`, which says what was run.
//!
//! ```text
//! Prepared, Outcome --line--> bytes --partial: append--> OUT.partial --finish: order--> OUT
//! OUT.manifest.json + OUT.partial --start--> what is done already      PARTS --merge--> OUT
//! ```
//!
//! Until the end only `OUT.partial` grows, a write for each line; it is locked by the process that writes it.
//! The manifest is written before the first row. At the end the lines are copied in order to
//! `OUT.finishing`, this is renamed to `OUT`, the manifest gets lengths and digests, and `OUT.partial` goes.
//! A process that ends at any moment leaves files from which the same command goes on.

mod error;
mod finish;
mod line;
mod log_probs;
mod manifest;
mod merge;
mod partial;
mod row_list;
mod shard;
mod start;
mod summary;
mod writer;

pub use error::OutputError;
pub use line::LineContext;
pub use manifest::{
    FileRecord, InputIdentity, Manifest, ModelIdentity, RunIdentity, RunRecord, manifest_path,
};
pub use merge::{MergeOptions, merge};
pub use partial::partial_path;
pub use shard::{Shard, ShardError};
pub use start::{FileOptions, FindRow, ResultOrder};
pub use summary::BatchSummary;
pub use writer::{OpenedOutput, ResultWriter};
