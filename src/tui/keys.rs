//! Keys of the chat and what they do: the one table that the program follows and the help shows.

use super::prefs::Prefs;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key does in the chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the message.
    Send,
    /// Begin a new line.
    Newline,
    /// End the answer; close what is open.
    Stop,
    /// Ctrl+C: end the answer, empty the input, or quit at the second time.
    Interrupt,
    /// Ctrl+D: quit if the input is empty, else erase.
    EndOfInput,
    /// Quit.
    Quit,
    /// Help.
    Help,
    /// Settings.
    Settings,
    /// Conversations.
    Talks,
    /// Models.
    Models,
    /// Another answer to the last question.
    Retry,
    /// Take the last exchange back.
    Undo,
    /// Put the last question into the input.
    EditLast,
    /// Give the answer that was replaced last its place back.
    BringBack,
    /// Copy the last answer.
    Copy,
    /// Put a text file into the message.
    Attach,
    /// A new conversation.
    New,
    /// Write the conversation to a Markdown file.
    Export,
    /// Answers as Markdown or as they are.
    Raw,
    /// Long questions whole or folded.
    Unfold,
    /// Keep this conversation or do not.
    Private,
    /// The other language.
    Language,
    /// Edit the message in an editor.
    Editor,
    /// Redraw.
    Redraw,
    /// Stop the process.
    Suspend,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// A row up.
    RowUp,
    /// A row down.
    RowDown,
    /// To the beginning of the conversation.
    Top,
    /// To its end.
    End,
    /// Undo in the input.
    InputUndo,
    /// Redo in the input.
    InputRedo,
    /// Put what was erased last.
    Yank,
}

/// One row of the table.
pub struct Binding {
    /// What the keys do.
    pub action: Action,
    /// The keys, by the names that the help shows, separated by spaces.
    pub keys: &'static str,
}

const fn binding(action: Action, keys: &'static str) -> Binding {
    Binding { action, keys }
}

/// The table, in the order of the help. The first row that names a key is the one that counts.
pub const BINDINGS: &[Binding] = &[
    binding(Action::Send, "Enter"),
    binding(Action::Newline, "Alt+Enter Ctrl+J"),
    binding(Action::Stop, "Esc"),
    binding(Action::Retry, "F5 Ctrl+R"),
    binding(Action::Undo, "F6 Alt+U"),
    binding(Action::EditLast, "F7 Alt+E"),
    binding(Action::BringBack, "F10 Alt+Z"),
    binding(Action::Copy, "F8 Alt+C"),
    binding(Action::Attach, "F9 Alt+A"),
    binding(Action::New, "Ctrl+N"),
    binding(Action::Talks, "F3 Ctrl+O"),
    binding(Action::Export, "Alt+X"),
    binding(Action::Private, "Alt+P"),
    binding(Action::Settings, "F2 Alt+S"),
    binding(Action::Models, "F4 Alt+M"),
    binding(Action::Raw, "Alt+R"),
    binding(Action::Unfold, "Alt+O"),
    binding(Action::Language, "Alt+L"),
    binding(Action::PageUp, "PageUp"),
    binding(Action::PageDown, "PageDown"),
    binding(Action::RowUp, "Alt+Up"),
    binding(Action::RowDown, "Alt+Down"),
    binding(Action::Top, "Ctrl+Home"),
    binding(Action::End, "Ctrl+End"),
    binding(Action::Editor, "Ctrl+G"),
    binding(Action::InputUndo, "Ctrl+_ Ctrl+7 Ctrl+/"),
    binding(Action::InputRedo, "Alt+_ Alt+/"),
    binding(Action::Yank, "Ctrl+Y"),
    binding(Action::Redraw, "Ctrl+L"),
    binding(Action::Suspend, "Ctrl+Z"),
    binding(Action::Interrupt, "Ctrl+C"),
    binding(Action::EndOfInput, "Ctrl+D"),
    binding(Action::Quit, "Ctrl+Q"),
    binding(Action::Help, "F1 Alt+H"),
];

/// What `key` does; `None` when it goes to the input.
pub fn action(key: KeyEvent, prefs: &Prefs) -> Option<Action> {
    let found = BINDINGS.iter().find(|b| b.keys.split(' ').any(|name| is(key, name)))?.action;
    Some(match found {
        Action::Send if !prefs.enter_sends => Action::Newline,
        Action::Newline if !prefs.enter_sends && is(key, "Alt+Enter") => Action::Send,
        other => other,
    })
}

/// The keys that the help shows for a row.
pub fn shown(binding: &Binding, prefs: &Prefs) -> &'static str {
    match binding.action {
        Action::Send if !prefs.enter_sends => "Alt+Enter",
        Action::Newline if !prefs.enter_sends => "Enter Ctrl+J",
        Action::InputUndo => "Ctrl+_",
        Action::InputRedo => "Alt+_",
        _ => binding.keys,
    }
}

/// Whether `key` is the one called `name`, e.g. `Ctrl+Home`.
fn is(key: KeyEvent, name: &str) -> bool {
    let mut want = KeyModifiers::NONE;
    let mut rest = name;
    for (prefix, modifier) in
        [("Ctrl+", KeyModifiers::CONTROL), ("Alt+", KeyModifiers::ALT), ("Shift+", KeyModifiers::SHIFT)]
    {
        if let Some(after) = rest.strip_prefix(prefix) {
            want |= modifier;
            rest = after;
        }
    }
    let code = match rest {
        "Enter" => KeyCode::Enter,
        "Esc" => KeyCode::Esc,
        "PageUp" => KeyCode::PageUp,
        "PageDown" => KeyCode::PageDown,
        "Home" => KeyCode::Home,
        "End" => KeyCode::End,
        "Up" => KeyCode::Up,
        "Down" => KeyCode::Down,
        rest => match (rest.strip_prefix('F').and_then(|n| n.parse().ok()), rest.chars().next()) {
            (Some(n), _) => KeyCode::F(n),
            (None, Some(c)) => KeyCode::Char(c.to_ascii_lowercase()),
            (None, None) => return false,
        },
    };
    let same = match (key.code, code) {
        (KeyCode::Char(a), KeyCode::Char(b)) => a.to_ascii_lowercase() == b,
        (a, b) => a == b,
    };
    // With Alt a capital letter comes with Shift from some terminals.
    let shift = if want.contains(KeyModifiers::SHIFT) { KeyModifiers::NONE } else { KeyModifiers::SHIFT };
    same && (key.modifiers - shift) == want
        && !(want.is_empty() && key.modifiers.contains(KeyModifiers::SHIFT) && code == KeyCode::Enter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    #[test]
    fn every_row_is_reached_by_each_of_its_keys() {
        let prefs = Prefs::default();
        for b in BINDINGS {
            for name in b.keys.split(' ') {
                let (mut modifiers, mut rest) = (KeyModifiers::NONE, name);
                for (prefix, modifier) in [
                    ("Ctrl+", KeyModifiers::CONTROL),
                    ("Alt+", KeyModifiers::ALT),
                    ("Shift+", KeyModifiers::SHIFT),
                ] {
                    if let Some(after) = rest.strip_prefix(prefix) {
                        modifiers |= modifier;
                        rest = after;
                    }
                }
                let code = match rest {
                    "Enter" => KeyCode::Enter,
                    "Esc" => KeyCode::Esc,
                    "PageUp" => KeyCode::PageUp,
                    "PageDown" => KeyCode::PageDown,
                    "Home" => KeyCode::Home,
                    "End" => KeyCode::End,
                    "Up" => KeyCode::Up,
                    "Down" => KeyCode::Down,
                    f if f.len() > 1 => KeyCode::F(f[1..].parse().unwrap()),
                    c => KeyCode::Char(c.chars().next().unwrap().to_ascii_lowercase()),
                };
                assert_eq!(action(key(code, modifiers), &prefs), Some(b.action), "{name}");
            }
        }
        assert_eq!(action(key(KeyCode::Char('a'), KeyModifiers::NONE), &prefs), None);
        assert_eq!(action(key(KeyCode::Char('C'), KeyModifiers::SHIFT), &prefs), None);
    }

    #[test]
    fn the_send_key_can_be_changed() {
        let prefs = Prefs { enter_sends: false, ..Prefs::default() };
        assert_eq!(action(key(KeyCode::Enter, KeyModifiers::NONE), &prefs), Some(Action::Newline));
        assert_eq!(action(key(KeyCode::Enter, KeyModifiers::ALT), &prefs), Some(Action::Send));
        assert_eq!(action(key(KeyCode::Char('j'), KeyModifiers::CONTROL), &prefs), Some(Action::Newline));
    }
}
