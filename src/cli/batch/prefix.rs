//! `--prompt-cache` of a batch: the keys and values of the prefix that its prompts share.

use super::start::Ready;
use crate::batch::input::CheckedInput;
use crate::complete::{self, AnswerOptions, Job, JobError, Task};
use crate::kv_file::prompt::PromptCache;
use crate::sample::Sampling;
use crate::schedule::SchedulerHandle;
use anyhow::Result;
use std::sync::atomic::AtomicBool;

/// Rows whose prompts are compared.
const COMPARED: usize = 64;

/// Gives `scheduler` the keys and values in the file. Where there is none, those of the prefix that the first
/// of `rows` share are computed and saved, before any row runs.
pub(super) fn begin(
    cache: &PromptCache,
    ready: &Ready,
    (checked, rows): (&CheckedInput, &[u32]),
    scheduler: &SchedulerHandle,
    cancel: &AtomicBool,
) -> Result<()> {
    let note = |what: &str| {
        if !ready.quiet {
            eprintln!("huozi: {}: {what}", cache.path().display());
        }
    };
    let prefix = shared(checked, rows)?;
    if let Some(saved) = cache.open(scheduler)? {
        if saved.ids().first() != prefix.first() {
            note("of other prompts, which begin differently: nothing of it is used");
            return Ok(());
        }
        saved.load(scheduler, saved.ids().len())?;
        return Ok(());
    }
    if prefix.is_empty() {
        note("not made: the prompts do not begin alike");
        return Ok(());
    }
    let answers = AnswerOptions {
        sampling: Sampling::DEFAULT,
        seeds: vec![0],
        max_new: 0,
        stop_ids: Vec::new(),
        stop: Vec::new(),
        log_probs: None,
        speculate: false,
    };
    let job = Job { prompt: prefix, task: Task::Answers(answers), n_ctx: ready.n_ctx };
    match complete::run(scheduler, &ready.tokenizer, &job, cancel, &mut |_| {}) {
        Ok(_) => Ok(cache.save(scheduler, &job.prompt)?),
        // No row runs either.
        Err(JobError::Cancelled) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The ids that the prompts of the first rows begin with.
fn shared(checked: &CheckedInput, rows: &[u32]) -> Result<Vec<u32>> {
    let mut prefix: Option<Vec<u32>> = None;
    for &row in rows.iter().take(COMPARED) {
        // Rows with errors have no prompt.
        let Ok(row) = checked.prepared(row as usize)? else { continue };
        match &mut prefix {
            None => prefix = Some(row.job.prompt),
            Some(prefix) => {
                let common = prefix.iter().zip(&row.job.prompt).take_while(|(a, b)| a == b).count();
                prefix.truncate(common);
            }
        }
    }
    Ok(prefix.unwrap_or_default())
}
