//! The part of the state that holds the open conversation: what was said, its rows, what the model does about
//! it, and what that costs.

use super::event::Effect;
use super::failure::Failure;
use super::live::{Busy, Live};
use super::text::one_line;
use super::transcript::{Made, Transcript};
use super::words::Words;
use super::worker::{AskKind, Chosen, ModelTask, Talk};
use crate::session::store::title_of;
use crate::session::{Event, HistoryLimit, Notice, Stats, Turn};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Speeds that the sparkline shows.
const RATES: usize = 24;

/// The conversation on the screen, and what the model does for it.
pub struct TalkView {
    talk: Talk,
    transcript: Transcript,
    busy: Busy,
    /// Other conversations that were asked for and are not there yet: the one on the screen is not the one
    /// that an answer or a setting would go to.
    switching: usize,
    /// Readings of the conversation that the model was told to do and has not ended.
    warming: usize,
    stats: Option<Stats>,
    context_used: usize,
    /// Tokens per second of the answers, the oldest first.
    rates: VecDeque<f64>,
    /// Why the conversation is not on disk, where it should be.
    unsaved: Option<Failure>,
}

/// What follows when the threads tell of a conversation.
#[derive(Default)]
pub struct Told {
    /// It is another one than before.
    pub switched: bool,
    /// The settings of that one.
    pub chosen: Option<Chosen>,
    /// A private conversation was left that held these turns.
    pub left_private: Option<Vec<Turn>>,
    /// This one became private.
    pub became_private: bool,
}

/// What a person should know about the answer on its way.
#[derive(Debug, PartialEq)]
pub enum TalkNote {
    /// So many of the oldest exchanges were dropped from the prompt, for this limit.
    Dropped(usize, HistoryLimit),
    /// What the session notes.
    Notice(Notice),
}

impl Default for TalkView {
    fn default() -> Self {
        Self {
            talk: Talk::default(),
            transcript: Transcript::default(),
            busy: Busy::Idle,
            switching: 0,
            warming: 0,
            stats: None,
            context_used: 0,
            rates: VecDeque::new(),
            unsaved: None,
        }
    }
}

impl TalkView {
    /// What was said, the oldest first.
    pub fn turns(&self) -> &[Turn] {
        &self.talk.turns
    }

    /// The last question.
    pub fn last_question(&self) -> Option<&str> {
        self.talk.turns.last().map(|turn| turn.question.as_str())
    }

    /// Its name on disk; `None` while it is not there.
    pub fn name(&self) -> Option<&str> {
        self.talk.name.as_deref()
    }

    /// Whether nothing of it is kept.
    pub fn is_private(&self) -> bool {
        self.talk.private
    }

    /// Whether it is a copy of one that cannot be written.
    pub fn is_copy(&self) -> bool {
        self.talk.copy
    }

    /// Turns that are no longer part of the prompt.
    pub fn dropped(&self) -> usize {
        self.talk.dropped
    }

    /// Whether something that was replaced can be brought back.
    pub fn has_replaced(&self) -> bool {
        self.talk.replaced
    }

    /// What the model does.
    pub fn busy(&self) -> &Busy {
        &self.busy
    }

    /// The answer on its way.
    pub fn live(&self) -> Option<&Live> {
        match &self.busy {
            Busy::Answering(live) => Some(live),
            _ => None,
        }
    }

    /// Whether another conversation is on its way to the screen.
    pub fn is_switching(&self) -> bool {
        self.switching > 0
    }

    /// The rows of the conversation.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// The same, to be scrolled.
    pub fn transcript_mut(&mut self) -> &mut Transcript {
        &mut self.transcript
    }

    /// What the last answer cost.
    pub fn stats(&self) -> Option<&Stats> {
        self.stats.as_ref()
    }

    /// Tokens per second of the answers, the oldest first.
    pub fn rates(&self) -> &VecDeque<f64> {
        &self.rates
    }

    /// Why the conversation is not on disk, where it should be.
    pub fn unsaved(&self) -> Option<&Failure> {
        self.unsaved.as_ref()
    }

    /// Positions filled, those of the answer on its way among them.
    pub fn context_used(&self) -> usize {
        match &self.busy {
            Busy::Answering(live) if live.prompt.1 > 0 => live.prompt.0 + live.tokens,
            Busy::Warming { done, .. } => done.0,
            _ => self.context_used,
        }
    }

    /// The title.
    pub fn title(&self, words: &Words) -> String {
        let first = || self.talk.turns.first().map(|turn| title_of(&turn.question));
        let live = || self.live().map(|live| title_of(&live.question));
        let given = self.talk.title.clone().filter(|title| !title.trim().is_empty());
        let title = given.or_else(first).or_else(live);
        title.map_or_else(|| words.new_conversation.to_owned(), |title| one_line(&title))
    }

    /// Makes the rows that are missing, for a pane of `height` rows.
    pub fn prepare(&mut self, made: Made, height: usize) {
        let live = match &self.busy {
            Busy::Answering(live) => Some(&**live),
            _ => None,
        };
        self.transcript.prepare(&self.talk, live, made, height);
    }

    /// Tells the model to end what it does; whether that is an answer.
    pub fn stop(&mut self) -> bool {
        match &mut self.busy {
            Busy::Idle => false,
            Busy::Warming { cancel, .. } => {
                cancel.store(true, Ordering::Relaxed);
                false
            }
            Busy::Answering(live) => {
                live.stop();
                true
            }
        }
    }

    /// Has the conversation read, so that the next answer begins at once.
    pub fn warm(&mut self) -> Effect {
        let cancel = Arc::new(AtomicBool::new(false));
        self.busy = Busy::Warming { done: (0, 0), since: None, cancel: cancel.clone() };
        self.warming += 1;
        Effect::Work(ModelTask::Warm(cancel))
    }

    /// Asks for another conversation; an answer on its way ends.
    pub fn switch(&mut self, task: ModelTask) -> Effect {
        self.stop();
        self.transcript.to_end();
        self.switching += 1;
        Effect::Work(task)
    }

    /// Asks.
    pub fn ask(&mut self, ask: AskKind, question: String, chosen: Chosen) -> Effect {
        self.transcript.to_end();
        self.rates.clear();
        let last = self.talk.turns.len().saturating_sub(1);
        match ask {
            AskKind::New => {}
            AskKind::Retry => self.set_dropped(self.talk.dropped.min(last)),
            AskKind::Revise => self.forget_dropped(last),
        }
        let cancel = Arc::new(AtomicBool::new(false));
        self.busy = Busy::Answering(Box::new(Live::new(ask, question.clone(), cancel.clone())));
        Effect::Work(ModelTask::Ask { ask, question, chosen, cancel })
    }

    /// Takes the last exchange back; gives its question.
    pub fn undo(&mut self) -> Option<String> {
        let turn = self.talk.turns.pop()?;
        let left = self.talk.turns.len();
        self.transcript.changed_from(left);
        self.forget_dropped(left);
        self.talk.replaced |= !turn.is_empty();
        Some(turn.question)
    }

    /// What the model's thread is to do to give what was replaced its place back.
    pub fn bring_back(&mut self) -> Vec<Effect> {
        self.transcript.to_end();
        self.context_used = 0;
        vec![Effect::Work(ModelTask::BringBack), self.warm()]
    }

    /// What the model's thread is to do after an exchange was taken back.
    pub fn undone(&mut self) -> Vec<Effect> {
        self.context_used = 0;
        let mut effects = vec![Effect::Work(ModelTask::Undo)];
        // Most of it is still there: this tells how much of the context is full now.
        if !self.talk.turns.is_empty() {
            effects.push(self.warm());
        }
        effects
    }

    /// Nothing of it is to be kept from now on.
    pub fn set_private(&mut self) {
        self.talk.private = true;
    }

    /// So many of the oldest turns are no longer part of the prompt: the mark below them moves.
    fn set_dropped(&mut self, dropped: usize) {
        if self.talk.dropped != dropped {
            self.transcript.changed_from(self.talk.dropped.min(dropped).saturating_sub(1));
            self.talk.dropped = dropped;
        }
    }

    /// Where nothing before turn `turn` is part of the prompt, there is room again for all.
    fn forget_dropped(&mut self, turn: usize) {
        if self.talk.dropped >= turn {
            self.set_dropped(0);
        }
    }

    /// A model is open: what is known of the costs is of another one.
    pub fn model_ready(&mut self) {
        self.stats = None;
        self.context_used = 0;
    }

    /// There is no model any more; gives the answer that was on its way.
    pub fn model_lost(&mut self) -> Option<Box<Live>> {
        (self.switching, self.warming) = (0, 0);
        self.answered()
    }

    /// The answer ended; gives it.
    pub fn answered(&mut self) -> Option<Box<Live>> {
        self.transcript.live_ended();
        match std::mem::replace(&mut self.busy, Busy::Idle) {
            Busy::Answering(live) => Some(live),
            _ => None,
        }
    }

    /// Takes the conversation as it is now.
    pub fn told(&mut self, mut talk: Talk) -> Told {
        let switched = std::mem::take(&mut talk.opened);
        // Rows of turns that are the same stay.
        let same = self.talk.turns.iter().zip(&talk.turns).take_while(|(a, b)| a == b).count();
        let same = match self.talk.dropped == talk.dropped {
            true => same,
            // The mark stands below the last of them.
            false => same.min(self.talk.dropped.min(talk.dropped).saturating_sub(1)),
        };
        self.transcript.changed_from(same);
        let chosen = talk.chosen.take();
        let left_private = switched && self.talk.private;
        let left_private = left_private.then(|| std::mem::take(&mut self.talk.turns));
        let became_private = talk.private && !self.talk.private;
        if talk.private || switched {
            self.unsaved = None;
        }
        self.talk = talk;
        if switched {
            self.switching = self.switching.saturating_sub(1);
            self.stats = None;
            self.context_used = 0;
            self.transcript.to_end();
        }
        Told { switched, chosen, left_private, became_private }
    }

    /// Has an opened conversation read, if the model has nothing else to do.
    pub fn warm_if_idle(&mut self) -> Option<Effect> {
        (!self.talk.turns.is_empty() && matches!(self.busy, Busy::Idle)).then(|| self.warm())
    }

    /// Whether the last answer is another model's: ids are only known of what this one generated.
    pub fn is_others(&self) -> bool {
        self.talk.turns.last().is_some_and(|turn| turn.ids.is_none())
    }

    /// The conversation has a file: its name on disk, and its title.
    pub fn named(&mut self, name: String, title: Option<String>) {
        (self.talk.name, self.talk.title, self.talk.copy) = (Some(name), title, false);
    }

    /// Another conversation was not opened.
    pub fn not_opened(&mut self) {
        self.switching = self.switching.saturating_sub(1);
    }

    /// A reading ended with so many positions filled and turns dropped.
    pub fn warmed(&mut self, filled: usize, dropped: usize) {
        self.warming = self.warming.saturating_sub(1);
        if self.warming == 0 && matches!(self.busy, Busy::Warming { .. }) {
            self.busy = Busy::Idle;
            self.set_dropped(dropped.min(self.talk.turns.len()));
        }
        if filled > 0 {
            self.context_used = filled;
        }
    }

    /// The question is on disk.
    pub fn begun(&mut self) {
        if let Busy::Answering(live) = &mut self.busy {
            live.begun = true;
        }
    }

    /// The conversation could not be saved.
    pub fn not_saved(&mut self, why: Failure) {
        self.unsaved = Some(why);
    }

    /// It is on disk; whether it was not before.
    pub fn saved(&mut self) -> bool {
        self.unsaved.take().is_some()
    }

    /// Takes something of an answer or a reading.
    pub fn event(&mut self, event: Event, now: Instant) -> Option<TalkNote> {
        match (&mut self.busy, event) {
            (Busy::Warming { done, since, .. }, Event::Prompt { done: read, total }) => {
                since.get_or_insert((now, read));
                *done = (read, total);
            }
            (Busy::Answering(live), Event::Prompt { done, total }) => {
                live.reading.get_or_insert((now, done));
                live.prompt = (done, total);
            }
            (Busy::Answering(live), Event::Token(_)) => {
                if let Some(rate) = live.count(now) {
                    self.rate(rate);
                }
            }
            (Busy::Answering(live), Event::Text(text)) => live.text.push_str(&text),
            (_, Event::Dropped { exchanges, limit }) => {
                self.set_dropped(self.talk.dropped + exchanges);
                return Some(TalkNote::Dropped(exchanges, limit));
            }
            (_, Event::Notice(notice)) => return Some(TalkNote::Notice(notice)),
            (_, Event::Stats(stats)) => {
                self.context_used = stats.context_used;
                self.rate(stats.generate_rate());
                self.stats = Some(stats);
            }
            _ => {}
        }
        None
    }

    fn rate(&mut self, tokens_per_second: f64) {
        self.rates.push_back(tokens_per_second);
        if self.rates.len() > RATES {
            self.rates.pop_front();
        }
    }
}
