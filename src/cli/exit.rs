//! Exit codes, and which error gives which.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; also when the reader of standard output closed it |
//! | 1 | failed |
//! | 2 | wrong usage |
//! | 3 | some rows of a batch failed |
//! | 4 | bad model or input file |
//! | 5 | not enough memory or disk |
//! | 130, 143 | interrupted by SIGINT, SIGTERM |

use super::printer::visible;
use crate::batch::input::InputError;
use crate::batch::output::{OutputError, ShardError};
use crate::batch::{FeedError, RunError, TooLittleMemory};
use crate::bench;
use crate::complete::JobError;
use crate::engine::EngineError;
use crate::eval;
use crate::kv_file::prompt as prompt_cache;
use crate::open::{self, NotEnoughMemory};
use crate::schedule::{Refused, RequestError};
use crate::session::{self, store};
use huozi_quant::bloom::synth;
use huozi_quant::output;
use huozi_token::ChatError;
use std::io;

/// Done.
pub const DONE: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// Some rows of a batch failed.
pub const ROWS_FAILED: u8 = 3;
/// A bad model or input file.
pub const BAD_FILE: u8 = 4;
/// Not enough memory or disk.
pub const NO_ROOM: u8 = 5;
/// Stopped by SIGINT.
pub const INTERRUPTED: u8 = 130;
/// Stopped by SIGTERM.
pub const TERMINATED: u8 = 143;

/// The command line or the configuration is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A file that does not exist, cannot be read, or has the wrong content.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadFile(pub String);

/// A signal ended the work.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted(
    /// The exit code.
    pub u8,
);

/// Some rows of a batch have no answer.
#[derive(Debug, thiserror::Error)]
#[error(
    "{failed} of {rows} rows failed: their lines have an \"error\"{}",
    retry.then_some("; --retry-errors runs them again").unwrap_or_default()
)]
pub struct RowsFailed {
    /// Rows without an answer.
    pub failed: u64,
    /// All rows.
    pub rows: u64,
    /// Whether they can be run again.
    pub retry: bool,
}

/// Whether standard output was closed by its reader.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit code of an error: the first cause that has one decides.
pub fn code(error: &anyhow::Error) -> u8 {
    if is_closed_pipe(error) {
        return DONE;
    }
    error.chain().find_map(code_of_cause).unwrap_or(FAILED)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(Interrupted(code)) = cause.downcast_ref() {
        return Some(*code);
    }
    if cause.is::<Usage>() {
        return Some(USAGE);
    }
    if let Some(output::Error::Kind { .. }) = cause.downcast_ref() {
        return Some(USAGE);
    }
    if cause.is::<RowsFailed>() {
        return Some(ROWS_FAILED);
    }
    if cause.is::<NotEnoughMemory>() || cause.is::<TooLittleMemory>() {
        return Some(NO_ROOM);
    }
    if let Some(error) = cause.downcast_ref() {
        return of_batch_input(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return of_batch_run(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return of_open(error);
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        match error.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                return Some(NO_ROOM);
            }
            _ => return None,
        }
    }
    if let Some(error) = cause.downcast_ref() {
        return of_engine(error);
    }
    // These show an engine's error as their own (transparent): it is not in the chain itself.
    if let Some(error) = cause.downcast_ref() {
        return of_session(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return of_eval(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return of_bench(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return of_synth(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return of_prompt_cache(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return of_job(error);
    }
    match cause.downcast_ref() {
        Some(store::Error::Name { .. } | store::Error::Unknown { .. }) => return Some(USAGE),
        Some(store::Error::Busy { .. }) => return Some(FAILED),
        _ => {}
    }
    if let Some(error) = cause.downcast_ref() {
        return of_batch_output(error);
    }
    if cause.is::<ShardError>() || cause.is::<huozi_quant::kernels::IsaError>() {
        return Some(USAGE);
    }
    #[cfg(feature = "ggml")]
    if let Some(error) = cause.downcast_ref() {
        use crate::engine::ggml::Error;
        return Some(match error {
            Error::Load { .. } => BAD_FILE,
            Error::Option { .. } => USAGE,
            Error::Setup(_) => FAILED,
        });
    }
    #[cfg(feature = "demo")]
    if let Some(error) = cause.downcast_ref::<crate::demo::ConvertError>() {
        use crate::demo::ErrorKind;
        return Some(match error.kind() {
            ErrorKind::Failed => FAILED,
            ErrorKind::Usage => USAGE,
            ErrorKind::BadInput => BAD_FILE,
            ErrorKind::NoRoom => NO_ROOM,
            ErrorKind::Interrupted => INTERRUPTED,
        });
    }
    // A full disk or too little memory below a file error has its own code.
    if is_bad_file(cause) {
        let mut below = cause.source();
        while let Some(deeper) = below {
            if let Some(code @ (NO_ROOM | USAGE)) = code_of_cause(deeper) {
                return Some(code);
            }
            below = deeper.source();
        }
        // Threads or kernels that the system refuses are not the fault of the file.
        let system = matches!(cause.downcast_ref(), Some(crate::model::Error::System { .. }));
        return Some(if system { FAILED } else { BAD_FILE });
    }
    None
}

fn of_engine(error: &EngineError) -> Option<u8> {
    match error {
        EngineError::KvFull { .. } => Some(NO_ROOM),
        EngineError::Cancelled => Some(INTERRUPTED),
        EngineError::File(_) => Some(BAD_FILE),
        _ => None,
    }
}

/// Some of its errors show another one as their own: that one decides.
fn of_open(error: &open::Error) -> Option<u8> {
    match error {
        open::Error::File(error) => code_of_cause(error),
        open::Error::Hub(_)
        | open::Error::Unusable(_)
        | open::Error::SeveralFiles { .. }
        | open::Error::Vocabulary { .. }
        | open::Error::Chat { .. }
        | open::Error::Io { .. } => Some(BAD_FILE),
        open::Error::Memory(_) | open::Error::Lock { .. } => Some(NO_ROOM),
        open::Error::NotBuilt
        | open::Error::NoFile
        | open::Error::MlockWithGgml
        | open::Error::FlashAttentionWithNative
        | open::Error::NoChat { .. } => Some(USAGE),
        open::Error::Engine(error) => code_of_cause(error),
        #[cfg(feature = "ggml")]
        open::Error::Ggml(error) => code_of_cause(error),
        open::Error::Random(error) => of_synth(error),
        open::Error::Cancelled { .. } => Some(INTERRUPTED),
        // The converter's error below has the code.
        #[cfg(feature = "demo")]
        open::Error::Demo(_) => None,
    }
}

fn of_session(error: &session::Error) -> Option<u8> {
    match error {
        session::Error::Engine(error) | session::Error::Refused(Refused::Prompt(error)) => of_engine(error),
        session::Error::Refused(Refused::Setting(_))
        | session::Error::Chat(ChatError::NoFormat | ChatError::NoSystem(_) | ChatError::Refused(_)) => {
            Some(USAGE)
        }
        session::Error::BrokenModel | session::Error::Chat(ChatError::Template(_) | ChatError::Gguf(_)) => {
            Some(BAD_FILE)
        }
        _ => None,
    }
}

/// Of an error of the system below it, that has the code.
fn of_batch_input(error: &InputError) -> Option<u8> {
    match error {
        InputError::Cancelled => Some(INTERRUPTED),
        InputError::Copy { .. } => None,
        InputError::NoChat { .. } => Some(USAGE),
        _ => Some(BAD_FILE),
    }
}

/// Some of its errors show another one as their own: that one decides.
fn of_batch_run(error: &RunError) -> Option<u8> {
    match error {
        RunError::Feed(FeedError::Input(error)) => of_batch_input(error),
        RunError::Output(error) => code_of_cause(error),
        RunError::Engine(RequestError::Engine(error)) => of_engine(error),
        _ => None,
    }
}

fn of_eval(error: &eval::Error) -> Option<u8> {
    match error {
        eval::Error::Engine(error) => of_engine(error),
        eval::Error::Stride { .. } => Some(USAGE),
        eval::Error::TooShort { .. } | eval::Error::NotFinite { .. } | eval::Error::Vocabulary { .. } => {
            Some(BAD_FILE)
        }
    }
}

fn of_bench(error: &bench::Error) -> Option<u8> {
    match error {
        bench::Error::Engine(error) => of_engine(error),
        bench::Error::NotFinite { .. } => Some(BAD_FILE),
        _ => None,
    }
}

fn of_synth(error: &synth::Error) -> Option<u8> {
    match error {
        synth::Error::Vocabulary { .. } | synth::Error::Exists { .. } | synth::Error::Leftover { .. } => {
            Some(USAGE)
        }
        synth::Error::Output(error) => code_of_cause(error),
        synth::Error::Memory { .. } => Some(NO_ROOM),
        synth::Error::Interrupted => Some(INTERRUPTED),
        // An error of the disk is below this one.
        _ => None,
    }
}

fn of_job(error: &JobError) -> Option<u8> {
    match error {
        JobError::Refused(Refused::Prompt(error)) | JobError::Failed(RequestError::Engine(error)) => {
            of_engine(error)
        }
        JobError::Refused(Refused::Setting(_)) => Some(USAGE),
        JobError::BrokenLogits => Some(BAD_FILE),
        JobError::KvFull { .. } => Some(NO_ROOM),
        JobError::Cancelled => Some(INTERRUPTED),
        _ => None,
    }
}

fn of_prompt_cache(error: &prompt_cache::Error) -> Option<u8> {
    match error {
        prompt_cache::Error::Output(error) => code_of_cause(error),
        prompt_cache::Error::Foreign { .. }
        | prompt_cache::Error::Differs { .. }
        | prompt_cache::Error::Damaged { .. } => Some(BAD_FILE),
        prompt_cache::Error::NoKeysAndValues => Some(USAGE),
        prompt_cache::Error::Request(RequestError::Engine(error)) => of_engine(error),
        // A full disk is below this one.
        _ => None,
    }
}

fn of_batch_output(error: &OutputError) -> Option<u8> {
    match error {
        OutputError::Target(error) => code_of_cause(error),
        OutputError::Different { .. }
        | OutputError::Foreign { .. }
        | OutputError::ErrorsGone { .. }
        | OutputError::OtherOutput { .. }
        | OutputError::Source { .. }
        | OutputError::Same { .. } => Some(USAGE),
        OutputError::Manifest { .. } | OutputError::Line { .. } => Some(BAD_FILE),
        OutputError::Busy { .. } | OutputError::Unfinished { .. } | OutputError::Merge(_) => Some(FAILED),
        // The cause below has the code.
        _ => None,
    }
}

fn is_bad_file(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<BadFile>()
        || cause.is::<huozi_quant::gguf::Error>()
        || cause.is::<crate::model::Error>()
        || cause.is::<huozi_token::Error>()
        || cause.is::<store::Error>()
}

/// The error as one line: the whole chain, line breaks as spaces, control characters as visible signs (a
/// model file's template may have said it).
pub fn line(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Many errors already show their source: it is not repeated.
        if !said.iter().any(|s| s.contains(&text)) {
            said.push(text);
        }
    }
    let text = said.join(": ");
    let line =
        text.split(['\n', '\r']).map(str::trim).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ");
    visible(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn codes() {
        assert_eq!(code(&anyhow!("plain")), FAILED);
        assert_eq!(code(&anyhow::Error::new(Usage("x".into())).context("above")), USAGE);
        assert_eq!(code(&anyhow::Error::new(BadFile("x".into()))), BAD_FILE);
        assert_eq!(code(&anyhow::Error::new(Interrupted(143))), TERMINATED);
        assert_eq!(code(&anyhow::Error::new(EngineError::KvFull { needed: 2, free: 1 })), NO_ROOM);
        assert_eq!(code(&anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe))), DONE);
        assert_eq!(
            code(&anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("x")),
            NO_ROOM
        );
    }

    #[test]
    fn codes_through_the_wrappers() {
        let full = || EngineError::KvFull { needed: 2, free: 1 };
        let template = ChatError::Template("raise_exception".into());
        for (error, expected) in [
            (session::Error::Engine(full()), NO_ROOM),
            (session::Error::Engine(EngineError::Cancelled), INTERRUPTED),
            (session::Error::Refused(Refused::Prompt(full())), NO_ROOM),
            (session::Error::Refused(Refused::Prompt(EngineError::NoTokens)), FAILED),
            (session::Error::Chat(template), BAD_FILE),
            (session::Error::Chat(ChatError::NoFormat), USAGE),
            (session::Error::BrokenModel, BAD_FILE),
            (session::Error::QueryTooLong { tokens: 2, limit: 1, n_ctx: 3 }, FAILED),
        ] {
            let said = format!("{error:?}");
            assert_eq!(code(&anyhow::Error::new(error).context("above")), expected, "{said}");
        }
        for (error, expected) in [
            (eval::Error::Engine(full()), NO_ROOM),
            (eval::Error::NotFinite { token: 1 }, BAD_FILE),
            (eval::Error::Vocabulary { model: 1, base: 2 }, BAD_FILE),
            (eval::Error::TooShort { tokens: 1, chunk: 2 }, BAD_FILE),
            (eval::Error::Stride { stride: 3, chunk: 2 }, USAGE),
        ] {
            let said = format!("{error:?}");
            assert_eq!(code(&anyhow::Error::new(error)), expected, "{said}");
        }
        let path = std::path::PathBuf::from("x");
        assert_eq!(code(&anyhow::Error::new(store::Error::Name { name: "/".into() })), USAGE);
        assert_eq!(code(&anyhow::Error::new(store::Error::Busy { path })), FAILED);
    }

    #[test]
    fn nothing_in_the_line_moves_the_cursor() {
        let hostile = ChatError::Template("\x1b]0;owned\x07\u{9b}2J\u{202e}".into());
        let line = line(&anyhow::Error::new(session::Error::Chat(hostile)));
        assert!(line.contains("owned") && !line.chars().any(char::is_control), "{line:?}");
        assert!(!line.contains('\u{202e}'), "{line:?}");
    }

    #[test]
    fn one_line() {
        let error = anyhow!("inner\n  detail").context("outer");
        assert_eq!(line(&error), "outer: inner detail");
        let twice = anyhow!("b").context("a: b");
        assert_eq!(line(&twice), "a: b");
    }
}
