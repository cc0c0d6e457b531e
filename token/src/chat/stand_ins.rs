//! Private-use characters that stand for message text while a template renders.
//!
//! In: texts whose characters cannot be used. Out: characters that occur nowhere else, each with its meaning,
//! and the ids of a rendered text in which they occur.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ChatError;
use crate::tokenizer::{Specials, TextPart, Tokenizer};

/// What a stand-in stands for.
pub(super) enum Meaning<'a> {
    Text(String),
    Ids(&'a [u32]),
}

/// Private-use characters in use for one prompt.
pub(super) struct StandIns<'a> {
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
    /// `texts`: what is rendered, and what templates bring themselves.
    pub(super) fn new<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let private = |c: &char| {
            let areas = ['\u{E000}'..='\u{F8FF}', '\u{F0000}'..='\u{FFFFD}', '\u{100000}'..='\u{10FFFD}'];
            areas.iter().any(|area| area.contains(c))
        };
        let taken = texts.flat_map(str::chars).filter(private).collect();
        let next =
            ('\u{F0000}'..='\u{FFFFD}').chain(('\u{100000}'..='\u{10FFFD}').chain('\u{E000}'..='\u{F8FF}'));
        Self { taken, next, meanings: BTreeMap::new(), by_text: BTreeMap::new() }
    }

    /// The character that stands for `meaning`, one for each different text.
    pub(super) fn take(&mut self, meaning: Meaning<'a>) -> Result<char, ChatError> {
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
    pub(super) fn restore(&self, rendered: &str, tokenizer: &Tokenizer) -> Vec<u32> {
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
