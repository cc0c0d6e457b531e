//! The pane that asks for a line, or whether something is meant.

use super::input::Input;
use super::interface::Ui;
use super::text::fit;
use super::widgets::{edit, line, place, window};
use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The file to put into the message.
    Attach,
    /// The file to export to.
    Export,
    /// The model file to open.
    Model,
    /// Whether a saved conversation is to be erased and not saved any more.
    Forget,
}

/// The pane.
pub struct AskPane {
    wish: Wish,
    input: Input,
}

/// What a key did.
#[derive(Debug, PartialEq)]
pub enum AskOutcome {
    /// The pane stays.
    Stay,
    /// It closes.
    Close,
    /// It closes: the conversation is to be erased.
    Forget,
    /// It closes: this was typed.
    Submit(Wish, String),
    /// It stays: this path is to be completed.
    Complete(String),
}

impl AskPane {
    /// Asks, with a text to begin with.
    pub fn new(wish: Wish, text: &str) -> Self {
        Self { wish, input: Input::of(text) }
    }

    /// Whether it asks if something is meant: Enter and Esc answer it, every other key is meant for the chat.
    pub fn is_question(&self) -> bool {
        self.wish == Wish::Forget
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) -> AskOutcome {
        match (key.code, self.wish) {
            (KeyCode::Esc, _) => return AskOutcome::Close,
            (KeyCode::Enter, Wish::Forget) => return AskOutcome::Forget,
            (_, Wish::Forget) => {}
            (KeyCode::Enter, wish) => {
                return match self.input.text().trim() {
                    "" => AskOutcome::Close,
                    text => AskOutcome::Submit(wish, text.to_owned()),
                };
            }
            (KeyCode::Tab, _) => return AskOutcome::Complete(self.input.text().to_owned()),
            _ => drop(edit(&mut self.input, key)),
        }
        AskOutcome::Stay
    }

    /// Takes a pasted text.
    pub fn paste(&mut self, text: &str) {
        if self.wish != Wish::Forget {
            self.input.insert(text.trim_end());
        }
    }

    /// Puts `text` in the place of the path `typed`; false if something else is typed by now.
    pub fn complete(&mut self, typed: &str, text: &str) -> bool {
        let same = self.input.text() == typed;
        if same {
            self.input.set(text);
        }
        same
    }

    /// Shows the pane; gives where the cursor stands.
    pub fn render(&self, ui: Ui, screen: Rect, buffer: &mut Buffer) -> Option<Position> {
        let Ui { words, look, .. } = ui;
        let [title, keys] = match self.wish {
            Wish::Attach => words.attach,
            Wish::Export => words.export,
            Wish::Model => words.model_path,
            Wish::Forget => words.forget,
        };
        let inner = window(window_place(screen), title, keys, look, buffer);
        if self.wish == Wish::Forget {
            let text = fit(words.forget_text, usize::from(inner.width));
            buffer.set_string(inner.x, inner.y + 1, text, Style::new());
            return None;
        }
        let row = Rect { y: inner.y + 1, height: 1, ..inner };
        Some(line(&self.input, row, Style::new(), buffer))
    }
}

/// The window's place.
pub fn window_place(screen: Rect) -> Rect {
    place(screen, 64, 5)
}
