//! The part of the state that holds what lies over the chat: one pane at a time.

use super::ask::{self, AskOutcome, AskPane};
use super::help::{self, HelpPane};
use super::interface::Interface;
use super::settings::{self, SettingsOutcome, SettingsPane, SettingsSource};
use super::talks::{self, TalkList, TalksOutcome, TalksPane};
use super::worker::Chosen;
use crate::session::store::Entry;
use crossterm::event::KeyEvent;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

/// What lies over the chat.
pub enum Panel {
    /// The keys.
    Help(HelpPane),
    /// The settings.
    Settings(SettingsPane),
    /// The conversations.
    Talks(TalksPane),
    /// A line that is asked for.
    Ask(AskPane),
}

/// What a key, a click or a text did.
#[derive(Debug, PartialEq)]
pub enum PanelOutcome {
    /// The pane stays.
    Stay,
    /// It closes.
    Close,
    /// Of the settings.
    Settings(SettingsOutcome),
    /// Of the conversations.
    Talks(TalksOutcome),
    /// Of a line that is asked for.
    Ask(AskOutcome),
}

/// What panes are read from.
#[derive(Clone, Copy)]
pub struct PanelSource<'a> {
    /// The interface.
    pub interface: &'a Interface,
    /// Settings of the next answer.
    pub chosen: Option<&'a Chosen>,
    /// The name of the open conversation.
    pub open_talk: Option<&'a str>,
    /// The whole screen.
    pub screen: Rect,
}

impl<'a> PanelSource<'a> {
    fn settings(self) -> SettingsSource<'a> {
        SettingsSource { interface: self.interface, chosen: self.chosen }
    }
}

/// The part.
#[derive(Default)]
pub struct Panels {
    open: Option<Panel>,
    talks: TalkList,
}

impl Panels {
    /// The pane that is open.
    pub fn open(&self) -> Option<&Panel> {
        self.open.as_ref()
    }

    /// The conversations on disk.
    pub fn talks(&self) -> &TalkList {
        &self.talks
    }

    /// The same, to be changed.
    pub fn talks_mut(&mut self) -> &mut TalkList {
        &mut self.talks
    }

    /// Opens a pane.
    pub fn show(&mut self, panel: Panel) {
        self.open = Some(panel);
    }

    /// Closes the pane; whether one was open.
    pub fn close(&mut self) -> bool {
        self.open.take().is_some()
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, source: PanelSource<'_>) -> PanelOutcome {
        match &mut self.open {
            Some(Panel::Help(pane)) => match pane.key(key, source.screen, source.interface) {
                true => PanelOutcome::Close,
                false => PanelOutcome::Stay,
            },
            Some(Panel::Settings(pane)) => PanelOutcome::Settings(pane.key(key, source.settings())),
            Some(Panel::Talks(pane)) => PanelOutcome::Talks(pane.key(key, &mut self.talks)),
            Some(Panel::Ask(pane)) => PanelOutcome::Ask(pane.key(key)),
            None => PanelOutcome::Stay,
        }
    }

    /// Closes a question that keys or a text that are meant for the chat leave without an answer; whether one
    /// was open.
    pub fn close_question(&mut self) -> bool {
        let asks = matches!(&self.open, Some(Panel::Ask(pane)) if pane.is_question());
        if asks {
            self.open = None;
        }
        asks
    }

    /// Takes a pasted text.
    pub fn paste(&mut self, text: &str, source: PanelSource<'_>) -> PanelOutcome {
        match &mut self.open {
            Some(Panel::Ask(pane)) => pane.paste(text),
            Some(Panel::Settings(pane)) => pane.paste(text, source.settings()),
            Some(Panel::Talks(pane)) => return PanelOutcome::Talks(pane.paste(text, &mut self.talks)),
            Some(Panel::Help(_)) | None => {}
        }
        PanelOutcome::Stay
    }

    /// Takes a click.
    pub fn click(&mut self, at: Position, screen: Rect) -> PanelOutcome {
        match &mut self.open {
            Some(Panel::Talks(pane)) => PanelOutcome::Talks(pane.click(at, screen, &mut self.talks)),
            _ => PanelOutcome::Stay,
        }
    }

    /// What the open list of conversations searches for.
    pub fn searched(&self) -> Option<&str> {
        match &self.open {
            Some(Panel::Talks(pane)) => Some(pane.text()),
            _ => None,
        }
    }

    /// Takes the conversations that hold `text`.
    pub fn listed(&mut self, text: &str, entries: Vec<Entry>) {
        if let Some(Panel::Talks(pane)) = &mut self.open {
            pane.listed(text, entries, &mut self.talks);
        }
    }

    /// Takes a conversation out of the list.
    pub fn remove(&mut self, name: &str) {
        self.talks.remove(name);
        if let Some(Panel::Talks(pane)) = &mut self.open {
            pane.removed(&self.talks);
        }
    }

    /// What lay in the trash under the first name is back under the second: it is chosen.
    pub fn restored(&mut self, trashed: &str, name: String) {
        self.talks.restored(trashed);
        if let Some(Panel::Talks(pane)) = &mut self.open {
            pane.choose_name(name);
        }
    }

    /// Puts `text` in the place of the path `typed`; false if something else is typed by now.
    pub fn complete(&mut self, typed: &str, text: &str) -> bool {
        match &mut self.open {
            Some(Panel::Ask(pane)) => pane.complete(typed, text),
            _ => false,
        }
    }

    /// Moves lists so that the row that is chosen can be seen.
    pub fn prepare(&mut self, screen: Rect) {
        match &mut self.open {
            Some(Panel::Talks(pane)) => pane.prepare(screen, &self.talks),
            Some(Panel::Settings(pane)) => pane.prepare(screen),
            _ => {}
        }
    }

    /// The place of the open pane.
    pub fn place(&self, screen: Rect) -> Option<Rect> {
        Some(match self.open.as_ref()? {
            Panel::Help(_) => help::window_place(screen),
            Panel::Settings(_) => settings::window_place(screen),
            Panel::Talks(_) => talks::window_place(screen),
            Panel::Ask(_) => ask::window_place(screen),
        })
    }

    /// Shows the open pane; gives where the cursor stands.
    pub fn render(&self, source: PanelSource<'_>, buffer: &mut Buffer) -> Option<Position> {
        let (ui, screen) = (source.interface.ui(), source.screen);
        match self.open.as_ref()? {
            Panel::Help(pane) => {
                pane.render(source.interface, screen, buffer);
                None
            }
            Panel::Settings(pane) => pane.render(source.settings(), screen, buffer),
            Panel::Talks(pane) => pane.render(&self.talks, source.open_talk, ui, screen, buffer),
            Panel::Ask(pane) => pane.render(ui, screen, buffer),
        }
    }
}
