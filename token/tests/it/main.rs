//! From the bytes and ids of an answer to its text.

mod decode_stream;
mod text_stream;
