//! The part of the state that holds the message being written: its text, the question that is edited, the
//! history of questions, and what of all that is to be kept on disk as a draft.

use super::input::Input;
use crate::commands::typed_as;
use crate::session::Turn;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// A message that is being written is on disk after so long.
const DRAFT: Duration = Duration::from_secs(1);
/// Questions that the history keeps.
const HISTORY: usize = 500;

/// The message being written and the history of questions.
#[derive(Default)]
pub struct Composer {
    input: Input,
    /// The input is a new version of the last question.
    editing: bool,
    /// What the input held before the last question was put into it.
    draft: String,
    /// Questions, the oldest first.
    history: Vec<String>,
    /// Which of them is in the input, and the text that it replaced there.
    recalled: Option<(usize, String)>,
    /// The question that was put into the input when its exchange was taken back.
    undone: Option<String>,
    /// The message was begun in a private conversation.
    private: bool,
    /// Questions of the history from here on were asked in a private conversation.
    private_from: usize,
    /// The draft that was last given to the desk.
    kept: String,
    /// Since when the draft differs from that.
    kept_since: Option<Instant>,
}

/// What a draft depends on beside the message.
pub struct DraftTalk<'a> {
    /// The last question of the conversation.
    pub last: Option<&'a str>,
    /// A question that was sent and is not on disk yet.
    pub sent: Option<&'a str>,
    /// Nothing is kept of the conversation.
    pub private: bool,
}

impl Composer {
    /// The message and its cursor.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// The same, to be edited.
    pub fn input_mut(&mut self) -> &mut Input {
        &mut self.input
    }

    /// The message.
    pub fn text(&self) -> &str {
        self.input.text()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// Whether the input is a new version of the last question.
    pub fn is_editing(&self) -> bool {
        self.editing
    }

    /// Questions, the oldest first.
    pub fn history(&self) -> &[String] {
        &self.history
    }

    /// Puts a question into the input, as it would be typed.
    pub fn put_question(&mut self, question: &str) {
        self.input.set(&typed_as(question));
    }

    /// Puts the question of an exchange that was taken back into the input. While it is not changed it is no
    /// draft: it comes back with its answer.
    pub fn put_undone(&mut self, question: &str) {
        self.put_question(question);
        self.undone = Some(question.to_owned());
    }

    /// Puts the last question into the input, to be changed.
    pub fn edit(&mut self, question: &str) {
        if !self.editing {
            self.draft = self.draft_text(Some(question)).into_owned();
            self.recalled = None;
        }
        self.editing = true;
        self.put_question(question);
    }

    /// Ends the edit of the last question; what the input held before is in it again.
    pub fn leave_editing(&mut self) {
        if std::mem::take(&mut self.editing) {
            let draft = std::mem::take(&mut self.draft);
            self.input.set(&draft);
        }
    }

    /// Puts the question of an edit that failed back into the input.
    pub fn edit_again(&mut self, question: &str) {
        self.draft = self.input.text().to_owned();
        self.editing = true;
        self.put_question(question);
    }

    /// Puts the question of an answer that failed back into the input, unless something else is written by
    /// now; then it is in the history.
    pub fn give_back(&mut self, question: &str) {
        if self.input.is_empty() {
            self.put_question(question);
        }
    }

    /// Takes the message to be sent; what the input held before an old question or an edit is in it again.
    pub fn take_message(&mut self) {
        self.input.take();
        self.undone = None;
        let before = self.recalled.take().filter(|_| !self.editing).map(|(_, draft)| draft);
        self.leave_editing();
        if let Some(before) = before.filter(|draft| !draft.is_empty()) {
            self.input.set(&before);
        }
    }

    /// Puts the question before the one in the input there, or the one after it.
    pub fn recall(&mut self, older: bool) {
        let (at, draft) = match self.recalled.take() {
            Some((at, draft)) => (at, draft),
            None => (self.history.len(), self.draft_text(None).into_owned()),
        };
        let to = if older { at.checked_sub(1) } else { Some(at + 1) };
        match to.filter(|&to| to <= self.history.len() && at <= self.history.len()) {
            Some(to) if to == self.history.len() => {
                if at < self.history.len() {
                    self.input.set(&draft);
                }
            }
            Some(to) => {
                let question = self.history[to].clone();
                self.put_question(&question);
                self.recalled = Some((to, draft));
            }
            None => self.recalled = (at < self.history.len()).then_some((at, draft)),
        }
    }

    /// Adds a question to the history; `last` is the last question of the conversation.
    pub fn remember(&mut self, question: &str, last: Option<&str>) {
        // A question that was taken back stays, where another one is.
        let undone = self.undone.take();
        self.leave_recalled(last);
        self.undone = undone;
        if self.history.last().is_none_or(|last| last != question) {
            self.history.push(question.to_owned());
        }
        if self.history.len() > HISTORY {
            self.history.remove(0);
            self.private_from = self.private_from.saturating_sub(1);
        }
    }

    /// Ends the look at an old question, or at one that was taken back, where `last` is the last question of
    /// the conversation: one that was not changed leaves the input, and what the input held before is in it
    /// again.
    pub fn leave_recalled(&mut self, last: Option<&str>) {
        if self.recalled.is_some() || self.undone.is_some() {
            let written = self.draft_text(last).into_owned();
            if written != self.input.text() {
                self.input.set(&written);
            }
        }
        (self.recalled, self.undone) = (None, None);
    }

    /// A private conversation begins: what is asked from here on is forgotten with it.
    pub fn enter_private(&mut self) {
        self.private_from = self.history.len();
    }

    /// A private conversation, which held `turns`, is left: neither the history nor an undo brings anything
    /// of it back.
    pub fn leave_private(&mut self, turns: &[Turn]) {
        self.private = !self.input.is_empty();
        self.input.forget();
        // In this order: a question that is taken out before moves the others below `private_from`.
        self.history.truncate(self.private_from);
        self.history.retain(|question| turns.iter().all(|turn| turn.question != *question));
        (self.recalled, self.undone) = (None, None);
    }

    /// Puts the draft of an earlier run into the input, above what was written since.
    pub fn adopt(&mut self, draft: String) {
        if self.editing {
            // It is there when the edit ends.
            self.draft = both(&draft, &self.draft).into_owned();
        } else {
            self.leave_recalled(None);
            let all = both(&draft, self.input.text()).into_owned();
            self.input.set(&all);
        }
        self.kept = draft;
    }

    /// The text of the draft, where `last` is the last question of the conversation: not an old question that
    /// is only looked at, but what the input held before it.
    fn draft_text(&self, last: Option<&str>) -> Cow<'_, str> {
        let text = self.input.text();
        let is = |question: &str| *typed_as(question) == *text;
        let looked_at = self.recalled.as_ref().and_then(|(at, draft)| Some((self.history.get(*at)?, draft)));
        match (last, looked_at) {
            (Some(last), _) if self.editing => both(&self.draft, if is(last) { "" } else { text }),
            (_, Some((question, draft))) => both(draft, if is(question) { "" } else { text }),
            _ if self.undone.as_deref().is_some_and(is) => Cow::Borrowed(""),
            _ => Cow::Borrowed(text),
        }
    }

    /// What is to be kept of the message: a while after it changed, or `at_once`.
    pub fn draft_due(&mut self, talk: &DraftTalk<'_>, at_once: bool, now: Instant) -> Option<String> {
        self.private &= !self.input.is_empty();
        let unsent = if talk.private || self.private {
            String::new()
        } else {
            let text = self.draft_text(talk.last);
            talk.sent.map_or(text.clone(), |sent| both(sent, &text)).into_owned()
        };
        if unsent == self.kept {
            self.kept_since = None;
            return None;
        }
        let since = self.kept_since.unwrap_or(now);
        if now.saturating_duration_since(since) < DRAFT && !at_once {
            self.kept_since = Some(since);
            return None;
        }
        self.kept = unsent;
        self.kept_since = None;
        Some(self.kept.clone())
    }

    /// Whether a draft is to be kept soon.
    pub fn is_draft_waiting(&self) -> bool {
        self.kept_since.is_some()
    }
}

/// Two texts below each other.
fn both<'a>(above: &'a str, below: &'a str) -> Cow<'a, str> {
    match (above.is_empty(), below.is_empty()) {
        (true, _) => Cow::Borrowed(below),
        (_, true) => Cow::Borrowed(above),
        _ => Cow::Owned(format!("{above}\n{below}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Stop;

    fn turn(question: &str) -> Turn {
        Turn {
            question: question.into(),
            answer: String::new(),
            ids: None,
            attempt: 0,
            stop: Stop::MaxTokens,
        }
    }

    #[test]
    fn a_private_question_that_was_undone_leaves_the_history_too() {
        let mut composer = Composer::default();
        for question in ["a", "b"] {
            composer.remember(question, None);
        }
        composer.enter_private();
        // The first was asked before, the second is undone: it is no turn any more.
        composer.remember("a", None);
        composer.remember("secret", None);
        composer.leave_private(&[turn("a")]);
        assert_eq!(composer.history, ["b"]);
    }

    #[test]
    fn a_full_history_still_knows_which_questions_are_private() {
        let mut composer = Composer::default();
        for n in 0..HISTORY {
            composer.remember(&n.to_string(), None);
        }
        composer.enter_private();
        composer.remember("secret", None);
        composer.leave_private(&[]);
        assert_eq!(composer.history.len(), HISTORY - 1);
        assert!(!composer.history.iter().any(|question| question == "secret"));
    }
}
