//! GGUF, the container of names, numbers and weights: reads versions 2 and 3, writes 3, little-endian.
//!
//! In come the bytes of a file, out go metadata, tensor descriptions and views of the tensors' bytes; or the
//! other way round. Nothing here does arithmetic on weights or knows what a metadata key means
//! (`general.alignment` apart, which moves the tensors).
//!
//! ```text
//! "GGUF" | version u32 | n_tensors u64 | n_kv u64
//! n_kv      x { key: string | value type u32 | value }             string = length u64 | bytes
//! n_tensors x { name: string | n_dims u32 | dims u64... | type u32 | offset u64 }
//! padding to the alignment | tensor data, each tensor padded to the alignment
//! ```
//!
//! A model may be split over several files ([`split`]), which are read as one.
//!
//! A file is checked as a whole when it is opened: the limits are in [`limits`], and [`Rule`] names each
//! check. After that no access can fail, except a typed look-up of a value that has another type.

pub mod check;
mod error;
mod foreign;
mod header;
pub mod limits;
mod meta;
mod owned;
mod read;
pub mod split;
mod tensor;
mod write;

pub(crate) use error::shown;
pub use error::{Error, Malformed, Place, Rule};
pub use foreign::ForeignTensor;
pub use meta::{Array, Ints, Meta, Strings, Value, ValueType, Values};
pub use owned::MetaValue;
pub(crate) use read::is_whole;
pub use read::{Part, Reader};
pub use tensor::TensorInfo;
pub use write::{Layout, TensorSpec, Writer};
