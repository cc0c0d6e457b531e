//! `huozi chat`: a conversation, line by line.

mod commands;
mod editor;
mod input;
mod keyboard;
mod keys;
mod settings_command;

#[cfg(test)]
pub(super) use settings_command::set;

use super::args::ChatCommand;
use super::exit::Usage;
use super::load::{self, SessionArgs};
use super::printer::{Printer, visible};
use super::settings::{Config, show_notes};
use super::show::{Show, Verbosity};
use super::signal::Signals;
use crate::commands::{ChatCommandName, TypedText};
use crate::open::Loaded;
use crate::session::catalog::xdg;
use crate::session::{Answer, Error, Event, Session, Stop, store};
use anyhow::{Result, anyhow};
use commands::{ChatState, Outcome, directory, keep_named, put};
use editor::LineEditor;
use huozi_token::ChatError;
use input::{ChatInput, EditedLines, PlainLines, TypedMessage};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &ChatCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.model.as_deref())?;
    let model = load::open(&path, &load::talking(config, &args.model.load)?)?;
    let wanted = SessionArgs {
        chat: &args.chat,
        sampling: &args.sampling,
        history: args.history,
        chats: true,
        answers: None,
    };
    let mut session = load::session(&model, config, &wanted)?;
    let verbosity = Verbosity::new(args.quiet, args.verbose, &args.sampling, session.settings());
    let mut name = None;
    if let Some(given) = &args.load {
        // A typed flag comes before the saved conversation.
        let typed = (args.chat.typed.patch.system.is_some() || args.chat.system_file.is_some())
            .then(|| session.settings().system.clone());
        let folder = directory()?;
        let found = store::find(&folder, given)?;
        let conversation = store::load(&folder, &found, &model.fingerprint()?)?;
        show_notes(&found, &conversation.invalid, args.quiet);
        put(&mut session, conversation);
        if let Some(typed) = typed {
            session.settings_mut().system = typed;
        }
        name = Some(found);
    }
    let start = TalkStart { name, keep_history: !args.no_history, verbosity };
    talk(&mut session, &model, start, signals, printer)
}

/// What a chat begins with.
pub struct TalkStart {
    /// What the session's conversation was loaded from.
    pub name: Option<String>,
    /// Whether typed lines are kept on disk.
    pub keep_history: bool,
    /// What is said.
    pub verbosity: Verbosity,
}

/// `$XDG_STATE_HOME/huozi/history`: the lines that were typed; `None` without a home.
fn history_file() -> Option<PathBuf> {
    xdg("XDG_STATE_HOME", ".local/state").map(|base| base.join("huozi").join("history"))
}

/// Whether the terminal can be edited in: it moves the cursor, and what is shown goes to it.
fn can_edit() -> bool {
    let term = std::env::var("TERM").unwrap_or_default();
    io::stdin().is_terminal()
        && io::stdout().is_terminal()
        && !["", "dumb", "cons25", "emacs"].contains(&term.to_ascii_lowercase().as_str())
}

fn input<'a>(keep_history: bool, signals: &'a Signals) -> ChatInput<'a> {
    let typed = io::stdin().is_terminal();
    if can_edit() {
        let history = history_file().filter(|_| keep_history);
        match LineEditor::new(history, store::directory()) {
            Ok(editor) => return ChatInput::new(EditedLines { editor, signals }),
            Err(why) => eprintln!("huozi: lines cannot be edited: {why}"),
        }
    }
    ChatInput::new(PlainLines::new(io::stdin().lock(), typed, signals))
}

/// Talks until the input ends.
///
/// # Errors
/// Standard output went away, a signal, an engine that fails.
pub fn talk(
    session: &mut Session,
    model: &Loaded,
    start: TalkStart,
    signals: &Signals,
    printer: &mut Printer,
) -> Result<()> {
    let TalkStart { name, keep_history, mut verbosity } = start;
    let interactive = io::stdin().is_terminal();
    if interactive {
        signals.chat_mode();
    }
    let mut input = input(keep_history, signals);
    let mut state = ChatState { name, ..ChatState::default() };
    let mut failures = 0;
    let mut fail = |what: &str| {
        failures += 1;
        eprintln!("huozi: {}", visible(what));
    };
    // The next message takes the place of the last question.
    let mut revises = false;
    if interactive && verbosity.notes {
        eprintln!("{}: {}", model.path().display(), session.info().runs_on);
        eprintln!("/help lists the commands, Ctrl+C stops an answer, Ctrl+D quits");
    }
    loop {
        let message = match input.message() {
            Ok(Some(message)) => message,
            end => {
                // A script that is to keep what it says has `/save`.
                if interactive {
                    keep_named(session, model, &mut state);
                }
                end?;
                break;
            }
        };
        if interactive {
            signals.rearm();
        }
        let revising = std::mem::take(&mut revises);
        let ask = match asked(&message) {
            Asked::Nothing => continue,
            Asked::Unknown(name) => {
                fail(&format!("/{name} is no command; /help lists them"));
                continue;
            }
            Asked::Say(text) if revising => Ask::Revised(text),
            Asked::Say(text) => Ask::New(text),
            Asked::Command(command, rest) => match commands::run(command, rest, session, model, &mut state) {
                Ok(Outcome::Say(text)) => {
                    eprintln!("{}", visible(&text));
                    if let (ChatCommandName::Private, Some(editor)) = (command, input.editor()) {
                        editor.set_private(state.private);
                    }
                    continue;
                }
                Ok(Outcome::Begin(text)) => {
                    eprintln!("{}", visible(&text));
                    if let Some(editor) = input.editor() {
                        editor.new_conversation();
                    }
                    continue;
                }
                Ok(Outcome::Retry) => Ask::Again,
                Ok(Outcome::Revise(text)) => Ask::Revised(text),
                Ok(Outcome::Edit(question)) => {
                    match input.begin_with(&question) {
                        true => revises = true,
                        false => fail("/edit TEXT asks TEXT in place of the last question"),
                    }
                    continue;
                }
                Ok(Outcome::Quit) => {
                    if interactive {
                        keep_named(session, model, &mut state);
                    }
                    break;
                }
                Err(error) => {
                    fail(&super::exit::line(&error));
                    continue;
                }
            },
        };
        let mut show = Show::new(printer, verbosity, true, signals.cancel());
        let result: Result<Answer, Error> = signals.while_busy(|cancel| {
            let on = &mut |event| show.event(&event);
            match ask {
                Ask::New(text) => session.ask(&text, cancel, on),
                Ask::Again => session.retry(cancel, on),
                Ask::Revised(text) => revise(session, &text, cancel, on),
            }
        });
        show.finish()?;
        match result {
            Ok(answer) => {
                state.last = Some(answer.stats);
                state.unsaved = true;
                verbosity.seed = false;
            }
            // The conversation is as it was: the person can say something else.
            Err(error) => match &error {
                Error::QueryTooLong { .. } => fail(&format!("{error}; {TOO_LONG}")),
                Error::NothingToRetry | Error::EmptyPrompt => fail(&error.to_string()),
                Error::Chat(why) if !matches!(why, ChatError::NoFormat) => fail(&error.to_string()),
                _ => return Err(failed(error)),
            },
        }
        // At a terminal a stopped answer does not end the chat; a script ends.
        signals.check().or_else(|signal| {
            if interactive && signal.0 == super::exit::INTERRUPTED { Ok(()) } else { Err(signal) }
        })?;
    }
    // At a terminal the errors have been seen.
    if interactive || failures == 0 {
        return Ok(());
    }
    Err(anyhow!("{failures} of the lines failed"))
}

/// Asks `question` in place of the last one; without an answer the exchange that was there stays.
fn revise(
    session: &mut Session,
    question: &str,
    cancel: &AtomicBool,
    on: &mut dyn FnMut(Event),
) -> Result<Answer, Error> {
    let (turns, dropped, date) = (session.turns().to_vec(), session.dropped(), session.date());
    let replaced = session.replaced().clone();
    session.undo().ok_or(Error::NothingToRetry)?;
    let result = session.ask(question, cancel, on);
    let unanswered = matches!(&result, Ok(answer) if answer.stop == Stop::Cancelled && answer.ids.is_empty());
    if result.is_err() || unanswered {
        session.restore(turns);
        session.set_date(date);
        session.set_replaced(replaced);
        session.resume_at(dropped);
    }
    result
}

/// A session's error as an error of the program: a model without a chat format was asked in the wrong way.
pub fn failed(error: Error) -> anyhow::Error {
    match error {
        Error::Chat(ChatError::NoFormat) => Usage(error.to_string()).into(),
        Error::QueryTooLong { .. } | Error::TextTooLong { .. } => {
            anyhow!("{error}; {TOO_LONG}")
        }
        error => error.into(),
    }
}

enum Ask {
    New(String),
    Again,
    Revised(String),
}

/// What was typed.
#[derive(Debug, PartialEq)]
enum Asked<'a> {
    Nothing,
    Say(String),
    Command(ChatCommandName, &'a str),
    Unknown(&'a str),
}

fn asked(message: &TypedMessage) -> Asked<'_> {
    if message.text.trim().is_empty() {
        return Asked::Nothing;
    }
    if message.block {
        return Asked::Say(message.text.clone());
    }
    match TypedText::read(&message.text) {
        TypedText::Command(command, rest) => Asked::Command(command, rest),
        TypedText::Unknown(name) => Asked::Unknown(name),
        TypedText::Message(text) => Asked::Say(text.trim_end_matches(['\r', '\n']).to_owned()),
    }
}

/// What to do about [`Error::QueryTooLong`].
const TOO_LONG: &str = "shorten it, or give a larger context with -c";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_messages() {
        let typed = |text: &str, block| TypedMessage { text: text.into(), block };
        assert_eq!(asked(&typed("  ", false)), Asked::Nothing);
        assert_eq!(asked(&typed(" \n ", true)), Asked::Nothing);
        assert_eq!(asked(&typed("/set  top_k 3 ", false)), Asked::Command(ChatCommandName::Set, "top_k 3"));
        assert_eq!(asked(&typed("/nosuch", false)), Asked::Unknown("nosuch"));
        for (text, block, said) in [
            ("//x", false, "/x"),
            ("/a\nb", false, "/a\nb"),
            ("春 /help", false, "春 /help"),
            ("/usr/bin/env", false, "/usr/bin/env"),
            ("/quit", true, "/quit"),
        ] {
            assert_eq!(asked(&typed(text, block)), Asked::Say(said.into()), "{text}");
        }
    }
}
