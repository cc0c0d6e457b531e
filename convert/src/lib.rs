//! Hugging Face BLOOM checkpoint (or a GGUF file) -> one quantised GGUF file.
#![forbid(unsafe_code)]

pub mod chat;
pub mod config;
mod error;
pub mod names;
pub mod pipeline;
pub mod plan;
pub mod source;
pub mod vocab;

pub use error::{Error, Kind};
