//! Conversations: OpenAI's `messages` and ShareGPT's `conversations`.

use super::super::row::RowError;
use super::fields::{invalid, told, unsupported};
use huozi_quant::message::shown;
use huozi_token::{Message, Role};
use serde_json::{Map, Value};

/// Most messages of a conversation.
const MAX_MESSAGES: usize = 1 << 16;

/// The messages of `messages`.
pub(super) fn messages(value: &Value) -> Result<Vec<Message>, RowError> {
    conversation("messages", value, message)
}

/// The messages of `conversations`.
pub(super) fn conversations(value: &Value) -> Result<Vec<Message>, RowError> {
    conversation("conversations", value, turn)
}

/// The messages of an array, the last of which asks.
fn conversation(
    field: &str,
    value: &Value,
    read: fn(&str, &Map<String, Value>) -> Result<Message, RowError>,
) -> Result<Vec<Message>, RowError> {
    let must = |what: String| invalid(field, format!("`{field}` {what}"));
    let values = value.as_array().ok_or_else(|| must(format!("is {}; it must be an array", told(value))))?;
    if !(1..=MAX_MESSAGES).contains(&values.len()) {
        return Err(must(format!("has {} messages; it must have 1 to {MAX_MESSAGES}", values.len())));
    }
    let mut messages = Vec::with_capacity(values.len());
    for (i, value) in values.iter().enumerate() {
        let place = format!("{field}[{i}]");
        let Some(object) = value.as_object() else {
            return Err(invalid(&place, format!("`{place}` is {}; it must be an object", told(value))));
        };
        messages.push(read(&place, object)?);
    }
    if messages.last().is_some_and(|message| message.role == Role::Assistant) {
        return Err(must(
            "ends with a message of the assistant, which would be the answer: remove it, or add the user's \
             next message"
                .to_owned(),
        ));
    }
    Ok(messages)
}

/// A required field of a message.
fn required<'v>(place: &str, object: &'v Map<String, Value>, name: &str) -> Result<&'v Value, RowError> {
    let value = object.get(name).filter(|value| !value.is_null());
    value.ok_or_else(|| invalid(place, format!("`{place}` has no `{name}`")))
}

fn role<'v>(place: &str, object: &'v Map<String, Value>, name: &str) -> Result<&'v str, RowError> {
    let value = required(place, object, name)?;
    let wrong = || invalid(place, format!("`{place}.{name}` is {}; it must be a text", told(value)));
    value.as_str().ok_or_else(wrong)
}

/// Fields beside `known` that hold something.
fn no_others(place: &str, object: &Map<String, Value>, known: [&str; 2]) -> Result<(), RowError> {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match object.iter().find(|(name, value)| !known.contains(&name.as_str()) && !empty(value)) {
        None => Ok(()),
        Some((name, _)) => {
            let name = shown(name);
            let message = format!("`{place}` has the field `{name}`, which is not supported: remove it");
            Err(unsupported(&format!("{place}.{name}"), message))
        }
    }
}

fn message(place: &str, object: &Map<String, Value>) -> Result<Message, RowError> {
    no_others(place, object, ["role", "content"])?;
    let role = match role(place, object, "role")? {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            let other = shown(other);
            let message = format!(
                "`{place}.role` is \"{other}\", which is not supported: only system, developer, user and \
                 assistant are"
            );
            return Err(unsupported(&format!("{place}.role"), message));
        }
    };
    let text = match required(place, object, "content")? {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .enumerate()
            .map(|(i, value)| part(&format!("{place}.content[{i}]"), value))
            .collect::<Result<String, _>>()?,
        other => {
            let message =
                format!("`{place}.content` is {}; it must be a text or an array of text parts", told(other));
            return Err(invalid(&format!("{place}.content"), message));
        }
    };
    Ok(Message::text(role, text))
}

/// The text of `{"type":"text","text":...}`.
fn part<'v>(place: &str, value: &'v Value) -> Result<&'v str, RowError> {
    let Some(object) = value.as_object() else {
        return Err(invalid(place, format!("`{place}` is {}; it must be an object", told(value))));
    };
    let kind = required(place, object, "type")?;
    if kind != "text" {
        let message = format!("`{place}.type` is {}, which is not supported: only \"text\" is", told(kind));
        return Err(unsupported(&format!("{place}.type"), message));
    }
    no_others(place, object, ["type", "text"])?;
    let text = required(place, object, "text")?;
    text.as_str()
        .ok_or_else(|| invalid(place, format!("`{place}.text` is {}; it must be a text", told(text))))
}

/// A message of ShareGPT.
fn turn(place: &str, object: &Map<String, Value>) -> Result<Message, RowError> {
    no_others(place, object, ["from", "value"])?;
    let role = match role(place, object, "from")? {
        "system" => Role::System,
        "human" | "user" => Role::User,
        "gpt" | "assistant" | "chatgpt" => Role::Assistant,
        other => {
            let other = shown(other);
            let message = format!(
                "`{place}.from` is \"{other}\", which is not supported: only system, human, user, gpt, \
                 chatgpt and assistant are"
            );
            return Err(unsupported(&format!("{place}.from"), message));
        }
    };
    let value = required(place, object, "value")?;
    let wrong = || invalid(place, format!("`{place}.value` is {}; it must be a text", told(value)));
    Ok(Message::text(role, value.as_str().ok_or_else(wrong)?))
}
