//! The turns of a conversation, and those that other turns took the place of.

use crate::schedule::Stop;

/// A question and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The user's message.
    pub question: String,
    /// The model's answer as text.
    pub answer: String,
    /// The ids generated, without the one that ended the answer. `None` when the answer came from another
    /// model: then the text is tokenised.
    pub ids: Option<Vec<u32>>,
    /// The number of the attempt, 0 for the first.
    pub attempt: u64,
    /// Why the answer ended.
    pub stop: Stop,
}

impl Turn {
    /// Whether the answer has no text at all.
    pub fn is_empty(&self) -> bool {
        self.ids.as_ref().map_or(self.answer.is_empty(), Vec::is_empty)
    }
}

/// The end of a conversation that was replaced last: by a further attempt, by an edited question, or by
/// nothing when it was undone. It takes its place back with [`Replaced::swap`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replaced {
    /// Index of the first turn of `turns` in the conversation.
    at: usize,
    /// The turns, the oldest first; none when there is nothing to bring back.
    turns: Vec<Turn>,
}

impl Replaced {
    /// `turns`, which stood in a conversation from index `at` on.
    pub fn new(at: usize, turns: Vec<Turn>) -> Self {
        Self { at, turns }
    }

    /// Whether there is nothing to bring back.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Takes `turn`, which had index `at` and was replaced by another attempt. A turn without an answer is
    /// not worth bringing back.
    pub fn put(&mut self, at: usize, turn: Turn) {
        if !turn.is_empty() {
            *self = Self::new(at, vec![turn]);
        }
    }

    /// Takes `turn`, which was the last one of a conversation, had index `at` in it, and was undone. Turns
    /// that are undone one after the other come back together.
    pub fn take(&mut self, at: usize, turn: Turn) {
        if self.at != at + 1 {
            return self.put(at, turn);
        }
        self.at = at;
        self.turns.insert(0, turn);
    }

    /// Another model goes on: the ids mean nothing to it.
    pub fn forget_ids(&mut self) {
        self.turns.iter_mut().for_each(|turn| turn.ids = None);
    }

    /// The highest number of an attempt at the turn with index `at`, where `turn` is the one that the
    /// conversation has there.
    pub fn attempts(&self, at: usize, turn: &Turn) -> u64 {
        let other = self.turns.first().filter(|other| self.at == at && other.question == turn.question);
        other.map_or(turn.attempt, |other| other.attempt.max(turn.attempt))
    }

    /// Exchanges the end of `turns` for the one that it replaced, so that the next call exchanges them
    /// again; gives the index of the first turn that is another one now. `None` when there is nothing to
    /// bring back.
    pub fn swap(&mut self, turns: &mut Vec<Turn>) -> Option<usize> {
        if self.turns.is_empty() || self.at > turns.len() {
            return None;
        }
        let there = turns.split_off(self.at);
        turns.extend(std::mem::replace(&mut self.turns, there));
        Some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(answer: &str, attempt: u64) -> Turn {
        let ids = Some(answer.bytes().map(u32::from).collect());
        Turn { question: "q".into(), answer: answer.into(), ids, attempt, stop: Stop::MaxTokens }
    }

    fn answers(turns: &[Turn]) -> String {
        turns.iter().map(|turn| turn.answer.as_str()).collect()
    }

    #[test]
    fn two_attempts_take_turns() {
        let mut turns = vec![turn("a", 0), turn("c", 1)];
        let mut replaced = Replaced::default();
        assert_eq!(replaced.swap(&mut turns), None);
        replaced.take(1, turn("b", 0));
        for expected in ["ab", "ac", "ab"] {
            assert_eq!(replaced.swap(&mut turns), Some(1));
            assert_eq!(answers(&turns), expected);
            assert_eq!(replaced.attempts(1, &turns[1]), 1, "the next attempt is a new one");
            assert_eq!(replaced.attempts(0, &turns[0]), 0);
        }
        // What was said after it goes and comes with it.
        turns.push(turn("d", 0));
        replaced.swap(&mut turns);
        assert_eq!(answers(&turns), "ac");
        replaced.swap(&mut turns);
        assert_eq!(answers(&turns), "abd");
    }

    #[test]
    fn what_is_undone_step_by_step_comes_back_together() {
        let mut turns = vec![turn("a", 0), turn("b", 0), turn("c", 0)];
        let mut replaced = Replaced::default();
        replaced.take(2, turn("x", 0));
        for _ in 0..2 {
            let last = turns.pop().unwrap();
            replaced.take(turns.len(), last);
        }
        replaced.swap(&mut turns);
        assert_eq!(answers(&turns), "abc");
        assert!(replaced.is_empty() && replaced.swap(&mut turns).is_none(), "nothing took their place");
    }
}
