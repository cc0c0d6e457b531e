//! What a person chose for the interface, as it is kept on disk.

use super::look::{Lang, Theme};
use serde::{Deserialize, Serialize};

/// What a person chose for the interface; kept from one start to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prefs {
    /// Language; `None` follows the locale.
    pub lang: Option<Lang>,
    /// Colours; `None` follows the terminal.
    pub theme: Option<Theme>,
    /// Enter sends; otherwise Alt+Enter does, and Enter begins a new line.
    pub enter_sends: bool,
    /// The mouse scrolls and chooses; otherwise the terminal has it.
    pub mouse: bool,
    /// Answers are shown as they are instead of as Markdown.
    pub raw: bool,
}

impl Prefs {
    /// The keys that send a message and begin a new line.
    pub fn send_and_newline(&self) -> [&'static str; 2] {
        if self.enter_sends { ["Enter", "Alt+Enter"] } else { ["Alt+Enter", "Enter"] }
    }
}

impl Default for Prefs {
    fn default() -> Self {
        Self { lang: None, theme: None, enter_sends: true, mouse: true, raw: false }
    }
}
