//! The line editor of a chat at a terminal: keys, completion, and the lines of earlier chats.

use super::keyboard::Keyboard;
use super::keys::pasted;
use crate::commands::{CHAT_COMMANDS, ChatCommandName, TypedText};
use crate::engine::{EngineKind, KvType};
use crate::lang::Lang;
use crate::session::store;
use crate::settings::{Setting, SettingDefault, SettingGroup, SettingKind, SettingName};
use anyhow::Result;
use rustyline::completion::{Completer, Pair};
use rustyline::config::{BellStyle, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{FileHistory, History};
use rustyline::validate::Validator;
use rustyline::{Cmd, Context, Helper, KeyCode, KeyEvent, Modifiers};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Lines that the history keeps.
const HISTORY: usize = 1000;
/// A file of the history that is longer was not written by this program.
const MAX_BYTES: u64 = 64 << 20;

/// What came of reading a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EditedLine {
    /// A line; with line breaks if it was pasted or made of several.
    Line(String),
    /// Ctrl+C.
    Dropped,
    /// Ctrl+D on an empty line, or the end of the terminal.
    End,
}

/// The editor.
pub(super) struct LineEditor {
    // Dropped first: the terminal is given back.
    keyboard: Keyboard,
    editor: rustyline::Editor<Completions, FileHistory>,
    /// Where the history is kept, if it is.
    file: Option<PathBuf>,
    /// Nothing of this conversation is kept.
    private: bool,
    /// The lines of this conversation that were kept.
    kept: Vec<String>,
}

impl LineEditor {
    /// Takes the terminal. `history` is where lines are kept; `sessions` has the names that complete `/load`.
    ///
    /// # Errors
    /// There is no pseudoterminal.
    pub(super) fn new(history: Option<PathBuf>, sessions: Option<PathBuf>) -> Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY)?
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .bell_style(BellStyle::None)
            .build();
        let history_lines = FileHistory::with_config(&config);
        let keyboard = Keyboard::take()?;
        let mut editor = rustyline::Editor::with_history(config, history_lines)?;
        editor.set_helper(Some(Completions { sessions }));
        // After the process was stopped.
        editor.bind_sequence(KeyEvent(KeyCode::F(12), Modifiers::NONE), Cmd::Repaint);
        let mut this = Self { keyboard, editor, file: history, private: false, kept: Vec::new() };
        if let Some(file) = this.file.clone()
            && let Err(why) = this.open_history(&file)
        {
            eprintln!("huozi: {}: the history of typed lines is not kept: {why}", file.display());
            this.file = None;
        }
        Ok(this)
    }

    fn open_history(&mut self, file: &Path) -> Result<(), ReadlineError> {
        if let Some(folder) = file.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // Opening a pipe could block for ever.
        if fs::metadata(file).is_ok_and(|meta| !meta.is_file() || meta.len() > MAX_BYTES) {
            let what = format!("not a regular file of at most {MAX_BYTES} bytes");
            return Err(std::io::Error::other(what).into());
        }
        // Only its owner can read it, from its first byte on.
        fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
        self.editor.load_history(file)
    }

    /// Reads a line that begins as `begun`, and with what was typed since the last one.
    ///
    /// # Errors
    /// The terminal cannot be read or written.
    pub(super) fn read(&mut self, prompt: &str, begun: &str) -> Result<EditedLine> {
        let begun = format!("{begun}{}", self.keyboard.begin_line());
        let read = self.editor.readline_with_initial(prompt, (begun.trim_end_matches('\n'), ""));
        self.keyboard.end_line();
        match read {
            Ok(line) => Ok(EditedLine::Line(pasted(&line))),
            Err(ReadlineError::Interrupted) => Ok(EditedLine::Dropped),
            Err(ReadlineError::Eof) => Ok(EditedLine::End),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether something was typed in the line that was read last.
    pub(super) fn has_typed(&self) -> bool {
        self.keyboard.has_typed()
    }

    /// Adds what was typed to the history.
    pub(super) fn remember(&mut self, line: &str) {
        if line.trim().is_empty() || !self.editor.add_history_entry(line).unwrap_or(false) {
            return;
        }
        let Some(file) = self.file.clone().filter(|_| !self.private) else { return };
        self.kept.push(line.to_owned());
        if let Err(why) = self.editor.append_history(&file) {
            eprintln!("huozi: {}: the history of typed lines is no longer kept: {why}", file.display());
            self.file = None;
        }
    }

    /// Another conversation begins: it is kept.
    pub(super) fn new_conversation(&mut self) {
        self.kept.clear();
        self.set_private(false);
    }

    /// Keeps nothing of this conversation, not even what was kept of it; or keeps what comes from now on.
    pub(super) fn set_private(&mut self, private: bool) {
        if private == self.private {
            return;
        }
        self.private = private;
        let Some(file) = self.file.clone() else { return };
        let done = match private {
            true => self.forget_kept(&file),
            // What was typed meanwhile is in memory only, and goes.
            false => self.editor.clear_history().and_then(|()| self.editor.load_history(&file)),
        };
        if let Err(why) = done {
            eprintln!("huozi: {}: cannot be changed: {why}", file.display());
        }
    }

    /// Takes the lines of this conversation out of the file; in memory they stay until it ends.
    fn forget_kept(&mut self, file: &Path) -> Result<(), ReadlineError> {
        let mut all = FileHistory::with_config(&Config::builder().max_history_size(HISTORY)?.build());
        all.load(file)?;
        let kept = std::mem::take(&mut self.kept);
        let others = all.iter().filter(|line| !kept.contains(line)).cloned();
        let mut left = FileHistory::with_config(&Config::builder().max_history_size(HISTORY)?.build());
        for line in others {
            left.add_owned(line)?;
        }
        match left.is_empty() {
            // An empty history is not written.
            true => Ok(fs::File::create(file).map(drop)?),
            false => left.save(file),
        }
    }
}

/// Completes `/` commands and what follows them.
struct Completions {
    sessions: Option<PathBuf>,
}

impl Helper for Completions {}
impl Hinter for Completions {
    type Hint = String;
}
impl Highlighter for Completions {}
impl Validator for Completions {}

impl Completer for Completions {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>), ReadlineError> {
        let before = line.get(..pos).unwrap_or(line);
        let names = || match &self.sessions {
            Some(folder) => store::list(folder).into_iter().map(|entry| [entry.name, entry.title]).collect(),
            None => Vec::new(),
        };
        let (start, found) = complete(before, names);
        Ok((
            start,
            found
                .into_iter()
                .map(|text| Pair { display: text.trim_end().to_owned(), replacement: text })
                .collect(),
        ))
    }
}

/// How `before` can go on: where what is replaced begins, and the texts in its place. `names` gives names and
/// titles of the saved conversations.
fn complete(before: &str, names: impl Fn() -> Vec<[String; 2]>) -> (usize, Vec<String>) {
    let Some(typed) = before.strip_prefix('/').filter(|_| !before.contains('\n')) else {
        return (0, Vec::new());
    };
    let Some((_, rest)) = typed.split_once(' ') else {
        let rows = CHAT_COMMANDS.iter().filter(|row| row.not_in_chat.is_none());
        let names = rows.flat_map(|row| {
            let space = if row.argument[0].is_empty() { "" } else { " " };
            row.names().map(move |name| format!("/{name}{space}"))
        });
        return (0, sorted(names.filter(|name| name.starts_with(before)).collect()));
    };
    let rest = rest.trim_start();
    let start = before.len() - rest.len();
    let fits = |texts: Vec<String>| sorted(texts.into_iter().filter(|text| text.starts_with(rest)).collect());
    match TypedText::read(before) {
        TypedText::Command(ChatCommandName::Load | ChatCommandName::SaveOver | ChatCommandName::Save, _) => {
            (start, fits(names().into_iter().flatten().collect()))
        }
        TypedText::Command(ChatCommandName::Set, _) => match rest.split_once([' ', '=']) {
            None => {
                let settings = Setting::ALL.into_iter();
                let settings = settings.filter(|setting| setting.row().group != SettingGroup::Engine);
                (start, fits(settings.flat_map(Setting::names).map(|name| format!("{name} ")).collect()))
            }
            Some((key, value)) => {
                let value = value.trim_start();
                let values = SettingName::find(key).map(values).unwrap_or_default();
                let fit = values.into_iter().filter(|text| text.starts_with(value)).collect();
                (before.len() - value.len(), sorted(fit))
            }
        },
        _ => (start, Vec::new()),
    }
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts.dedup();
    texts
}

/// Values of a setting: all of them where they are few, else the default.
fn values(name: SettingName) -> Vec<String> {
    let row = name.setting.row();
    match (row.kind, &row.default) {
        (SettingKind::Switch, _) => vec!["on".into(), "off".into()],
        (SettingKind::Kv, _) => [KvType::F32, KvType::F16, KvType::Q8].map(|kv| kv.name().to_owned()).into(),
        (SettingKind::Engine, _) => {
            [EngineKind::Native, EngineKind::Ggml].map(|engine| engine.name().to_owned()).into()
        }
        (SettingKind::Text, _) => vec!["default".into()],
        (_, SettingDefault::Value(value)) => vec![value.show(Lang::En)],
        (_, SettingDefault::Described(_)) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_settings_values_and_names_are_completed() {
        let names =
            || vec![["春天".to_owned(), "春天".to_owned()], ["chat-1".to_owned(), "写 诗".to_owned()]];
        let of = |before: &str| {
            let (start, found) = complete(before, names);
            Vec::from_iter(found.into_iter().map(|text| format!("{}{text}", &before[..start])))
        };
        assert_eq!(of("/st"), ["/stats"]);
        assert_eq!(of("/sa"), ["/save ", "/save! "]);
        assert_eq!(of("/set temp"), ["/set temperature "]);
        assert_eq!(of("/set gr"), ["/set greedy "]);
        assert_eq!(of("/set thr"), Vec::<String>::new(), "fixed while the model is open");
        assert_eq!(of("/set do_sample o"), ["/set do_sample off", "/set do_sample on"]);
        assert_eq!(of("/set top_p "), ["/set top_p 0.95"]);
        assert_eq!(of("/load 春"), ["/load 春天"]);
        assert_eq!(of("/load 写"), ["/load 写 诗"]);
        assert_eq!(of("/save! c"), ["/save! chat-1"]);
        for nothing in ["写", "", "/attach x", "/raw", "/clear x", "a\n/st"] {
            assert!(of(nothing).is_empty(), "{nothing}");
        }
    }
}
