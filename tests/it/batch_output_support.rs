//! Batches of made-up results.

use huozi::batch::output::{
    BatchSummary, FileOptions, InputIdentity, LineContext, ModelIdentity, OpenedOutput, OutputError,
    ResultWriter, RunIdentity,
};
use huozi::batch::{Endpoint, Prepared, RowError};
use huozi::complete::{
    AnswerOptions, Finish, Job, JobAnswer, JobResult, JobUsage, Outcome, Task, TokenLogProb,
};
use huozi::sample::Sampling;
use huozi_token::{Tokenizer, VocabularyParts};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The id of `</s>`; below it, an id is its byte.
pub const END: u32 = 256;
/// The id of the two last bytes of 好.
pub const HAO_END: u32 = 257;

/// A vocabulary of all bytes.
pub fn tokenizer() -> Arc<Tokenizer> {
    let mut beyond = 256;
    let mut printable = |byte: u32| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from_u32(byte).unwrap().to_string(),
        _ => {
            beyond += 1;
            char::from_u32(beyond - 1).unwrap().to_string()
        }
    };
    let mut tokens: Vec<String> = (0..256).map(&mut printable).collect();
    tokens.extend(["</s>".to_owned(), "\u{a5}\u{bd}".to_owned()]);
    let mut types = vec![1; 258];
    types[END as usize] = 3;
    let parts = VocabularyParts {
        tokens: tokens.iter().map(String::as_str).collect(),
        types,
        merges: vec!["\u{a5} \u{bd}"],
        eos: Some(END.into()),
        ..VocabularyParts::default()
    };
    Arc::new(Tokenizer::from_parts(&parts).unwrap())
}

pub fn context() -> LineContext {
    LineContext { tokenizer: tokenizer(), model: "nano".to_owned(), seed: 7 }
}

pub fn asked(id: &str, endpoint: Endpoint, log_probs: Option<usize>) -> Prepared {
    let options = AnswerOptions {
        sampling: Sampling::default(),
        seeds: vec![1],
        max_new: 9,
        stop_ids: vec![END],
        stop: vec![],
        log_probs,
        speculate: false,
    };
    let job = Job { prompt: vec![65, 66], task: Task::Answers(options), n_ctx: 64 };
    Prepared { id: id.to_owned(), line: 1, endpoint, model: None, seed: 7, choices: vec![], job }
}

pub fn answered(text: &str, finish: Finish, log_probs: Vec<TokenLogProb>) -> Outcome {
    let answer =
        JobAnswer { text: text.to_owned(), ids: text.bytes().map(u32::from).collect(), finish, log_probs };
    let usage = JobUsage {
        prompt_tokens: 5,
        reused_tokens: 3,
        computed_tokens: 2,
        generated_tokens: 4,
        prompt_seconds: 0.25,
        generate_seconds: 1.0 / 3.0,
        ..JobUsage::default()
    };
    Outcome { completed: JobResult::Answers(vec![answer]), usage }
}

pub fn failed() -> RowError {
    RowError { code: "invalid_json", message: "no \"JSON\"\n".to_owned(), param: Some("x".to_owned()) }
}

/// Lines without the time.
pub fn untimed(text: &str) -> Vec<Value> {
    let one = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if let Some(body) = line.pointer_mut("/response/body") {
            assert!(body["created"].as_u64().unwrap() > 1_700_000_000);
            body["created"] = 0.into();
        }
        line
    };
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(one).collect()
}

pub fn identity(rows: usize) -> RunIdentity {
    let settings = json!({"seed": 7, "temperature": 0.1_f32, "max_new": 9});
    RunIdentity {
        version: "0.1.0".to_owned(),
        model: ModelIdentity { name: "nano".to_owned(), fingerprint: "00ff".to_owned() },
        engine: "native".to_owned(),
        kv_type: "f16".to_owned(),
        isa_class: "x86_64-fused".to_owned(),
        date: None,
        input: InputIdentity { sha256: "abcd".to_owned(), rows, form: "jsonl".to_owned() },
        settings: settings.as_object().unwrap().clone(),
        shard: None,
    }
}

pub fn id(row: usize) -> String {
    format!("row-{row}")
}

/// A batch of rows in a folder; every fifth row fails.
pub struct Batch {
    pub folder: tempfile::TempDir,
    pub options: FileOptions,
    pub identity: RunIdentity,
}

impl Batch {
    pub fn new(rows: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = FileOptions { out: folder.path().join("out.jsonl"), ..FileOptions::default() };
        Self { folder, options, identity: identity(rows) }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn try_open(&self) -> Result<OpenedOutput, OutputError> {
        let rows = self.identity.input.rows;
        ResultWriter::open(&self.options, self.identity.clone(), context(), &mut |id| {
            let row = id.strip_prefix("row-").and_then(|row| row.parse().ok());
            Ok(row.filter(|&row: &usize| row < rows))
        })
    }

    #[track_caller]
    pub fn open(&self) -> ResultWriter {
        match self.try_open().unwrap() {
            OpenedOutput::Ready(writer) => writer,
            OpenedOutput::Complete(summary) => panic!("{summary:?}"),
        }
    }

    #[track_caller]
    pub fn complete(&self) -> BatchSummary {
        match self.try_open().unwrap() {
            OpenedOutput::Ready(_) => panic!("rows are left"),
            OpenedOutput::Complete(summary) => summary,
        }
    }

    #[track_caller]
    pub fn refused(&self) -> String {
        match self.try_open() {
            Ok(_) => panic!("not refused"),
            Err(error) => error.to_string(),
        }
    }

    /// The rows of its shard.
    pub fn rows(&self) -> Vec<usize> {
        let mine = |row: &usize| self.identity.shard.is_none_or(|shard| shard.holds(&id(*row)));
        (0..self.identity.input.rows).filter(mine).collect()
    }

    /// Runs what is not done, the last row first.
    pub fn run(&self, mut writer: ResultWriter) -> BatchSummary {
        for row in self.rows().into_iter().rev().filter(|&row| !writer.is_done(row)).collect::<Vec<_>>() {
            write(&mut writer, row, row % 5 == 4);
        }
        writer.finish(self.rows().len()).unwrap()
    }

    pub fn lines(&self) -> Vec<Value> {
        untimed(&fs::read_to_string(&self.options.out).unwrap())
    }

    /// The names in the folder.
    pub fn files(&self) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(name).collect();
        names.sort();
        names
    }
}

pub fn write(writer: &mut ResultWriter, row: usize, fails: bool) {
    let text = format!("answer {row}");
    let outcome = answered(&text, Finish::EndToken(END), vec![]);
    match fails {
        true => writer.error(row, &id(row), &failed()).unwrap(),
        false => writer.result(row, &asked(&id(row), Endpoint::Chat, None), &outcome).unwrap(),
    }
}

pub fn ids(lines: &[Value]) -> Vec<usize> {
    let row = |line: &Value| line["custom_id"].as_str().unwrap()[4..].parse().unwrap();
    lines.iter().map(row).collect()
}
