//! `huozi demo`: a chat with the built-in model, which is converted first.

use super::args::DemoCommand;
use super::chat;
use super::exit::{Interrupted, Usage};
use super::load::{self, SessionArgs, Watch};
use super::printer::{Printer, bytes};
use super::run::{Ask, Label, once, print_json, warn};
use super::settings::Config;
use super::show::Verbosity;
use super::signal::Signals;
use super::text;
use crate::demo::{self, ErrorKind};
use crate::open::{self, Source};
use anyhow::Result;
use huozi_token::HistoryRule;
use std::io::{self, IsTerminal};

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &DemoCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let interactive = args.prompt.is_none() && io::stdin().is_terminal();
    if interactive && args.json {
        return Err(Usage("--json is for one answer: give a prompt".into()).into());
    }
    let text = || text::given(args.prompt.as_deref(), None, true, args.quiet);
    let prompt = if interactive { None } else { Some(text()?) };
    if prompt.as_deref().is_some_and(str::is_empty) {
        return Err(Usage("the prompt is empty; try: huozi demo \"写一首关于月的诗。\"".into()).into());
    }
    let options = load::talking(config, &args.load)?;
    let watch = Watch::new(args.quiet);
    let progress = &|step, done, total| watch.set(step, done, total);
    let model = match signals.while_busy(|cancel| open::open(&Source::Demo, &options, progress, cancel)) {
        Err(open::Error::Demo(demo::Error::Convert(error))) if error.kind() == ErrorKind::Interrupted => {
            signals.check()?;
            return Err(Interrupted(super::exit::INTERRUPTED).into());
        }
        result => result?,
    };
    drop(watch);
    if let Some(demo) = model.demo().filter(|_| !args.quiet) {
        if let Some(why) = &demo.not_cached {
            eprintln!("huozi: not kept for next time: {why}");
        }
        // An interactive chat shows the path itself.
        let path = if interactive { String::new() } else { format!(": {}", demo.path.display()) };
        match &demo.report {
            Some(report) => {
                for output in &report.outputs {
                    eprintln!(
                        "huozi: converted the built-in model: {} weights, {} -> {} \
                         ({}, {:.2} bits per weight), {:.1} s{path}",
                        report.weights,
                        bytes(report.source_bytes),
                        bytes(output.file.bytes),
                        output.file.preset,
                        output.file.bits_per_weight,
                        report.seconds
                    );
                }
            }
            None if args.verbose => eprintln!("huozi: the built-in model was converted before{path}"),
            None => {}
        }
    }
    let wanted = SessionArgs {
        chat: &args.chat,
        sampling: &args.sampling,
        history: HistoryRule::TwoThirds,
        chats: true,
        answers: prompt.is_some().then_some(1),
    };
    let mut session = load::session(&model, config, &wanted)?;
    let verbosity = Verbosity::new(args.quiet, args.verbose, &args.sampling, session.settings());
    match prompt {
        Some(prompt) => {
            warn(&session, verbosity);
            let ask = Ask::chat();
            let asked = once(&mut session, &prompt, &ask, verbosity, !args.json, signals, printer)?;
            if args.json {
                print_json(&asked, &session, &model, &Label::default(), printer)?;
            }
            Ok(signals.check()?)
        }
        None => {
            if !args.quiet {
                eprintln!("Ask for a poem, e.g. 写一首关于月的诗。 or 填一首《浣溪沙》。");
            }
            let start = chat::TalkStart { name: None, keep_history: !args.no_history, verbosity };
            chat::talk(&mut session, &model, start, signals, printer)
        }
    }
}
