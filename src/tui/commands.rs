//! Commands: messages that begin with a slash, for terminals without the keys. Their names and what they mean
//! are in [`crate::commands`].

use super::keys::Action;
use crate::commands::{ChatCommandName, TypedText};

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlashCommand {
    /// What a key does.
    Act(Action),
    /// Change the last question to this text and ask it.
    Revise(String),
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
    /// Say where the conversation is saved.
    Saved,
    /// Open the conversation of this name or title.
    Open(String),
    /// Say what the last answer cost.
    Stats,
    /// A name that no command has.
    Unknown(String),
}

/// The command that `text` is; `None` for a message.
pub fn command(text: &str) -> Option<SlashCommand> {
    let (command, rest) = match TypedText::read(text) {
        TypedText::Command(command, rest) => (command, rest),
        TypedText::Unknown(name) => return Some(SlashCommand::Unknown(name.to_owned())),
        TypedText::Message(_) => return None,
    };
    let given = (!rest.is_empty()).then(|| rest.to_owned());
    let or_act =
        |make: fn(String) -> SlashCommand, action| given.clone().map_or(SlashCommand::Act(action), make);
    Some(match command {
        ChatCommandName::Help => SlashCommand::Act(Action::Help),
        // What was said stays among the conversations, and in the trash when it is deleted there.
        ChatCommandName::New | ChatCommandName::Clear => SlashCommand::Act(Action::New),
        ChatCommandName::Undo => SlashCommand::Act(Action::Undo),
        ChatCommandName::Retry => SlashCommand::Act(Action::Retry),
        ChatCommandName::Edit => or_act(SlashCommand::Revise, Action::EditLast),
        ChatCommandName::Back => SlashCommand::Act(Action::BringBack),
        ChatCommandName::Copy => SlashCommand::Act(Action::Copy),
        ChatCommandName::Stats => SlashCommand::Stats,
        ChatCommandName::Set => match rest.split_once([' ', '=']) {
            Some((key, value)) => {
                SlashCommand::Set(key.to_owned(), value.trim_start_matches(['=', ' ']).to_owned())
            }
            None => {
                given.map_or(SlashCommand::Act(Action::Settings), |key| SlashCommand::Set(key, String::new()))
            }
        },
        ChatCommandName::Save | ChatCommandName::SaveOver | ChatCommandName::Rename => {
            given.map_or(SlashCommand::Saved, SlashCommand::Rename)
        }
        ChatCommandName::Load => or_act(SlashCommand::Open, Action::Talks),
        ChatCommandName::List => SlashCommand::Act(Action::Talks),
        ChatCommandName::Private => SlashCommand::Act(Action::Private),
        ChatCommandName::Model => SlashCommand::Act(Action::Models),
        ChatCommandName::Attach => or_act(SlashCommand::AttachFile, Action::Attach),
        ChatCommandName::Export => SlashCommand::ExportTo(given),
        ChatCommandName::Editor => SlashCommand::Act(Action::Editor),
        ChatCommandName::Raw => SlashCommand::Act(Action::Raw),
        ChatCommandName::Language => or_act(SlashCommand::Language, Action::Language),
        ChatCommandName::Quit => SlashCommand::Act(Action::Quit),
    })
}

/// Whether `text` is the command that ends the program.
pub fn is_quit(text: &str) -> bool {
    matches!(TypedText::read(text), TypedText::Command(ChatCommandName::Quit, _))
}

/// The message that `text` is, which is no command.
pub fn message(text: &str) -> &str {
    match TypedText::read(text) {
        TypedText::Message(message) => message,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_ask_for() {
        let rename = |title: &str| Some(SlashCommand::Rename(title.into()));
        for (typed, expected) in [
            ("/clear", Some(SlashCommand::Act(Action::New))),
            ("/stats", Some(SlashCommand::Stats)),
            ("/save", Some(SlashCommand::Saved)),
            ("/save 春 天", rename("春 天")),
            ("/save! 春", rename("春")),
            ("/load", Some(SlashCommand::Act(Action::Talks))),
            ("/load 春", Some(SlashCommand::Open("春".into()))),
            ("/edit", Some(SlashCommand::Act(Action::EditLast))),
            ("/edit 春", Some(SlashCommand::Revise("春".into()))),
            ("/set", Some(SlashCommand::Act(Action::Settings))),
            ("/set greedy=on", Some(SlashCommand::Set("greedy".into(), "on".into()))),
            ("/set top_k  3", Some(SlashCommand::Set("top_k".into(), "3".into()))),
            ("/foo", Some(SlashCommand::Unknown("foo".into()))),
            ("//foo", None),
        ] {
            assert_eq!(command(typed), expected, "{typed}");
        }
        assert!(is_quit("/bye") && !is_quit("//bye") && message("//bye") == "/bye");
    }
}
