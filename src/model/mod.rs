//! The BLOOM forward pass over mapped weights and KV blocks.
//!
//! In come token ids with their sequences and positions, out go rows of logits. It knows no text and no
//! requests.

pub mod bloom;
pub mod kv;
pub mod sink;
pub mod weights;

pub use weights::{Error, Weights};
