//! A checkpoint as a list of tensors whose rows can be read as `f32`, in any layout.
//!
//! In: a directory of `model.safetensors` or `pytorch_model.bin`, whole or in shards, or a model's name in
//! the local Hugging Face cache, or files in memory, or a GGUF file. Out: names, shapes and rows. Bytes are
//! read by range when they are asked for, so a checkpoint may be larger than memory. What the tensors mean is
//! not known here.
//!
//! Everything in these files is taken as hostile: any content at all gives an answer or an [`Error`].

mod allowed;
mod checkpoint;
mod dtype;
mod error;
mod index;
mod input;
mod limits;
mod pickle;
mod rows;
mod safetensors;
mod tensor;
mod torch;
mod values;
mod zip;

pub use checkpoint::{AbsentTensor, Checkpoint, CheckpointKind};
pub use dtype::Dtype;
pub use error::{Error, shown};
pub(crate) use error::{quoted, shown_json};
pub use huozi_quant::files::hub::CacheEnv;
pub(crate) use input::Inode;
pub(crate) use limits::MAX_TOKENIZER_BYTES;
pub use tensor::SourceTensor;
