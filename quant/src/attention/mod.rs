//! ALiBi attention of one head over KV blocks, without a mask tensor.
//!
//! A block holds [`BLOCK`](crate::kv::BLOCK) positions. Keys lie transposed, `[head_dim][64]`, values
//! `[64][head_dim]`, so scores and weighted values are the same product: factors broadcast, rows of stored
//! numbers streamed, one lane per output, nothing summed across lanes. Up to six queries share the stored
//! numbers once they are loaded and widened. They may be of several sequences: blocks that these have in
//! common come from memory once, and serve the further tiles of six from the cache.
//!
//! Every output is summed in one order (scores over `head_dim`, the rest over positions, oldest first), and
//! far keys are passed over by a rule that looks at one query alone: a query's bits depend neither on how
//! many queries run beside it nor on what else runs in the step. Instruction sets that fuse multiplication
//! and addition agree bit for bit with each other; portable code without it rounds twice and differs in the
//! last places.

mod attend;
mod head;
mod store;
mod tile;
mod value;
mod wide;

pub use attend::{alibi_slopes, attend, group};
pub use head::{HeadBlock, HeadBlockMut, Queries, QueryPlace, Rows};
pub use store::store;
pub use value::KvValue;

#[cfg(test)]
mod tests;
