//! From the command line to a model whose rows can be checked.

use super::super::args::{BatchCommand, LoadArgs};
use super::super::exit::BadFile;
use super::super::load;
use super::super::settings::{self, Config};
use crate::batch::input::{RowPreparer, RunDefaults};
use crate::batch::output::{LineContext, Manifest};
use crate::open::Loaded;
use crate::session::local_now;
use anyhow::Result;
use huozi_token::{ChatFormat, DateTime, Tokenizer};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// Rows that run at a time: more gain little speed and take memory.
pub(super) const PARALLEL: usize = 32;
/// Sequences of ended rows that are kept for their prefixes.
pub(super) const KEPT: usize = 8;
/// A model whose header is read, and the settings of the run.
pub(super) struct Ready {
    pub model: Loaded,
    pub tokenizer: Arc<Tokenizer>,
    pub preparer: Arc<RowPreparer>,
    /// Positions of prompt and answer together.
    pub n_ctx: usize,
    pub seed: u64,
    /// The date that the chat template writes; `None` where it writes none.
    pub date: Option<String>,
    /// The settings that change answers.
    pub settings: Map<String, Value>,
}

impl Ready {
    /// `resumed`: the output of a run that may go on.
    pub fn new(args: &BatchCommand, config: &Config, resumed: Option<&Path>) -> Result<Self> {
        let path = config.model(args.model.as_deref())?;
        let load = LoadArgs { engine: args.engine.clone(), ..LoadArgs::default() };
        let model = load::open(&path, &load::talking(config, &load)?)?;
        let tokenizer = Arc::new(model.tokenizer()?);
        let format = model.chat_format(&tokenizer)?;
        let (of_file, invalid) = model.settings();
        settings::show_notes(&model.path().display().to_string(), &invalid, config.quiet);
        let typed = args.conversation.patch.clone().over(args.sampling.patch.clone());
        let patch = config.settings(typed)?.or(of_file);
        let n_ctx = patch.n_ctx.unwrap_or(model.shape().n_ctx_train);
        let seed = patch.seed.unwrap_or(0);
        let defaults = RunDefaults {
            sampling: patch.sampling(),
            max_new: patch.max_new(),
            seed,
            system: patch.system.clone(),
            speculate: args.speculate,
            ..RunDefaults::default()
        };
        let dated = matches!(format, ChatFormat::Template(_)) && writes_date(&model);
        let now = match resumed.filter(|_| dated) {
            Some(out) => date_of(out)?.unwrap_or_else(today),
            None => today(),
        };
        let mut settings = Map::new();
        if let Value::Object(sampling) = serde_json::to_value(defaults.sampling)? {
            settings.extend(sampling.into_iter().map(|(name, value)| (name, as_typed(value))));
        }
        let others = json!({
            "max_new_tokens": defaults.max_new,
            "seed": seed,
            "ctx_size": n_ctx,
            "system": defaults.system,
            "raw": args.raw,
        });
        if let Value::Object(others) = others {
            settings.extend(others);
        }
        let preparer = Arc::new(RowPreparer::new(tokenizer.clone(), format, now, n_ctx, defaults));
        let date = dated.then(|| now.to_string());
        Ok(Self { model, tokenizer, preparer, n_ctx, seed, date, settings })
    }

    /// What result lines say of the run.
    pub fn line_context(&self) -> LineContext {
        LineContext { tokenizer: self.tokenizer.clone(), model: self.model.name(), seed: self.seed }
    }
}

/// A number of 32 bits as it was typed, and not as its 64 bits read.
fn as_typed(value: Value) -> Value {
    match value.as_f64() {
        Some(x) if value.is_f64() => (x as f32).to_string().parse::<f64>().map_or(value, Value::from),
        _ => value,
    }
}

/// Whether the template of the file asks for the date.
fn writes_date(model: &Loaded) -> bool {
    let template = model.meta().str("tokenizer.chat_template").ok().flatten();
    template.is_some_and(|template| template.contains("strftime_now"))
}

/// The date without the time: shards that start one after the other have the same.
fn today() -> DateTime {
    local_now().date().to_datetime(jiff::civil::Time::midnight())
}

/// The date of the run that left `out`.
fn date_of(out: &Path) -> Result<Option<DateTime>> {
    let manifest = Manifest::read(out)?;
    let Some(date) = manifest.as_ref().and_then(Manifest::date) else { return Ok(None) };
    let wrong = |_| BadFile(format!("{}: its manifest has the date {date:?}, which is none", out.display()));
    Ok(Some(date.parse().map_err(wrong)?))
}
