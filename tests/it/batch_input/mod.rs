//! The input of a batch: forms of files and rows, settings, errors, ids and seeds, memory.

mod files;
mod rows;

use crate::common::{NEVER, model};
use huozi::batch::Prepared;
use huozi::batch::input::{
    BadRow, CheckedInput, InputError, InputFile, InputOptions, RowPreparer, RunDefaults,
};
use huozi::complete::{AnswerOptions, ChoiceOptions, Task};
use huozi_convert::plan::Preset;
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use huozi_token::{ChatFormat, DateTime, Message, Role, Specials, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const DATE: DateTime = DateTime::constant(2026, 3, 1, 12, 0, 0, 0);
const N_CTX: usize = 256;

fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let read = || {
        let reader = Reader::open(&model("nano", Preset::F16), How::Read).unwrap();
        Arc::new(Tokenizer::from_gguf(reader.meta()).unwrap())
    };
    TOKENIZER.get_or_init(read).clone()
}

fn chat_format() -> ChatFormat {
    ChatFormat::new(None, &tokenizer()).unwrap()
}

fn preparer_with(defaults: RunDefaults) -> Arc<RowPreparer> {
    Arc::new(RowPreparer::new(tokenizer(), chat_format(), DATE, N_CTX, defaults))
}

fn preparer() -> Arc<RowPreparer> {
    preparer_with(RunDefaults::default())
}

struct File {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, bytes: impl AsRef<[u8]>) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    File { folder, path }
}

fn check_path(
    path: &Path,
    options: &InputOptions,
    preparer: Arc<RowPreparer>,
) -> Result<CheckedInput, InputError> {
    InputFile::open(path, options, &NEVER)?.check(preparer, &mut |_| {}, &NEVER)
}

fn check_as(name: &str, bytes: impl AsRef<[u8]>, options: &InputOptions) -> Result<CheckedInput, InputError> {
    check_path(&file(name, bytes).path, options, preparer())
}

fn check(name: &str, bytes: impl AsRef<[u8]>) -> CheckedInput {
    check_as(name, bytes, &InputOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(name: &str, bytes: impl AsRef<[u8]>) -> String {
    check_as(name, bytes, &InputOptions::default()).err().expect("refused").to_string()
}

fn rows(input: &CheckedInput) -> Vec<Result<Prepared, BadRow>> {
    (0..input.len()).map(|row| input.prepared(row).unwrap()).collect()
}

/// The only row of an input of one JSON line.
fn row(value: &Value) -> Result<Prepared, BadRow> {
    rows(&check("in.jsonl", value.to_string())).pop().unwrap()
}

fn answers(row: &Prepared) -> &AnswerOptions {
    match &row.job.task {
        Task::Answers(answers) => answers,
        Task::Choices(_) => panic!("choices"),
    }
}

fn choices(row: &Prepared) -> &ChoiceOptions {
    match &row.job.task {
        Task::Choices(choices) => choices,
        Task::Answers(_) => panic!("answers"),
    }
}

fn chat_ids(messages: &[Message]) -> Vec<u32> {
    chat_format().prompt_ids(messages, DATE, &tokenizer()).unwrap()
}

fn text_ids(text: &str) -> Vec<u32> {
    tokenizer().encode(text, Specials::Plain)
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}
