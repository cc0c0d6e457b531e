//! Whether the metadata of a model file can run: the one judgement that the converter, `verify`, `doctor` and
//! the program itself share.

use huozi_quant::gguf::Meta;

use crate::chat::{ChatError, ChatFormat, Refusal};
use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// Why the metadata of a file cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The vocabulary.
    #[error(transparent)]
    Vocabulary(#[from] Error),
    /// The chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
}

/// Opens the tokenizer and the chat format of a file, as everything that runs the file does. Gives the kinds
/// of conversations that the template refuses, too.
///
/// # Errors
/// What makes the file unusable.
pub fn open(meta: Meta<'_>) -> Result<(Tokenizer, ChatFormat, Vec<Refusal>), Unusable> {
    let tokenizer = Tokenizer::from_gguf(meta)?;
    let (format, refusals) = chat_format(meta, &tokenizer)?;
    Ok((tokenizer, format, refusals))
}

/// The chat format of a file, tried out, and the kinds of conversations that its template refuses.
///
/// # Errors
/// A template that does not work.
pub fn chat_format(meta: Meta<'_>, tokenizer: &Tokenizer) -> Result<(ChatFormat, Vec<Refusal>), ChatError> {
    let format = ChatFormat::from_gguf(meta, tokenizer)?;
    let refusals = format.try_out(tokenizer)?;
    Ok((format, refusals))
}
