//! gguf (being written).
