//! What the commands of `huozi chat` do.

use super::settings_command::set;
use crate::cli::exit::Usage;
use crate::cli::printer::visible;
use crate::cli::settings::show_notes;
use crate::cli::show::stats_line;
use crate::commands::{CHAT_COMMANDS, ChatCommandName};
use crate::lang::Lang;
use crate::open::Loaded;
use crate::session::store::{self, Conversation};
use crate::session::{Session, Stats};
use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// What `/help` says below the commands.
const HELP: &str = "Several lines: a paste is one message; Alt+Enter, or a \\ at the end, begins another \
                    line; \"\"\" opens and closes a block, which is always a message. // sends a line that \
                    begins with /. Up and Down recall, Ctrl+R searches, Tab completes. Ctrl+C stops an \
                    answer or drops what is being typed, Ctrl+D quits. What is typed during an answer waits \
                    in the next line.";
/// Columns of the help where there is no terminal, and the most it takes.
const COLUMNS: usize = 80;
/// Columns of the commands in the help; in a terminal that has not twice as many, what they do is below them.
const USAGE: usize = 17;

/// What a chat knows beside the session.
#[derive(Default)]
pub(super) struct ChatState {
    /// What the last answer of this conversation cost.
    pub(super) last: Option<Stats>,
    /// What it is kept as.
    pub(super) name: Option<String>,
    /// Whether it changed since.
    pub(super) unsaved: bool,
    /// Whether nothing of it is to be kept.
    pub(super) private: bool,
}

/// What follows a command.
pub(super) enum Outcome {
    /// This is said.
    Say(String),
    /// Another conversation begins, and this is said.
    Begin(String),
    /// The last question is asked again, for another answer.
    Retry,
    /// This question takes the place of the last.
    Revise(String),
    /// The last question is put into the next line, to be changed.
    Edit(String),
    /// The chat ends.
    Quit,
}

/// Does a command.
///
/// # Errors
/// [`Usage`] for what cannot be done; the store's errors.
pub(super) fn run(
    command: ChatCommandName,
    rest: &str,
    session: &mut Session,
    model: &Loaded,
    state: &mut ChatState,
) -> Result<Outcome> {
    Ok(Outcome::Say(match command {
        ChatCommandName::Help => help(columns()),
        ChatCommandName::Clear => {
            let said = begin(session, state, "forgotten");
            return Ok(Outcome::Begin(said));
        }
        ChatCommandName::New => {
            let kept = keep_unsaved(session, model, state)?;
            let said = begin(session, state, "a new conversation");
            return Ok(Outcome::Begin(kept + &said));
        }
        ChatCommandName::Undo => match session.undo() {
            Some(question) => {
                state.unsaved = true;
                format!("taken back: {question}")
            }
            None => "there is nothing to take back".into(),
        },
        ChatCommandName::Retry => return Ok(Outcome::Retry),
        ChatCommandName::Edit => {
            let Some(last) = session.turns().last() else {
                return Err(Usage("there is no question to edit yet".into()).into());
            };
            return Ok(match rest {
                "" => Outcome::Edit(last.question.clone()),
                text => Outcome::Revise(text.to_owned()),
            });
        }
        ChatCommandName::Back if session.bring_back() => {
            state.unsaved = true;
            match session.turns().last() {
                Some(turn) => format!("brought back: {}\n{}", turn.question, turn.answer),
                None => "brought back".into(),
            }
        }
        ChatCommandName::Back => "there is no earlier answer to bring back".into(),
        ChatCommandName::Copy => copy(session)?,
        ChatCommandName::Stats => match &state.last {
            Some(stats) => format!(
                "{}\n[{}, {} of them no longer in the prompt]",
                stats_line(stats),
                exchanges(session.turns().len()),
                session.dropped()
            ),
            None => "there is no answer in this conversation yet".into(),
        },
        ChatCommandName::Set => set(session.settings_mut(), rest)?,
        ChatCommandName::Save => save(session, model, rest, false, state)?,
        ChatCommandName::SaveOver => save(session, model, rest, true, state)?,
        ChatCommandName::Load if rest.is_empty() => listed()?,
        ChatCommandName::List => listed()?,
        ChatCommandName::Load => return Ok(Outcome::Begin(load(session, model, rest, state)?)),
        ChatCommandName::Rename => rename(rest, state)?,
        ChatCommandName::Private => {
            state.private = !state.private;
            private(state)
        }
        ChatCommandName::Model if rest.is_empty() => {
            format!("{}: {}", model.path().display(), session.info().runs_on)
        }
        ChatCommandName::Model => {
            return Err(Usage("another model needs another chat: huozi chat -m FILE".into()).into());
        }
        ChatCommandName::Quit => return Ok(Outcome::Quit),
        ChatCommandName::Attach
        | ChatCommandName::Export
        | ChatCommandName::Editor
        | ChatCommandName::Raw
        | ChatCommandName::Language => {
            let row = command.row();
            let instead = row.not_in_chat.unwrap_or_default();
            return Err(Usage(format!("/{} works in huozi-tui only: {instead}", row.name)).into());
        }
    }))
}

/// Begins an empty conversation.
fn begin(session: &mut Session, state: &mut ChatState, said: &str) -> String {
    session.clear();
    format!("{said}{}", not_private_any_more(&std::mem::take(state)))
}

/// What is said of a conversation that follows the one of `left`, which may have been private.
fn not_private_any_more(left: &ChatState) -> &'static str {
    if left.private { "; this one can be saved, and lines are kept again" } else { "" }
}

fn help(columns: usize) -> String {
    let rows = CHAT_COMMANDS.iter().filter(|row| row.not_in_chat.is_none());
    let lines = rows.map(|row| {
        let others = row.aliases.iter().map(|name| format!("/{name}"));
        let others = Vec::from_iter(others).join(", ");
        let others = if others.is_empty() { others } else { format!(" (also {others})") };
        let (usage, what) = (row.usage(Lang::En), format!("{}{others}", row.help[0]));
        match columns < 3 * USAGE {
            true => format!("{usage}\n{}\n", wrapped(&what, "  ", columns)),
            false => format!("{usage:<USAGE$}{}\n", wrapped(&what, &" ".repeat(USAGE), columns).trim_start()),
        }
    });
    lines.collect::<String>() + &wrapped(HELP, "", columns)
}

/// The columns of the terminal of standard error.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok().map(|size| usize::from(size.ws_col));
    size.filter(|&columns| columns > 0).unwrap_or(COLUMNS).min(COLUMNS)
}

/// ASCII `text` in rows of less than `columns`, which begin with `indent`.
fn wrapped(text: &str, indent: &str, columns: usize) -> String {
    let mut rows = Vec::new();
    let mut row = indent.to_owned();
    for word in text.split(' ') {
        if row.len() > indent.len() {
            if row.len() + 1 + word.len() >= columns {
                rows.push(std::mem::replace(&mut row, indent.to_owned()));
            } else {
                row.push(' ');
            }
        }
        row.push_str(word);
    }
    rows.push(row);
    rows.join("\n")
}

fn private(state: &ChatState) -> String {
    match (&state.name, state.private) {
        (Some(name), true) => format!(
            "nothing more of this conversation is kept, and none of its lines in the history; {name} stays \
             as it was saved"
        ),
        (None, true) => {
            "nothing of this conversation is kept, and none of its lines in the history; /private again \
             ends that"
                .into()
        }
        (_, false) => {
            "this conversation can be saved again; lines are kept in the history from here on".into()
        }
    }
}

/// The last answer to the clipboard of the terminal.
fn copy(session: &Session) -> Result<String> {
    let Some(last) = session.turns().last() else {
        return Err(Usage("there is no answer to copy yet".into()).into());
    };
    let sequence = format!("\x1b]52;c;{}\x07", STANDARD.encode(&last.answer));
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let to: &mut dyn Write = match (err.is_terminal(), out.is_terminal()) {
        (true, _) => &mut err,
        (_, true) => &mut out,
        _ => return Err(Usage("there is no terminal whose clipboard could take it".into()).into()),
    };
    to.write_all(sequence.as_bytes())?;
    to.flush()?;
    Ok("copied, if the terminal allows it (OSC 52)".into())
}

fn exchanges(n: usize) -> String {
    format!("{n} exchange{}", if n == 1 { "" } else { "s" })
}

/// Keeps a conversation that would be lost; says so.
fn keep_unsaved(session: &Session, model: &Loaded, state: &ChatState) -> Result<String> {
    if !state.unsaved || state.private || session.turns().is_empty() {
        return Ok(String::new());
    }
    let (kept, said) = match &state.name {
        Some(name) => (name.clone(), "saved as"),
        None => (store::fresh_name(&directory()?), "the unsaved conversation is kept as"),
    };
    write(session, model, &kept, None)?;
    Ok(format!("{said} {kept}\n"))
}

/// At the end of a chat: a conversation that was saved or loaded goes on in its file; says so.
pub(super) fn keep_named(session: &Session, model: &Loaded, state: &mut ChatState) {
    if state.name.is_none() {
        return;
    }
    match keep_unsaved(session, model, state) {
        Ok(said) => eprint!("{}", visible(&said)),
        Err(error) => eprintln!("huozi: not saved: {}", visible(&crate::cli::exit::line(&error))),
    }
    state.unsaved = false;
}

fn load(session: &mut Session, model: &Loaded, typed: &str, state: &mut ChatState) -> Result<String> {
    let directory = directory()?;
    let name = store::find(&directory, typed)?;
    let loaded = store::load(&directory, &name, &model.fingerprint()?)?;
    let mut said = String::new();
    if state.unsaved && !state.private && !session.turns().is_empty() {
        // The one that is loaded may be the file that it was loaded from itself.
        let kept = store::fresh_name(&directory);
        write(session, model, &kept, None)?;
        said = format!("the unsaved conversation is kept as {kept}\n");
    }
    show_notes(&name, &loaded.invalid, false);
    put(session, loaded);
    said += &format!("loaded {name}: {}", exchanges(session.turns().len()));
    let left = std::mem::replace(state, ChatState { name: Some(name), ..ChatState::default() });
    said += not_private_any_more(&left);
    Ok(said)
}

/// The saved conversations, as `/load` takes them.
fn listed() -> Result<String> {
    let directory = directory()?;
    let entries = store::list(&directory);
    if entries.is_empty() {
        return Ok(format!("there is no saved conversation in {}", directory.display()));
    }
    let now = SystemTime::now();
    let lines = entries.iter().map(|entry| {
        let title = if entry.title == entry.name { String::new() } else { format!("  {}", entry.title) };
        format!("{}  ({}){title}", entry.name, age(now.duration_since(entry.modified).unwrap_or_default()))
    });
    Ok(Vec::from_iter(lines).join("\n") + "\n/load NAME or TITLE continues one")
}

fn age(time: Duration) -> String {
    match time.as_secs() / 60 {
        0 => "just now".into(),
        minutes @ 1..60 => format!("{minutes} min ago"),
        minutes @ 60..2880 => format!("{} h ago", minutes / 60),
        minutes => format!("{} days ago", minutes / 1440),
    }
}

/// Keeps the conversation, and never hides another one unless told to `replace` it.
fn save(
    session: &Session,
    model: &Loaded,
    typed: &str,
    replace: bool,
    state: &mut ChatState,
) -> Result<String> {
    if state.private {
        return Err(Usage("nothing of this conversation is kept; /private ends that".into()).into());
    }
    let directory = directory()?;
    let name = match (typed, &state.name) {
        ("", Some(name)) => name.clone(),
        ("", None) => store::fresh_name(&directory),
        (typed, _) => typed.to_owned(),
    };
    if store::path(&directory, &name)?.exists() {
        if session.turns().is_empty() {
            return Err(Usage(format!("nothing was said yet: {name} stays as it is")).into());
        }
        if !replace && state.name.as_ref() != Some(&name) {
            let what = format!(
                "{name} is another conversation; /save! {name} puts this one in its place, \
                 /save finds a new name"
            );
            return Err(Usage(what).into());
        }
    }
    let path = write(session, model, &name, Some(typed).filter(|typed| !typed.is_empty()))?;
    let said = format!("saved as {name} ({})", path.display());
    state.name = Some(name);
    state.unsaved = false;
    Ok(said)
}

/// Gives the saved conversation another title; its name stays.
fn rename(title: &str, state: &ChatState) -> Result<String> {
    match (&state.name, title) {
        (_, "") => Err(Usage("/rename TITLE".into()).into()),
        (None, _) => Err(Usage(format!("this conversation is not saved yet: /save {title}")).into()),
        (Some(name), title) => {
            store::rename(&directory()?, name, title)?;
            Ok(format!("{name} is called {title}"))
        }
    }
}

/// A name that was typed is its title, too.
fn write(session: &Session, model: &Loaded, name: &str, title: Option<&str>) -> Result<PathBuf> {
    let system = session.settings().system.clone();
    let (title, turns, date) = (title.map(str::to_owned), session.turns().to_vec(), session.date());
    let conversation = Conversation { title, system, turns, date, ..Conversation::default() };
    Ok(store::save(&directory()?, name, &conversation, &model.fingerprint()?)?)
}

/// Puts a stored conversation into the session.
pub(super) fn put(session: &mut Session, conversation: Conversation) {
    session.settings_mut().system = conversation.system;
    session.restore(conversation.turns);
    session.set_replaced(conversation.replaced);
    session.set_date(conversation.date);
}

/// Where conversations are kept.
///
/// # Errors
/// [`Usage`] without a home folder.
pub(super) fn directory() -> Result<PathBuf> {
    store::directory()
        .ok_or_else(|| Usage("neither XDG_DATA_HOME nor HOME says where to keep it".into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_fits_into_the_terminal() {
        for columns in [40, 50, 60, 80] {
            let help = help(columns);
            assert!(help.lines().all(|line| line.len() < columns), "{columns}:\n{help}");
            for row in CHAT_COMMANDS.iter().filter(|row| row.not_in_chat.is_none()) {
                assert!(help.lines().any(|line| line.starts_with(&row.usage(Lang::En))), "{}", row.name);
            }
        }
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        for (seconds, said) in
            [(59, "just now"), (3600, "1 h ago"), (3599, "59 min ago"), (200_000, "2 days ago")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), said);
        }
    }
}
