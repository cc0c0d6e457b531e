//! What came of a prompt, on standard output: text with headings where there are several, or JSON.

use super::ask::{Asked, Given, Reply, stats};
use crate::cli::load;
use crate::cli::printer::{Printer, SCHEMA, visible};
use crate::complete::{ChoiceScore, Finish, TokenLogProb};
use crate::open::Loaded;
use crate::session::{Session, stop_name};
use anyhow::Result;
use huozi_token::Vocabulary;
use serde_json::{Map, Value, json};
use std::io;

/// Which prompt of a call it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Label<'a> {
    /// The file it is from.
    pub file: Option<&'a str>,
    /// Whether the call has several prompts.
    pub several: bool,
    /// Whether it is the first.
    pub first: bool,
}

/// The heading of a prompt's answer where the call has several prompts.
///
/// # Errors
/// Those of standard output.
pub fn heading(label: &Label<'_>, printer: &mut Printer) -> io::Result<()> {
    match label.file.filter(|_| label.several) {
        Some(file) => title(&visible(file), label.first, printer),
        None => Ok(()),
    }
}

/// As `head` and `tail` print the names of several files.
fn title(title: &str, first: bool, printer: &mut Printer) -> io::Result<()> {
    printer.line(&format!("{}==> {title} <==", if first { "" } else { "\n" }))
}

/// Prints what was not streamed: several answers, each with a heading, or choices, the best first.
///
/// # Errors
/// Those of standard output.
pub fn text(asked: &Asked, label: &Label<'_>, printer: &mut Printer) -> io::Result<()> {
    match &asked.reply {
        Reply::Answers(answers) if answers.len() > 1 => {
            for (i, answer) in answers.iter().enumerate() {
                let name = format!("answer {} of {}", i + 1, answers.len());
                title(&name, i == 0 && (label.first || label.several), printer)?;
                printer.text(&answer.text)?;
                printer.end_line()?;
            }
            Ok(())
        }
        Reply::Answers(_) => Ok(()),
        Reply::Choices(choices) => choices
            .iter()
            .try_for_each(|(choice, score)| printer.line(&format!("{:.6}\t{choice}", score.log_prob))),
    }
}

/// Prints what came of a prompt as JSON: an object for each answer, or one with all choices.
///
/// # Errors
/// Those of standard output; the model's file cannot be read any more.
pub fn print_json(
    asked: &Asked,
    session: &Session,
    model: &Loaded,
    label: &Label<'_>,
    printer: &mut Printer,
) -> Result<()> {
    let objects: Vec<_> = match &asked.reply {
        Reply::Answers(answers) => {
            let several = answers.len() > 1;
            let object = |(i, answer)| answer_object(answer, several.then_some(i), asked, session);
            answers.iter().enumerate().map(object).collect()
        }
        Reply::Choices(choices) => vec![choices_object(choices, asked, session)],
    };
    for mut object in objects {
        if let Some(file) = label.file {
            object.insert("file".into(), file.into());
        }
        printer.json(&load::recorded(Value::Object(object), model, session.info())?)?;
    }
    Ok(())
}

fn answer_object(
    answer: &Given,
    number: Option<usize>,
    asked: &Asked,
    session: &Session,
) -> Map<String, Value> {
    let stats = stats(asked, session);
    let ended = usize::from(matches!(answer.finish, Some(Finish::EndToken(_))));
    let mut object = object(json!({
        "schema": SCHEMA,
        "text": answer.text,
        "ids": answer.ids,
        "stop": stop_name(answer.stop()),
        "seed": stats.seed,
        "prompt_tokens": stats.prompt_tokens,
        "reused_tokens": stats.reused_tokens,
        "prompt_seconds": stats.prompt_seconds,
        "generated_tokens": answer.ids.len() + ended,
        "generate_seconds": stats.generate_seconds,
        "context_used": asked.prompt.len() + answer.ids.len(),
        "context": stats.context,
    }));
    if let Some(Finish::StopText(text)) = &answer.finish {
        object.insert("stop_text".into(), text.as_str().into());
    }
    if let Some(number) = number {
        object.insert("answer".into(), number.into());
    }
    if !answer.log_probs.is_empty() {
        let vocab = session.tokenizer().vocab();
        let list = answer.log_probs.iter().map(|at| token_object(at, vocab)).collect::<Vec<_>>();
        object.insert("logprobs".into(), list.into());
    }
    if asked.usage.drafted_tokens > 0 {
        object.insert("drafted_tokens".into(), asked.usage.drafted_tokens.into());
        object.insert("accepted_tokens".into(), asked.usage.accepted_tokens.into());
    }
    object
}

fn token_object(at: &TokenLogProb, vocab: &Vocabulary) -> Value {
    let token = |id: u32, log_prob: f64| {
        let piece = String::from_utf8_lossy(vocab.bytes(id));
        json!({ "id": id, "piece": piece, "logprob": log_prob })
    };
    let mut told = token(at.token, at.log_prob);
    told["top"] = at.top.iter().map(|&(id, log_prob)| token(id, log_prob)).collect();
    told
}

fn choices_object(choices: &[(String, ChoiceScore)], asked: &Asked, session: &Session) -> Map<String, Value> {
    let stats = stats(asked, session);
    let scored = |(text, score): &(String, ChoiceScore)| {
        let ChoiceScore { log_prob, tokens } = *score;
        json!({ "text": text, "logprob": log_prob, "n_tokens": tokens })
    };
    object(json!({
        "schema": SCHEMA,
        "text": choices.first().map(|(text, _)| text),
        "choices": choices.iter().map(scored).collect::<Vec<_>>(),
        "prompt_tokens": stats.prompt_tokens,
        "reused_tokens": stats.reused_tokens,
        "prompt_seconds": stats.prompt_seconds,
        "context": stats.context,
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
