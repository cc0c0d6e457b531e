//! What Python's strings, lists and `json.dumps` do in templates, beyond minijinja and its `pycompat`.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use serde_json::Value as Json;

/// Makes `env` behave as Jinja2 on Python does.
pub(super) fn set_up(env: &mut Environment<'_>) {
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", tojson);
    env.add_filter("trim", |text: String, chars: Option<&str>| strip(&text, chars, true, true).to_owned());
    env.add_filter("truncate", truncate);
    env.add_filter("wordcount", |text: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
    });
    env.add_filter("float", |value: &Value, default: Option<f64>| {
        let number =
            value.as_str().map_or_else(|| f64::try_from(value.clone()).ok(), |s| s.trim().parse().ok());
        number.unwrap_or(default.unwrap_or(0.0))
    });
    env.add_filter("striptags", minijinja_contrib::filters::striptags);
    env.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    env.add_filter("center", |state: &State<'_, '_>, text: String, width: Option<usize>| {
        pad(state, &text, width.unwrap_or(80), ' ', Side::Both)
    });
    env.add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.0));
    env.add_function("joiner", minijinja_contrib::globals::joiner);
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
    env.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
}

/// Checks that `value` holds at most `most` values, those of its parts counted wherever they stand.
///
/// # Errors
/// It holds more, or itself.
pub(super) fn check_size(state: &State<'_, '_>, value: &Value, most: usize) -> Result<(), Error> {
    let too_large = || invalid("a value is too large or holds itself");
    let mut count = 0;
    let mut waiting = vec![value.clone()];
    while let Some(value) = waiting.pop() {
        count += 1;
        let map = match value.kind() {
            ValueKind::Map => true,
            ValueKind::Seq | ValueKind::Iterable => false,
            _ => continue,
        };
        for item in value.try_iter()? {
            if count + waiting.len() >= most {
                return Err(too_large());
            }
            waiting.push(if map { value.get_item(&item)? } else { item });
        }
    }
    state.consume_fuel((count / 16) as u64)?;
    Ok(())
}

/// Whether Python's `str.isspace` says so.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip<'t>(text: &'t str, chars: Option<&str>, left: bool, right: bool) -> &'t str {
    let unwanted = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(unwanted) } else { text };
    if right { text.trim_end_matches(unwanted) } else { text }
}

/// A method that minijinja's values do not have.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = of_string(state, text, name, args).transpose()
    {
        return result;
    }
    if value.kind() == ValueKind::Seq && name == "index" {
        let (item,): (&Value,) = from_args(args)?;
        let at = value.try_iter()?.position(|other| other == *item);
        return at.map(Value::from).ok_or_else(|| invalid("list.index: the item is not in the list"));
    }
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Map) && name == "copy" {
        let () = from_args(args)?;
        return Ok(value.clone());
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_owned())
}

/// Whether a format, or an argument that may be a width in it, holds a number of more than four digits.
fn wide_field(text: &str, args: &[Value]) -> bool {
    let long = |text: &str| text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 4);
    let wide = |arg: &Value| arg.as_i64().is_some_and(|n| n > 9999);
    long(text) || text.contains(":{") && args.iter().any(wide)
}

/// `text.name(args)`; `None` for a method that is not here.
fn of_string(state: &State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        // The width of a field costs memory, but no instruction.
        "format" if wide_field(text, args) => return Err(invalid("str.format: a field is too wide")),
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            strip(text, chars, name != "rstrip", name != "lstrip").into()
        }
        "split" | "rsplit" => split(text, args, name == "rsplit")?,
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(options.get("keepends")?).unwrap_or(false);
            lines(text).map(|(line, end)| if keep { format!("{line}{end}") } else { line.into() }).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(invalid("empty separator"));
            }
            let parts = if name == "partition" {
                text.split_once(separator).map_or([text, "", ""], |(a, b)| [a, separator, b])
            } else {
                text.rsplit_once(separator).map_or(["", "", text], |(a, b)| [a, separator, b])
            };
            Tuple::from(parts.map(Value::from)).into()
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let at = if name == "index" { text.find(what) } else { text.rfind(what) };
            let at = at.ok_or_else(|| invalid("substring not found"))?;
            text[..at].chars().count().into()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let digits = text.trim_start_matches(['+', '-']);
            let sign = &text[..usize::from(digits.len() < text.len())];
            let width = width.saturating_sub(sign.len());
            format!("{sign}{}", pad(state, &text[sign.len()..], width, '0', Side::Left)?).into()
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let side = match name {
                "ljust" => Side::Right,
                "rjust" => Side::Left,
                _ => Side::Both,
            };
            pad(state, text, width, fill.unwrap_or(' '), side)?.into()
        }
        "casefold" => {
            let () = from_args(args)?;
            text.to_lowercase().replace('ß', "ss").into()
        }
        "title" => {
            let () = from_args(args)?;
            title(text).into()
        }
        "swapcase" => {
            let () = from_args(args)?;
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                if c.is_uppercase() {
                    out.extend(c.to_lowercase());
                } else {
                    out.extend(c.to_uppercase());
                }
            }
            out.into()
        }
        _ => return Ok(None),
    }))
}

/// `str.split` and `str.rsplit`: at `sep`, else at every run of white space; at most `maxsplit` times.
fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, most, options): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = separator.or(options.get("sep")?);
    let most = most.or(options.get("maxsplit")?).and_then(|n| usize::try_from(n).ok());
    options.assert_all_used()?;
    if separator == Some("") {
        return Err(invalid("empty separator"));
    }
    let parts = most.map_or(usize::MAX, |n| n.saturating_add(1));
    let mut found: Vec<&str> = match separator {
        Some(separator) if from_right => text.rsplitn(parts, separator).collect(),
        Some(separator) => text.splitn(parts, separator).collect(),
        None => words(text, parts, from_right),
    };
    if from_right {
        found.reverse();
    }
    Ok(found.into_iter().map(Value::from).collect())
}

/// At most `most` parts between runs of white space; the last one has the rest.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = strip(text, None, !from_right, from_right);
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        match cut.filter(|_| found.len() + 1 < most) {
            Some(at) if from_right => {
                let after = at + rest[at..].chars().next().map_or(1, char::len_utf8);
                found.push(&rest[after..]);
                rest = strip(&rest[..at], None, false, true);
            }
            Some(at) => {
                found.push(&rest[..at]);
                rest = strip(&rest[at..], None, true, false);
            }
            None => {
                found.push(rest);
                break;
            }
        }
    }
    found
}

/// The lines of `str.splitlines` with what ends them.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = rest.find(ends).unwrap_or(rest.len());
        let end = match &rest[at..] {
            after if after.starts_with("\r\n") => 2,
            after => after.chars().next().map_or(0, char::len_utf8),
        };
        let line = (&rest[..at], &rest[at..at + end]);
        rest = &rest[at + end..];
        Some(line)
    })
}

/// Jinja's `truncate(length=255, killwords=False, end='...', leeway=5)`.
fn truncate(text: &str, args: Rest<Value>) -> Result<String, Error> {
    let (length, whole, end, leeway, options): (Option<usize>, Option<bool>, Option<&str>, _, Kwargs) =
        from_args(&args)?;
    let length = length.or(options.get("length")?).unwrap_or(255);
    let cut_words = whole.or(options.get("killwords")?).unwrap_or(false);
    let end = end.or(options.get("end")?).unwrap_or("...");
    let leeway: usize = Option::<usize>::or(leeway, options.get("leeway")?).unwrap_or(5);
    options.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept = length.saturating_sub(end.chars().count());
    let kept = text.char_indices().nth(kept).map_or(text, |(at, _)| &text[..at]);
    let kept = if cut_words { kept } else { kept.rsplit_once(' ').map_or(kept, |(words, _)| words) };
    Ok(format!("{kept}{end}"))
}

/// `str.title`: a letter is upper case after anything but a letter.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
    Both,
}

/// `text` with `fill` on a side, `width` characters long.
fn pad(state: &State<'_, '_>, text: &str, width: usize, fill: char, side: Side) -> Result<String, Error> {
    let missing = width.saturating_sub(text.chars().count());
    // Paid for before it is made.
    state.consume_fuel((missing / 16) as u64)?;
    // As Python: an odd one goes to the left where the width is odd.
    let left = match side {
        Side::Left => missing,
        Side::Right => 0,
        Side::Both => missing / 2 + (missing & width & 1),
    };
    let fill = |n: usize| std::iter::repeat_n(fill, n);
    Ok(fill(left).chain(text.chars()).chain(fill(missing - left)).collect())
}

/// The longest indentation and separator of [`tojson`], in bytes: more would only cost memory.
const MAX_SEPARATOR: usize = 64;

/// How [`tojson`] writes.
struct JsonStyle {
    item: String,
    key: String,
    indent: Option<String>,
    ascii: bool,
}

/// `json.dumps` with the arguments that transformers lets through; nothing is escaped for HTML.
fn tojson(state: &State<'_, '_>, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent = options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()).map(|indent| {
        match i64::try_from(indent.clone()) {
            // More would only cost memory.
            Ok(n) => " ".repeat(usize::try_from(n).unwrap_or(0).min(64)),
            Err(_) => indent.as_str().unwrap_or_default().to_owned(),
        }
    });
    let long = |text: &str| text.len() > MAX_SEPARATOR;
    let separators: Vec<String> = options.get::<Option<_>>("separators")?.unwrap_or_default();
    let (item, key) = match <[String; 2]>::try_from(separators) {
        Ok([item, key]) => (item, key),
        Err(_) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    if indent.as_deref().is_some_and(long) || long(&item) || long(&key) {
        let what = format!("indent and separators have at most {MAX_SEPARATOR} bytes");
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::BadSerialization, "an undefined value has no JSON"));
    }
    let failed = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut json = serde_json::to_value(value).map_err(failed)?;
    if sorted {
        json.sort_all_objects();
    }
    let style = JsonStyle { item, key, indent, ascii };
    // Paid for before it is made: every value may begin a line that is indented.
    state.consume_fuel(json_bytes(&json, &style, 0) / 16)?;
    let mut out = String::new();
    write_json(&mut out, &json, &style, 0);
    Ok(Value::from_safe_string(out))
}

/// At least the bytes that [`write_json`] writes.
fn json_bytes(json: &Json, style: &JsonStyle, level: u64) -> u64 {
    let indent = style.indent.as_ref().map_or(0, |indent| indent.len() as u64);
    let line = 1 + style.item.len() as u64 + indent.saturating_mul(level + 1);
    // An escaped byte is up to six long.
    let text = |text: &str| 6 * text.len() as u64 + 2;
    let inner: u64 = match json {
        Json::Array(items) => items.iter().map(|item| line + json_bytes(item, style, level + 1)).sum(),
        Json::Object(map) => map
            .iter()
            .map(|(name, item)| {
                line + text(name) + style.key.len() as u64 + json_bytes(item, style, level + 1)
            })
            .sum(),
        Json::String(value) => text(value),
        Json::Null | Json::Bool(_) | Json::Number(_) => 32,
    };
    inner + line
}

fn write_json(out: &mut String, json: &Json, style: &JsonStyle, level: usize) {
    let line = |out: &mut String, level: usize| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            (0..level).for_each(|_| out.push_str(indent));
        }
    };
    let between = |out: &mut String, first: bool| {
        if !first {
            out.push_str(&style.item);
        }
        line(out, level + 1);
    };
    match json {
        Json::Array(items) if !items.is_empty() => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                between(out, i == 0);
                write_json(out, item, style, level + 1);
            }
            line(out, level);
            out.push(']');
        }
        Json::Object(items) if !items.is_empty() => {
            out.push('{');
            for (i, (key, item)) in items.iter().enumerate() {
                between(out, i == 0);
                write_string(out, key, style.ascii);
                out.push_str(&style.key);
                write_json(out, item, style, level + 1);
            }
            line(out, level);
            out.push('}');
        }
        Json::String(text) => write_string(out, text, style.ascii),
        other => out.push_str(&other.to_string()),
    }
}

fn write_string(out: &mut String, text: &str, ascii: bool) {
    for c in Json::from(text).to_string().chars() {
        if ascii && !c.is_ascii() {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
}
