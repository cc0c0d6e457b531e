//! The input of a batch: from a file in any of its forms to rows that are ready to run.
//!
//! ```text
//! file, standard input --source: gzip, encodings, copy--> bytes by offset --records--> record
//!   --parse {strict, fields, messages}--> what a row asks
//!   --prepare (settings of the run, tokenizer, chat format)--> Prepared
//! check: all rows once, in chunks on all cores --> index of 28 bytes a row --> any row by its number
//! ```
//!
//! Every row is read twice: when the input is checked, and when it runs; a row that is not the same both
//! times ends the run.

mod check;
mod error;
mod fields;
mod follow;
mod form;
mod index;
mod messages;
mod parse;
mod prepare;
mod records;
mod source;
mod strict;

pub use check::{BadRow, CheckCounts, CheckProgress, CheckedInput};
pub use error::InputError;
pub use fields::{MAX_ANSWERS, MAX_CHOICES, MAX_STOP_BYTES, MAX_STOPS, MAX_TOP_LOGPROBS};
pub use follow::FollowedInput;
pub use form::InputForm;
pub use parse::MAX_ID_BYTES;
pub use prepare::{RowPreparer, RunDefaults};
pub use records::MAX_RECORD_BYTES;
pub use source::{InputFile, InputOptions};
