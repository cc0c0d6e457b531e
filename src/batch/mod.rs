//! Many prompts from a file to a file of results: `huozi batch`.
//!
//! ```text
//! input file --input: check, index--> Row --input::prepare (tokenizer, chat format)--> Prepared
//!   --runner: window, complete--> Outcome --output: result line--> OUT.partial --finish--> OUT
//! ```

pub mod input;
mod memory;
pub mod output;
mod row;
mod run;

pub use memory::{MemoryPlan, TooLittleMemory, plan};
pub use row::{Endpoint, Prepared, Prompt, Row, RowError, RowOptions, RowSeed};
pub use run::{FeedError, Results, RowSource, RunError, RunProgress, WINDOW_ROWS, common_prefix, run};
