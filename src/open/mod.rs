//! From a model to an engine: the only place where models are opened.
//!
//! In: a [`Source`] (a GGUF file, the name of a model in the local Hugging Face cache, the built-in demo
//! model, a GGUF in memory, random weights of a shape), [`OpenOptions`], a progress callback, a cancel flag.
//! Out: a [`Loaded`] model, which gives the reader of the file, the shape, the tokenizer, the chat format, a
//! forecast of the memory, and engines with the [`Room`] that is asked for.
//!
//! [`open`] reads the header only (the demo model is converted, random weights are made). The weights are
//! brought in by [`Loaded::engine`], after the memory has been checked. Nothing here prints.

mod error;
mod fingerprint;
mod folders;
mod hub;
mod loaded;
mod memory;
mod options;
mod source;

pub use error::Error;
pub use fingerprint::fingerprint;
pub use folders::xdg;
pub use hub::hub_folders;
pub use loaded::{Loaded, engines, open};
pub use memory::{Memory, NotEnoughMemory, check_memory, forecast, resident_bytes};
pub use options::{OpenOptions, OpenProgress, OpenStep, Room, silent};
pub use source::{Source, is_model_name, locate, snapshot_note};
