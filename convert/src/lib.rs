//! Hugging Face BLOOM checkpoint (or a GGUF file) -> one quantised GGUF file.
#![forbid(unsafe_code)]

pub mod names;
pub mod pipeline;
pub mod plan;
pub mod source;
pub mod vocab;
