//! What `quant` knows about BLOOM: the sizes of a model, its tensors and their formats, models with random
//! weights.
//!
//! The rest of the package works on blocks, rows and files of any model.

pub mod extra;
pub mod plan;
pub mod shape;
pub mod synth;
