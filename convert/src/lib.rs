//! Hugging Face BLOOM checkpoint (or a GGUF file) -> one quantised GGUF file.
#![forbid(unsafe_code)]

pub mod chat;
pub mod config;
mod error;
mod meta;
pub mod names;
mod output;
pub mod pipeline;
/// Tensor -> format for each preset; what `--dry-run` prints.
pub mod plan {
    pub use huozi_quant::plan::{Preset, Wishes, format};
}
pub mod source;
pub mod synth;
pub mod vocab;
mod work;

pub use error::{Error, Kind};
