//! `huozi tokenize`: text to ids, ids to text.

use super::args::{TextArgs, TokenizeCommand};
use super::load;
use super::printer::{Printer, SCHEMA, escaped};
use super::settings::Config;
use super::text;
use crate::open::OpenOptions;
use anyhow::Result;
use huozi_token::{Specials, Tokenizer};
use serde::{Serialize, Serializer};
use std::fmt::Write as _;
use std::io::Write as _;

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &TokenizeCommand, config: &Config, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.as_deref())?;
    let model = load::open(&path, &OpenOptions::default())?;
    let tokenizer = model.tokenizer()?;
    load::show_notes(&model, config.quiet);
    let ids = ids(&args.text, &tokenizer)?;
    let decoding = args.text.ids.is_some();
    if decoding {
        load::check_ids(&ids, tokenizer.vocab().n_vocab())?;
    }
    if args.json {
        // Written token by token: as values of JSON they would take 2 KB each.
        let tokenized = Tokenized {
            schema: SCHEMA,
            n_tokens: ids.len(),
            ids: &ids,
            tokens: Tokens(&tokenizer, &ids),
            text: tokenizer.decode(&ids, true),
        };
        printer.json(&tokenized)?;
    } else if decoding {
        printer.text(&tokenizer.decode(&ids, true))?;
        printer.end_line()?;
    } else {
        let mut out = printer.bulk();
        for &id in &ids {
            writeln!(out, "{id}\t{}", escaped(tokenizer.vocab().bytes(id)))?;
        }
        out.flush()?;
    }
    Ok(())
}

/// The ids typed, or those of the text.
///
/// # Errors
/// The text cannot be read.
pub fn ids(args: &TextArgs, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    if let Some(ids) = &args.ids {
        return Ok(ids.0.clone());
    }
    let text = text::given(args.prompt.as_deref(), args.file.as_deref(), args.file.is_none(), false)?;
    let specials = if args.specials { Specials::Parse } else { Specials::Plain };
    Ok(tokenizer.encode(&text, specials))
}

#[derive(Serialize)]
struct Tokenized<'a> {
    schema: u32,
    n_tokens: usize,
    ids: &'a [u32],
    tokens: Tokens<'a>,
    text: String,
}

struct Tokens<'a>(&'a Tokenizer, &'a [u32]);

impl Serialize for Tokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.1.iter().map(|&id| token(self.0, id)))
    }
}

/// A token as JSON.
#[derive(Serialize)]
struct Token {
    id: u32,
    /// Holds U+FFFD where the bytes are no whole character.
    piece: String,
    /// Exact, in hexadecimal.
    bytes: String,
    kind: String,
}

/// The token of this id.
fn token(tokenizer: &Tokenizer, id: u32) -> Token {
    let bytes = tokenizer.vocab().bytes(id);
    let hex = bytes.iter().fold(String::new(), |mut hex, b| {
        let _ = write!(hex, "{b:02x}");
        hex
    });
    Token {
        id,
        piece: String::from_utf8_lossy(bytes).into_owned(),
        bytes: hex,
        kind: format!("{:?}", tokenizer.vocab().kind(id)).to_lowercase(),
    }
}
