//! The integration tests of package `huozi-quant` in one binary, a module per subject.

mod gguf_malformed;
mod gguf_reference;
mod gguf_roundtrip;
mod gguf_split;
mod gguf_types;
