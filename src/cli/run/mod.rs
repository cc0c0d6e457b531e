//! `huozi run`: one prompt, one answer; or several of either, or the scores of choices.

mod ask;
mod print;

pub use ask::{Ask, Way, once, warn};
pub use print::{Label, print_json};

use super::args::RunCommand;
use super::exit::Usage;
use super::load::{self, SessionArgs};
use super::printer::Printer;
use super::settings::Config;
use super::show::Verbosity;
use super::signal::Signals;
use super::text;
use crate::kv_file::prompt::PromptCache;
use crate::session::Session;
use anyhow::Result;
use huozi_token::{HistoryRule, Specials};
use std::path::Path;

/// A prompt, and the file it is from.
struct Prompt {
    text: String,
    file: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &RunCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.model.as_deref())?;
    let model = load::open(&path, &load::talking(config, &args.model.load)?)?;
    let prompts = prompts(args)?;
    let cache = match &args.prompt_cache {
        Some(path) => Some(PromptCache::at(path, model.fingerprint()?)?),
        None => None,
    };
    let talk = SessionArgs {
        chat: &args.chat,
        sampling: &args.sampling,
        history: HistoryRule::TwoThirds,
        chats: !args.raw,
        answers: Some(args.answers),
    };
    let mut session = load::session(&model, config, &talk)?;
    let verbosity = Verbosity::new(args.quiet, args.verbose, &args.sampling, session.settings());
    let way = match (args.raw, args.specials) {
        (false, _) => Way::Chat,
        (true, true) => Way::Raw(Specials::Parse),
        (true, false) => Way::Raw(Specials::Plain),
    };
    let ask = Ask {
        way,
        answers: args.answers,
        stop: args.stop.clone(),
        log_probs: args.logprobs,
        choices: args.choices.as_ref().map(|choices| choices.0.clone()),
        speculate: args.speculate,
    };
    warn(&session, verbosity);
    let mut cached = cache.map(|cache| Cached { cache, quiet: args.quiet, saved: false });
    if let Some(cached) = &mut cached {
        cached.load(&ask.prompt_ids(&mut session, &prompts[0].text)?, &session)?;
    }
    for (number, prompt) in prompts.iter().enumerate() {
        let file = prompt.file.as_deref();
        let label = Label { file, several: prompts.len() > 1, first: number == 0 };
        if !args.json {
            print::heading(&label, printer)?;
        }
        let asked = once(&mut session, &prompt.text, &ask, verbosity, !args.json, signals, printer)?;
        if args.json {
            print_json(&asked, &session, &model, &label, printer)?;
        } else {
            print::text(&asked, &label, printer)?;
        }
        signals.check()?;
        if let Some(cached) = &mut cached {
            cached.save(&asked.prompt, &session)?;
        }
    }
    Ok(())
}

/// The prompts, in the order of the files.
fn prompts(args: &RunCommand) -> Result<Vec<Prompt>> {
    let stdin = |path: &Path| path.as_os_str() == "-";
    if args.file.iter().filter(|path| stdin(path)).count() > 1 {
        return Err(Usage("standard input (-f -) can be read only once".into()).into());
    }
    // A chat message has no use for the line break at its end; a text to continue may mean it.
    let trim = !args.raw || args.file.is_empty();
    let typed = args.prompt.as_deref().or(args.positional.as_deref());
    let files = args.file.iter().map(Some).chain(args.file.is_empty().then_some(None));
    files
        .map(|file| {
            let text = text::given(typed, file.map(|path| &**path), trim, args.quiet)?;
            if text.is_empty() && args.file.len() > 1 {
                let file = file.map(|path| path.display().to_string()).unwrap_or_default();
                return Err(Usage(format!("{file}: the prompt is empty")).into());
            }
            if text.is_empty() {
                return Err(Usage("the prompt is empty".into()).into());
            }
            Ok(Prompt { text, file: file.map(|path| path.display().to_string()) })
        })
        .collect()
}

/// The prompt cache of a call: loaded before the first prompt, made after it where there is none.
struct Cached {
    cache: PromptCache,
    quiet: bool,
    /// The file is there.
    saved: bool,
}

impl Cached {
    fn load(&mut self, prompt: &[u32], session: &Session) -> Result<()> {
        let Some(saved) = self.cache.open(session.scheduler())? else { return Ok(()) };
        self.saved = true;
        let common = saved.ids().iter().zip(prompt).take_while(|(a, b)| a == b).count();
        if saved.load(session.scheduler(), common)? == 0 && !self.quiet {
            let path = self.cache.path().display();
            eprintln!("huozi: {path}: of another prompt, which begins differently: nothing of it is used");
        }
        Ok(())
    }

    fn save(&mut self, prompt: &[u32], session: &Session) -> Result<()> {
        if !std::mem::replace(&mut self.saved, true) {
            self.cache.save(session.scheduler(), prompt)?;
        }
        Ok(())
    }
}
