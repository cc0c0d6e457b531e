//! Huozi's own format, built from ids directly: `begin` role newline text `end` newline for each message, the
//! system message first.

use super::message::{Content, Message, Role};
use crate::markers::{BEGIN, DEFAULT_SYSTEM, END};
use crate::tokenizer::{Specials, Tokenizer};

/// The messages with the default system text in front if they do not begin with one.
fn with_system(messages: &[Message]) -> impl Iterator<Item = (Role, Option<&Content>)> {
    let given = messages.first().is_some_and(|m| m.role == Role::System);
    let default = (!given).then_some((Role::System, None));
    default.into_iter().chain(messages.iter().map(|m| (m.role, Some(&m.content))))
}

pub(super) fn prompt_ids(begin: u32, end: u32, messages: &[Message], tokenizer: &Tokenizer) -> Vec<u32> {
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

pub(super) fn prompt_text(messages: &[Message], tokenizer: &Tokenizer) -> String {
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
