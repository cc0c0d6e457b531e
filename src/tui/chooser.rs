//! The pane that chooses a model.

use super::failure::Failure;
use super::interface::Ui;
use super::look::bytes;
use super::markdown::plain;
use super::models::Models;
use super::text::{fit, one_line, width};
use super::widgets::{both_ends, first_of, hints, list};
use crate::session::open::Source;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Widget};

/// The pane.
#[derive(Clone, Debug, Default)]
pub struct Chooser {
    /// The row that is chosen: a model, or after them a path to type.
    at: usize,
    /// The first row shown.
    first: usize,
    /// Why the last one was not opened.
    error: Option<Failure>,
}

/// What a key or a click did.
#[derive(Debug, PartialEq)]
pub enum ChooserOutcome {
    /// The pane stays.
    Stay,
    /// Open this model.
    Open(Source),
    /// Ask for a path, with this text to begin with.
    AskPath(String),
    /// Leave: back to the open model, or quit.
    Leave,
    /// Show the keys.
    Help,
    /// The other language.
    OtherLanguage,
    /// A letter of a message that was begun before.
    Typed(char),
}

impl Chooser {
    /// The pane after a model was not opened: that one stays chosen.
    pub fn after_failure(why: Failure, models: &Models) -> Self {
        Self { at: models.row_of_opening(), first: 0, error: Some(why) }
    }

    /// The row that is chosen.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Takes a key; letters go to a message that was `begun`.
    pub fn key(&mut self, key: KeyEvent, models: &Models, begun: bool) -> ChooserOutcome {
        let last = models.sources().len();
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char(c) if key.modifiers.difference(KeyModifiers::SHIFT).is_empty() && begun => {
                return ChooserOutcome::Typed(c);
            }
            KeyCode::Up => self.at = self.at.min(last).saturating_sub(1),
            KeyCode::Down | KeyCode::Tab => self.at = (self.at + 1).min(last),
            KeyCode::Char('k') if !control => self.at = self.at.min(last).saturating_sub(1),
            KeyCode::Char('j') if !control => self.at = (self.at + 1).min(last),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = last,
            KeyCode::Enter => return self.open(models),
            // The beginning of a path.
            KeyCode::Char(c @ ('/' | '~' | '.')) if !control => return ChooserOutcome::AskPath(c.into()),
            KeyCode::Esc => return ChooserOutcome::Leave,
            KeyCode::F(1) | KeyCode::Char('?') => return ChooserOutcome::Help,
            KeyCode::Char('l') if key.modifiers.contains(KeyModifiers::ALT) => {
                return ChooserOutcome::OtherLanguage;
            }
            _ => {}
        }
        ChooserOutcome::Stay
    }

    /// Opens what is chosen.
    fn open(&self, models: &Models) -> ChooserOutcome {
        let sources = models.sources();
        if let Some(source) = sources.get(self.at) {
            return ChooserOutcome::Open(source.clone());
        }
        // A path that was typed before and did not open can be mended.
        let failed = models.opening().filter(|source| self.error.is_some() && !sources.contains(source));
        match failed {
            Some(Source::File(path)) => ChooserOutcome::AskPath(path.display().to_string()),
            _ => ChooserOutcome::AskPath(String::new()),
        }
    }

    /// Takes a click: it chooses a row, and opens the one that is chosen.
    pub fn click(&mut self, at: Position, models: &Models, ui: Ui, screen: Rect) -> ChooserOutcome {
        let place = self.list_place(models, ui, screen);
        let row = self.first + usize::from(at.y.saturating_sub(place.y));
        if place.contains(at) && row <= models.sources().len() {
            if row == self.at {
                return self.open(models);
            }
            self.at = row;
        }
        ChooserOutcome::Stay
    }

    /// The list of models is another one; `before` is what it was, unless this is the first.
    pub fn relisted(&mut self, before: Option<&[Source]>, models: &Models) {
        let sources = models.sources();
        let place = |source: &Source| sources.iter().position(|other| other == source);
        self.at = match (before, self.error.is_some()) {
            // The one that did not open, or the row where its path can be mended.
            (None, true) => models.opening().and_then(place).unwrap_or(sources.len()),
            (None, false) if self.at == 0 => 0,
            (None, false) => sources.len(),
            // What is chosen stays so, wherever it stands now.
            (Some(before), _) => match before.get(self.at) {
                Some(source) => place(source).unwrap_or(self.at.min(sources.len())),
                None => sources.len(),
            },
        };
    }

    /// Moves the list so that the row that is chosen can be seen.
    pub fn prepare(&mut self, models: &Models, ui: Ui, screen: Rect) {
        let height = self.list_place(models, ui, screen).height;
        self.first = first_of(self.first, self.at, models.sources().len() + 1, height);
    }

    /// Where the list is, below what stands above it.
    fn list_place(&self, models: &Models, ui: Ui, screen: Rect) -> Rect {
        let above = self.above(models, ui, screen).len() as u16 + 1;
        let height = screen.height.saturating_sub(above + 2);
        Rect { x: screen.x + 1, y: screen.y + above, width: screen.width.saturating_sub(2), height }
    }

    /// What stands above the list.
    fn above(&self, models: &Models, ui: Ui, screen: Rect) -> Vec<Line<'static>> {
        let Ui { words, look, .. } = ui;
        let cells = usize::from(screen.width).saturating_sub(2);
        let mut rows = vec![Line::styled(words.choose_model, look.heading())];
        if let Some(error) = &self.error {
            let room = usize::from(screen.height / 3).max(2);
            let mut said = plain(&(words.failure)(error), cells, look.error());
            said.truncate(room);
            rows.extend(said);
        }
        if !models.looked() {
            rows.push(Line::styled(words.looking_for_models, look.dim()));
        } else if models.found().is_empty() {
            rows.extend(plain(words.no_models, cells, look.dim()));
        }
        // Below it there is a row for the list at least, and the last two rows.
        rows.truncate(usize::from(screen.height.saturating_sub(4)).max(1));
        rows
    }

    /// Shows the pane; gives where its list is.
    pub fn render(&self, models: &Models, ui: Ui, screen: Rect, buffer: &mut Buffer) -> Rect {
        let Ui { words, look, .. } = ui;
        let above = Rect { x: screen.x + 1, width: screen.width.saturating_sub(1), ..screen };
        Paragraph::new(Text::from(self.above(models, ui, screen))).render(above, buffer);
        let area = self.list_place(models, ui, screen);
        let cells = usize::from(area.width);
        let rows = rows(models, ui, cells);
        let at = self.at.min(rows.len() - 1);
        list(rows, (self.first, Some(at)), area, look, buffer);
        // Why a file is not usable, or where it lies.
        let y = screen.bottom().saturating_sub(2);
        if let Some(model) = models.found().get(at) {
            let (text, style) = match &model.needs {
                Err(why) => ((words.failure)(why), look.error()),
                Ok(_) => (model.path.display().to_string(), look.dim()),
            };
            buffer.set_string(area.x, y, fit(&one_line(&text), cells), style);
        }
        let mut keys = hints((words.chooser_keys)(models.about().is_some()), cells);
        let memory = models.available().map(|free| format!("  {}{}", words.memory_available, bytes(free)));
        keys += &memory.filter(|memory| width(&keys) + width(memory) <= cells).unwrap_or_default();
        buffer.set_string(area.x, screen.bottom() - 1, keys, look.dim());
        area
    }
}

/// The rows of the list: models, the embedded one, a path to type.
fn rows(models: &Models, ui: Ui, cells: usize) -> Vec<Line<'static>> {
    let Ui { words, look, .. } = ui;
    let mut rows: Vec<Line<'_>> = Vec::new();
    for model in models.found() {
        let name = model.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let folder = model.path.parent().map_or_else(String::new, |p| p.display().to_string());
        let name = one_line(&name);
        let (right, style) = match &model.needs {
            Ok(needs) => {
                let fits = models.available().is_none_or(|available| *needs <= available);
                let verdict = if fits { "" } else { words.does_not_fit };
                let needs = format!("{} {}{verdict}", words.needs, bytes(*needs));
                let size = match cells >= 60 {
                    true => bytes(model.bytes) + words.comma,
                    false => String::new(),
                };
                (size + &needs, if fits { Style::new() } else { look.dim() })
            }
            Err(_) => (words.not_usable.to_owned(), look.dim()),
        };
        let left = if cells >= 90 { format!("{name}  {}", fit(&one_line(&folder), cells / 3)) } else { name };
        rows.push(both_ends(&left, &right, cells, [style, look.dim()]));
    }
    if models.sources().len() > models.found().len() {
        rows.push(both_ends(words.demo, words.demo_does, cells, [Style::new(), look.dim()]));
    }
    rows.push(Line::raw(words.another_file));
    rows
}
