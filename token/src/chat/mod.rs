//! Messages to the ids of a prompt.
//!
//! In: messages of a conversation and its date. Out: ids that end where the assistant's next answer begins.
//! Three formats: Huozi's own, built from ids directly; a model's own template; none, for models
//! that only continue text.
//!
//! The text of a message never becomes a control token: the markers are put in as
//! ids, the text between them is tokenised plain. An answer may be given as the ids that the
//! model generated; they are put in as they are.

mod date;
mod error;
mod huozi;
mod message;
mod python;
mod stand_ins;
mod syntax;
mod template;

use huozi_quant::gguf::Meta;

pub use error::ChatError;
pub use message::{Content, Message, Role};
pub use template::Template;

/// A local date and time.
pub type DateTime = jiff::civil::DateTime;

use crate::markers;
use crate::tokenizer::Tokenizer;

/// The format in which a model takes conversations.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChatFormat {
    /// Huozi's format, with the ids of its markers.
    Huozi {
        /// The id of [`markers::BEGIN`].
        begin: u32,
        /// The id of [`markers::END`].
        end: u32,
    },
    /// The model's own template.
    Template(Box<Template>),
    /// None: the model only continues text.
    None,
}

impl ChatFormat {
    /// The format of a GGUF file: Huozi's if both markers are control tokens and the file's template, if any,
    /// is one that the converter writes for Huozi; else the file's template; else none.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn from_gguf(meta: Meta<'_>, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let mut format = Self::new(meta.str("tokenizer.chat_template")?, tokenizer)?;
        if let Self::Template(template) = &mut format {
            // GGUF spells the first one so.
            for (name, key) in [("sep", "seperator"), ("cls", "cls"), ("mask", "mask")] {
                if let Some(id) = meta.uint(&format!("tokenizer.ggml.{key}_token_id"))? {
                    template.add_special(&format!("{name}_token"), id, tokenizer);
                }
            }
            if let Some(tokens) = meta.strings(markers::ADDITIONAL_SPECIAL_TOKENS)? {
                template.set_additional(tokens.iter().map(str::to_owned).collect());
            }
        }
        Ok(format)
    }

    /// As [`ChatFormat::from_gguf`], with the template as text.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn new(template: Option<&str>, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let template = template.filter(|t| !t.trim().is_empty());
        let markers = markers::find(|text| tokenizer.vocab().control(text));
        match (markers, template) {
            (Some([begin, end]), t) if t.is_none_or(markers::is_own_template) => {
                Ok(Self::Huozi { begin, end })
            }
            (_, Some(template)) => Ok(Self::Template(Box::new(Template::new(template, tokenizer)?))),
            (_, None) => Ok(Self::None),
        }
    }

    /// Builds the prompts of a few short conversations.
    ///
    /// Gives the kinds of conversations that the template refuses. A model without a format refuses none:
    /// it only continues text.
    ///
    /// # Errors
    /// The template fails for a single question, or leaves its text out: no chat is possible.
    pub fn try_out(&self, tokenizer: &Tokenizer) -> Result<Vec<Refusal>, ChatError> {
        const DATE: DateTime = DateTime::constant(2024, 2, 29, 13, 5, 9, 0);
        const QUESTION: &str = "1加2等于3吗？";
        if matches!(self, Self::None) {
            return Ok(Vec::new());
        }
        let user = || Message::text(Role::User, QUESTION);
        let ids = self.prompt_ids(&[user()], DATE, tokenizer)?;
        if !tokenizer.decode(&ids, true).contains(QUESTION) {
            return Err(ChatError::Template(
                "the prompt that it gives lacks the text of the question".into(),
            ));
        }
        let several = [user(), Message::text(Role::Assistant, "等于。"), user()];
        let kinds = [
            ("a system text", vec![Message::text(Role::System, "简短。"), user()]),
            ("a second question", several.to_vec()),
        ];
        let refused = kinds.into_iter().filter_map(|(kind, messages)| {
            let error = self.prompt_ids(&messages, DATE, tokenizer).err()?;
            Some(Refusal { kind, error })
        });
        Ok(refused.collect())
    }

    /// The ids of a conversation up to where the next answer begins.
    ///
    /// `date`: of the conversation, for templates that write it. Another one may give another prompt.
    ///
    /// # Errors
    /// [`ChatError::NoFormat`] if there is none, an unknown id, a template that fails or refuses the
    /// messages.
    pub fn prompt_ids(
        &self,
        messages: &[Message],
        date: DateTime,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, ChatError> {
        check_ids(messages, tokenizer)?;
        match self {
            Self::Huozi { begin, end } => Ok(huozi::prompt_ids(*begin, *end, messages, tokenizer)),
            Self::Template(template) => template.prompt_ids(messages, date, tokenizer),
            Self::None => Err(ChatError::NoFormat),
        }
    }

    /// The ids that the prompt begins with, for any next message of the user: `messages`, which end with an
    /// answer, and the markers that follow. Ends before a token that the message's own text could become a
    /// part of.
    ///
    /// # Errors
    /// As [`ChatFormat::prompt_ids`].
    pub fn prefix_ids(
        &self,
        messages: &[Message],
        date: DateTime,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, ChatError> {
        // What prompts have in common whose next messages begin in different ways.
        let with = |next: &str| {
            self.prompt_ids(&[messages, &[Message::text(Role::User, next)]].concat(), date, tokenizer)
        };
        let mut prefix = with("?")?;
        for next in ["a", "月", "1"] {
            let common = prefix.iter().zip(&with(next)?).take_while(|(a, b)| a == b).count();
            prefix.truncate(common);
        }
        Ok(prefix)
    }

    /// The same prompt as text, control tokens spelled out: for people to read. Do not tokenise
    /// it, or what a message spells becomes real.
    ///
    /// # Errors
    /// As [`ChatFormat::prompt_ids`].
    pub fn prompt_text(
        &self,
        messages: &[Message],
        date: DateTime,
        tokenizer: &Tokenizer,
    ) -> Result<String, ChatError> {
        check_ids(messages, tokenizer)?;
        match self {
            Self::Huozi { .. } => Ok(huozi::prompt_text(messages, tokenizer)),
            Self::Template(template) => template.prompt_text(messages, date, tokenizer),
            Self::None => Err(ChatError::NoFormat),
        }
    }
}

/// A kind of conversation that a template does not take.
#[derive(Debug)]
pub struct Refusal {
    /// What it does not take: "a system text", "a second question".
    pub kind: &'static str,
    /// Why.
    pub error: ChatError,
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
