//! `huozi demo`: the built-in model, converted and talked to.

use super::args::Demo;
use super::chat;
use super::exit::{Interrupted, Usage};
use super::load::{self, File};
use super::printer::{Printer, bytes};
use super::run::{Way, once};
use super::settings::{self, Config};
use super::show::{Counter, Verbosity};
use super::signal::Signals;
use crate::demo::{self, Kind, Progress};
use crate::session::catalog::xdg;
use anyhow::Result;
use huozi_token::HistoryRule;
use std::io::{self, IsTerminal};
use std::sync::Mutex;

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &Demo, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let interactive = args.prompt.is_none() && io::stdin().is_terminal();
    let prompt = if interactive { None } else { Some(settings::text(args.prompt.as_deref(), None, true)?) };
    if prompt.as_deref().is_some_and(str::is_empty) {
        return Err(Usage("nothing to answer: huozi demo \"写一首关于月的诗。\"".into()).into());
    }
    let cache = xdg("XDG_CACHE_HOME", ".cache").map(|base| base.join("huozi"));
    let bar = Bar { quiet: args.quiet, counter: Mutex::new(None) };
    let model = match signals.while_busy(|cancel| demo::prepare(cache.as_deref(), &bar, cancel)) {
        Err(demo::Error::Convert(error)) if error.kind() == Kind::Interrupted => {
            signals.check()?;
            return Err(Interrupted(super::exit::INTERRUPTED).into());
        }
        result => result?,
    };
    drop(bar);
    if !args.quiet {
        if let Some(why) = &model.not_cached {
            eprintln!("huozi: not kept for next time: {why}");
        }
        // A conversation begins with the path anyway.
        let path = if interactive { String::new() } else { format!(": {}", model.path.display()) };
        match &model.report {
            Some(report) => {
                for output in &report.outputs {
                    eprintln!(
                        "huozi: converted the built-in model: {} weights, {} -> {} ({}, {:.2} bits per weight), {:.1} s{path}",
                        report.weights,
                        bytes(report.source_bytes),
                        bytes(output.bytes),
                        output.preset,
                        output.bits_per_weight,
                        report.seconds
                    );
                }
            }
            None if args.verbose => eprintln!("huozi: the built-in model was converted before{path}"),
            None => {}
        }
    }
    let file = File::open(&model.path, load::how(&args.load))?;
    let mut session =
        load::session(&file, config, &args.load, &args.chat, &args.sampling, HistoryRule::TwoThirds)?;
    let verbosity = Verbosity::new(args.quiet, args.verbose, &args.sampling, session.settings());
    match prompt {
        Some(prompt) => {
            once(&mut session, &prompt, Way::Chat, verbosity, true, signals, printer)?;
            Ok(())
        }
        None => {
            if !args.quiet {
                eprintln!("Ask for a poem, e.g. 写一首关于月的诗。 or 填一首《浣溪沙》。");
            }
            chat::talk(&mut session, &file, None, verbosity, signals, printer)
        }
    }
}

/// Progress of the conversion as a bar.
struct Bar {
    quiet: bool,
    counter: Mutex<Option<(Counter, u64)>>,
}

impl Progress for Bar {
    fn start(&self, total: u64) {
        if let Ok(mut counter) = self.counter.lock() {
            *counter = Some((Counter::new(total, true, self.quiet), 0));
        }
    }

    fn advance(&self, more: u64) {
        if let Ok(mut guard) = self.counter.lock()
            && let Some((counter, done)) = guard.as_mut()
        {
            *done += more;
            counter.set(*done, "");
        }
    }
}
