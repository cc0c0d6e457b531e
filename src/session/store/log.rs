//! What a conversation file holds, line by line; the lines are described in [`super`].

use super::choices::SavedSettings;
use super::file::{Conversation, Error, MAX_NUMBER, SCHEMA};
use crate::schedule::Stop;
use crate::session::{Replaced, Turn, stop_name};
use huozi_token::DateTime;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Characters of a title that is the beginning of the first question.
const TITLE_CHARS: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Speaker {
    User,
    Assistant,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) schema: u32,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<Speaker>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ids: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stop: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) system: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) choices: Option<SavedSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) date: Option<String>,
}

impl Line {
    pub(super) fn of(kind: &str) -> Self {
        Self { kind: kind.into(), ..Self::default() }
    }
}

#[derive(Clone, Debug)]
struct Said {
    parent: Option<u64>,
    role: Speaker,
    text: String,
    ids: Option<Vec<u32>>,
    model: Option<String>,
    attempt: u64,
    stop: Stop,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Log {
    said: HashMap<u64, Said>,
    /// By message: those that follow it, the oldest first.
    children: HashMap<Option<u64>, Vec<u64>>,
    pub(super) head: Option<u64>,
    /// Messages that were the head before, the oldest first.
    heads: Vec<u64>,
    /// What the last `settings` said; `None` when there was none.
    pub(super) system: Option<Option<String>>,
    pub(super) choices: Option<SavedSettings>,
    pub(super) title: Option<String>,
    date: Option<DateTime>,
    deleted: bool,
    pub(super) last_id: u64,
    /// Bytes up to the end of the last whole line.
    pub(super) whole: u64,
}

impl Log {
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let mut log = Self::default();
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        log.whole = whole as u64;
        for (index, line) in bytes[..whole].split_inclusive(|&b| b == b'\n').enumerate() {
            let line = &line[..line.len() - 1];
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            serde_json::from_slice::<Line>(line)
                .map_err(|e| e.to_string())
                .and_then(|line| log.take(line))
                .map_err(|what| Error::Line { path: path.to_owned(), line: index + 1, what })?;
        }
        if log.deleted { Err(Error::Deleted { path: path.to_owned() }) } else { Ok(log) }
    }

    fn take(&mut self, line: Line) -> Result<(), String> {
        if line.schema != SCHEMA {
            return Err(format!("schema {} is not {SCHEMA}", line.schema));
        }
        // Growing ids make a loop of parents impossible.
        if line.id <= self.last_id {
            return Err(format!("id {} does not follow id {}", line.id, self.last_id));
        }
        for (what, number) in [("id", line.id), ("attempt", line.attempt.unwrap_or(0))] {
            if number > MAX_NUMBER {
                return Err(format!("{what} {number} is more than {MAX_NUMBER}"));
            }
        }
        self.last_id = line.id;
        match line.kind.as_str() {
            "message" => {
                let role = line.role.ok_or("a message without a role")?;
                let text = line.text.ok_or("a message without a text")?;
                let before = line.parent.map(|id| self.message(id)).transpose()?.map(|said| said.role);
                match (before, role) {
                    (None | Some(Speaker::Assistant), Speaker::User)
                    | (Some(Speaker::User), Speaker::Assistant) => {}
                    _ => return Err("messages must go user, assistant, user, ...".into()),
                }
                let said = Said {
                    parent: line.parent,
                    role,
                    text,
                    ids: line.ids,
                    model: line.model,
                    attempt: line.attempt.unwrap_or(0),
                    stop: Stop::Cancelled,
                };
                self.said.insert(line.id, said);
                self.children.entry(line.parent).or_default().push(line.id);
            }
            "part" => {
                let text = line.text.ok_or("a part without a text")?;
                let id = line.parent.ok_or("a part without a parent")?;
                self.message(id)?;
                if let Some(said) = self.said.get_mut(&id) {
                    said.text.push_str(&text);
                    // Ids are those of the whole text or none.
                    said.ids = said.ids.take().zip(line.ids).map(|(mut ids, more)| {
                        ids.extend(more);
                        ids
                    });
                }
            }
            "end" => {
                let stop = stop_of(line.stop.as_deref().unwrap_or_default())?;
                let id = line.parent.ok_or("an end without a parent")?;
                self.message(id)?;
                if let Some(said) = self.said.get_mut(&id) {
                    said.stop = stop;
                }
            }
            "head" => {
                if let Some(id) = line.parent {
                    self.message(id)?;
                }
                self.heads.extend(self.head);
                self.head = line.parent;
            }
            "settings" => {
                self.system = Some(line.system);
                self.choices = line.choices.or(self.choices.take());
            }
            "begin" => {
                let date = line.date.unwrap_or_default();
                self.date = Some(date.parse().map_err(|_| format!("{date:?} is no date and time"))?);
            }
            "deleted" => self.deleted = true,
            "title" => self.title = line.text.filter(|text| !text.is_empty()),
            _ => {}
        }
        Ok(())
    }

    /// Takes `line` with the next id, which it gives, and writes it to `out`; `None` when no id is left.
    pub(super) fn push(&mut self, line: Line, out: &mut Vec<u8>) -> Option<u64> {
        let line = Line { schema: SCHEMA, id: self.last_id.checked_add(1)?, ..line };
        let id = line.id;
        let start = out.len();
        // A struct of strings and numbers always serialises; what the reader would refuse is not written.
        if serde_json::to_writer(&mut *out, &line).is_err() || self.take(line).is_err() {
            out.truncate(start);
            return None;
        }
        out.push(b'\n');
        Some(id)
    }

    fn message(&self, id: u64) -> Result<&Said, String> {
        self.said.get(&id).ok_or_else(|| format!("parent {id} is no message above this line"))
    }

    /// The conversation for the model with this fingerprint. Ids generated by another one are left out. Its
    /// date is `begun` where the file has none.
    pub(super) fn conversation(&self, model: &str, begun: impl FnOnce() -> Option<DateTime>) -> Conversation {
        Conversation {
            title: self.title.clone(),
            system: self.system.clone().flatten(),
            choices: self.choices.as_ref().map(|saved| saved.patch.clone()),
            invalid: self.choices.as_ref().map_or_else(Vec::new, |saved| saved.invalid.clone()),
            date: self.date.or_else(|| self.head.and_then(|_| begun())),
            turns: self.turns(&self.chain(self.head), model),
            replaced: self.replaced(model),
        }
    }

    /// The messages that lead to `head`, the oldest first.
    fn chain(&self, head: Option<u64>) -> Vec<u64> {
        let of = |id: &u64| self.said.get(id).and_then(|said| said.parent);
        let mut chain: Vec<u64> = std::iter::successors(head, of).collect();
        chain.reverse();
        chain
    }

    /// The branch that was the conversation before the present one took its place: that of the last head
    /// which is neither in the branch of the present head nor an answer without text.
    fn replaced(&self, model: &str) -> Replaced {
        let now = self.chain(self.head);
        let here: HashSet<u64> = now.iter().copied().collect();
        let says = |id: &u64| self.said.get(id).is_some_and(|said| !said.text.is_empty());
        let other = self.heads.iter().rev().find(|id| !here.contains(id) && says(id));
        let then = self.chain(other.copied());
        // A question and its answer change together.
        let same = now.chunks(2).zip(then.chunks(2)).take_while(|(now, then)| now == then).count();
        Replaced::new(same, self.turns(&then[(2 * same).min(then.len())..], model))
    }

    /// The turns made of these messages.
    fn turns(&self, chain: &[u64], model: &str) -> Vec<Turn> {
        let chain: Vec<&Said> = chain.iter().filter_map(|id| self.said.get(id)).collect();
        chain
            .chunks(2)
            .map(|pair| {
                let answer = pair.get(1);
                Turn {
                    question: pair[0].text.clone(),
                    answer: answer.map_or_else(String::new, |said| said.text.clone()),
                    ids: match answer {
                        Some(said) if said.model.as_deref() == Some(model) => said.ids.clone(),
                        Some(_) => None,
                        None => Some(Vec::new()),
                    },
                    attempt: answer.map_or(0, |said| said.attempt),
                    stop: answer.map_or(Stop::Cancelled, |said| said.stop),
                }
            })
            .collect()
    }

    /// Whether an answer has text, in this branch or another.
    pub(super) fn has_answers(&self) -> bool {
        self.said.values().any(|said| said.role == Speaker::Assistant && !said.text.is_empty())
    }

    /// Every text on the way to the head.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let mut at = self.head;
        std::iter::from_fn(move || {
            let said = at.and_then(|id| self.said.get(&id))?;
            at = said.parent;
            Some(said.text.as_str())
        })
    }

    /// The messages that follow `parent`, the oldest first.
    fn children(&self, parent: Option<u64>) -> impl Iterator<Item = (u64, &Said)> {
        let ids = self.children.get(&parent).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.said.get(id)?)))
    }

    /// The child of `parent` that says exactly this.
    fn find(&self, parent: Option<u64>, text: &str, ids: Option<&[u32]>) -> Option<u64> {
        let same = |said: &Said| said.text == text && said.ids.as_deref() == ids;
        self.children(parent).find(|(_, said)| same(said)).map(|(id, _)| id)
    }

    /// Takes the question as a child of `parent`, unless it stands there already; its id.
    pub(super) fn question(&mut self, parent: Option<u64>, text: &str, out: &mut Vec<u8>) -> Option<u64> {
        if let Some(id) = self.find(parent, text, None) {
            return Some(id);
        }
        let text = Some(text.to_owned());
        self.push(Line { parent, role: Some(Speaker::User), text, ..Line::of("message") }, out)
    }

    /// The parent of the last question before the head; the outer `None` when there is no question.
    pub(super) fn before_last(&self) -> Option<Option<u64>> {
        let last = self.said.get(&self.head?)?;
        match last.role {
            Speaker::User => Some(last.parent),
            Speaker::Assistant => Some(self.said.get(&last.parent?)?.parent),
        }
    }

    /// Takes a title from the first question, if the person has given none.
    pub(super) fn entitle(&mut self, question: &str, out: &mut Vec<u8>) -> Option<()> {
        let title = title_of(question);
        if self.title.as_ref() != Some(&title) && !self.is_entitled() {
            self.push(Line { text: Some(title), ..Line::of("title") }, out)?;
        }
        Some(())
    }

    /// Whether the person gave the title: it is not that of a first question, the present one or one that was
    /// taken back.
    fn is_entitled(&self) -> bool {
        let asked = |title: &String| self.children(None).any(|(_, said)| title_of(&said.text) == *title);
        self.title.as_ref().is_some_and(|title| !asked(title))
    }

    /// Takes what makes the file say `conversation`; `None` when there is no id left for it.
    pub(super) fn append(
        &mut self,
        conversation: &Conversation,
        model: &str,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        if conversation.title.is_some() && self.title != conversation.title {
            self.push(Line { text: conversation.title.clone(), ..Line::of("title") }, out)?;
        }
        match conversation.turns.first() {
            Some(first) => self.entitle(&first.question, out)?,
            // Its question was taken back, and so is the title made of it.
            None if self.title.is_some() && !self.is_entitled() => {
                self.push(Line { text: Some(String::new()), ..Line::of("title") }, out)?;
            }
            None => {}
        }
        let saved = self.choices.as_ref().map(|saved| &saved.patch);
        let chosen = conversation.choices.as_ref().is_some_and(|chosen| saved != Some(chosen));
        if chosen || self.system.as_ref() != Some(&conversation.system) {
            let system = conversation.system.clone();
            let choices = conversation.choices.clone();
            let choices = choices.map(|patch| SavedSettings { patch, invalid: Vec::new() });
            self.push(Line { system, choices, ..Line::of("settings") }, out)?;
        }
        if let Some(date) = conversation.date.filter(|_| self.date != conversation.date) {
            self.push(Line { date: Some(date.to_string()), ..Line::of("begin") }, out)?;
        }
        let mut parent = None;
        for turn in &conversation.turns {
            parent = Some(self.question(parent, &turn.question, out)?);
            // An answer that was loaded without its ids is the one that stands there.
            let known = self
                .children(parent)
                .find(|(_, said)| turn.ids.is_none() && said.text == turn.answer)
                .map(|(id, _)| id);
            let known = known.or_else(|| self.find(parent, &turn.answer, turn.ids.as_deref()));
            let answer = match known {
                // All of it was written, and then not why it ended.
                Some(id) if self.said.get(&id).is_some_and(|s| stop_name(s.stop) != stop_name(turn.stop)) => {
                    self.end(id, turn.stop, out)?;
                    id
                }
                Some(id) => id,
                None => {
                    let line = Line {
                        parent,
                        role: Some(Speaker::Assistant),
                        text: Some(turn.answer.clone()),
                        ids: turn.ids.clone(),
                        model: turn.ids.as_ref().map(|_| model.to_owned()),
                        attempt: Some(turn.attempt.min(MAX_NUMBER)),
                        ..Line::of("message")
                    };
                    let id = self.push(line, out)?;
                    self.end(id, turn.stop, out)?;
                    id
                }
            };
            parent = Some(answer);
        }
        if self.head != parent {
            self.push(Line { parent, ..Line::of("head") }, out)?;
        }
        Some(())
    }

    /// Takes the reason why answer `id` ended.
    pub(super) fn end(&mut self, id: u64, stop: Stop, out: &mut Vec<u8>) -> Option<u64> {
        let stop = Some(stop_name(stop).to_owned());
        self.push(Line { parent: Some(id), stop, ..Line::of("end") }, out)
    }
}

/// The title that a conversation with this first question has: the beginning of its first line, which of a
/// file that is put into a message is its name.
pub fn title_of(question: &str) -> String {
    question.trim_start().lines().next().unwrap_or_default().trim_end().chars().take(TITLE_CHARS).collect()
}

fn stop_of(name: &str) -> Result<Stop, String> {
    match name {
        // Which token it was is not stored: nothing depends on it later.
        "end" => Ok(Stop::EndToken(0)),
        "length" => Ok(Stop::MaxTokens),
        "context" => Ok(Stop::ContextFull),
        "cancelled" => Ok(Stop::Cancelled),
        "stop" => Ok(Stop::Hook),
        "broken" => Ok(Stop::BrokenLogits),
        other => Err(format!("{other:?} is no reason to stop")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_goes_with_the_question_it_is_made_of() {
        let turn = |question: &str| Turn {
            question: question.into(),
            answer: "a".into(),
            ids: Some(vec![1]),
            attempt: 0,
            stop: Stop::Cancelled,
        };
        let mut log = Log::default();
        let mut say = |title: Option<&str>, questions: &[&str]| {
            let turns = questions.iter().map(|question| turn(question)).collect();
            let conversation =
                Conversation { title: title.map(str::to_owned), turns, ..Conversation::default() };
            let mut out = Vec::new();
            log.append(&conversation, "m", &mut out).unwrap();
            log.title.clone()
        };
        let long = "很".repeat(50);
        assert_eq!(say(None, &["月"]).as_deref(), Some("月"));
        assert_eq!(say(Some("月"), &["月", "雪"]).as_deref(), Some("月"));
        assert_eq!(say(Some("月"), &["雪"]).as_deref(), Some("雪"), "edited");
        assert_eq!(say(Some("雪"), &[]), None, "taken back");
        assert_eq!(say(None, &[&long]), Some("很".repeat(TITLE_CHARS)));
        assert_eq!(say(Some("名字"), &["花"]).as_deref(), Some("名字"), "given");
        assert_eq!(say(Some("名字"), &["雨"]).as_deref(), Some("名字"));
        assert_eq!(say(Some("名字"), &[]).as_deref(), Some("名字"));
        assert_eq!(say(Some("雷"), &["花", "雷"]).as_deref(), Some("雷"), "given, and asked later");
        assert_eq!(say(Some("名字"), &[]).as_deref(), Some("名字"));
        assert!(log.entitle("风", &mut Vec::new()).is_some() && log.title.as_deref() == Some("名字"));
    }
}
