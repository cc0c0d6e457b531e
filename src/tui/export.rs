//! The conversation as a Markdown file.

use super::talk::TalkView;
use super::text::one_line;
use super::words::Words;
use crate::session::open::About;
use crate::session::{Stop, Turn};
use jiff::ZonedDateTime;
use pulldown_cmark::{Event, Options, Parser};

/// Characters of a file name.
const NAME_CHARS: usize = 30;

/// What is exported.
pub struct Exported<'a> {
    /// The conversation.
    pub talk: &'a TalkView,
    /// The open model.
    pub about: Option<&'a About>,
    /// The system prompt.
    pub system: Option<&'a str>,
}

/// The conversation: title, day of the export, the model if all answers are its, system prompt, and the
/// exchanges, as on the screen.
pub fn markdown(exported: &Exported<'_>, words: &Words, now: &ZonedDateTime) -> String {
    let talk = exported.talk;
    let mut turns = talk.turns().to_vec();
    if let Some(live) = talk.live() {
        // As on the screen, it stands in the place of the turn it replaces.
        turns.truncate(live.shown_before(talk.turns()));
        turns.push(Turn {
            question: live.question.clone(),
            answer: live.text.clone(),
            ids: Some(Vec::new()),
            attempt: 0,
            // It goes on.
            stop: Stop::EndToken(0),
        });
    }
    let day = now.strftime("%Y-%m-%d %H:%M");
    let mut text = format!("# {}\n\n*{} {day}", talk.title(words), words.exported);
    // Ids are only known of what this model said.
    if let Some(about) = exported.about.filter(|_| turns.iter().all(|turn| turn.ids.is_some())) {
        text += &format!(" · {} {}", one_line(&about.name), about.kind);
    }
    text += "*\n";
    if let Some(system) = exported.system {
        text += &format!("\n> {}\n", hard_breaks(system.trim_end()).replace('\n', "\n> "));
    }
    for turn in &turns {
        text += &format!("\n## {}\n\n{}\n", words.you, hard_breaks(turn.question.trim_end()));
        text += &format!("\n## {}\n\n{}\n", words.model, hard_breaks(turn.answer.trim_end()));
        if let Some(note) = (words.stop)(turn.stop) {
            text += &format!("\n*[{note}]*\n");
        }
    }
    text
}

/// `text` with the line breaks that Markdown would make spaces of as breaks that stay: the lines of a poem.
fn hard_breaks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        // What stands inside of others is told in order.
        if matches!(event, Event::SoftBreak) && range.start >= done {
            out += text[done..range.start].trim_end_matches(' ');
            out += "  ";
            done = range.start;
        }
    }
    out + &text[done..]
}

/// A file name for the conversation with this title.
pub fn name(title: &str) -> String {
    let safe: String = title.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { ' ' }).collect();
    let safe = safe.split_whitespace().collect::<Vec<_>>().join("-");
    let name: String = safe.chars().take(NAME_CHARS).collect();
    format!("{}.md", if name.is_empty() { "huozi" } else { &name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_stay_where_markdown_would_take_them() {
        for (text, want) in [
            ("床前明月光，\n疑是地上霜。\n\n举头", "床前明月光，  \n疑是地上霜。\n\n举头"),
            ("- a\n  b\n- c", "- a  \n  b\n- c"),
            ("> a\n> b", "> a  \n> b"),
            ("*a\nb* `c\nd`", "*a  \nb* `c\nd`"),
            ("```\na\nb\n```\nc\nd", "```\na\nb\n```\nc  \nd"),
            ("|a|b|\n|-|-|\n|1|2|\n", "|a|b|\n|-|-|\n|1|2|\n"),
            ("a \nb  \nc\r\nd", "a  \nb  \nc  \r\nd"),
            ("", ""),
        ] {
            assert_eq!(hard_breaks(text), want, "{text:?}");
        }
    }
}
