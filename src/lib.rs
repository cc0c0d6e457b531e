//! `huozi` runs BLOOM-family language models on CPUs. (Crate docs are written when the rooms stand.)
#![forbid(unsafe_code)]

pub mod cli;
#[cfg(feature = "demo")]
pub mod demo;
pub mod engine;
pub mod eval;
pub mod model;
pub mod sample;
pub mod schedule;
pub mod session;
pub mod token;
