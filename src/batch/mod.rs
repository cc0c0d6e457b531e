//! Many prompts from a file to a file of results: `huozi batch`.
//!
//! ```text
//! input file --input: check, index--> Row --input::prepare (tokenizer, chat format)--> Prepared
//!   --runner: window, complete--> Outcome --output: result line--> OUT.partial --finish--> OUT
//! ```

pub mod output;
mod row;

pub use row::{Endpoint, Prepared, Prompt, Row, RowError, RowOptions, RowSeed};
