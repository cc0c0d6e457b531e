//! Quantised weight formats, the GGUF container and the CPU kernels of `huozi`.
//!
//! In: the bytes of a GGUF file, or rows of `f32`. Out: blocks, decoded rows, and products of a quantised
//! matrix with activations. Of models it knows BLOOM's sizes, tensors and mixtures of formats ([`bloom`]);
//! the forward pass, tokens and checkpoints are the business of other packages. [`files`] finds what
//! lies in the local Hugging Face cache, and says what a file is that cannot be used; [`output`] decides
//! where an output goes.
//!
//! ```text
//! {formats, tile} <- kernels <- elementwise <- attention -> kv;   {formats, kernels} <- encode
//! {buffer, formats, kernels, map, team} <- matmul;   tile <- team;   {kernels, team} <- floor
//! {formats, map} <- gguf;   {formats, gguf} <- imatrix;   {formats, gguf, kv, map, output, random} <-
//! bloom (extra <- shape <- plan <- synth);   buffer, kv, map, message, output, random, tile alone
//! message <- {gguf, bloom};   {gguf, map, message} <- files
//! ```
//!
//! All `unsafe` of the workspace lives here, each use beside the fact it rests on.

pub mod attention;
pub mod bloom;
pub mod buffer;
pub mod elementwise;
pub mod encode;
pub mod files;
pub mod floor;
pub mod formats;
pub mod gguf;
pub mod imatrix;
pub mod kernels;
pub mod kv;
pub mod map;
pub mod matmul;
pub mod message;
pub mod output;
pub mod random;
pub mod team;
pub mod tile;

pub use formats::Format;
