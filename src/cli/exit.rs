//! Exit codes, and which error gives which.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; also when the reader of standard output went away |
//! | 1 | failed |
//! | 2 | wrong usage |
//! | 3 | some rows of a batch failed |
//! | 4 | bad model or input file |
//! | 5 | not enough memory or disk |
//! | 130, 143 | interrupted by SIGINT, SIGTERM |

use super::printer::visible;
use crate::engine::EngineError;
use crate::eval;
use crate::schedule::Refused;
use crate::session::{self, catalog, store};
use std::io;

/// Done.
pub const DONE: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// A bad model or input file.
pub const BAD_FILE: u8 = 4;
/// Not enough memory or disk.
pub const NO_ROOM: u8 = 5;
/// Stopped by SIGINT.
pub const INTERRUPTED: u8 = 130;
/// Stopped by SIGTERM.
pub const TERMINATED: u8 = 143;

/// Something was asked for in the wrong way.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A file that is not there, cannot be read, or does not hold what it should.
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

/// The reader of standard output went away.
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
    if cause.is::<catalog::NotEnoughMemory>() {
        return Some(NO_ROOM);
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        match error.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                return Some(NO_ROOM);
            }
            _ => return None,
        }
    }
    if let Some(error) = cause.downcast_ref::<EngineError>() {
        return match error {
            EngineError::KvFull { .. } => Some(NO_ROOM),
            EngineError::Cancelled => Some(INTERRUPTED),
            _ => None,
        };
    }
    // These three show an engine's error as their own, so it does not stand in the chain itself.
    if let Some(error) = wrapped_engine_error(cause) {
        return code_of_cause(error);
    }
    match cause.downcast_ref() {
        Some(session::Error::BrokenModel) => return Some(BAD_FILE),
        Some(session::Error::QueryTooLong { .. }) => return Some(FAILED),
        _ => {}
    }
    if cause.is::<huozi_quant::kernels::IsaError>() {
        return Some(USAGE);
    }
    #[cfg(feature = "demo")]
    if let Some(error) = cause.downcast_ref::<crate::demo::ConvertError>() {
        use crate::demo::Kind;
        return Some(match error.kind() {
            Kind::Failed => FAILED,
            Kind::Usage => USAGE,
            Kind::BadInput => BAD_FILE,
            Kind::NoRoom => NO_ROOM,
            Kind::Interrupted => INTERRUPTED,
        });
    }
    // A full disk or too little memory below a file error counts as what it is.
    if is_bad_file(cause) {
        let mut below = cause.source();
        while let Some(deeper) = below {
            if let Some(code @ (NO_ROOM | USAGE)) = code_of_cause(deeper) {
                return Some(code);
            }
            below = deeper.source();
        }
        // Threads or kernels that the system refuses are no fault of the file.
        let system = matches!(cause.downcast_ref(), Some(crate::model::Error::System { .. }));
        return Some(if system { FAILED } else { BAD_FILE });
    }
    None
}

fn wrapped_engine_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a EngineError> {
    let refused = match cause.downcast_ref() {
        Some(session::Error::Engine(error)) => return Some(error),
        Some(session::Error::Refused(refused)) => Some(refused),
        _ => cause.downcast_ref::<Refused>(),
    };
    match (refused, cause.downcast_ref()) {
        (Some(Refused::Prompt(error)), _) | (None, Some(eval::Error::Engine(error))) => Some(error),
        _ => None,
    }
}

fn is_bad_file(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<BadFile>()
        || cause.is::<huozi_quant::gguf::Error>()
        || cause.is::<crate::model::Error>()
        || cause.is::<crate::token::Error>()
        || cause.is::<store::Error>()
        || matches!(cause.downcast_ref(), Some(eval::Error::NotFinite { .. }))
}

/// The error as one line: the whole chain, line breaks as spaces.
pub fn line(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Many errors already show their source; saying it twice helps nobody.
        if !said.iter().any(|s| s.contains(&text)) {
            said.push(text);
        }
    }
    let text = said.join(": ");
    let one = text.split(['\n', '\r']).map(str::trim).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ");
    // It may quote a file or a template: no control sequence of theirs reaches the terminal.
    visible(&one)
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
        let full = EngineError::KvFull { needed: 2, free: 1 };
        assert_eq!(code(&anyhow::Error::new(full.clone())), NO_ROOM);
        assert_eq!(code(&anyhow::Error::new(session::Error::Engine(full.clone()))), NO_ROOM);
        assert_eq!(code(&anyhow::Error::new(session::Error::Refused(full.clone().into()))), NO_ROOM);
        assert_eq!(code(&anyhow::Error::new(eval::Error::Engine(full)).context("above")), NO_ROOM);
        assert_eq!(code(&anyhow::Error::new(eval::Error::NotFinite { token: 3 })), BAD_FILE);
        assert_eq!(code(&anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe))), DONE);
        assert_eq!(
            code(&anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("x")),
            NO_ROOM
        );
    }

    #[test]
    fn one_line() {
        let error = anyhow!("inner\n  detail").context("outer");
        assert_eq!(line(&error), "outer: inner detail");
        let twice = anyhow!("b").context("a: b");
        assert_eq!(line(&twice), "a: b");
    }
}
