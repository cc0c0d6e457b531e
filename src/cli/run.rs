//! `huozi run`: one prompt, one answer.

use super::args::RunCommand;
use super::exit::Usage;
use super::load;
use super::printer::{Printer, SCHEMA};
use super::settings::Config;
use super::show::{Show, Verbosity};
use super::signal::Signals;
use super::text;
use crate::open::Loaded;
use crate::schedule::Stop;
use crate::session::{Answer, Session, stop_name};
use anyhow::Result;
use huozi_token::{HistoryRule, Specials};
use serde_json::json;

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &RunCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.model.as_deref())?;
    let model = load::open(&path, &load::talking(config, &args.model.load)?)?;
    // A chat message has no use for the line break at its end; a text to continue may mean it.
    let trim = !args.raw || args.file.is_none();
    let prompt = args.prompt.as_deref().or(args.positional.as_deref());
    let text = text::given(prompt, args.file.as_deref(), trim, args.quiet)?;
    let mut session =
        load::session(&model, config, &args.chat, &args.sampling, HistoryRule::TwoThirds, !args.raw)?;
    let verbosity = Verbosity::new(args.quiet, args.verbose, &args.sampling, session.settings());
    let how = if !args.raw {
        Way::Chat
    } else if args.specials {
        Way::Raw(Specials::Parse)
    } else {
        Way::Raw(Specials::Plain)
    };
    let answer = once(&mut session, &text, how, verbosity, !args.json, signals, printer)?;
    if args.json {
        print_json(&answer, &session, &model, printer)?;
    }
    signals.check()?;
    Ok(())
}

/// Prints an answer as one JSON object.
///
/// # Errors
/// Those of standard output; the model's file cannot be read any more.
pub fn print_json(answer: &Answer, session: &Session, model: &Loaded, printer: &mut Printer) -> Result<()> {
    let stats = answer.stats;
    let told = json!({
        "schema": SCHEMA,
        "text": answer.text,
        "ids": answer.ids,
        "stop": stop_name(answer.stop),
        "seed": stats.seed,
        "prompt_tokens": stats.prompt_tokens,
        "reused_tokens": stats.reused_tokens,
        "prompt_seconds": stats.prompt_seconds,
        "generated_tokens": stats.generated_tokens,
        "generate_seconds": stats.generate_seconds,
        "context_used": stats.context_used,
        "context": stats.context,
    });
    Ok(printer.json(&load::recorded(told, model, session.info())?)?)
}

/// A chat turn or the completion of a text.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// In the model's chat format.
    Chat,
    /// The text as it is.
    Raw(Specials),
}

/// Generates one answer, shown as it grows if `stream`.
///
/// # Errors
/// The errors of the session and of standard output; a signal.
pub fn once(
    session: &mut Session,
    text: &str,
    way: Way,
    verbosity: Verbosity,
    stream: bool,
    signals: &Signals,
    printer: &mut Printer,
) -> Result<Answer> {
    if text.is_empty() {
        return Err(Usage("the prompt is empty".into()).into());
    }
    let mut show = Show::new(printer, verbosity, stream, signals.cancel());
    let result = signals.while_busy(|cancel| {
        let on = &mut |event| show.event(&event);
        match way {
            Way::Chat => session.ask(text, cancel, on),
            Way::Raw(specials) => {
                let ids = session.tokenizer().encode(text, specials);
                session.complete(&ids, cancel, on)
            }
        }
    });
    let shown = show.finish();
    // A closed pipe cancels the answer: its error counts, not the cancellation.
    shown?;
    match result {
        Err(error) => Err(super::chat::failed(error)),
        Ok(answer) => {
            if answer.stop == Stop::Cancelled && stream {
                signals.check()?;
            }
            Ok(answer)
        }
    }
}
