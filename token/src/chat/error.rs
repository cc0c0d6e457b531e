//! Why messages give no prompt.

use huozi_quant::gguf;

/// Why messages give no prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The metadata could not be read.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// The model only continues text.
    #[error("this model has no chat format and can only continue text: use `huozi run --raw`")]
    NoFormat,
    /// The model's own template is wrong.
    #[error("the chat template of the model failed: {0}")]
    Template(String),
    /// The model's own template refused the messages, with this reason.
    #[error("the chat template of the model refuses this conversation: {0}")]
    Refused(String),
    /// The model's own template refused the messages, with this reason, and takes them without the system
    /// message.
    #[error("the chat template of the model takes no system text (it says: {0}); leave it out")]
    NoSystem(String),
    /// The messages use so many private-use characters that none is left to protect them.
    #[error("the messages use too many private-use characters for the model's chat template")]
    NoStandIn,
    /// An answer given as ids holds one that does not exist.
    #[error("an answer holds the id {id}, but there are {n_vocab} tokens")]
    UnknownId {
        /// The id.
        id: u32,
        /// Number of tokens.
        n_vocab: usize,
    },
    /// The current message (with the system text) alone is longer than a prompt may be.
    #[error("the message has {tokens} tokens with what must go with it; a prompt may have {limit}")]
    TooLong {
        /// Tokens of the shortest possible prompt.
        tokens: usize,
        /// Tokens a prompt may have.
        limit: usize,
    },
}
