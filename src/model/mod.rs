//! The BLOOM forward pass over quantised weights and KV blocks.

pub mod kv;

/// Why a file is no model that runs here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// placeholder
    #[error("{0}")]
    Other(String),
}
