//! Messages to the ids of a prompt.
//!
//! In: messages of a conversation. Out: ids that end where the assistant's next answer begins.
//! Three formats: Huozi's own, built from ids directly; a model's own template; none, for models
//! that only continue text.
//!
//! Whatever a message spells, its text never becomes a control token: the markers are put in as
//! ids, the text between them is tokenised plain. An answer may be given as the ids that the
//! model generated; they are put in as they are.

use huozi_quant::gguf::{self, Meta};

use crate::template::Template;
use crate::{Specials, Tokenizer};

/// Begins every block of Huozi's format.
pub const BEGIN: &str = "<|beginofutterance|>";
/// Ends every block of Huozi's format.
pub const END: &str = "<|endofutterance|>";

/// The system text of Huozi's format when a conversation has none.
pub const DEFAULT_SYSTEM: &str = "你是“活字”，由哈尔滨工业大学自然语言处理研究所训练的人工智能助手。\
请用自然、准确、有条理的语言回答用户的问题，并帮助用户完成任务。";

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions in front of everything.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name in templates: `system`, `user`, `assistant`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    fn huozi(self) -> &'static str {
        match self {
            Self::System => "系统",
            Self::User => "用户",
            Self::Assistant => "助手",
        }
    }
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text, tokenised plain.
    Text(String),
    /// The ids of an answer as generated, without the token that ended it.
    Ids(Vec<u32>),
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
}

impl Message {
    /// A message of text.
    #[must_use]
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: Content::Text(text.into()) }
    }

    /// An answer of the assistant as the ids generated, without the token that ended it.
    #[must_use]
    pub fn answer(ids: impl Into<Vec<u32>>) -> Self {
        Self { role: Role::Assistant, content: Content::Ids(ids.into()) }
    }
}

/// Why messages gave no prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The metadata could not be read.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// The model only continues text.
    #[error("this model has no chat format and can only continue text: use `huozi run --raw`")]
    NoFormat,
    /// The model's own template is wrong or refused the messages.
    #[error("the chat template of the model failed: {0}")]
    Template(String),
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

/// How a model wants its conversations.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChatFormat {
    /// Huozi's format, with the ids of its markers.
    Huozi {
        /// The id of [`BEGIN`].
        begin: u32,
        /// The id of [`END`].
        end: u32,
    },
    /// The model's own template.
    Template(Box<Template>),
    /// The model continues text and knows no conversation.
    None,
}

impl ChatFormat {
    /// The format of a GGUF file: Huozi's if both markers are control tokens and the file's
    /// template, if any, uses them; else the file's template; else none.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn from_gguf(meta: Meta<'_>, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        Self::new(meta.str("tokenizer.chat_template")?, tokenizer)
    }

    /// As [`ChatFormat::from_gguf`], with the template as text.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn new(template: Option<&str>, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let template = template.filter(|t| !t.trim().is_empty());
        let markers = (tokenizer.vocab().control(BEGIN), tokenizer.vocab().control(END));
        match (markers, template) {
            ((Some(begin), Some(end)), t) if t.is_none_or(|t| t.contains(BEGIN)) => {
                Ok(Self::Huozi { begin, end })
            }
            (_, Some(template)) => Ok(Self::Template(Box::new(Template::new(template, tokenizer)?))),
            (_, None) => Ok(Self::None),
        }
    }

    /// The ids of a conversation up to where the next answer begins.
    ///
    /// # Errors
    /// [`ChatError::NoFormat`] if there is none, an unknown id, a template that fails.
    pub fn prompt_ids(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>, ChatError> {
        check_ids(messages, tokenizer)?;
        match self {
            Self::Huozi { begin, end } => Ok(huozi_ids(*begin, *end, messages, tokenizer)),
            Self::Template(template) => template.prompt_ids(messages, tokenizer),
            Self::None => Err(ChatError::NoFormat),
        }
    }

    /// The same prompt as text, control tokens spelled out: for people to read. Do not tokenise
    /// it, or what a message spells becomes real.
    ///
    /// # Errors
    /// As [`ChatFormat::prompt_ids`].
    pub fn prompt_text(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<String, ChatError> {
        check_ids(messages, tokenizer)?;
        match self {
            Self::Huozi { .. } => Ok(huozi_text(messages, tokenizer)),
            Self::Template(template) => template.prompt_text(messages, tokenizer),
            Self::None => Err(ChatError::NoFormat),
        }
    }
}

fn check_ids(messages: &[Message], tokenizer: &Tokenizer) -> Result<(), ChatError> {
    let n_vocab = tokenizer.vocab().n_vocab();
    for message in messages {
        if let Content::Ids(ids) = &message.content
            && let Some(&id) = ids.iter().find(|&&id| id as usize >= n_vocab)
        {
            return Err(ChatError::UnknownId { id, n_vocab });
        }
    }
    Ok(())
}

/// The messages with the default system text in front if they do not begin with one.
fn with_system(messages: &[Message]) -> impl Iterator<Item = (Role, Option<&Content>)> {
    let given = messages.first().is_some_and(|m| m.role == Role::System);
    let default = (!given).then_some((Role::System, None));
    default.into_iter().chain(messages.iter().map(|m| (m.role, Some(&m.content))))
}

fn huozi_ids(begin: u32, end: u32, messages: &[Message], tokenizer: &Tokenizer) -> Vec<u32> {
    let mut ids = Vec::new();
    for (role, content) in with_system(messages) {
        ids.push(begin);
        // The role and the text are one piece: tokens may reach across the line break.
        let mut text = format!("{}\n", role.huozi());
        match content {
            None => text.push_str(DEFAULT_SYSTEM),
            Some(Content::Text(t)) => text.push_str(t),
            Some(Content::Ids(_)) => {}
        }
        tokenizer.encode_into(&text, Specials::Plain, &mut ids);
        if let Some(Content::Ids(answer)) = content {
            ids.extend_from_slice(answer);
        }
        ids.push(end);
        tokenizer.encode_into("\n", Specials::Plain, &mut ids);
    }
    ids.push(begin);
    tokenizer.encode_into(&format!("{}\n", Role::Assistant.huozi()), Specials::Plain, &mut ids);
    ids
}

fn huozi_text(messages: &[Message], tokenizer: &Tokenizer) -> String {
    let mut text = String::new();
    for (role, content) in with_system(messages) {
        text.push_str(&format!("{BEGIN}{}\n", role.huozi()));
        match content {
            None => text.push_str(DEFAULT_SYSTEM),
            Some(Content::Text(t)) => text.push_str(t),
            Some(Content::Ids(ids)) => text.push_str(&tokenizer.decode(ids, true)),
        }
        text.push_str(&format!("{END}\n"));
    }
    text.push_str(&format!("{BEGIN}{}\n", Role::Assistant.huozi()));
    text
}
