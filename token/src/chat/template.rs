//! A model's own chat template: Jinja as transformers runs it, without letting messages spell control tokens.
//!
//! In: messages and the date. Out: ids. The template is from outside: it runs with fuel (which also counts
//! the bytes it makes), a recursion limit, and no access to anything but the messages and the date.
//!
//! A template mixes its own control tokens with message text, so the rendered text alone cannot
//! say which is which. Before rendering, every control token spelled in a message is replaced by
//! one private-use character, a *stand-in*, that occurs nowhere else; the rendered text is split
//! at control tokens; in the parts between, stand-ins become what they stand for, tokenised
//! plain.
//!
//! That leaves a control token put together from pieces: half from a message, half from the
//! template or another message. So everything is rendered a second time with *every* character
//! that occurs in any control token replaced in the messages. There, control tokens come from the
//! template alone. If the first rendering has others, the second is used.
//!
//! An answer given as ids is one stand-in as a whole where the template passes its text on unchanged, which a
//! rendering with the text instead shows. Where the template changes it (drops a part, trims it), the changed
//! text is tokenised, as transformers does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error as JinjaError, ErrorKind, State, Value, context};

use super::date::strftime;
use super::error::ChatError;
use super::message::{Content, Message, Role};
use super::stand_ins::{Meaning, StandIns};
use super::{python, syntax};
use crate::tokenizer::{TextPart, Tokenizer};

/// What one rendering may cost besides what its messages are worth: one unit is an instruction or
/// 64 bytes of memory, so at most 64 MB.
const FUEL: u64 = 1_000_000;
/// The same for each byte of the messages: a template may well copy and scan them, some dozens of
/// times each.
const FUEL_PER_BYTE: u64 = 2;
/// Values that one value of a template may hold, with 16 more for each message.
const MAX_VALUES: usize = 200_000;
/// Stack of the thread that renders; only what is used takes memory. An instruction that nests a value costs
/// about 8 units of fuel in all, printing it up to 800 bytes of stack.
const STACK_BYTES: usize = 128 << 20;
/// Depth of blocks (1 each) and macros (10 each). Far above any real template; half of what
/// minijinja holds safe for a stack of usual size.
const RECURSION: usize = 250;

/// A parsed template and its variables.
pub struct Template {
    env: Environment<'static>,
    /// As minijinja reads it.
    source: String,
    /// Special tokens by their variables, `bos_token` and so on.
    special: BTreeMap<String, String>,
    /// `additional_special_tokens`; none where it is undefined.
    additional: Vec<String>,
    /// Every character of every control token.
    control_chars: BTreeSet<char>,
}

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// A message's content in the renderings that are compared.
struct Variants {
    /// Spelled control tokens replaced.
    whole: String,
    /// Every character of a control token replaced.
    strict: String,
    /// One stand-in, for an answer given as ids.
    answer: Option<char>,
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
        let source = syntax::for_minijinja(source).map_err(ChatError::Template)?;
        let mut env = Environment::new();
        // As transformers sets up Jinja.
        let mut delimiters = SyntaxConfig::builder();
        delimiters.trim_blocks(true).lstrip_blocks(true);
        env.set_syntax(delimiters.build().map_err(|e| describe(&e))?);
        env.set_recursion_limit(RECURSION);
        python::set_up(&mut env);
        env.add_function("raise_exception", |message: String| -> Result<Value, JinjaError> {
            let error = JinjaError::new(ErrorKind::InvalidOperation, "raise_exception");
            Err(error.with_source(Raised(message)))
        });
        env.add_template_owned("chat", source.clone()).map_err(|e| describe(&e))?;

        let vocab = tokenizer.vocab();
        let spelled = |id: u32| String::from_utf8_lossy(vocab.bytes(id)).into_owned();
        let control_chars =
            vocab.controls().iter().flat_map(|&id| spelled(id).chars().collect::<Vec<_>>()).collect();
        let mut template =
            Self { env, source, special: BTreeMap::new(), additional: Vec::new(), control_chars };
        for (name, id) in [
            ("bos_token", vocab.bos()),
            ("eos_token", vocab.eos()),
            ("unk_token", vocab.unk()),
            ("pad_token", vocab.pad()),
        ] {
            // Absent ones are undefined, as in transformers.
            if let Some(id) = id {
                template.add_special(name, u64::from(id), tokenizer);
            }
        }
        Ok(template)
    }

    /// Gives the template the spelling of token `id` as variable `name`; nothing for an id that does not
    /// exist.
    pub(super) fn add_special(&mut self, name: &str, id: u64, tokenizer: &Tokenizer) {
        let bytes = u32::try_from(id).map_or(&[][..], |id| tokenizer.vocab().bytes(id));
        if !bytes.is_empty() {
            self.special.insert(name.to_owned(), String::from_utf8_lossy(bytes).into_owned());
        }
    }

    /// Gives the template the list `additional_special_tokens`.
    pub(super) fn set_additional(&mut self, tokens: Vec<String>) {
        self.additional = tokens;
    }

    pub(super) fn prompt_ids(
        &self,
        messages: &[Message],
        date: DateTime,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, ChatError> {
        let texts: Vec<String> = messages.iter().map(|message| text_of(message, tokenizer)).collect();
        let own = [&self.source].into_iter().chain(self.special.values()).chain(&self.additional);
        let control_chars = self.control_chars.iter().collect::<String>();
        let mut stand_ins =
            StandIns::new(texts.iter().chain(own).chain([&control_chars]).map(String::as_str));
        let mut variants = Vec::with_capacity(messages.len());
        for (message, text) in messages.iter().zip(&texts) {
            let (whole, strict) = self.protected(text, &mut stand_ins, tokenizer)?;
            let answer = match &message.content {
                Content::Ids(ids) => Some(stand_ins.take(Meaning::Ids(ids))?),
                Content::Text(_) => None,
            };
            variants.push(Variants { whole, strict, answer });
        }
        let render = |as_ids: &[bool], strict: bool| {
            let contents = variants.iter().zip(as_ids).map(|(variant, as_ids)| match variant.answer {
                Some(c) if *as_ids => c.to_string(),
                _ if strict => variant.strict.clone(),
                _ => variant.whole.clone(),
            });
            self.render(messages, &contents.collect::<Vec<_>>(), date)
        };
        let mut as_ids = vec![false; messages.len()];
        let mut whole = render(&as_ids, false)?;
        let answers: Vec<bool> = variants.iter().map(|variant| variant.answer.is_some()).collect();
        // A template may also fail on a stand-in: then all answers are text.
        if answers.contains(&true)
            && let Ok(rendered) = render(&answers, false)
        {
            let unchanged = unchanged(&rendered, &whole, &variants);
            let rendered = if unchanged == answers { Ok(rendered) } else { render(&unchanged, false) };
            if let Ok(rendered) = rendered
                && spelled_out(&rendered, &variants) == whole
            {
                (as_ids, whole) = (unchanged, rendered);
            }
        }
        let controls = |text: &str| {
            let mut ids = Vec::new();
            tokenizer.split_controls(text, |part| {
                if let TextPart::Token(id) = part {
                    ids.push(id);
                }
            });
            ids
        };
        let found = controls(&whole);
        if !found.is_empty() {
            let strict = render(&as_ids, true)?;
            if found != controls(&strict) {
                whole = strict;
            }
        }
        Ok(stand_ins.restore(&whole, tokenizer))
    }

    /// `text` with the control tokens that it spells replaced, and with every character of control tokens
    /// replaced.
    fn protected(
        &self,
        text: &str,
        stand_ins: &mut StandIns<'_>,
        tokenizer: &Tokenizer,
    ) -> Result<(String, String), ChatError> {
        let (mut whole, mut strict) = (String::new(), String::new());
        let mut failed = Ok(());
        tokenizer.split_controls(text, |part| match part {
            TextPart::Text(text) => whole.push_str(text),
            TextPart::Token(id) => {
                let spelled = String::from_utf8_lossy(tokenizer.vocab().bytes(id));
                match stand_ins.take(Meaning::Text(spelled.into_owned())) {
                    Ok(c) => whole.push(c),
                    Err(e) => failed = Err(e),
                }
            }
        });
        failed?;
        for c in text.chars() {
            strict.push(if self.control_chars.contains(&c) {
                stand_ins.take(Meaning::Text(c.to_string()))?
            } else {
                c
            });
        }
        Ok((whole, strict))
    }

    pub(super) fn prompt_text(
        &self,
        messages: &[Message],
        date: DateTime,
        tokenizer: &Tokenizer,
    ) -> Result<String, ChatError> {
        let texts: Vec<String> = messages.iter().map(|message| text_of(message, tokenizer)).collect();
        self.render(messages, &texts, date)
    }

    fn render(&self, messages: &[Message], contents: &[String], date: DateTime) -> Result<String, ChatError> {
        let result = self.render_as_is(messages, contents, date);
        // Which of the messages it is that the template does not take.
        match result {
            Err(ChatError::Refused(why)) if messages.first().is_some_and(|m| m.role == Role::System) => {
                match self.render_as_is(&messages[1..], &contents[1..], date) {
                    Ok(_) => Err(ChatError::NoSystem(why)),
                    Err(_) => Err(ChatError::Refused(why)),
                }
            }
            result => result,
        }
    }

    /// Renders on a thread whose stack is deep enough for any value that the fuel can nest.
    fn render_as_is(
        &self,
        messages: &[Message],
        contents: &[String],
        date: DateTime,
    ) -> Result<String, ChatError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, || self.render_here(messages, contents, date));
            let thread = thread.map_err(|e| ChatError::Template(format!("it got no thread: {e}")))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn render_here(
        &self,
        messages: &[Message],
        contents: &[String],
        date: DateTime,
    ) -> Result<String, ChatError> {
        let bytes: usize = contents.iter().map(String::len).sum();
        let mut env = self.env.clone();
        env.set_fuel(Some(FUEL.saturating_add(FUEL_PER_BYTE.saturating_mul(bytes as u64))));
        env.add_function("strftime_now", move |format: &str| {
            strftime(format, date).map_err(|what| JinjaError::new(ErrorKind::InvalidOperation, what))
        });
        let most = MAX_VALUES + 16 * messages.len();
        env.add_function(syntax::CHECK, move |state: &State<'_, '_>, value: &Value| {
            python::check_size(state, value, most)
        });
        let messages: Vec<Value> = messages
            .iter()
            .zip(contents)
            .map(|(m, content)| context! { role => m.role.name(), content => content })
            .collect();
        let mut special: BTreeMap<&str, Value> =
            self.special.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))).collect();
        if !self.additional.is_empty() {
            special.insert("additional_special_tokens", Value::from(self.additional.clone()));
        }
        let template = env.get_template("chat").map_err(|e| describe(&e))?;
        // `none`, not undefined: templates ask `tools is not none`.
        template
            .render(context! {
                messages,
                add_generation_prompt => true,
                tools => (),
                documents => (),
                ..Value::from_pairs(special)
            })
            .map_err(|e| self.with_undefined(&e))
    }

    /// What failed; where that is an undefined value, with the variables that the template has no value for.
    fn with_undefined(&self, error: &JinjaError) -> ChatError {
        let described = describe(error);
        let ChatError::Template(text) = &described else { return described };
        let Ok(template) = self.env.get_template("chat") else { return described };
        if error.kind() != ErrorKind::UndefinedError {
            return described;
        }
        let given =
            ["messages", "add_generation_prompt", "tools", "documents", "raise_exception", syntax::CHECK];
        let mut unknown: Vec<String> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !given.contains(&name.as_str()) && !self.special.contains_key(name))
            .collect();
        unknown.sort_unstable();
        unknown.truncate(8);
        if unknown.is_empty() {
            return described;
        }
        ChatError::Template(format!("{text}; variables without a value: {}", unknown.join(", ")))
    }
}

/// `rendered` with the text of answers in the place of their stand-ins.
fn spelled_out(rendered: &str, variants: &[Variants]) -> String {
    let mut text = String::with_capacity(rendered.len());
    for c in rendered.chars() {
        match variants.iter().find(|variant| variant.answer == Some(c)) {
            Some(variant) => text.push_str(&variant.whole),
            None => text.push(c),
        }
    }
    text
}

/// Which answers stand in `whole`, rendered with their text, where `rendered` has their stand-ins. A guess
/// where parts of the text occur several times.
fn unchanged(rendered: &str, whole: &str, variants: &[Variants]) -> Vec<bool> {
    let mut unchanged: Vec<bool> = variants.iter().map(|variant| variant.answer.is_some()).collect();
    let index = |c: char| variants.iter().position(|variant| variant.answer == Some(c));
    let mut rest = whole;
    // The stand-in that the part before ended with.
    let mut before: Option<usize> = None;
    for part in rendered.split_inclusive(|c| index(c).is_some()) {
        let next = part.chars().next_back().and_then(index);
        let text = next.and_then(|at| part.strip_suffix(variants[at].answer?)).unwrap_or(part);
        rest = match before {
            None => rest.strip_prefix(text).unwrap_or_default(),
            Some(at) => {
                let answer = variants[at].whole.as_str();
                match rest.strip_prefix(answer).and_then(|rest| rest.strip_prefix(text)) {
                    Some(rest) => rest,
                    None => {
                        unchanged[at] = false;
                        rest.find(text).map_or("", |found| &rest[found + text.len()..])
                    }
                }
            }
        };
        before = next;
    }
    if let Some(at) = before {
        unchanged[at] &= rest == variants[at].whole;
    }
    unchanged
}

/// The text of a message; of an answer given as ids the text that they decode to.
fn text_of(message: &Message, tokenizer: &Tokenizer) -> String {
    match &message.content {
        Content::Text(text) => text.clone(),
        Content::Ids(ids) => tokenizer.decode(ids, true),
    }
}

fn describe(error: &JinjaError) -> ChatError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(why)) = cause.downcast_ref() {
            return ChatError::Refused(why.clone());
        }
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    ChatError::Template(text)
}
