//! Which chat template a file gets: the one given, else the source's by the order of transformers.
//!
//! Template files come before `tokenizer_config.json`, whose template is then ignored. Of several named
//! templates the one called `default` is taken.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use serde_json::Value;

use crate::error::Error;
use crate::options::TemplateChoice;
use crate::source::{Checkpoint, Inode, quoted};

/// The template beside a checkpoint's tokenizer.
const FILE: &str = "chat_template.jinja";
/// The folder of further templates, each a file of this kind with the template's name.
const FOLDER: &str = "additional_chat_templates";
const EXTENSION: &str = ".jinja";
/// The name of the template that is used where nothing else is asked for.
const DEFAULT: &str = "default";
/// A chat template has at most this many bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What is asked for, its file read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum GivenTemplate {
    /// That of the source.
    #[default]
    Source,
    /// None at all.
    Omit,
    /// This one.
    Text(String),
}

impl GivenTemplate {
    /// `opened`: receives the file.
    pub(crate) fn read(choice: &TemplateChoice, opened: &mut HashSet<Inode>) -> Result<Self, Error> {
        let path = match choice {
            TemplateChoice::Source => return Ok(Self::Source),
            TemplateChoice::Omit => return Ok(Self::Omit),
            TemplateChoice::File(path) => path,
        };
        let fail = |e| Error::input(path, "read the chat template")(e);
        // Opening a FIFO waits for another program, and no signal could end that. The pipe of a shell's
        // <(...) is open already; no path leads to what it stands for.
        let is_fifo = path.metadata().map_err(fail)?.file_type().is_fifo();
        if is_fifo && path.canonicalize().is_ok() {
            let what = "a FIFO, not a file with a chat template; write the template to a file first".into();
            return Err(Error::Config { file: path.display().to_string(), what });
        }
        let file = File::open(path).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        opened.insert((meta.dev(), meta.ino()));
        let mut text = String::new();
        // Not by its length: a pipe has none, and a device no end.
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(fail)?;
        if text.len() as u64 > MAX_BYTES {
            let what = format!("a chat template of more than {MAX_BYTES} bytes");
            return Err(Error::Config { file: path.display().to_string(), what });
        }
        Ok(Self::Text(text))
    }
}

/// The template of the checkpoint's template files, if there are any.
pub(crate) fn of_files(
    checkpoint: &Checkpoint,
    tokenizer_config: Option<&Value>,
    notes: &mut Vec<String>,
) -> Result<Option<String>, Error> {
    let files = checkpoint.names_in(FOLDER)?;
    let names: Vec<&str> = files.iter().filter_map(|file| file.strip_suffix(EXTENSION)).collect();
    let main = if names.contains(&DEFAULT) { None } else { checkpoint.text(FILE)? };
    if let Some(mut main) = main {
        // A byte order mark is a part of the prompt, as in transformers.
        if checkpoint.file_start(FILE, 3)?.is_some_and(|start| start == "\u{feff}".as_bytes()) {
            main.insert(0, '\u{feff}');
        }
        let other = tokenizer_config.and_then(|config| config["chat_template"].as_str());
        if other.is_some_and(|other| other != main) {
            let what = "tokenizer_config.json has another chat template, ignored as transformers does";
            notes.push(format!("{FILE} is used; {what}"));
        }
        return Ok(Some(main));
    }
    if names.is_empty() {
        return Ok(None);
    }
    let name = choose(FOLDER, &names, notes)?;
    Ok(checkpoint.text_in(FOLDER, &format!("{name}{EXTENSION}"))?)
}

/// The template in `tokenizer_config.json`: a text, or named texts.
pub(crate) fn of_tokenizer_config(config: &Value, notes: &mut Vec<String>) -> Result<Option<String>, Error> {
    let bad = |what: &str| Error::Config {
        file: "tokenizer_config.json".into(),
        what: format!("chat_template {what}"),
    };
    let named: Vec<(&str, &str)> = match &config["chat_template"] {
        Value::Null => return Ok(None),
        Value::String(text) => return Ok(Some(text.clone())),
        Value::Array(list) => {
            let list = list.iter().map(|entry| Some((entry["name"].as_str()?, entry["template"].as_str()?)));
            let list: Option<Vec<_>> = list.collect();
            list.ok_or_else(|| bad("holds an entry without the texts \"name\" and \"template\""))?
        }
        Value::Object(map) => {
            let list = map.iter().map(|(name, text)| Some((name.as_str(), text.as_str()?)));
            let list: Option<Vec<_>> = list.collect();
            list.ok_or_else(|| bad("holds a template that is no text"))?
        }
        _ => return Err(bad("is neither a text nor a list of named texts")),
    };
    let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
    let name = choose("tokenizer_config.json", &names, notes)?;
    // Of two with one name the last one counts.
    Ok(named.iter().rev().find(|(other, _)| *other == name).map(|(_, text)| (*text).to_owned()))
}

/// Tokens of `tokenizer_config.json` that only templates use.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TemplateTokens {
    /// Keys of GGUF without `_token_id`, and texts.
    pub named: Vec<(&'static str, String)>,
    /// `additional_special_tokens`.
    pub additional: Vec<String>,
}

impl TemplateTokens {
    /// Those that `template` names.
    pub(crate) fn read(template: &str, tokenizer_config: Option<&Value>) -> Self {
        const ADDITIONAL: &str = "additional_special_tokens";
        let Some(config) = tokenizer_config else { return Self::default() };
        let text = |token: &Value| token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned);
        // GGUF spells the first one so.
        let keys = [("sep_token", "seperator"), ("cls_token", "cls"), ("mask_token", "mask")];
        let named = keys.into_iter().filter(|(name, _)| template.contains(name));
        let list = config[ADDITIONAL].as_array().filter(|_| template.contains(ADDITIONAL));
        Self {
            named: named.filter_map(|(name, key)| Some((key, text(&config[name])?))).collect(),
            additional: list.into_iter().flatten().filter_map(text).collect(),
        }
    }
}

/// The name of the template to be used; the only one where there is no default.
fn choose<'n>(place: &str, names: &[&'n str], notes: &mut Vec<String>) -> Result<&'n str, Error> {
    if let Some(name) = names.iter().find(|name| **name == DEFAULT) {
        let others: Vec<String> = names.iter().filter(|other| *other != name).map(|n| quoted(n)).collect();
        if !others.is_empty() {
            let others = others.join(", ");
            notes.push(format!("{place}: the chat template \"default\" is written, not {others}"));
        }
        return Ok(name);
    }
    if let [name] = names {
        let shown = quoted(name);
        notes.push(format!(
            "{place}: the only chat template is called {shown}, not \"default\": used; --chat-template FILE \
             gives another one"
        ));
        return Ok(name);
    }
    let list: Vec<String> = names.iter().take(8).map(|name| quoted(name)).collect();
    let what = match list.as_slice() {
        [] => "an empty list of chat templates; --chat-template none leaves the template out".to_owned(),
        list => format!(
            "the chat templates {} and none called \"default\"; choose one with --chat-template FILE, or \
             leave the template out with --chat-template none",
            list.join(", ")
        ),
    };
    Err(Error::Config { file: place.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_is_refused_without_waiting_for_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("template");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let error = GivenTemplate::read(&TemplateChoice::File(path), &mut HashSet::new()).unwrap_err();
        assert!(error.to_string().contains("a FIFO"), "{error}");
    }
}
