//! Messages to state. What is to be done outside of it comes back as [`Effect`]s.

use super::{App, Screen};
use crate::tui::commands::is_quit;
use crate::tui::composer::DraftTalk;
use crate::tui::event::{Effect, Msg};
use crate::tui::keys::{Action, action};
use crate::tui::leaving::TWICE;
use crate::tui::panels::PanelSource;
use crate::tui::widgets::edit;
use crate::tui::worker::{AskKind, DeskTask};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;
use std::time::Instant;

/// Rows that the wheel scrolls.
const WHEEL: isize = 3;

impl App {
    /// Takes a message; gives what is to be done.
    pub fn update(&mut self, msg: Msg, now: Instant) -> Vec<Effect> {
        self.messages.expire(now);
        let mut effects = self.on(msg, now);
        // Before something else has the terminal, and before the end.
        let leaves = |effect: &Effect| matches!(effect, Effect::Edit(_) | Effect::Suspend | Effect::Quit);
        let at_once = self.is_quitting() || effects.iter().any(leaves);
        let unwritten = self.talk.live().filter(|live| !live.begun && live.ask != AskKind::Retry);
        let talk = DraftTalk {
            last: self.talk.last_question(),
            sent: unwritten.map(|live| live.question.as_str()),
            private: self.talk.is_private(),
        };
        if let Some(text) = self.composer.draft_due(&talk, at_once, now) {
            effects.insert(0, Effect::Desk(DeskTask::Draft(text)));
        }
        effects
    }

    fn on(&mut self, msg: Msg, now: Instant) -> Vec<Effect> {
        match msg {
            Msg::Key(event) if event.kind != KeyEventKind::Release => return self.key(event, now),
            Msg::Key(_) | Msg::Tick => {}
            Msg::Mouse(event) => return self.mouse(event, now),
            Msg::Paste(text) => return self.paste(&text, now),
            Msg::Resize(width, height) => self.resize(width, height),
            Msg::Report(report) => return self.report(report, now),
            Msg::Edited(Ok(text)) => {
                self.composer.input_mut().set(text.strip_suffix('\n').unwrap_or(&text));
                return vec![Effect::Redraw];
            }
            Msg::Edited(Err(why)) => {
                self.messages.error(why, now);
                return vec![Effect::Redraw];
            }
            Msg::Terminate => return self.end(),
            Msg::Suspend => return vec![Effect::Suspend],
            Msg::Continued => return vec![Effect::Enter],
        }
        Vec::new()
    }

    /// Ends the program; where that would lose what could not be saved, the second time.
    pub(super) fn quit(&mut self, now: Instant) -> Vec<Effect> {
        if let Some(why) = self.talk.unsaved()
            && !self.leaving.insists(now)
        {
            let words = self.interface.words();
            self.messages.error(format!("{}{}", words.quit_unsaved, (words.failure)(why)), now);
            return Vec::new();
        }
        self.end()
    }

    /// Ends the program, and what the model does.
    fn end(&mut self) -> Vec<Effect> {
        self.talk.stop();
        if let Screen::Load(loading) = &self.screen {
            loading.stop();
        }
        self.leaving.quit();
        vec![Effect::Quit]
    }

    fn key(&mut self, event: KeyEvent, now: Instant) -> Vec<Effect> {
        let what = action(event, self.interface.prefs());
        if what != Some(Action::Interrupt) {
            self.leaving.forget_interrupt();
        }
        // These hold everywhere.
        match what {
            Some(Action::Interrupt) => return self.interrupt(now),
            Some(Action::Quit) => return self.quit(now),
            Some(Action::Redraw) => return vec![Effect::Redraw],
            Some(Action::Suspend) if self.panels.open().is_none() => return vec![Effect::Suspend],
            _ => {}
        }
        let answers =
            event.code == KeyCode::Esc || event.code == KeyCode::Enter && event.modifiers.is_empty();
        if !answers {
            self.leave_question(now);
        }
        if self.panels.open().is_some() {
            return self.panel_key(event, now);
        }
        let effects = match &mut self.screen {
            Screen::Chat => match what {
                Some(what) => self.act(what, now),
                None => self.write(event),
            },
            Screen::Load(loading) if event.code == KeyCode::Esc => {
                loading.stop();
                Vec::new()
            }
            Screen::Load(_) => self.key_while_loading(event, what, now),
            Screen::Choose(chooser) => {
                let begun = !self.composer.is_empty() && self.models.about().is_none();
                let outcome = chooser.key(event, &self.models, begun);
                self.chooser_outcome(outcome, now)
            }
        };
        if self.panels.open().is_some() {
            // The keys of a panel that opens are what matters now.
            self.messages.clear();
        }
        effects
    }

    /// A message can be begun while a model is opened.
    fn key_while_loading(&mut self, event: KeyEvent, what: Option<Action>, now: Instant) -> Vec<Effect> {
        match what {
            None => return self.write(event),
            Some(Action::Newline) => self.composer.input_mut().insert("\n"),
            Some(Action::Send) if is_quit(self.composer.text()) => return self.send(now),
            Some(_) => self.messages.note(self.interface.words().not_open_yet, now),
        }
        Vec::new()
    }

    /// What is typed or pasted while a question is asked is meant for the chat: nothing of it is lost, and
    /// the question is answered with no.
    fn leave_question(&mut self, now: Instant) {
        if self.panels.close_question() {
            self.messages.note(self.interface.words().still_saved, now);
        }
    }

    /// Gives a key to the open panel; the message there makes room for the panel's keys.
    fn panel_key(&mut self, event: KeyEvent, now: Instant) -> Vec<Effect> {
        self.messages.clear();
        let source = PanelSource {
            interface: &self.interface,
            chosen: self.models.chosen(),
            open_talk: self.talk.name(),
            screen: self.whole(),
        };
        let outcome = self.panels.key(event, source);
        self.panel_outcome(outcome, now)
    }

    /// Ctrl+C: ends the answer; then empties the input; the second time in a row it quits.
    fn interrupt(&mut self, now: Instant) -> Vec<Effect> {
        if self.leaving.interrupt(self.talk.unsaved().is_some(), now) {
            return self.quit(now);
        }
        let mut emptied = false;
        if !self.talk.stop() && !self.panels.close() && matches!(self.screen, Screen::Chat) {
            if self.composer.is_editing() {
                self.composer.leave_editing();
            } else if !self.composer.is_empty() {
                self.composer.input_mut().take();
                emptied = true;
            }
        }
        let words = self.interface.words();
        self.messages.note(if emptied { words.emptied } else { words.again_quits }, now);
        // As long as it is true.
        self.messages.keep_until(now + TWICE);
        Vec::new()
    }

    /// Takes a key that edits the message.
    fn write(&mut self, event: KeyEvent) -> Vec<Effect> {
        let width = usize::from(self.places.input.width);
        let up = match event.code {
            KeyCode::Up if event.modifiers.is_empty() => Some(true),
            KeyCode::Down if event.modifiers.is_empty() => Some(false),
            _ => None,
        };
        let input = self.composer.input_mut();
        match up {
            Some(up) => {
                if !input.vertical(up, width) {
                    self.composer.recall(up);
                }
            }
            None if event.code == KeyCode::Tab => input.insert("\t"),
            None => drop(edit(input, event)),
        }
        Vec::new()
    }

    fn paste(&mut self, text: &str, now: Instant) -> Vec<Effect> {
        self.leaving.forget_interrupt();
        self.leave_question(now);
        if self.panels.open().is_some() {
            let source = PanelSource {
                interface: &self.interface,
                chosen: self.models.chosen(),
                open_talk: self.talk.name(),
                screen: self.whole(),
            };
            let outcome = self.panels.paste(text, source);
            return self.panel_outcome(outcome, now);
        }
        if !matches!(self.screen, Screen::Choose(_)) {
            self.composer.input_mut().insert(text);
        }
        Vec::new()
    }

    fn mouse(&mut self, event: MouseEvent, now: Instant) -> Vec<Effect> {
        match event.kind {
            MouseEventKind::ScrollUp => self.wheel(-WHEEL, KeyCode::Up, now),
            MouseEventKind::ScrollDown => self.wheel(WHEEL, KeyCode::Down, now),
            MouseEventKind::Down(MouseButton::Left) => {
                self.click(Position { x: event.column, y: event.row }, now)
            }
            _ => Vec::new(),
        }
    }

    /// The wheel scrolls the conversation, and is like an arrow key everywhere else.
    fn wheel(&mut self, rows: isize, code: KeyCode, now: Instant) -> Vec<Effect> {
        if self.panels.open().is_some() {
            return self.panel_key(code.into(), now);
        }
        match &mut self.screen {
            Screen::Chat => self.talk.transcript_mut().scroll(rows),
            Screen::Choose(chooser) => {
                let outcome = chooser.key(code.into(), &self.models, false);
                return self.chooser_outcome(outcome, now);
            }
            Screen::Load(_) => {}
        }
        Vec::new()
    }

    /// A click chooses; a click on what is chosen opens it.
    fn click(&mut self, at: Position, now: Instant) -> Vec<Effect> {
        let screen = self.whole();
        if self.panels.open().is_some() {
            let outcome = self.panels.click(at, screen);
            return self.panel_outcome(outcome, now);
        }
        match &mut self.screen {
            Screen::Choose(chooser) => {
                let outcome = chooser.click(at, &self.models, self.interface.ui(), screen);
                return self.chooser_outcome(outcome, now);
            }
            Screen::Chat | Screen::Load(_) if self.places.input.contains(at) => {
                let place = self.places.input;
                let input = self.composer.input_mut();
                let row = input.scroll + usize::from(at.y - place.y);
                input.click(row, usize::from(at.x - place.x), usize::from(place.width));
            }
            Screen::Chat | Screen::Load(_) => {}
        }
        Vec::new()
    }
}
