//! Quantised weight formats, the GGUF container and the CPU kernels of `huozi`.
//!
//! In come the bytes of a GGUF file or rows of `f32`; out go blocks, decoded rows, and products of a quantised
//! matrix with activations. This crate knows nothing about models, tokens or checkpoints.
//!
//! ```text
//! {formats, team} <- kernels <- elementwise <- attention;   {buffer, formats, kernels, map, team} <- matmul;   {formats, kernels} <- encode
//! {formats, map} <- gguf <- shape -> attention;   {formats, shape} <- plan;   {formats, gguf, map, plan, shape} <- synth
//! {kernels, team} <- floor;   team, map, buffer alone
//! ```
//!
//! All `unsafe` of the workspace lives here, each use beside the fact it rests on.

pub mod attention;
pub mod buffer;
pub mod elementwise;
pub mod encode;
pub mod floor;
pub mod formats;
pub mod gguf;
pub mod kernels;
pub mod map;
pub mod matmul;
pub mod plan;
pub mod shape;
pub mod synth;
pub mod team;

pub use formats::Format;
