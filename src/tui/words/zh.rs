//! Chinese.

use super::form::Words;
use super::zh_files::of_diagnosis;
use crate::session::catalog::{FileError, HubError, Place, Rule};
use crate::session::{self, ChatError, HistoryLimit, Notice, Stop, open, store};
use crate::tui::failure::Failure;
use crate::tui::keys::Action;
use crate::tui::look::Theme;
use crate::tui::text::{fit, one_line};
use std::error::Error;
use std::io::{self, ErrorKind};

/// The words.
pub(super) static WORDS: Words = Words {
    language: "中文",
    colon: "：",
    comma: "，",
    list_comma: "、",
    theme,
    action,
    failure,
    one_of: |values| format!("可选：{values}"),

    you: "你",
    model: "活字",
    no_answer: "（没有回答）",
    waiting: "…",
    folded: |rows| format!("… 还有 {rows} 行（Alt+O）"),
    dropped_above: |n| format!("以上 {n} 轮已不在上下文中"),
    dropped: |n, limit| match limit {
        HistoryLimit::Exchanges(most) => format!("最早的 {n} 轮对话已移出提示（上限：{most} 轮）"),
        HistoryLimit::Tokens(most) => format!("最早的 {n} 轮对话已移出提示（上限：{most} 词元）"),
    },
    stop,
    notice,
    new_conversation: "新对话",
    exported: "导出于",
    welcome: |sends, breaks| {
        format!("输入消息后按 {sends} 发送。{breaks} 换行，F2 设置，F3 对话列表，F1 全部按键。")
    },
    runs_on: |isa, threads| format!("{isa}，{threads} 线程"),
    memory: "内存",
    welcome_demo: "\n\n演示模型会写诗，例如：写一首关于月的诗。",

    mark_private: "不保存",
    mark_unsaved: "未能保存",
    mark_copy: "副本",
    mark_raw: "原文",
    mark_editing: "修改中",
    reading: "读取提示",
    rereading: "重读对话",
    generating: "生成中",
    stopping: "正在停止…",
    esc_stops: "Esc 停止",
    left: "剩余",
    tokens_per_second: "词元/秒",
    tokens_per_second_short: "/秒",
    latest: " Ctrl+End 到最新 ",
    context: "上下文 ",
    memory_in_use: "内存 ",
    prefill: "预填",
    f1_help: "F1 帮助",
    too_small: "窗口太小",

    choose_model: "选择模型",
    looking_for_models: "正在查找模型…",
    no_models: "没有找到 GGUF 文件：可用 huozi-convert 从检查点转换。演示模型无需文件。",
    needs: "需内存",
    does_not_fit: "，内存不足",
    not_usable: "不可用",
    demo: "演示：内置的小模型",
    demo_does: "古典诗词",
    demo_name: "内置演示模型",
    another_file: "其他文件…",
    chooser_keys: |back| match back {
        true => "Enter 打开，Esc 返回，F1 帮助，Alt+L English",
        false => "Enter 打开，Esc 退出，F1 帮助，Alt+L English",
    },
    memory_available: "可用内存：",
    message_waits: "已写的消息会保留",
    opening: "正在打开",
    step_start: "开始",
    step_convert: "首次使用：转换内置模型",
    step_read: "读取文件",
    step_build: "建立词表",
    not_open_yet: "模型尚未打开",

    help: "帮助",
    help_keys: "上下滚动，Esc 关闭",
    help_text: "终端光标始终在输入位置，输入法的候选框也在那里。按住 Shift 用鼠标可像平常一样选择文字。没有这些\
                按键的终端可用命令，与 huozi chat 相同（以 // 开头发送以斜杠开头的消息）：",

    settings: "设置：此对话、界面",
    settings_keys: "左右修改，Enter 或直接键入，Del 复原，Esc 关闭",
    settings_keys_typing: "Enter 确定，Esc 取消",
    in_brackets: |text| format!("（{text}）"),
    row_language: ["界面语言", "中文 或 English"],
    row_colours: ["颜色", "深色 浅色 单色"],
    row_send_key: ["发送键", "Enter 或 Alt+Enter"],
    row_mouse: ["鼠标", "开：滚轮翻页，关：终端选字"],
    semicolon: "；",

    conversations: "对话",
    talks_keys: "Enter 打开，Ctrl+R 改名，Del 删除，Esc 关闭",
    talks_keys_renaming: "Enter 改名，Esc 取消",
    talks_keys_searching: "Enter 打开，Ctrl+R 改名，Del 删除，Esc 清除搜索",
    talks_keys_deleted: "Ctrl+Z 恢复已删除的对话",
    search: "搜索：",
    searching: "正在搜索…",
    no_conversations: "没有对话",
    just_now: "刚刚",
    minutes_ago: |n| format!("{n} 分钟前"),
    hours_ago: |n| format!("{n} 小时前"),
    yesterday: "昨天",

    attach: ["附加文本文件", "Enter 附加，Tab 补全，Esc 关闭"],
    export: ["导出为 Markdown 文件", "Enter 写入，Tab 补全，Esc 关闭"],
    model_path: ["GGUF 文件路径", "Enter 打开，Tab 补全，Esc 关闭"],
    forget: ["不保存此对话？", "Enter 删除，Esc 保留"],
    forget_text: "它的文件会被彻底删除。",
    nothing_to_complete: "没有更多可补全的",

    again_quits: "再按一次 Ctrl+C 退出",
    emptied: "已清空，Ctrl+_ 可恢复；再按一次 Ctrl+C 退出",
    quit_unsaved: "尚未保存，再按一次则不保存退出：",
    not_saved: "没有保存：",
    saved_again: "对话已重新保存",
    moved: "对话文件被其他程序删除或改动：已另存为新文件",
    draft_not_kept: "输入的草稿未能保存：",
    draft_back: |others| match others {
        0 => "上次未发送的内容已放回输入框".into(),
        n => format!("上次未发送的内容已放回输入框；另有 {n} 份待下次启动"),
    },
    editing: |sends| format!("{sends} 重新提问，Esc 取消"),
    copied: "已复制（需终端支持 OSC 52）",
    saved_as: |name| format!("已保存为 {name}，随每个回答更新；/save 标题 可命名"),
    is_private: "此对话不保存；/private 恢复保存",
    stats: |stats| {
        format!(
            "提示 {} 词元（另沿用 {}），{:.1} 词元/秒；回答 {} 词元，{:.1} 词元/秒；上下文 {}/{}；种子 {}",
            stats.prompt_tokens,
            stats.reused_tokens,
            stats.prompt_rate(),
            stats.generated_tokens,
            stats.generate_rate(),
            stats.context_used,
            stats.context,
            stats.seed
        )
    },
    no_stats: "本次运行还没有回答",
    nothing_said: "还没有对话内容",
    undone: "已撤回（Alt+Z 恢复）；问题已放回输入框",
    undone_history: "已撤回（Alt+Z 恢复）；按上键可找回问题",
    nothing_replaced: "没有可以恢复的回答",
    brought_back: |again| match again {
        true => "已恢复；再按 Alt+Z 切换到另一个回答",
        false => "已恢复",
    },
    can_bring_back: "Alt+Z 恢复之前的回答",
    still_saved: "对话保留，继续保存",
    and_more: |n| format!("另有 {n} 项"),
    unknown_keys: |keys, path| format!("{path}：未知的设置已忽略：{keys}"),
    opening_conversation: "正在打开对话…",
    model_is_busy: "模型正在生成；Esc 停止",
    no_command: |name| format!("/{name}：没有此命令；/help 查看，以 // 开头可原样发送"),
    reopening: "正在重新打开引擎…",
    deleted: "已删除；在列表中按 Ctrl+Z 恢复",
    written: "已写入：",
    read_as: |encoding| format!("不是 UTF-8，已按 {encoding} 读取"),
    goes_on_in_copy: "此处无法写入（另一个 huozi 正在使用，或为只读）：在副本中继续",
    others_answer: "上一个回答出自另一个模型，现由此模型继续（Ctrl+N 新建对话）",

    lost_conversation: "对话没有保存：",
    lost_draft: "未发送的内容没有保存：",
};

fn theme(theme: Theme) -> &'static str {
    match theme {
        Theme::Dark => "深色",
        Theme::Light => "浅色",
        Theme::Plain => "单色",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Send => "发送",
        Action::Newline => "换行",
        Action::Stop => "停止回答；退出编辑",
        Action::Retry => "重新生成回答",
        Action::Undo => "撤回上一轮对话",
        Action::EditLast => "修改上一个问题",
        Action::BringBack => "恢复之前的回答",
        Action::Copy => "复制上一个回答",
        Action::Attach => "附加文本文件",
        Action::New => "新对话",
        Action::Talks => "对话列表：打开、改名、搜索、删除",
        Action::Export => "导出为 Markdown",
        Action::Private => "不保存此对话",
        Action::Settings => "设置",
        Action::Models => "选择其他模型",
        Action::Raw => "Markdown 或原文",
        Action::Unfold => "展开或折叠长问题",
        Action::Language => "English",
        Action::PageUp => "上翻一页",
        Action::PageDown => "下翻一页",
        Action::RowUp => "上移一行",
        Action::RowDown => "下移一行",
        Action::Top => "到开头",
        Action::End => "到结尾",
        Action::Editor => "用 $EDITOR 编辑",
        Action::InputUndo => "撤销输入",
        Action::InputRedo => "恢复输入",
        Action::Yank => "粘贴 Ctrl+U、Ctrl+K、Ctrl+W 删去的内容",
        Action::Redraw => "重绘屏幕",
        Action::Suspend => "挂起",
        Action::Interrupt => "停止；连按两次退出",
        Action::EndOfInput => "输入为空时退出",
        Action::Quit => "退出",
        Action::Help => "本页",
    }
}

fn stop(stop: Stop) -> Option<&'static str> {
    match stop {
        Stop::EndToken(_) | Stop::Hook => None,
        Stop::MaxTokens => Some("已停止：达到词元上限 max_new_tokens"),
        Stop::ContextFull => Some("已停止：上下文已满"),
        Stop::Cancelled => Some("已停止"),
        Stop::BrokenLogits => Some("模型没有给出数值：权重已损坏"),
    }
}

fn notice(notice: &Notice) -> String {
    match notice {
        Notice::EmptyAnswer => "模型的回答是空的；可再试一次或换个问法".into(),
        Notice::FewerThreads { wanted, used } => {
            format!("设为 {wanted} 个线程，实际运行 {used} 个：每个可用处理器一个，再多反而变慢")
        }
        Notice::LongContext { n_ctx, trained } => {
            format!("上下文 {n_ctx} 词元，超过模型训练时的 {trained}，质量可能下降")
        }
    }
}

fn failure(failure: &Failure) -> String {
    match failure {
        Failure::Session(error) => of_session(error),
        Failure::Open(error) => of_open(error),
        Failure::Store(error) => of_store(error),
        Failure::Unusable(found) => {
            let why = match found.needs().err() {
                Some(open::Error::Unusable(diagnosis)) => Some(of_diagnosis(&diagnosis.kind)),
                Some(open::Error::File(error)) => of_gguf(error),
                Some(open::Error::Io { source, .. }) => Some(of_system(source)),
                Some(error) => Some(of_open(error)),
                None => None,
            };
            why.or_else(|| found.why()).unwrap_or_default()
        }
        Failure::File { path, error } => format!("{}：{}", path.display(), of_system(error)),
        Failure::NotAFile(path) => format!("{}：不是文件", path.display()),
        Failure::TooLong { path, most_kib } => format!("{}：超过 {most_kib} KiB，消息放不下", path.display()),
        Failure::NotText { path, encoding: None, at, line } => format!(
            "{}：不是文本：不是 UTF-8（第 {line} 行，偏移 {at} 字节），也不是 UTF-16 或 GB18030",
            path.display()
        ),
        Failure::NotText { path, encoding: Some(encoding), at, line } => {
            format!("{}：文件其余部分是 {encoding}，但第 {line} 行（偏移 {at} 字节）不符合", path.display())
        }
        Failure::Panic(what) => format!("内部错误：{what}"),
        Failure::NoModel => "没有打开的模型".into(),
        Failure::NoPlaceForConversations => "XDG_DATA_HOME 和 HOME 均未设置，无法保存对话".into(),
        Failure::NoPlaceForPrefs => "此选择不会保留：XDG_STATE_HOME 和 HOME 均未设置".into(),
        Failure::NothingInTrash => "没有可以恢复的对话".into(),
        Failure::LastOpenElsewhere => "上次的对话正在另一个 huozi 中打开；这里是新对话".into(),
        Failure::LastNotOpened(why) => format!("上次的对话无法打开，这里是新对话：{}", self::failure(why)),
        Failure::LeavesUnsaved(why) => format!("当前对话尚未保存，再按一次则放弃：{}", self::failure(why)),
        Failure::StoppedBeforeAnswer => "回答开始前已停止：原来的问答不变".into(),
        Failure::DiskSlow => "磁盘没有及时响应，可能没有全部写入".into(),
        Failure::System(what) => what.clone(),
    }
}

fn of_session(error: &session::Error) -> String {
    match error {
        session::Error::QueryTooLong { tokens, limit, n_ctx } => format!(
            "消息太长：连同系统提示和标记、不含此前的对话，共 {tokens} 词元；上下文 {n_ctx} 中最多允许 {limit}"
        ),
        session::Error::NothingToRetry => "还没有可以重新回答的问题".into(),
        session::Error::BrokenModel => "模型没有给出数值：权重已损坏".into(),
        session::Error::Chat(ChatError::NoSystem(why)) => {
            format!("模型的聊天模板不接受系统提示，请清空系统提示（模板的说明：{why}）")
        }
        session::Error::Chat(ChatError::Refused(why)) => format!("模型的聊天模板拒绝这段对话：{why}"),
        session::Error::Chat(ChatError::Template(why)) => format!("模型的聊天模板出错：{why}"),
        error => other(error),
    }
}

fn of_open(error: &open::Error) -> String {
    match error {
        open::Error::Unusable(diagnosis) => {
            format!("{}：{}", diagnosis.path.display(), of_diagnosis(&diagnosis.kind))
        }
        open::Error::Hub(error) => of_hub(error),
        open::Error::Memory(memory) => format!(
            "内存不足：{} 在 {} 词元的上下文下约需 {} MiB，可用 {} MiB；可缩短上下文 (-c)、用 --kv-type q8 \
             或更小的类型，--no-memory-check 则照样加载",
            memory.name,
            memory.positions,
            memory.forecast.total >> 20,
            memory.available >> 20
        ),
        open::Error::NoChat { path } => {
            format!("{}：此模型没有对话格式，只能续写文本：请用 huozi run --raw", path.display())
        }
        open::Error::SeveralFiles { name, files } => {
            let files = Vec::from_iter(files.iter().map(|file| file.display().to_string()));
            format!("{name}：Hugging Face 缓存中有多个 GGUF 文件，请给出其中一个的路径：{}", files.join("、"))
        }
        open::Error::Io { path, source } => format!("{}：{}", path.display(), of_system(source)),
        open::Error::Cancelled { path } => format!("{}：已停止打开", path.display()),
        open::Error::File(of_file @ FileError::Malformed(malformed)) => match of_gguf(of_file) {
            Some(what) => format!("{}：{what}", malformed.file),
            None => other(error),
        },
        error => other(error),
    }
}

/// A name that leads to no snapshot in the Hugging Face cache.
fn of_hub(error: &HubError) -> String {
    match error {
        HubError::NotFound { looked, .. } => {
            let looked = Vec::from_iter(looked.iter().map(|path| path.display().to_string()));
            format!(
                "既没有这个文件，Hugging Face 缓存中也没有可用的这个模型（本程序不下载，可先用 hf download 下载）；查找过：{}",
                looked.join("、")
            )
        }
        HubError::NoSuchSnapshot { model, main, dir } => format!(
            "Hugging Face 缓存中有 {model}，但没有 {} 所指的快照 {}；可用 hf download {model} 重新下载",
            main.display(),
            dir.display()
        ),
        HubError::SeveralSnapshots { model, snapshots } => {
            let list = Vec::from_iter(snapshots.iter().map(|dir| dir.display().to_string()));
            format!(
                "Hugging Face 缓存中有 {model} 的 {} 个快照，但没有 refs/main；请给出其中一个的路径：{}",
                list.len(),
                list.join("、")
            )
        }
        HubError::BadRef { path, .. } => format!("{}：内容不是快照的名称", path.display()),
        error => other(error),
    }
}

fn of_store(error: &store::Error) -> String {
    match error {
        store::Error::Busy { path } => format!("{}：另一个 huozi 正在写入", path.display()),
        store::Error::Unknown { name } => format!("没有名为 {name:?} 的对话"),
        store::Error::Deleted { path } => format!("{}：此对话已被删除", path.display()),
        store::Error::Torn { path } => format!("{}：没有一行完整，不是对话文件", path.display()),
        store::Error::Gone { path } => format!("{}：被其他程序删除、替换或损坏", path.display()),
        store::Error::Line { path, line, what } => format!("{}：第 {line} 行有错（{what}）", path.display()),
        store::Error::TooLarge { path, .. } => format!("{}：太大，不是对话文件", path.display()),
        store::Error::Full { path, .. } => format!("{}：编号已用尽，无法再写入", path.display()),
        store::Error::Name { name } => format!("{name:?} 不能用作对话名：不可含 / 或以 . 开头"),
        error => other(error),
    }
}

/// An error without a translation; where an error of the system is behind it, that is told in Chinese:
/// `PATH: cannot ACTION: REASON` is the form of this program's errors.
fn other(error: &(dyn Error + 'static)) -> String {
    let en = error.to_string();
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    let mut said = None;
    while let (Some(at), None) = (cause, &said) {
        said = at.downcast_ref::<io::Error>().map(of_system);
        cause = at.source();
    }
    let zh = said.and_then(|said| Some(format!("{}：{said}", en.split_once(": cannot ")?.0)));
    zh.unwrap_or(en)
}

/// What the system says, in Chinese where it is common.
fn of_system(error: &io::Error) -> String {
    common(error.kind()).map_or_else(|| format!("系统错误（{error}）"), str::to_owned)
}

/// Common errors of the system.
fn common(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::NotFound => "文件不存在",
        ErrorKind::PermissionDenied => "没有权限",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "磁盘空间不足",
        ErrorKind::ReadOnlyFilesystem => "文件系统只读",
        ErrorKind::IsADirectory => "是文件夹，不是文件",
        ErrorKind::NotADirectory => "没有这个文件夹",
        _ => return None,
    })
}

/// Cells that a name from a file may take in a message: it may be 64 KiB.
const NAME_CELLS: usize = 40;

/// What is wrong with a model file; what was found in it is told as it is.
fn of_gguf(error: &FileError) -> Option<String> {
    let malformed = match error {
        FileError::Malformed(malformed) => malformed,
        FileError::Io { source, .. } => return common(source.kind()).map(str::to_owned),
        _ => return None,
    };
    let found = &malformed.found;
    let what = match (malformed.rule, &malformed.place) {
        (Rule::Magic, _) => format!("不是 GGUF 模型文件：开头是 {found}"),
        (Rule::Endianness, _) => "是大端字节序的文件，无法使用".into(),
        (Rule::Version, _) => format!("不支持这个版本的 GGUF：{found}"),
        (Rule::Truncated | Rule::OutsideFile, _) => "文件不完整，末尾被截断".into(),
        (Rule::Value, Place::Key(key)) if key == "general.architecture" => {
            format!("不是 BLOOM 系列的模型，而是 {found}")
        }
        (Rule::TensorType, _) => format!("有不支持的权重类型：{found}"),
        (Rule::Missing, _) => "缺少所需的信息".into(),
        (Rule::WrongType | Rule::Value, _) => {
            format!("其中的信息无法使用：应为 {}，实为 {found}", malformed.expected)
        }
        // The file says that it holds more than its length allows.
        (Rule::Count | Rule::StringLength, _) => "文件不完整或已损坏".into(),
        (Rule::ArrayDepth | Rule::KeyName | Rule::TensorSize, _) => "超出允许的大小".into(),
        _ => "文件已损坏".into(),
    };
    let place = match &malformed.place {
        Place::Header => String::new(),
        Place::Key(key) => format!("（元数据 {}）", fit(&one_line(key), NAME_CELLS)),
        Place::Tensor(name) => format!("（张量 {}）", fit(&one_line(name), NAME_CELLS)),
    };
    Some(what + &place)
}
