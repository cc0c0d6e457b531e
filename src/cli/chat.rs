//! `huozi chat`: a conversation, line by line.

use super::args::Chat;
use super::exit::Usage;
use super::load::{self, File};
use super::printer::{Printer, visible};
use super::settings::Config;
use super::show::{Show, Verbosity, stats_line};
use super::signal::Signals;
use crate::session::store::{self, Conversation};
use crate::session::{Answer, Error, Session, Stats};
use crate::token::ChatError;
use anyhow::Result;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

const HELP: &str = "\
/help           this list
/clear          forget everything said
/undo           take the last exchange back
/retry          another answer to the last question
/set [KEY VAL]  show or change: temperature top_k top_p repetition_penalty greedy max_new_tokens seed system
/stats          what the last answer cost
/save [NAME]    keep this conversation
/load NAME      go on with a kept one
/quit           leave (also Ctrl+D)
A line that ends in \\ goes on in the next; \"\"\" opens and closes a block; // sends a line that begins with /.";

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &Chat, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.model.as_deref())?;
    let file = File::open(&path, load::how(&args.model.load))?;
    let mut session =
        load::session(&file, config, &args.model.load, &args.chat, &args.sampling, args.history)?;
    let verbosity = Verbosity::new(args.quiet, args.verbose);
    if let Some(name) = &args.load {
        // What is typed wins over what is stored.
        let typed = session.settings().system.clone();
        load_saved(&mut session, &file, name)?;
        if typed.is_some() {
            session.settings_mut().system = typed;
        }
    }
    talk(&mut session, &file, verbosity, signals, printer)
}

/// Talks until the input ends.
///
/// # Errors
/// Standard output went away, a signal, an engine that fails.
pub fn talk(
    session: &mut Session,
    file: &File,
    verbosity: Verbosity,
    signals: &Signals,
    printer: &mut Printer,
) -> Result<()> {
    let interactive = io::stdin().is_terminal();
    if interactive {
        signals.chat_mode();
    }
    let mut input = Input { lines: io::stdin().lock(), interactive };
    let mut last: Option<Stats> = None;
    let mut saved_as: Option<String> = None;
    if interactive {
        eprintln!("{}: {}", file.path.display(), session.scheduler().info().runs_on);
        eprintln!("/help lists the commands, Ctrl+C stops an answer, Ctrl+D quits");
    }
    while let Some(message) = input.message()? {
        if interactive {
            signals.rearm();
        }
        let ask = match parse(&message) {
            Line::Nothing => continue,
            Line::Say(text) => Some(Ask::New(text)),
            Line::Command("retry", _) => Some(Ask::Again),
            Line::Command("quit" | "exit" | "bye", _) => break,
            Line::Command(name, rest) => {
                let done = command(session, file, name, rest, last.as_ref(), &mut saved_as);
                match done {
                    Ok(text) if text.is_empty() => {}
                    Ok(text) => eprintln!("{}", visible(&text)),
                    Err(error) => eprintln!("huozi: {}", visible(&super::exit::line(&error))),
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
            Ok(answer) => last = Some(answer.stats),
            // The conversation is as it was: the person can say something else.
            Err(error @ (Error::QueryTooLong { .. } | Error::NothingToRetry | Error::EmptyPrompt)) => {
                eprintln!("huozi: {error}");
            }
            Err(error @ Error::Chat(_)) if !matches!(error, Error::Chat(ChatError::NoFormat)) => {
                eprintln!("huozi: {}", visible(&error.to_string()));
            }
            Err(error) => return Err(failed(error)),
        }
        // Whoever types may stop an answer and go on; a script is over.
        signals.check().or_else(|signal| {
            if interactive && signal.0 == super::exit::INTERRUPTED { Ok(()) } else { Err(signal) }
        })?;
    }
    Ok(())
}

/// A session's error as an error of the program: a model without a chat format was asked in the wrong way.
pub fn failed(error: Error) -> anyhow::Error {
    match error {
        Error::Chat(ChatError::NoFormat) => Usage(error.to_string()).into(),
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

fn parse(message: &str) -> Line<'_> {
    let trimmed = message.trim();
    if trimmed.is_empty() {
        return Line::Nothing;
    }
    match trimmed.strip_prefix('/') {
        Some(rest) if rest.starts_with('/') => Line::Say(rest.to_owned()),
        // A command is one line; a block that happens to begin with / is a message.
        Some(rest) if !trimmed.contains('\n') => {
            let (name, args) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            Line::Command(name, args.trim())
        }
        _ => Line::Say(message.trim_end_matches(['\r', '\n']).to_owned()),
    }
}

fn command(
    session: &mut Session,
    file: &File,
    name: &str,
    rest: &str,
    last: Option<&Stats>,
    saved_as: &mut Option<String>,
) -> Result<String> {
    Ok(match name {
        "help" | "?" => HELP.to_owned(),
        "clear" => {
            session.clear();
            *saved_as = None;
            "forgotten".into()
        }
        "undo" => match session.undo() {
            Some(question) => format!("taken back: {question}"),
            None => "there is nothing to take back".into(),
        },
        "set" => set(session, rest)?,
        "stats" => match last {
            Some(stats) => format!(
                "{}\n[{} exchanges, {} of them no longer in the prompt]",
                stats_line(stats),
                session.turns().len(),
                session.dropped()
            ),
            None => "nothing was said yet".into(),
        },
        "save" => {
            let name =
                if rest.is_empty() { saved_as.clone().unwrap_or_else(fresh_name) } else { rest.to_owned() };
            let conversation =
                Conversation { system: session.settings().system.clone(), turns: session.turns().to_vec() };
            let path = store::save(&directory()?, &name, &conversation, &file.fingerprint()?)?;
            *saved_as = Some(name.clone());
            format!("saved as {name} ({})", path.display())
        }
        "load" => {
            if rest.is_empty() {
                return Err(Usage("/load NAME".into()).into());
            }
            load_saved(session, file, rest)?;
            *saved_as = Some(rest.to_owned());
            format!("loaded {rest}: {} exchanges", session.turns().len())
        }
        other => return Err(Usage(format!("/{other} is no command; /help lists them")).into()),
    })
}

fn load_saved(session: &mut Session, file: &File, name: &str) -> Result<()> {
    let conversation = store::load(&directory()?, name, &file.fingerprint()?)?;
    session.settings_mut().system = conversation.system;
    session.restore(conversation.turns);
    Ok(())
}

fn directory() -> Result<PathBuf> {
    store::directory()
        .ok_or_else(|| Usage("neither XDG_DATA_HOME nor HOME says where to keep it".into()).into())
}

/// The time in seconds: unique enough for one person, and it sorts.
fn fresh_name() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("chat-{}", since.map_or(0, |d| d.as_secs()))
}

fn set(session: &mut Session, rest: &str) -> Result<String> {
    use super::args::{penalty, temperature, top_p};
    let s = session.settings_mut();
    let (key, value) = rest.split_once(|c: char| c.is_whitespace() || c == '=').unwrap_or((rest, ""));
    let value = value.trim().trim_start_matches('=').trim();
    let key = key.replace('-', "_");
    if !key.is_empty() && value.is_empty() && key != "system" {
        return Err(Usage(format!("/set {key} VALUE")).into());
    }
    let bad = |what: String| Usage(format!("{key} {value:?}: {what}"));
    let whole = |what: &str| bad(format!("{what} is needed"));
    match key.as_str() {
        "" => {}
        "temperature" | "temp" => s.sampling.temperature = temperature(value).map_err(bad)?,
        "top_p" => s.sampling.top_p = top_p(value).map_err(bad)?,
        "repetition_penalty" => s.sampling.repetition_penalty = penalty(value).map_err(bad)?,
        "top_k" => s.sampling.top_k = value.parse().map_err(|_| whole("a whole number"))?,
        "seed" => s.seed = value.parse().map_err(|_| whole("a whole number"))?,
        "max_new_tokens" => match value.parse() {
            Ok(n) if n > 0 => s.max_new = n,
            _ => return Err(whole("a whole number of at least 1").into()),
        },
        "greedy" => match value {
            "on" | "true" | "1" => s.sampling.do_sample = false,
            "off" | "false" | "0" => s.sampling.do_sample = true,
            _ => return Err(whole("on or off").into()),
        },
        "system" => s.system = (!value.is_empty()).then(|| value.to_owned()),
        other => return Err(Usage(format!("{other:?} is no setting; /set alone shows them")).into()),
    }
    let sampling = s.sampling;
    Ok(format!(
        "temperature {} | top_k {} | top_p {} | repetition_penalty {} | greedy {} | max_new_tokens {} | seed {} | system {}",
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.repetition_penalty,
        if sampling.do_sample { "off" } else { "on" },
        s.max_new,
        s.seed,
        s.system.as_deref().unwrap_or("(the model's own)"),
    ))
}

/// Lines of input put together to messages.
struct Input<R> {
    lines: R,
    interactive: bool,
}

impl<R: BufRead> Input<R> {
    /// The next message; `None` at the end of the input.
    fn message(&mut self) -> Result<Option<String>> {
        let Some(first) = self.line("> ")? else { return Ok(None) };
        if let Some(start) = first.trim_start().strip_prefix("\"\"\"") {
            if let Some(whole) = start.strip_suffix("\"\"\"") {
                return Ok(Some(whole.to_owned()));
            }
            let mut lines = Vec::new();
            if !start.is_empty() {
                lines.push(start.to_owned());
            }
            // The end of the input ends the block, too.
            while let Some(line) = self.line(". ")? {
                if let Some(last) = line.trim_end().strip_suffix("\"\"\"") {
                    if !last.is_empty() {
                        lines.push(last.to_owned());
                    }
                    break;
                }
                lines.push(line);
            }
            return Ok(Some(lines.join("\n")));
        }
        let mut message = first;
        while let Some(cut) = message.strip_suffix('\\') {
            message = cut.to_owned();
            let Some(next) = self.line(". ")? else { break };
            message.push('\n');
            message.push_str(&next);
        }
        Ok(Some(message))
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

    fn messages(text: &str) -> Vec<String> {
        let mut input = Input { lines: text.as_bytes(), interactive: false };
        let mut all = Vec::new();
        while let Some(message) = input.message().unwrap() {
            all.push(message);
        }
        all
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
