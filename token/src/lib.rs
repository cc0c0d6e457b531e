//! Text to token ids and back, chat formats, and the limits of a conversation.
//!
//! In: the vocabulary of a GGUF file, text, messages. Out: ids, and text from the bytes of ids. Knows nothing
//! of models, engines or sampling.
//!
//! The ids are those that the `tokenizers` crate gives with the checkpoint's `tokenizer.json`, in both modes
//! of [`Specials`]. Message text is always tokenised with [`Specials::Plain`]: text that spells a control
//! token never becomes one.
//!
//! ```text
//! {error, markers} <- parts <- vocabulary <- {added, bpe} <- tokenizer <- chat <- {history, usable}
//! {decode_stream, vocabulary} <- text_stream
//! ```
#![forbid(unsafe_code)]

mod added;
pub mod bpe;
pub mod chat;
pub mod decode_stream;
mod error;
pub mod history;
pub mod markers;
pub mod parts;
pub mod text_stream;
mod tokenizer;
pub mod usable;
pub mod vocabulary;

pub use chat::{ChatError, ChatFormat, Content, DateTime, Message, Refusal, Role};
pub use decode_stream::DecodeStream;
pub use error::Error;
pub use history::{FittedPrompt, HistoryLimit, HistoryRule, PromptLimits};
pub use parts::VocabularyParts;
pub use text_stream::TextStream;
pub use tokenizer::{Specials, TextPart, Tokenizer};
pub use vocabulary::{TokenKind, Vocabulary};
