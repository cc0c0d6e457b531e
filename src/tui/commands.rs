//! Commands: messages that begin with a slash, for terminals without the keys.

use super::app::{App, Tone};
use super::ask::{Ask, Wish, wish_for};
use super::event::Effect;
use super::export;
use super::keys::Action;
use super::panels::Panel;
use super::settings::{Item, put, unknown};
use super::update::{act, is_switching, quit};
use super::worker::ModelTask;
use std::borrow::Cow;
use std::time::Instant;

/// Names of the command that ends the program.
const QUIT: [&str; 3] = ["quit", "bye", "exit"];

/// The command that `text` is and what follows its name; `None` for a message.
pub fn parse(text: &str) -> Option<(&str, &str)> {
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

/// Does a command; the input is emptied if it is one.
pub fn run(app: &mut App, name: &str, rest: &str, now: Instant) -> Vec<Effect> {
    app.flash = None;
    let action = match name {
        "help" => Action::Help,
        "new" | "clear" => Action::New,
        "undo" => Action::Undo,
        "retry" | "regen" => Action::Retry,
        "edit" => Action::EditLast,
        "copy" => Action::Copy,
        "list" | "load" => Action::Talks,
        "settings" | "show" => Action::Settings,
        "model" => Action::Models,
        "raw" => Action::Raw,
        "private" => Action::Private,
        "lang" if !rest.is_empty() => {
            app.input.take();
            return put(app, Item::Language, rest, now);
        }
        "lang" => Action::Language,
        "editor" => Action::Editor,
        name if QUIT.contains(&name) => Action::Quit,
        "set" => {
            let (key, value) = rest.split_once([' ', '=']).unwrap_or((rest, ""));
            app.input.take();
            let value = value.trim_start_matches(['=', ' ']);
            return match Item::find(key) {
                Some(item) if !value.is_empty() => {
                    let effects = put(app, item, value, now);
                    if !effects.is_empty() {
                        app.flash(format!("{key} = {value}"), Tone::Note, now);
                    }
                    effects
                }
                None if !key.is_empty() => {
                    app.flash(unknown(key, app.lang()), Tone::Error, now);
                    Vec::new()
                }
                _ => act(app, Action::Settings, now),
            };
        }
        "attach" if !rest.is_empty() => {
            app.input.take();
            return wish_for(app, Wish::Attach, rest, now);
        }
        "attach" => Action::Attach,
        "export" => {
            app.input.take();
            let name = if rest.is_empty() { export::name(app) } else { rest.to_owned() };
            return wish_for(app, Wish::Export, &name, now);
        }
        "save" | "rename" if !rest.is_empty() => {
            if is_switching(app, now) {
                return Vec::new();
            }
            app.input.take();
            return vec![Effect::Work(ModelTask::Rename(rest.to_owned()))];
        }
        _ => {
            let said = format!(
                "/{name}: {}",
                app.say(
                    "no such command; /help, or // to send it",
                    "没有此命令；/help 查看，以 // 开头可原样发送"
                )
            );
            app.flash(said, Tone::Error, now);
            return Vec::new();
        }
    };
    app.input.take();
    if action == Action::Quit {
        return quit(app, now);
    }
    if action == Action::Attach {
        app.panel = Some(Panel::Ask(Ask::new(Wish::Attach, "")));
        return Vec::new();
    }
    act(app, action, now)
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
