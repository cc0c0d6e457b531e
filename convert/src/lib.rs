//! Hugging Face BLOOM checkpoint (or a GGUF file) -> one quantised GGUF file.
#![forbid(unsafe_code)]

pub mod chat;
pub mod config;
mod error;
mod forecast;
mod imatrix;
mod journal;
mod meta;
mod model;
pub mod names;
mod options;
mod output;
mod partial;
pub mod pipeline;
pub mod plan;
mod progress;
mod reference;
mod report;
pub mod source;
pub mod synth;
mod template;
mod usable;
mod verify;
pub mod vocab;
mod work;

pub use error::{Error, ErrorKind};
pub use forecast::{Forecast, KvMemory, OutputForecast, TensorForecast};
pub use options::{Options, Source, TemplateChoice};
pub use progress::Progress;
pub use report::{FormatCount, OutputFile, OutputReport, Report, Summary, TensorLoss};
