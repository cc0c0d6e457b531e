//! A model's own chat template: Jinja as Hugging Face runs it, without letting messages spell
//! control tokens.
//!
//! In: messages. Out: ids. The template is from outside: it runs with fuel (which also counts the
//! bytes it makes), a recursion limit, and no access to anything but the messages.
//!
//! A template mixes its own control tokens with message text, so the rendered text alone cannot
//! say which is which. Before rendering, every control token spelled in a message is replaced by
//! one private-use character, a *stand-in*, that occurs nowhere else; the rendered text is split
//! at control tokens; in the parts between, stand-ins become what they stand for, tokenised
//! plain. An answer given as ids is one stand-in as a whole.
//!
//! That leaves a control token put together from pieces: half from a message, half from the
//! template or another message. So everything is rendered a second time with *every* character
//! that occurs in any control token replaced in the messages. There, control tokens come from the
//! template alone. If the first rendering has others, the second is used.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error as JinjaError, ErrorKind, Value, context};

use super::error::ChatError;
use super::message::{Content, Message};
use crate::tokenizer::{Specials, TextPart, Tokenizer};

/// What one rendering may cost besides what its messages are worth: one unit is an instruction or
/// 64 bytes of memory, so at most 64 MB.
const FUEL: u64 = 1_000_000;
/// The same for each byte of the messages: a template may well copy and scan them, some dozens of
/// times each.
const FUEL_PER_BYTE: u64 = 2;
/// Depth of blocks (1 each) and macros (10 each). Far above any real template; half of what
/// minijinja holds safe for a stack of usual size.
const RECURSION: usize = 250;

/// A parsed template and its variables.
pub struct Template {
    env: Environment<'static>,
    source: String,
    special: BTreeMap<&'static str, String>,
    /// Every character of every control token.
    control_chars: BTreeSet<char>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Template {
    /// # Errors
    /// [`ChatError::Template`] if `source` does not parse.
    pub(super) fn new(source: &str, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let mut env = Environment::new();
        // As transformers sets up Jinja.
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        env.set_syntax(syntax.build().map_err(|e| describe(&e))?);
        env.set_recursion_limit(RECURSION);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.set_formatter(|out, state, value| match python_word(value) {
            Some(word) => Ok(out.write_str(word)?),
            None => minijinja::escape_formatter(out, state, value),
        });
        env.add_function("raise_exception", |message: String| -> Result<Value, JinjaError> {
            Err(JinjaError::new(ErrorKind::InvalidOperation, message))
        });
        env.add_filter("tojson", tojson);
        env.add_template_owned("chat", source.to_owned()).map_err(|e| describe(&e))?;

        let vocab = tokenizer.vocab();
        let spelled = |id: u32| String::from_utf8_lossy(vocab.bytes(id)).into_owned();
        let mut special = BTreeMap::new();
        for (name, id) in [
            ("bos_token", vocab.bos()),
            ("eos_token", vocab.eos()),
            ("unk_token", vocab.unk()),
            ("pad_token", vocab.pad()),
        ] {
            // Absent ones are undefined, as in transformers.
            if let Some(id) = id {
                special.insert(name, spelled(id));
            }
        }
        let control_chars =
            vocab.controls().iter().flat_map(|&id| spelled(id).chars().collect::<Vec<_>>()).collect();
        Ok(Self { env, source: source.to_owned(), special, control_chars })
    }

    pub(super) fn prompt_ids(
        &self,
        messages: &[Message],
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, ChatError> {
        let mut stand_ins = StandIns::new(self, messages);
        let mut whole = Vec::with_capacity(messages.len());
        let mut strict = Vec::with_capacity(messages.len());
        for message in messages {
            let (mut a, mut b) = (String::new(), String::new());
            match &message.content {
                Content::Ids(ids) => {
                    let c = stand_ins.take(Meaning::Ids(ids))?;
                    a.push(c);
                    b.push(c);
                }
                Content::Text(text) => {
                    let mut failed = Ok(());
                    tokenizer.split_controls(text, |part| match part {
                        TextPart::Text(text) => a.push_str(text),
                        TextPart::Token(id) => {
                            let spelled = String::from_utf8_lossy(tokenizer.vocab().bytes(id));
                            match stand_ins.take(Meaning::Text(spelled.into_owned())) {
                                Ok(c) => a.push(c),
                                Err(e) => failed = Err(e),
                            }
                        }
                    });
                    failed?;
                    for c in text.chars() {
                        b.push(if self.control_chars.contains(&c) {
                            stand_ins.take(Meaning::Text(c.to_string()))?
                        } else {
                            c
                        });
                    }
                }
            }
            whole.push(a);
            strict.push(b);
        }
        let whole = self.render(messages, &whole)?;
        let strict = self.render(messages, &strict)?;
        let controls = |text: &str| {
            let mut ids = Vec::new();
            tokenizer.split_controls(text, |part| {
                if let TextPart::Token(id) = part {
                    ids.push(id);
                }
            });
            ids
        };
        let safe = if controls(&whole) == controls(&strict) { whole } else { strict };
        Ok(stand_ins.restore(&safe, tokenizer))
    }

    pub(super) fn prompt_text(
        &self,
        messages: &[Message],
        tokenizer: &Tokenizer,
    ) -> Result<String, ChatError> {
        let contents: Vec<String> = messages
            .iter()
            .map(|m| match &m.content {
                Content::Text(text) => text.clone(),
                Content::Ids(ids) => tokenizer.decode(ids, true),
            })
            .collect();
        self.render(messages, &contents)
    }

    fn render(&self, messages: &[Message], contents: &[String]) -> Result<String, ChatError> {
        let bytes: usize = contents.iter().map(String::len).sum();
        let mut env = self.env.clone();
        env.set_fuel(Some(FUEL.saturating_add(FUEL_PER_BYTE.saturating_mul(bytes as u64))));
        let messages: Vec<Value> = messages
            .iter()
            .zip(contents)
            .map(|(m, content)| context! { role => m.role.name(), content => content })
            .collect();
        let template = env.get_template("chat").map_err(|e| describe(&e))?;
        // `none`, not undefined: templates ask `tools is not none`.
        template
            .render(context! {
                messages,
                add_generation_prompt => true,
                tools => (),
                documents => (),
                ..Value::from_pairs(self.special.clone())
            })
            .map_err(|e| describe(&e))
    }
}

fn describe(error: &JinjaError) -> ChatError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    ChatError::Template(text)
}

/// How Python writes what Jinja's other implementations write in lower case.
fn python_word(value: &Value) -> Option<&'static str> {
    if value.is_none() {
        return Some("None");
    }
    match value.kind() {
        minijinja::value::ValueKind::Bool => Some(if value.is_true() { "True" } else { "False" }),
        _ => None,
    }
}

/// JSON as Python writes it: a space after `,` and `:`, nothing escaped for HTML.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, JinjaError> {
    let indent: Option<usize> = options.get("indent")?;
    // `ensure_ascii=False` and the like are what is done anyway.
    for _ in options.args() {}
    let failed = |e: serde_json::Error| JinjaError::new(ErrorKind::BadSerialization, e.to_string());
    let mut out = Vec::new();
    if let Some(width) = indent {
        let spaces = " ".repeat(width.min(16));
        let pretty = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
        let mut to = serde_json::Serializer::with_formatter(&mut out, pretty);
        serde::Serialize::serialize(value, &mut to).map_err(failed)?;
    } else {
        let mut to = serde_json::Serializer::with_formatter(&mut out, PythonJson);
        serde::Serialize::serialize(value, &mut to).map_err(failed)?;
    }
    Ok(Value::from_safe_string(String::from_utf8_lossy(&out).into_owned()))
}

struct PythonJson;

impl serde_json::ser::Formatter for PythonJson {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// What a stand-in stands for.
enum Meaning<'a> {
    Text(String),
    Ids(&'a [u32]),
}

/// Private-use characters in use for one prompt.
struct StandIns<'a> {
    /// Private-use characters of the messages and the template: not to be had.
    taken: BTreeSet<char>,
    next: std::iter::Chain<
        std::ops::RangeInclusive<char>,
        std::iter::Chain<std::ops::RangeInclusive<char>, std::ops::RangeInclusive<char>>,
    >,
    meanings: BTreeMap<char, Meaning<'a>>,
    by_text: BTreeMap<String, char>,
}

impl<'a> StandIns<'a> {
    fn new(template: &Template, messages: &[Message]) -> Self {
        let contents = messages.iter().map(|m| match &m.content {
            Content::Text(text) => text.as_str(),
            Content::Ids(_) => "",
        });
        let texts =
            contents.chain([template.source.as_str()]).chain(template.special.values().map(String::as_str));
        let private = |c: &char| {
            let areas = ['\u{E000}'..='\u{F8FF}', '\u{F0000}'..='\u{FFFFD}', '\u{100000}'..='\u{10FFFD}'];
            areas.iter().any(|area| area.contains(c))
        };
        let mut taken: BTreeSet<char> = texts.flat_map(str::chars).filter(private).collect();
        taken.extend(template.control_chars.iter().filter(|c| private(c)));
        let next =
            ('\u{F0000}'..='\u{FFFFD}').chain(('\u{100000}'..='\u{10FFFD}').chain('\u{E000}'..='\u{F8FF}'));
        Self { taken, next, meanings: BTreeMap::new(), by_text: BTreeMap::new() }
    }

    /// The character that stands for `meaning`, one for each different text.
    fn take(&mut self, meaning: Meaning<'a>) -> Result<char, ChatError> {
        if let Meaning::Text(text) = &meaning
            && let Some(&c) = self.by_text.get(text)
        {
            return Ok(c);
        }
        let taken = &self.taken;
        let c = self.next.find(|c| !taken.contains(c)).ok_or(ChatError::NoStandIn)?;
        if let Meaning::Text(text) = &meaning {
            self.by_text.insert(text.clone(), c);
        }
        self.meanings.insert(c, meaning);
        Ok(c)
    }

    /// The ids of a rendered text.
    fn restore(&self, rendered: &str, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut plain = String::new();
        tokenizer.split_controls(rendered, |part| match part {
            TextPart::Token(id) => ids.push(id),
            TextPart::Text(text) => {
                for c in text.chars() {
                    match self.meanings.get(&c) {
                        None => plain.push(c),
                        Some(Meaning::Text(text)) => plain.push_str(text),
                        Some(Meaning::Ids(answer)) => {
                            tokenizer.encode_into(&plain, Specials::Plain, &mut ids);
                            plain.clear();
                            ids.extend_from_slice(answer);
                        }
                    }
                }
                tokenizer.encode_into(&plain, Specials::Plain, &mut ids);
                plain.clear();
            }
        });
        ids
    }
}
