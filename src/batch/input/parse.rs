//! A record to what it asks: every form of a row.

use super::super::row::{Endpoint, Prompt, RowError};
use super::fields::{OwnSettings, invalid, text, told, unsupported};
use super::form::InputForm;
use super::messages::{conversations, messages};
use super::records::{Fault, MAX_RECORD_BYTES};
use super::strict;
use huozi_quant::message::{counted, shown};
use huozi_token::{Message, Role};
use serde_json::{Map, Value};

/// Longest `custom_id` in bytes.
pub const MAX_ID_BYTES: usize = 512;

/// How records are read.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) form: InputForm,
    /// Lines of text and values of a column are continued as they are; else they are messages of the user.
    pub(super) raw: bool,
    /// Of delimited forms.
    pub(super) columns: Option<Columns>,
}

/// Which fields of a delimited record are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// Number of fields.
    pub(super) count: usize,
    pub(super) prompt: usize,
    pub(super) id: Option<usize>,
}

/// What a record holds.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Its own id.
    pub(super) id: Option<String>,
    pub(super) body: Result<Body, RowError>,
}

/// What a row asks.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) endpoint: Endpoint,
    pub(super) prompt: Prompt,
    pub(super) model: Option<String>,
    pub(super) own: OwnSettings,
}

impl Parsed {
    fn failed(error: RowError) -> Self {
        Self { id: None, body: Err(error) }
    }
}

/// The bytes of a record, or what is wrong with them.
pub(super) fn parse(layout: &Layout, bytes: &[u8], fault: Option<Fault>) -> Parsed {
    let is_json = layout.form == InputForm::JsonLines;
    let malformed = |message: String| {
        let code = if is_json { "invalid_json" } else { "invalid_text" };
        Parsed::failed(RowError { code, message, param: None })
    };
    match fault {
        Some(Fault::TooLong) => {
            let unit = if is_json || layout.form == InputForm::Text { "line" } else { "record" };
            let message = format!("the {unit} is longer than {} MiB", MAX_RECORD_BYTES >> 20);
            return Parsed::failed(RowError { code: "line_too_long", message, param: None });
        }
        Some(Fault::Unclosed) => {
            let lines = 1 + bytes.trim_ascii_end().iter().filter(|&&b| b == b'\n').count();
            let message = format!(
                "a field begins with a quote, and no quote ends it: the {} to the end of the file are this \
                 one row; end the field, or write a quote inside a quoted field twice",
                huozi_quant::message::counted(lines, "line")
            );
            return malformed(message);
        }
        Some(Fault::AfterQuote) => {
            let message =
                "text follows the quote that ends a field: a quote in a quoted field must be doubled";
            return malformed(message.to_owned());
        }
        None => {}
    }
    let line = match std::str::from_utf8(bytes) {
        Ok(line) => line,
        Err(error) => return malformed(format!("not UTF-8 at byte {} of the row", error.valid_up_to() + 1)),
    };
    match (layout.form, &layout.columns) {
        (InputForm::JsonLines, _) => match strict::read(line) {
            Err(message) => malformed(format!("not valid JSON: {message}")),
            Ok(Value::Object(object)) => row(object),
            Ok(other) => malformed(format!("the line is {}; it must be a JSON object", told(&other))),
        },
        (InputForm::Text, _) => Parsed { id: None, body: Ok(plain(line, layout.raw)) },
        (InputForm::Csv | InputForm::Tsv, Some(columns)) => {
            let fields = delimited(bytes, layout.form.delimiter().unwrap_or(b','));
            record(&fields, columns, layout.raw).unwrap_or_else(malformed)
        }
        (InputForm::Csv | InputForm::Tsv, None) => malformed("there is no line of names".to_owned()),
    }
}

/// Whether a record holds nothing and is no row.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.is_empty() || std::str::from_utf8(bytes).is_ok_and(|text| text.trim().is_empty())
}

/// The fields of one record.
pub(super) fn delimited(bytes: &[u8], delimiter: u8) -> csv::ByteRecord {
    let mut fields = csv::ByteRecord::new();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .terminator(csv::Terminator::Any(b'\n'))
        .from_reader(bytes);
    // Bytes in memory always give a record.
    let _ = reader.read_byte_record(&mut fields);
    fields
}

fn record(fields: &csv::ByteRecord, columns: &Columns, raw: bool) -> Result<Parsed, String> {
    if fields.len() != columns.count {
        let (has, names) = (counted(fields.len() as u64, "field"), columns.count);
        return Err(format!("the row has {has}, the line of names has {names}: is a delimiter not quoted?"));
    }
    let field = |at: usize| fields.get(at).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("");
    let prompt = field(columns.prompt);
    let id = match columns.id.map(field).filter(|id| !id.is_empty()) {
        None => None,
        Some(id) => match checked_id("id", id) {
            Ok(id) => Some(id),
            Err(error) => return Ok(Parsed::failed(error)),
        },
    };
    let body = if prompt.trim().is_empty() {
        Err(invalid("prompt", "the prompt is empty".to_owned()))
    } else {
        Ok(plain(prompt, raw))
    };
    Ok(Parsed { id, body })
}

/// A prompt without settings.
fn plain(text: &str, raw: bool) -> Body {
    let (endpoint, prompt) = if raw {
        (Endpoint::Completions, Prompt::Text(text.to_owned()))
    } else {
        (Endpoint::Chat, Prompt::Messages(vec![Message::text(Role::User, text)]))
    };
    Body { endpoint, prompt, model: None, own: OwnSettings::default() }
}

fn checked_id(field: &str, id: &str) -> Result<String, RowError> {
    if (1..=MAX_ID_BYTES).contains(&id.len()) {
        return Ok(id.to_owned());
    }
    let message = format!("`{field}` has {} bytes; it must have 1 to {MAX_ID_BYTES}", id.len());
    Err(invalid(field, message))
}

/// Takes `custom_id`, or else `id`, out of a row. Whole numbers are ids, too, as data sets have them.
fn take_id(row: &mut Map<String, Value>) -> Result<Option<String>, RowError> {
    let other = row.shift_remove("id");
    let own = row.shift_remove("custom_id").filter(|value| !value.is_null());
    let (field, value) = match (own, other) {
        (Some(value), _) => ("custom_id", value),
        (None, Some(value)) if !value.is_null() => ("id", value),
        _ => return Ok(None),
    };
    match &value {
        Value::Number(number) if !number.is_f64() => Ok(Some(number.to_string())),
        Value::String(id) => checked_id(field, id).map(Some),
        _ => {
            Err(invalid(field, format!("`{field}` is {}; it must be a text or a whole number", told(&value))))
        }
    }
}

/// A JSON object.
fn row(mut row: Map<String, Value>) -> Parsed {
    let id = match take_id(&mut row) {
        Ok(id) => id,
        Err(error) => return Parsed::failed(error),
    };
    row.retain(|_, value| !value.is_null());
    let body = if ["body", "url", "method"].iter().any(|field| row.contains_key(*field)) {
        batch_line(row)
    } else {
        body(row)
    };
    Parsed { id, body }
}

/// `{"method","url","body"}`.
fn batch_line(mut row: Map<String, Value>) -> Result<Body, RowError> {
    if let Some(method) = row.shift_remove("method")
        && text("method", &method)? != "POST"
    {
        return Err(unsupported(
            "method",
            format!("`method` is {}; only \"POST\" is supported", told(&method)),
        ));
    }
    let url = row.shift_remove("url");
    let asked = match url.as_ref().map(|url| text("url", url)).transpose()? {
        None => None,
        Some("/v1/chat/completions") => Some(Endpoint::Chat),
        Some("/v1/completions") => Some(Endpoint::Completions),
        Some(other) => {
            let other = shown(other);
            let message = format!(
                "`url` is \"{other}\", which is not supported: only /v1/chat/completions and \
                 /v1/completions are"
            );
            return Err(unsupported("url", message));
        }
    };
    let inner = match row.shift_remove("body") {
        Some(Value::Object(inner)) => inner,
        Some(other) => {
            return Err(invalid("body", format!("`body` is {}; it must be an object", told(&other))));
        }
        None => return Err(invalid("body", "the row has no `body`".to_owned())),
    };
    row.shift_remove("metadata");
    if let Some(field) = row.keys().next() {
        let field = shown(field);
        let message = format!("the field `{field}` beside `body` is not supported: put settings into `body`");
        return Err(unsupported(&field, message));
    }
    let body = body(inner)?;
    match asked {
        Some(endpoint) if endpoint != body.endpoint => {
            let (url, field) = match endpoint {
                Endpoint::Chat => ("/v1/chat/completions", "messages"),
                Endpoint::Completions => ("/v1/completions", "prompt"),
            };
            Err(invalid("body", format!("the `body` of a row for {url} must have `{field}`")))
        }
        _ => Ok(body),
    }
}

/// The prompt, the model and the settings.
fn body(mut fields: Map<String, Value>) -> Result<Body, RowError> {
    fields.retain(|_, value| !value.is_null());
    let mut prompts = ["messages", "prompt", "conversations"].map(|name| (name, fields.shift_remove(name)));
    let [given, second] = {
        let mut given = prompts.iter_mut().filter(|(_, value)| value.is_some());
        [given.next(), given.next()].map(|it| it.and_then(|(name, value)| Some((*name, value.take()?))))
    };
    let Some((name, value)) = given else {
        let hint = fields.keys().next().map_or(String::new(), |field| format!("; it has `{}`", shown(field)));
        let message = format!("the row has none of `messages`, `prompt` and `conversations`{hint}");
        return Err(invalid("messages", message));
    };
    if let Some((other, _)) = second {
        let message = format!("the row has both `{name}` and `{other}`: it must have one of them");
        return Err(invalid(other, message));
    }
    let (endpoint, prompt) = match name {
        "prompt" => (Endpoint::Completions, prompt(&value)?),
        "messages" => (Endpoint::Chat, Prompt::Messages(messages(&value)?)),
        _ => {
            let mut messages = conversations(&value)?;
            // LLaMA-Factory's variant of the form holds the system text beside the turns.
            if let Some(system) = fields.shift_remove("system") {
                if messages.iter().any(|message| message.role == Role::System) {
                    let message = "the row has `system` and a turn of the system: it must have one of them";
                    return Err(invalid("system", message.to_owned()));
                }
                messages.insert(0, Message::text(Role::System, text("system", &system)?));
            }
            (Endpoint::Chat, Prompt::Messages(messages))
        }
    };
    let model = fields.shift_remove("model");
    let model = model.map(|model| text("model", &model).map(str::to_owned)).transpose()?;
    let mut own = OwnSettings::default();
    for (field, value) in &fields {
        own.take(field, value)?;
    }
    own.check(endpoint == Endpoint::Chat)?;
    Ok(Body { endpoint, prompt, model, own })
}

/// `prompt`: a text, ids, or an array with one of these.
fn prompt(value: &Value) -> Result<Prompt, RowError> {
    let wrong = |what: String| invalid("prompt", format!("`prompt` {what}"));
    match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(values) => match values.as_slice() {
            [] => Err(wrong("is an empty array".to_owned())),
            [Value::String(text)] => Ok(Prompt::Text(text.clone())),
            [Value::Array(ids)] => Ok(Prompt::Ids(token_ids(ids)?)),
            [Value::String(_) | Value::Array(_), ..] => {
                Err(wrong(format!("has {} prompts: a row takes one; make a row of each", values.len())))
            }
            ids => Ok(Prompt::Ids(token_ids(ids)?)),
        },
        other => Err(wrong(format!("is {}; it must be a text or an array of ids", told(other)))),
    }
}

fn token_ids(values: &[Value]) -> Result<Vec<u32>, RowError> {
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| {
            invalid("prompt", format!("`prompt` has {}, which is no id of a token", told(value)))
        })
    };
    values.iter().map(id).collect()
}
