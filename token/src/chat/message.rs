//! The messages of a conversation.

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions in front of everything.
    System,
    /// The user.
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

    /// The name in Huozi's format.
    pub(super) fn huozi(self) -> &'static str {
        match self {
            Self::System => "系统",
            Self::User => "用户",
            Self::Assistant => "助手",
        }
    }
}

/// The content of a message.
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
    /// The author.
    pub role: Role,
    /// The content.
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
