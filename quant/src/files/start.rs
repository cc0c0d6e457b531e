//! What a file is, from its first bytes and its length.

use std::path::Path;

use serde_json::{Map, Value};

use super::diagnosis::{FileKind, ForeignFormat, line};
use super::text::{shown, word};

/// Bytes of a file that are looked at. An error message or a pointer is shorter.
pub(super) const START_BYTES: usize = 4096;

/// A longer safetensors header is not valid.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What the first bytes show.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    /// Nothing that any reader here takes.
    Useless(FileKind),
    /// GGUF of version 2 or 3, little-endian.
    Gguf,
    /// A safetensors file with a header of so many bytes.
    Safetensors(u64),
    /// A zip archive: a PyTorch checkpoint or something else.
    Zip,
    /// Text that begins like JSON.
    Json,
    /// Other text, or bytes of an unknown format.
    Other(FileKind),
}

/// Looks at the `start` of the file `path`, its first [`START_BYTES`] or all of it; `len`: its length.
pub(super) fn content(path: &Path, start: &[u8], len: u64) -> Content {
    if len == 0 {
        return Content::Useless(FileKind::Empty);
    }
    if let Some(version) = start.strip_prefix(b"GGUF").and_then(<[u8]>::first_chunk) {
        return gguf(u32::from_le_bytes(*version));
    }
    if let Some((header, [b'{', ..])) =
        start.split_first_chunk().map(|(n, rest)| (u64::from_le_bytes(*n), rest))
        && header <= MAX_HEADER_BYTES
    {
        return Content::Safetensors(header);
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        return Content::Zip;
    }
    if let Some(kind) = binary(path, start) {
        return Content::Useless(kind);
    }
    text(start, len)
}

fn gguf(version: u32) -> Content {
    match version {
        2 | 3 => Content::Gguf,
        // The low half of a version is 0 only when the bytes are in the other order.
        0 => Content::Useless(FileKind::GgufVersion { version }),
        _ if version & 0xffff == 0 => Content::Useless(FileKind::BigEndian),
        _ => Content::Useless(FileKind::GgufVersion { version }),
    }
}

/// The formats that a few bytes tell apart.
fn binary(path: &Path, start: &[u8]) -> Option<FileKind> {
    // Written as a little-endian number: the bytes are in the other order.
    let older: [(&[u8], FileKind); 6] = [
        (b"lmgg", FileKind::Ggml { format: "GGML" }),
        (b"fmgg", FileKind::Ggml { format: "GGMF" }),
        (b"tjgg", FileKind::Ggml { format: "GGJT" }),
        (b"algg", FileKind::Ggla),
        (b"nsgg", FileKind::OtherFormat { what: ForeignFormat::LlamaSession }),
        (b"FUGG", FileKind::BigEndian),
    ];
    if let Some((_, kind)) = older.into_iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(kind);
    }
    let packed: [(&[u8], &str, &str); 9] = [
        (b"\x1f\x8b\x08", "gzip", "gunzip"),
        (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d"),
        (b"\xfd7zXZ\0", "xz", "unxz"),
        (b"BZh", "bzip2", "bunzip2"),
        (b"\x04\x22\x4d\x18", "lz4", "lz4 -d"),
        (b"LZIP", "lzip", "lzip -d"),
        (b"7z\xbc\xaf\x27\x1c", "7z", "7z x"),
        (b"Rar!\x1a\x07", "rar", "unrar x"),
        (b"\x1f\x9d", "compress", "uncompress"),
    ];
    if let Some((_, format, command)) = packed.into_iter().find(|(magic, ..)| start.starts_with(magic)) {
        return Some(unpacked(path, format, command));
    }
    if start.get(257..262) == Some(b"ustar") {
        return Some(unpacked(path, "tar", "tar -xf"));
    }
    let others: [(&[u8], ForeignFormat); 7] = [
        (b"\x93NUMPY", ForeignFormat::NumpyArray),
        (b"\x7fELF", ForeignFormat::ProgramOrLlamafile),
        (b"MZ", ForeignFormat::ProgramOrLlamafile),
        (b"\xcf\xfa\xed\xfe", ForeignFormat::Program),
        (b"%PDF", ForeignFormat::Pdf),
        (b"\x89PNG", ForeignFormat::Picture),
        (b"SQLite format 3", ForeignFormat::Database),
    ];
    if let Some((_, what)) = others.into_iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(FileKind::OtherFormat { what });
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if extension == "model" && start[0] == b'\n' {
        return Some(FileKind::OtherFormat { what: ForeignFormat::Sentencepiece });
    }
    let frameworks = [
        (start.starts_with(b"\x89HDF\r\n\x1a\n"), "TensorFlow"),
        (start.get(4..8) == Some(b"TFL3"), "TFLite"),
        (extension == "msgpack", "Flax"),
        (extension == "onnx", "ONNX"),
        (extension == "ot", "Rust (rust-bert)"),
        (extension == "pdparams", "Paddle"),
    ];
    if let Some((_, framework)) = frameworks.into_iter().find(|(is, _)| *is) {
        let file = shown(&path.file_name().unwrap_or_default().to_string_lossy());
        return Some(FileKind::OtherFramework { framework, file });
    }
    match start {
        // A number of twenty digits, which torch.save wrote before its files were zip archives.
        [0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, ..] => Some(FileKind::OldTorch),
        [0x80, 2..=5, b'}' | b'c' | b']' | b'(' | 0x95 | b'N' | b'X' | b'K', ..] => Some(FileKind::Pickle),
        _ => None,
    }
}

/// A compressed file and the command that unpacks it.
pub(super) fn unpacked(path: &Path, format: &'static str, command: &str) -> FileKind {
    FileKind::Compressed { format, unpack: format!("{command} {}", word(path)) }
}

/// Pointers, pages, messages, JSON; what is none of them is told by its first bytes.
fn text(start: &[u8], len: u64) -> Content {
    let first = &start[..start.len().min(16)];
    let unknown = || FileKind::Unknown { start: first.escape_ascii().to_string() };
    // A character may be cut at the end of the start.
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if start.len() - error.valid_up_to() < 4 => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return Content::Other(unknown()),
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    };
    let specification = text.strip_prefix("version http").and_then(|rest| rest.lines().next());
    if specification.is_some_and(|s| ["git-lfs", "hawser", "git-media"].iter().any(|name| s.contains(name))) {
        return Content::Useless(FileKind::Pointer { system: "Git LFS", bytes: number("size ") });
    }
    if text.starts_with("# xet version") {
        return Content::Useless(FileKind::Pointer { system: "Xet", bytes: number("filesize") });
    }
    if text.starts_with("/annex/objects/") {
        return Content::Useless(FileKind::Pointer { system: "git-annex", bytes: None });
    }
    if is_page(text) {
        return Content::Useless(FileKind::WebPage { title: title(text) });
    }
    let whole = len == start.len() as u64;
    if let Some(said) = if whole { server_said(text) } else { None } {
        return Content::Useless(FileKind::ServerError { said: line(&said) });
    }
    if text.starts_with(['{', '[']) { Content::Json } else { Content::Other(unknown()) }
}

fn is_page(text: &str) -> bool {
    let lower = text.get(..text.len().min(512)).unwrap_or(text).to_ascii_lowercase();
    let marks = ["<!doctype html", "<html", "<head", "<body", "<script", "<title"];
    marks.iter().any(|mark| lower.starts_with(mark))
        // A comment or an XML declaration may come first.
        || (lower.starts_with("<!--") || lower.starts_with("<?xml")) && lower.contains("<html")
}

fn title(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let begin = lower.find("<title")?;
    let begin = begin + lower[begin..].find('>')? + 1;
    let end = begin + lower[begin..].find("</title")?;
    let title = line(&text[begin..end]);
    (!title.is_empty()).then_some(title)
}

/// What a server says instead of a file: `text` is all that there is.
fn server_said(text: &str) -> Option<String> {
    if let Ok(Value::Object(object)) = serde_json::from_str(text) {
        return json_said(&object);
    }
    if text.starts_with("<?xml") || text.starts_with("<Error>") {
        let of = |tag: &str| {
            let begin = text.find(&format!("<{tag}>"))? + tag.len() + 2;
            Some(&text[begin..begin + text[begin..].find("</")?])
        };
        return (text.contains("<Error>"))
            .then(|| [of("Code"), of("Message")].into_iter().flatten().collect::<Vec<_>>().join(": "))
            .filter(|said| !said.is_empty());
    }
    // A sentence in plain text. Its beginning has to be one of these: a file may be any text.
    let begins = [
        "entry not found",
        "repository not found",
        "revision not found",
        "file not found",
        "object not found",
        "not found",
        "404",
        "403",
        "401",
        "429",
        "500",
        "502",
        "503",
        "504",
        "forbidden",
        "unauthorized",
        "bad gateway",
        "internal server error",
        "service unavailable",
        "gateway time",
        "invalid username or password",
        "invalid credentials",
        "invalid rev id",
        "access denied",
        "access to model",
        "access to this",
        "cannot access gated",
        "too many requests",
        "rate limit",
        "we had to rate limit",
        "access restricted",
        "lfs object not found",
        "the requested",
        "request has expired",
        "please log in",
        "error:",
    ];
    let lower = text.to_lowercase();
    let plain = text.lines().count() <= 5 && begins.iter().any(|begin| lower.starts_with(begin));
    plain.then(|| text.to_owned())
}

/// The message of a JSON object that says nothing but an error.
fn json_said(object: &Map<String, Value>) -> Option<String> {
    let of_a_model = ["model_type", "architectures", "weight_map", "model", "vocab", "tokenizer_class"];
    if object.len() > 8 || of_a_model.iter().any(|key| object.contains_key(*key)) {
        return None;
    }
    let keys =
        ["error", "Error", "message", "Message", "msg", "detail", "error_description", "error_msg", "errors"];
    let value = keys.iter().find_map(|key| object.get(*key))?;
    match value {
        Value::String(said) if !said.is_empty() => Some(said.clone()),
        Value::Object(inner) => json_said(inner),
        Value::Array(several) => match several.first()? {
            Value::String(said) => Some(said.clone()),
            Value::Object(inner) => json_said(inner),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(start: &[u8]) -> Content {
        content(Path::new("m.bin"), start, start.len() as u64)
    }

    #[test]
    fn a_safetensors_header_is_no_magic_number() {
        // Lengths whose bytes are those of gzip, bzip2 and LZIP.
        for length in [0x0008_8b1fu64, 0x0068_5a42, 0x0000_9d1f] {
            let mut start = length.to_le_bytes().to_vec();
            start.extend(b"{\"a\"");
            assert_eq!(of(&start), Content::Safetensors(length));
        }
    }

    #[test]
    fn errors_of_servers_and_texts_that_are_none() {
        for text in [
            "Entry not found",
            "Invalid username or password.",
            "{\"error\":\"Repository not found\"}",
            "{\"Code\":10010205001,\"Message\":\"文件不存在\",\"Success\":false}",
            "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>gone</Message></Error>",
            "{\"message\":\"Not Found\",\"documentation_url\":\"https://docs.github.com\"}",
            "{\"errors\":[{\"message\":\"denied\"}]}",
        ] {
            let content = of(text.as_bytes());
            assert!(matches!(content, Content::Useless(FileKind::ServerError { .. })), "{text}: {content:?}");
        }
        for text in [
            "{}",
            "{\"model_type\":\"bloom\",\"error\":\"x\"}",
            "[1]",
            "{\"version\":\"1.0\"",
            "{\"error\":1}",
        ] {
            assert_eq!(of(text.as_bytes()), Content::Json, "{text}");
        }
        for text in ["{{ bos_token }}{% for m in messages %}", "Not a template", "# 404", "\u{feff}月"] {
            let content = of(text.as_bytes());
            assert!(matches!(content, Content::Other(_) | Content::Json), "{text}: {content:?}");
        }
    }

    #[test]
    fn pages_are_told_by_their_titles() {
        let page = b"\xef\xbb\xbf\r\n<!DOCTYPE html><html><head><TITLE lang=en>Sign in\n to x</title>";
        assert_eq!(of(page), Content::Useless(FileKind::WebPage { title: Some("Sign in to x".into()) }));
        assert_eq!(of(b"<html>"), Content::Useless(FileKind::WebPage { title: None }));
        assert!(matches!(of(b"<div align=center>"), Content::Other(_)));
    }
}
