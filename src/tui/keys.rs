//! Keys of the chat and what they do: the one table that the program follows and the help shows.

use super::app::Prefs;
use super::look::Lang;
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
    /// Paint anew.
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

/// One row of the table: keys, English, Chinese.
pub struct Binding {
    /// What they do.
    pub action: Action,
    /// The keys, by the names that the help shows, separated by spaces.
    pub keys: &'static str,
    /// In English.
    pub en: &'static str,
    /// In Chinese.
    pub zh: &'static str,
}

const fn binding(action: Action, keys: &'static str, en: &'static str, zh: &'static str) -> Binding {
    Binding { action, keys, en, zh }
}

/// The table. The first key of a row that names it is the one that counts.
pub const BINDINGS: &[Binding] = &[
    binding(Action::Send, "Enter", "send", "发送"),
    binding(Action::Newline, "Alt+Enter Ctrl+J", "new line", "换行"),
    binding(Action::Stop, "Esc", "stop the answer; leave editing", "停止回答；退出编辑"),
    binding(Action::Retry, "F5 Ctrl+R", "another answer to the last question", "重新生成回答"),
    binding(Action::Undo, "F6 Alt+U", "take the last exchange back", "撤回上一轮对话"),
    binding(Action::EditLast, "F7 Alt+E", "edit the last question", "修改上一个问题"),
    binding(Action::Copy, "F8 Alt+C", "copy the last answer", "复制上一个回答"),
    binding(Action::Attach, "F9 Alt+A", "put a text file into the message", "附加文本文件"),
    binding(Action::New, "Ctrl+N", "new conversation", "新对话"),
    binding(
        Action::Talks,
        "F3 Ctrl+O",
        "conversations: open, rename, search, delete",
        "对话列表：打开、改名、搜索、删除",
    ),
    binding(Action::Export, "Alt+X", "export to Markdown", "导出为 Markdown"),
    binding(Action::Private, "Alt+P", "do not save this conversation", "不保存此对话"),
    binding(Action::Settings, "F2 Alt+S", "settings", "设置"),
    binding(Action::Models, "F4 Alt+M", "choose another model", "选择其他模型"),
    binding(Action::Raw, "Alt+R", "Markdown or plain text", "Markdown 或原文"),
    binding(Action::Unfold, "Alt+O", "long questions whole or folded", "展开或折叠长问题"),
    binding(Action::Language, "Alt+L", "中文", "English"),
    binding(Action::PageUp, "PageUp", "a page up", "上翻一页"),
    binding(Action::PageDown, "PageDown", "a page down", "下翻一页"),
    binding(Action::RowUp, "Alt+Up", "a row up", "上移一行"),
    binding(Action::RowDown, "Alt+Down", "a row down", "下移一行"),
    binding(Action::Top, "Ctrl+Home", "to the beginning", "到开头"),
    binding(Action::End, "Ctrl+End", "to the end", "到结尾"),
    binding(Action::Editor, "Ctrl+G", "write in $EDITOR", "用 $EDITOR 编辑"),
    binding(Action::InputUndo, "Ctrl+_ Ctrl+7 Ctrl+/", "undo in the message", "撤销输入"),
    binding(Action::InputRedo, "Alt+_ Alt+/", "redo in the message", "恢复输入"),
    binding(
        Action::Yank,
        "Ctrl+Y",
        "put back what Ctrl+U, Ctrl+K, Ctrl+W erased",
        "粘贴 Ctrl+U、Ctrl+K、Ctrl+W 删去的内容",
    ),
    binding(Action::Redraw, "Ctrl+L", "paint anew", "重绘屏幕"),
    binding(Action::Suspend, "Ctrl+Z", "suspend", "挂起"),
    binding(Action::Interrupt, "Ctrl+C", "stop; twice: quit", "停止；连按两次退出"),
    binding(Action::EndOfInput, "Ctrl+D", "quit, if nothing is written", "输入为空时退出"),
    binding(Action::Quit, "Ctrl+Q", "quit", "退出"),
    binding(Action::Help, "F1 Alt+H", "this page", "本页"),
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

/// What the help shows for a row.
pub fn shown(binding: &Binding, prefs: &Prefs, lang: Lang) -> (&'static str, &'static str) {
    let keys = match binding.action {
        Action::Send if !prefs.enter_sends => "Alt+Enter",
        Action::Newline if !prefs.enter_sends => "Enter Ctrl+J",
        Action::InputUndo => "Ctrl+_",
        Action::InputRedo => "Alt+_",
        _ => binding.keys,
    };
    (keys, lang.of(binding.en, binding.zh))
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
