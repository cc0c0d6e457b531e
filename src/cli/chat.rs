//! `huozi chat`: a conversation, line by line.

use super::args::ChatCommand;
use super::exit::Usage;
use super::load;
use super::printer::{Printer, visible};
use super::settings::{Config, show_notes};
use super::show::{Show, Verbosity, stats_line};
use super::signal::Signals;
use crate::lang::Lang;
use crate::open::Loaded;
use crate::session::store::{self, Conversation};
use crate::session::{Answer, Error, Session, Settings, Stats};
use crate::settings::{self, GivenValue, Patch, Setting, SettingGroup, SettingName};
use anyhow::{Result, anyhow};
use huozi_token::ChatError;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

const HELP: &str = "\
/help           this list
/clear          forget everything said
/undo           take the last exchange back
/retry          another answer to the last question
/set [KEY VAL]  show or change: max_new_tokens temperature repetition_penalty
                top_k top_p do_sample (or greedy) system seed
/stats          what the last answer cost
/save [NAME]    save this conversation; /save! NAME replaces another one
/load NAME      continue a saved conversation: its messages and system prompt;
                the other settings stay; an unsaved one is saved first
/quit           leave (also Ctrl+D)
A line that ends in \\ goes on in the next; \"\"\" opens and closes a block, which
is always a message; // sends a line that begins with /. Ctrl+C drops what is
being typed.";

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &ChatCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.model.as_deref())?;
    let model = load::open(&path, &load::talking(config, &args.model.load)?)?;
    let mut session = load::session(&model, config, &args.chat, &args.sampling, args.history)?;
    let verbosity = Verbosity::new(args.quiet, args.verbose, &args.sampling, session.settings());
    if let Some(name) = &args.load {
        // A typed flag comes before the saved conversation.
        let typed = (args.chat.typed.patch.system.is_some() || args.chat.system_file.is_some())
            .then(|| session.settings().system.clone());
        let conversation = store::load(&directory()?, name, &model.fingerprint()?)?;
        show_notes(name, &conversation.invalid, args.quiet);
        put(&mut session, conversation);
        if let Some(typed) = typed {
            session.settings_mut().system = typed;
        }
    }
    talk(&mut session, &model, args.load.clone(), verbosity, signals, printer)
}

/// Talks until the input ends. `name` is what the session's conversation was loaded from.
///
/// # Errors
/// Standard output went away, a signal, an engine that fails.
pub fn talk(
    session: &mut Session,
    model: &Loaded,
    name: Option<String>,
    mut verbosity: Verbosity,
    signals: &Signals,
    printer: &mut Printer,
) -> Result<()> {
    let interactive = io::stdin().is_terminal();
    if interactive {
        signals.chat_mode();
    }
    let mut input = Input { lines: io::stdin().lock(), interactive, signals, instead: None };
    let mut state = State { name, ..State::default() };
    let mut failures = 0;
    if interactive && verbosity.notes {
        eprintln!("{}: {}", model.path().display(), session.info().runs_on);
        eprintln!("/help lists the commands, Ctrl+C stops an answer, Ctrl+D quits");
    }
    while let Some(message) = input.message()? {
        if interactive {
            signals.rearm();
        }
        let line = if message.block { say(&message.text) } else { parse(&message.text) };
        let ask = match line {
            Line::Nothing => continue,
            Line::Say(text) => Some(Ask::New(text)),
            Line::Command("retry", _) => Some(Ask::Again),
            Line::Command("quit" | "exit" | "bye", _) => break,
            Line::Command(name, rest) => {
                match command(session, model, name, rest, &mut state) {
                    Ok(text) if text.is_empty() => {}
                    Ok(text) => eprintln!("{}", visible(&text)),
                    Err(error) => {
                        failures += 1;
                        eprintln!("huozi: {}", visible(&super::exit::line(&error)));
                    }
                }
                None
            }
        };
        let Some(ask) = ask else { continue };
        let mut show = Show::new(printer, verbosity, true, signals.cancel());
        let result: Result<Answer, Error> = signals.while_busy(|cancel| {
            let on = &mut |event| show.event(&event);
            match ask {
                Ask::New(text) => session.ask(&text, cancel, on),
                Ask::Again => session.retry(cancel, on),
            }
        });
        show.finish()?;
        match result {
            Ok(answer) => {
                state.last = Some(answer.stats);
                state.unsaved = true;
                verbosity.seed = false;
            }
            Err(error) => {
                // The conversation is as it was: the person can say something else.
                let said = match &error {
                    Error::QueryTooLong { .. } => format!("{error}; {TOO_LONG}"),
                    Error::NothingToRetry | Error::EmptyPrompt => error.to_string(),
                    Error::Chat(why) if !matches!(why, ChatError::NoFormat) => error.to_string(),
                    _ => return Err(failed(error)),
                };
                failures += 1;
                eprintln!("huozi: {}", visible(&said));
            }
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
}

/// What was typed.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Nothing,
    Say(String),
    Command(&'a str, &'a str),
}

/// A message as it is.
fn say(message: &str) -> Line<'_> {
    if message.trim().is_empty() { Line::Nothing } else { Line::Say(message.to_owned()) }
}

fn parse(message: &str) -> Line<'_> {
    let trimmed = message.trim();
    if trimmed.is_empty() {
        return Line::Nothing;
    }
    match trimmed.strip_prefix('/') {
        Some(rest) if rest.starts_with('/') => Line::Say(rest.to_owned()),
        // A command is one line.
        Some(rest) if !trimmed.contains('\n') => {
            let (name, args) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            Line::Command(name, args.trim())
        }
        _ => Line::Say(message.trim_end_matches(['\r', '\n']).to_owned()),
    }
}

/// What a chat knows beside the session.
#[derive(Default)]
struct State {
    /// What the last answer of this conversation cost.
    last: Option<Stats>,
    /// What it is kept as.
    name: Option<String>,
    /// Whether it changed since.
    unsaved: bool,
}

fn command(
    session: &mut Session,
    model: &Loaded,
    name: &str,
    rest: &str,
    state: &mut State,
) -> Result<String> {
    Ok(match name {
        "help" | "?" => HELP.to_owned(),
        "clear" => {
            session.clear();
            *state = State::default();
            "forgotten".into()
        }
        "undo" => match session.undo() {
            Some(question) => {
                state.unsaved = true;
                format!("taken back: {question}")
            }
            None => "there is nothing to take back".into(),
        },
        "set" => set(session.settings_mut(), rest)?,
        "stats" => match &state.last {
            Some(stats) => format!(
                "{}\n[{}, {} of them no longer in the prompt]",
                stats_line(stats),
                exchanges(session.turns().len()),
                session.dropped()
            ),
            None => "there is no answer in this conversation yet".into(),
        },
        "save" | "save!" => save(session, model, rest, name == "save!", state)?,
        "load" => {
            if rest.is_empty() {
                return Err(Usage("/load NAME".into()).into());
            }
            let loaded = store::load(&directory()?, rest, &model.fingerprint()?)?;
            let mut said = String::new();
            if state.unsaved && !session.turns().is_empty() {
                let kept = store::fresh_name(&directory()?);
                write(session, model, &kept, None)?;
                said = format!("the unsaved conversation is kept as {kept}\n");
            }
            show_notes(rest, &loaded.invalid, false);
            put(session, loaded);
            *state = State { name: Some(rest.to_owned()), ..State::default() };
            said + &format!("loaded {rest}: {}", exchanges(session.turns().len()))
        }
        other => return Err(Usage(format!("/{other} is no command; /help lists them")).into()),
    })
}

fn exchanges(n: usize) -> String {
    format!("{n} exchange{}", if n == 1 { "" } else { "s" })
}

/// Keeps the conversation, and never hides another one unless told to `replace` it.
fn save(session: &Session, model: &Loaded, typed: &str, replace: bool, state: &mut State) -> Result<String> {
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

/// A name that was typed is its title, too.
fn write(session: &Session, model: &Loaded, name: &str, title: Option<&str>) -> Result<PathBuf> {
    let system = session.settings().system.clone();
    let (title, turns, date) = (title.map(str::to_owned), session.turns().to_vec(), session.date());
    let conversation = Conversation { title, system, turns, date, ..Conversation::default() };
    Ok(store::save(&directory()?, name, &conversation, &model.fingerprint()?)?)
}

fn put(session: &mut Session, conversation: Conversation) {
    session.settings_mut().system = conversation.system;
    session.restore(conversation.turns);
    session.set_date(conversation.date);
}

fn directory() -> Result<PathBuf> {
    store::directory()
        .ok_or_else(|| Usage("neither XDG_DATA_HOME nor HOME says where to keep it".into()).into())
}

/// The settings that `/set` changes: the others are fixed when the model is opened.
fn settable() -> impl Iterator<Item = Setting> {
    Setting::ALL.into_iter().filter(|setting| setting.row().group != SettingGroup::Engine)
}

pub(super) fn set(settings: &mut Settings, rest: &str) -> Result<String> {
    let (key, value) = rest.split_once(|c: char| c.is_whitespace() || c == '=').unwrap_or((rest, ""));
    let value = value.trim().trim_start_matches('=').trim();
    if !key.is_empty() {
        set_one(settings, key, value).map_err(Usage)?;
    }
    let patch = settings.patch();
    let shown = settable().map(|setting| {
        let default = || format!("({})", setting.default_text(Lang::En));
        let value = patch.get(setting).map_or_else(default, |value| value.show(Lang::En));
        format!("{} {value}", setting.name())
    });
    Ok(Vec::from_iter(shown).join(" | "))
}

fn set_one(settings: &mut Settings, key: &str, text: &str) -> Result<(), String> {
    let Some(name) = SettingName::find(key) else {
        return Err(settings::unknown(key, settable().flat_map(Setting::names), Lang::En));
    };
    match (name.setting, text) {
        (Setting::System, "") => {
            return Err("/set system TEXT; /set system default takes the model's own".into());
        }
        (_, "") => return Err(format!("/set {} VALUE", name.name())),
        (Setting::System, "default") => {
            settings.system = None;
            return Ok(());
        }
        _ => {}
    }
    let reading = Patch::read([(key, GivenValue::Typed(text))]);
    let patch = reading
        .strict()
        .map_err(|invalid| format!("{} {}: {}", name.name(), invalid.given, invalid.needed(Lang::En)))?;
    if name.setting.row().group == SettingGroup::Engine {
        let flag = name.name().replace('_', "-");
        return Err(format!("{} is fixed while the model is open; start with --{flag} {text}", name.name()));
    }
    settings.apply(&patch);
    Ok(())
}

/// What to do about [`Error::QueryTooLong`].
const TOO_LONG: &str = "shorten it, or give a larger context with -c";

/// What was typed up to the point where it is a message.
#[derive(Debug, PartialEq)]
struct Message {
    text: String,
    /// It stood between `"""`: no command, whatever it begins with.
    block: bool,
}

/// Lines of input put together to messages.
struct Input<'a, R> {
    lines: R,
    interactive: bool,
    signals: &'a Signals,
    /// Set when Ctrl+C dropped a message: the line typed after that, or the end of the input.
    instead: Option<Option<String>>,
}

impl<R: BufRead> Input<'_, R> {
    /// The next message; `None` at the end of the input.
    fn message(&mut self) -> Result<Option<Message>> {
        let mut first = self.line("> ")?;
        while let Some(line) = first {
            let message = self.message_from(line)?;
            match self.instead.take() {
                None => return Ok(Some(message)),
                Some(line) => first = line,
            }
        }
        Ok(None)
    }

    /// The message that begins with the line `first`; void if `instead` is set.
    fn message_from(&mut self, first: String) -> Result<Message> {
        if let Some(start) = first.trim_start().strip_prefix("\"\"\"") {
            if let Some(whole) = start.strip_suffix("\"\"\"") {
                return Ok(Message { text: whole.to_owned(), block: true });
            }
            let mut lines = Vec::new();
            if !start.is_empty() {
                lines.push(start.to_owned());
            }
            // The end of the input ends the block, too.
            while let Some(line) = self.next_line()? {
                if let Some(last) = line.trim_end().strip_suffix("\"\"\"") {
                    if !last.is_empty() {
                        lines.push(last.to_owned());
                    }
                    break;
                }
                lines.push(line);
            }
            return Ok(Message { text: lines.join("\n"), block: true });
        }
        let mut text = first;
        while let Some(cut) = text.strip_suffix('\\') {
            text = cut.to_owned();
            let Some(next) = self.next_line()? else { break };
            text.push('\n');
            text.push_str(&next);
        }
        Ok(Message { text, block: false })
    }

    /// A further line of a message; `None` at the end of the input, and when Ctrl+C dropped the message.
    fn next_line(&mut self) -> Result<Option<String>> {
        self.signals.set_composing(true);
        let line = self.line(". ")?;
        if self.signals.composing() {
            self.signals.set_composing(false);
            return Ok(line);
        }
        self.instead = Some(line);
        Ok(None)
    }

    fn line(&mut self, prompt: &str) -> Result<Option<String>> {
        if self.interactive {
            eprint!("{prompt}");
        }
        let mut bytes = Vec::new();
        if self.lines.read_until(b'\n', &mut bytes)? == 0 {
            if self.interactive {
                eprintln!();
            }
            return Ok(None);
        }
        // What a terminal in another encoding sends is shown as it was understood, not refused.
        let line = String::from_utf8_lossy(&bytes);
        let line = line.strip_suffix('\n').unwrap_or(&line);
        Ok(Some(line.strip_suffix('\r').unwrap_or(line).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(lines: impl BufRead, signals: &Signals) -> Vec<Message> {
        let mut input = Input { lines, interactive: false, signals, instead: None };
        let mut all = Vec::new();
        while let Some(message) = input.message().unwrap() {
            all.push(message);
        }
        all
    }

    fn messages(text: &str) -> Vec<String> {
        typed(text.as_bytes(), &Signals::default()).into_iter().map(|message| message.text).collect()
    }

    /// Reads a script in which the line `^C` is the key.
    struct Keys<'a>(std::str::SplitInclusive<'a, char>, &'a Signals, &'a [u8]);

    impl io::Read for Keys<'_> {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            unreachable!("lines are read by fill_buf")
        }
    }

    impl BufRead for Keys<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            while self.2.is_empty() {
                match self.0.next() {
                    Some("^C\n") => self.1.interrupt_prompt(),
                    Some(line) => self.2 = line.as_bytes(),
                    None => break,
                }
            }
            Ok(self.2)
        }

        fn consume(&mut self, n: usize) {
            self.2 = &self.2[n..];
        }
    }

    #[test]
    fn an_interrupt_drops_what_was_begun() {
        for (script, expected) in [
            ("\"\"\"\na\n^C\nb\n", &["b"][..]),
            ("a\\\n^C\nb\n", &["b"]),
            ("\"\"\"\na\n^C\n\"\"\"\nb\n^C\nc\\\nd\ne\n", &["c\nd", "e"]),
            ("^C\n\"\"\"\na\n\"\"\"\nb\n", &["a", "b"]),
            ("\"\"\"\na\n^C\n", &[]),
        ] {
            let signals = Signals::default();
            let keys = Keys(script.split_inclusive('\n'), &signals, &[]);
            let texts: Vec<_> = typed(keys, &signals).into_iter().map(|m| m.text).collect();
            assert_eq!(texts, expected, "{script:?}");
        }
    }

    #[test]
    fn a_block_is_a_message_whatever_it_begins_with() {
        let blocks = typed("\"\"\"\n/quit\n\"\"\"\n\"\"\"/x\"\"\"\n/y\n".as_bytes(), &Signals::default());
        let seen: Vec<_> = blocks.iter().map(|m| (m.text.as_str(), m.block)).collect();
        assert_eq!(seen, [("/quit", true), ("/x", true), ("/y", false)]);
        assert_eq!(say("/quit"), Line::Say("/quit".into()));
        assert_eq!(say(" \n "), Line::Nothing);
    }

    #[test]
    fn lines_become_messages() {
        assert_eq!(messages("你好\r\n\nend"), ["你好", "", "end"]);
        assert_eq!(messages("a\\\nb\\\nc\nd"), ["a\nb\nc", "d"]);
        assert_eq!(messages("a\\"), ["a"]);
        assert_eq!(messages("\"\"\"\na\n\n b\n\"\"\"\nc"), ["a\n\n b", "c"]);
        assert_eq!(messages("\"\"\"a\nb\"\"\""), ["a\nb"]);
        assert_eq!(messages("\"\"\"one\"\"\""), ["one"]);
        assert_eq!(messages("\"\"\"\nopen"), ["open"]);
    }

    #[test]
    fn commands_and_messages() {
        assert_eq!(parse("  "), Line::Nothing);
        assert_eq!(parse("/set  top_k 3 "), Line::Command("set", "top_k 3"));
        assert_eq!(parse("//x"), Line::Say("/x".into()));
        assert_eq!(parse("/a\nb"), Line::Say("/a\nb".into()));
        assert_eq!(parse("春 /help"), Line::Say("春 /help".into()));
    }
}
