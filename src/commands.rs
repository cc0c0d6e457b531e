//! The one table of chat commands: what `/NAME` means in `huozi chat` and in `huozi-tui`, with the help in
//! both languages, and what tells a command from a message.
//!
//! In: a text that was typed. Out: a [`TypedText`]. The two programs act on a [`ChatCommandName`]; what one
//! of them does not do has a text in its row that says what to do instead.

use crate::lang::Lang;
use std::borrow::Cow;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatCommandName {
    /// The commands, or all keys.
    Help,
    /// Another conversation; this one is kept.
    New,
    /// An empty conversation.
    Clear,
    /// Take the last exchange back.
    Undo,
    /// Another answer to the last question.
    Retry,
    /// The last question once more, changed.
    Edit,
    /// The answer or exchange that was replaced or removed last, again.
    Back,
    /// The last answer to the clipboard.
    Copy,
    /// What the last answer cost.
    Stats,
    /// Show or change settings.
    Set,
    /// Save the conversation.
    Save,
    /// Save it in the place of another one.
    SaveOver,
    /// Continue a saved conversation.
    Load,
    /// The saved conversations.
    List,
    /// Another title.
    Rename,
    /// Keep nothing of this conversation.
    Private,
    /// The model.
    Model,
    /// Put a text file into the message.
    Attach,
    /// Write the conversation to a Markdown file.
    Export,
    /// Write the message in an editor.
    Editor,
    /// Markdown or plain text.
    Raw,
    /// The language of the interface.
    Language,
    /// End the program.
    Quit,
}

/// A row of the table. Texts are in English and Chinese.
pub struct ChatCommandRow {
    /// The command.
    pub command: ChatCommandName,
    /// Its name, without the slash.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// What follows the name; empty for nothing.
    pub argument: [&'static str; 2],
    /// What it does.
    pub help: [&'static str; 2],
    /// What it does in `huozi-tui`, which saves by itself, where that is something else.
    pub in_tui: Option<[&'static str; 2]>,
    /// `huozi chat` does not do it: what to do there instead.
    pub not_in_chat: Option<&'static str>,
}

const fn row(
    command: ChatCommandName,
    name: &'static str,
    aliases: &'static [&'static str],
    argument: [&'static str; 2],
    help: [&'static str; 2],
) -> ChatCommandRow {
    ChatCommandRow { command, name, aliases, argument, help, in_tui: None, not_in_chat: None }
}

impl ChatCommandRow {
    const fn only_in_tui(mut self, instead: &'static str) -> Self {
        self.not_in_chat = Some(instead);
        self
    }

    const fn in_tui(mut self, help: [&'static str; 2]) -> Self {
        self.in_tui = Some(help);
        self
    }

    /// What it does in `huozi-tui`.
    pub fn help_in_tui(&self, lang: Lang) -> &'static str {
        let [en, zh] = self.in_tui.unwrap_or(self.help);
        lang.of(en, zh)
    }

    /// All names, the first is the one that the help shows.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.name].into_iter().chain(self.aliases.iter().copied())
    }

    /// The name with its slash and what follows it.
    pub fn usage(&self, lang: Lang) -> String {
        let [en, zh] = self.argument;
        format!("/{} {}", self.name, lang.of(en, zh)).trim_end().to_owned()
    }
}

const NOTHING: [&str; 2] = ["", ""];
const NAME: [&str; 2] = ["[NAME]", "[名称]"];

/// The table, in the order of the help.
pub static CHAT_COMMANDS: [ChatCommandRow; 23] = [
    row(ChatCommandName::Help, "help", &["?"], NOTHING, ["this list", "帮助"]),
    row(
        ChatCommandName::New,
        "new",
        &[],
        NOTHING,
        ["another conversation; an unsaved one is saved first", "新对话；当前对话会保存"],
    ),
    row(
        ChatCommandName::Clear,
        "clear",
        &[],
        NOTHING,
        ["an empty conversation; what was saved stays", "清空对话；已保存的不变"],
    ),
    row(ChatCommandName::Undo, "undo", &[], NOTHING, ["remove the last exchange", "撤回上一轮对话"]),
    row(
        ChatCommandName::Retry,
        "retry",
        &["regen"],
        NOTHING,
        ["another answer to the last question", "重新生成回答"],
    ),
    row(
        ChatCommandName::Edit,
        "edit",
        &[],
        ["[TEXT]", "[文字]"],
        ["edit the last question and ask again", "修改上一个问题并重新提问"],
    ),
    row(
        ChatCommandName::Back,
        "back",
        &[],
        NOTHING,
        ["bring back what /retry, /edit or /undo replaced", "恢复 /retry、/edit、/undo 之前的内容"],
    ),
    row(
        ChatCommandName::Copy,
        "copy",
        &[],
        NOTHING,
        ["copy the last answer (OSC 52)", "复制上一个回答（OSC 52）"],
    ),
    row(
        ChatCommandName::Stats,
        "stats",
        &[],
        NOTHING,
        ["tokens, speed and seed of the last answer", "上一个回答的词元数、速度、种子"],
    ),
    row(
        ChatCommandName::Set,
        "set",
        &["settings", "show"],
        ["[KEY VALUE]", "[名称 值]"],
        ["show the settings, or change one", "显示或修改设置"],
    ),
    row(
        ChatCommandName::Save,
        "save",
        &[],
        NAME,
        ["save this conversation, with this title", "保存此对话，并以此为标题"],
    )
    .in_tui([
        "give this conversation a title; alone: say where it is saved",
        "修改标题；不带名称则显示保存在哪里",
    ]),
    row(
        ChatCommandName::SaveOver,
        "save!",
        &[],
        ["NAME", "名称"],
        ["the same; replaces another conversation", "同上；覆盖同名的对话"],
    )
    .in_tui(["as /save: another conversation with this title stays", "同 /save；同标题的其他对话不变"]),
    row(
        ChatCommandName::Load,
        "load",
        &["open"],
        NAME,
        ["continue a saved conversation; alone: list them", "继续已保存的对话；不带名称则列出"],
    ),
    row(ChatCommandName::List, "list", &[], NOTHING, ["list the saved conversations", "列出已保存的对话"]),
    row(
        ChatCommandName::Rename,
        "rename",
        &[],
        ["TITLE", "标题"],
        ["another title for a saved conversation", "修改已保存对话的标题"],
    ),
    row(
        ChatCommandName::Private,
        "private",
        &[],
        NOTHING,
        ["keep nothing of this conversation, or keep it again", "不保存此对话，或恢复保存"],
    ),
    row(ChatCommandName::Model, "model", &[], NOTHING, ["show or choose the model", "显示或选择模型"]),
    row(
        ChatCommandName::Attach,
        "attach",
        &[],
        ["FILE", "文件"],
        ["put a text file into the message", "附加文本文件"],
    )
    .only_in_tui("paste the text, or `huozi run -f FILE`"),
    row(
        ChatCommandName::Export,
        "export",
        &[],
        ["[FILE]", "[文件]"],
        ["write the conversation as Markdown", "导出为 Markdown"],
    )
    .only_in_tui("/save NAME, then /export in huozi-tui"),
    row(ChatCommandName::Editor, "editor", &[], NOTHING, ["write in $EDITOR", "用 $EDITOR 编辑"])
        .only_in_tui("\"\"\" opens and closes a message of several lines"),
    row(ChatCommandName::Raw, "raw", &[], NOTHING, ["Markdown or plain text", "Markdown 或原文"])
        .only_in_tui("answers are always plain text here"),
    row(ChatCommandName::Language, "lang", &[], ["[en|zh]", "[en|zh]"], ["interface language", "界面语言"])
        .only_in_tui("huozi chat is in English; huozi-tui is in Chinese, too"),
    row(ChatCommandName::Quit, "quit", &["exit", "bye"], NOTHING, ["quit", "退出"]),
];

impl ChatCommandName {
    /// The command that is called `name`, without the slash.
    pub fn find(name: &str) -> Option<Self> {
        CHAT_COMMANDS.iter().find(|row| row.names().any(|own| own == name)).map(|row| row.command)
    }

    /// Its row.
    pub fn row(self) -> &'static ChatCommandRow {
        // The table has a row for each: `every_command_has_a_row`.
        CHAT_COMMANDS.iter().find(|row| row.command == self).unwrap_or(&CHAT_COMMANDS[0])
    }
}

/// What a text is that was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypedText<'a> {
    /// A command and what follows its name.
    Command(ChatCommandName, &'a str),
    /// The name of a command that there is not.
    Unknown(&'a str),
    /// A message.
    Message(&'a str),
}

impl<'a> TypedText<'a> {
    /// Reads `text`: a command is one line that begins with a slash and a letter, so a path or a date is a
    /// message; `//` stands for a slash at the beginning of a message. A full-width slash is one, too.
    pub fn read(text: &'a str) -> Self {
        match named(text) {
            Some((name, rest)) => match ChatCommandName::find(name) {
                Some(command) => Self::Command(command, rest),
                None => Self::Unknown(name),
            },
            None => Self::Message(escaped(text).unwrap_or(text)),
        }
    }
}

/// The slashes that a command begins with: the second is that of Chinese input methods.
const SLASHES: [char; 2] = ['/', '／'];

/// What follows the first of two slashes at the beginning.
fn escaped(text: &str) -> Option<&str> {
    text.strip_prefix(SLASHES).filter(|rest| rest.starts_with(SLASHES))
}

/// The name of the command that `text` is, or is meant to be, and what follows it; `None` for a message.
fn named(text: &str) -> Option<(&str, &str)> {
    let rest = text.trim().strip_prefix(SLASHES)?;
    if rest.contains('\n') {
        return None;
    }
    let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let letters = name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(name.len());
    // `/sette0.9` is a slip, `/usr/bin` a path, and so may be `/etc，` in a Chinese sentence.
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    let is_name = letters > 0 && (plain || ChatCommandName::find(&name[..letters]).is_some());
    let is_path = name.contains('/');
    ((is_name && !is_path) || name == "?").then_some((name, rest.trim()))
}

/// What is typed to send `message`: one that looks like a command gets another slash.
pub fn typed_as(message: &str) -> Cow<'_, str> {
    match escaped(message).is_some() || named(message).is_some() {
        true => Cow::Owned(format!("/{}", message.trim_start())),
        false => Cow::Borrowed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_once_and_every_command_has_a_row() {
        let mut seen = std::collections::HashSet::new();
        for row in &CHAT_COMMANDS {
            for name in row.names() {
                assert!(seen.insert(name), "{name} stands twice");
                assert_eq!(ChatCommandName::find(name), Some(row.command));
                let typed = format!("/{name} 一 二");
                assert_eq!(TypedText::read(&typed), TypedText::Command(row.command, "一 二"));
            }
            assert_eq!(row.command.row().name, row.name);
            assert!(row.help.iter().all(|help| !help.is_empty()));
        }
        for name in ["new", "edit", "back", "copy", "clear", "stats", "save", "private", "load"] {
            assert!(ChatCommandName::find(name).is_some_and(|c| c.row().not_in_chat.is_none()), "{name}");
        }
    }

    #[test]
    fn commands_and_messages() {
        use ChatCommandName::*;
        assert_eq!(TypedText::read("/help"), TypedText::Command(Help, ""));
        assert_eq!(TypedText::read("/?"), TypedText::Command(Help, ""));
        assert_eq!(TypedText::read(" /set top_k  3 "), TypedText::Command(Set, "top_k  3"));
        assert_eq!(TypedText::read("/save! 诗"), TypedText::Command(SaveOver, "诗"));
        assert_eq!(TypedText::read("/nosuch a"), TypedText::Unknown("nosuch"));
        for text in ["/", "a /help", "/usr/bin", "/help\nme", "/1", "春", "/!"] {
            assert_eq!(TypedText::read(text), TypedText::Message(text), "{text}");
        }
        assert_eq!(TypedText::read("//help"), TypedText::Message("/help"));
        assert_eq!(TypedText::read("／help"), TypedText::Command(Help, ""));
        for (slip, name) in [("/sette0.9", "sette0.9"), ("/set温度 1", "set温度"), ("／halp", "halp")] {
            assert_eq!(TypedText::read(slip), TypedText::Unknown(name));
        }
        assert_eq!(TypedText::read("/tmp，是什么"), TypedText::Message("/tmp，是什么"));
        for sent in [
            "/help", "//help", "///", "/set a b", "a", "/usr/bin", "/", "a\n/help", "", "/save! a", "／help",
            "／／x", "/／", "/a1",
        ] {
            let typed = typed_as(sent);
            assert_eq!(TypedText::read(&typed), TypedText::Message(sent), "{typed}");
        }
    }
}
