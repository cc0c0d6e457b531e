//! Commands: messages that begin with a slash, for terminals without the keys.

use super::keys::Action;
use std::borrow::Cow;

/// Names of the command that ends the program.
const QUIT: [&str; 3] = ["quit", "bye", "exit"];

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlashCommand {
    /// What a key does.
    Act(Action),
    /// The language of the interface.
    Language(String),
    /// A setting and its value.
    Set(String, String),
    /// Attach this file.
    AttachFile(String),
    /// Export, to this file or to one that is named by the title.
    ExportTo(Option<String>),
    /// Another title for the conversation.
    Rename(String),
    /// A name that no command has.
    Unknown(String),
}

/// The command that `text` is; `None` for a message.
pub fn command(text: &str) -> Option<SlashCommand> {
    let (name, rest) = parse(text)?;
    let of = || rest.to_owned();
    let action = match name {
        "help" => Action::Help,
        "new" | "clear" => Action::New,
        "undo" => Action::Undo,
        "retry" | "regen" => Action::Retry,
        "edit" => Action::EditLast,
        "back" => Action::BringBack,
        "copy" => Action::Copy,
        "list" | "load" => Action::Talks,
        "settings" | "show" => Action::Settings,
        "model" => Action::Models,
        "raw" => Action::Raw,
        "private" => Action::Private,
        "lang" if !rest.is_empty() => return Some(SlashCommand::Language(of())),
        "lang" => Action::Language,
        "editor" => Action::Editor,
        "attach" if !rest.is_empty() => return Some(SlashCommand::AttachFile(of())),
        "attach" => Action::Attach,
        "export" => return Some(SlashCommand::ExportTo((!rest.is_empty()).then(of))),
        "save" | "rename" if !rest.is_empty() => return Some(SlashCommand::Rename(of())),
        "set" => {
            match rest.split_once([' ', '=']).map(|(key, value)| (key, value.trim_start_matches(['=', ' '])))
            {
                Some((key, value)) => return Some(SlashCommand::Set(key.to_owned(), value.to_owned())),
                None if !rest.is_empty() => return Some(SlashCommand::Set(of(), String::new())),
                None => Action::Settings,
            }
        }
        name if QUIT.contains(&name) => Action::Quit,
        name => return Some(SlashCommand::Unknown(name.to_owned())),
    };
    Some(SlashCommand::Act(action))
}

/// The name of the command that `text` is and what follows it; `None` for a message.
fn parse(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let rest = text.strip_prefix('/')?;
    if rest.starts_with('/') || rest.contains('\n') || rest.is_empty() {
        return None;
    }
    let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    // A path or a date is no command.
    name.chars().all(|c| c.is_ascii_alphabetic()).then_some((name, rest.trim()))
}

/// Whether `text` is the command that ends the program.
pub fn is_quit(text: &str) -> bool {
    parse(text).is_some_and(|(name, _)| QUIT.contains(&name))
}

/// The message that `text` is: `//` stands for a slash at its beginning.
pub fn message(text: &str) -> &str {
    match text.strip_prefix("//") {
        Some(_) => &text[1..],
        None => text,
    }
}

/// What is typed to send `message`.
pub fn written(message: &str) -> Cow<'_, str> {
    match message.starts_with("//") || parse(message).is_some() {
        true => Cow::Owned(format!("/{}", message.trim_start())),
        false => Cow::Borrowed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_messages() {
        assert_eq!(parse("/help"), Some(("help", "")));
        assert_eq!(parse(" /set top_k  3 "), Some(("set", "top_k  3")));
        for text in ["//help", "/", "a /help", "/usr/bin", "/help\nme", "/1", "春"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(message("//help"), "/help");
        assert_eq!(message("a"), "a");
        for sent in ["/help", "//help", "///", "/set a b", "a", "/usr/bin", "/", "a\n/help", ""] {
            let typed = written(sent);
            assert!(parse(&typed).is_none() && message(&typed) == sent, "{sent}: {typed}");
        }
    }
}
