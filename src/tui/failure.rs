//! What went wrong, in the languages of the interface.

use super::look::Lang;
use super::text::{fit, one_line};
use crate::session::catalog::{FileError, Found, Place, Rule};
use crate::session::{self, open, store};
use std::any::Any;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::Path;

/// A reason, to be shown to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    en: String,
    zh: String,
}

impl Failure {
    /// The same in both languages.
    pub fn new(en: impl Into<String>, zh: impl Into<String>) -> Self {
        Self { en: en.into(), zh: zh.into() }
    }

    /// The text in a language.
    pub fn text(&self, lang: Lang) -> &str {
        lang.of(&self.en, &self.zh)
    }

    /// This with words before it that say what came of it.
    pub fn after(self, en: &str, zh: &str) -> Self {
        Self { en: format!("{en}{}", self.en), zh: format!("{zh}{}", self.zh) }
    }

    /// What a thread panicked with.
    pub fn panic(panic: &(dyn Any + Send)) -> Self {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        Self::new(format!("internal error: {what}"), format!("内部错误：{what}"))
    }

    /// What the system says about a file.
    pub fn io(path: &Path, error: &io::Error) -> Self {
        let path = path.display();
        Self::new(format!("{path}: {error}"), format!("{path}：{}", zh_of_system(error)))
    }

    /// Why a file is no model for us, without its path.
    pub fn unusable(found: &Found, error: &FileError) -> Self {
        let en = found.why().unwrap_or_default();
        Self { zh: of_gguf(error).unwrap_or_else(|| en.clone()), en }
    }

    /// An error that may have one of the system's behind it; `PATH: cannot ACTION: REASON` is how ours are told.
    fn of(error: &(dyn Error + 'static)) -> Self {
        let en = error.to_string();
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        let mut said = None;
        while let (Some(at), None) = (cause, &said) {
            said = at.downcast_ref::<io::Error>().map(zh_of_system);
            cause = at.source();
        }
        let zh = said.and_then(|said| Some(format!("{}：{said}", en.split_once(": cannot ")?.0)));
        Self { zh: zh.unwrap_or_else(|| en.clone()), en }
    }
}

/// What the system says, in Chinese where it is common.
fn zh_of_system(error: &io::Error) -> String {
    of_system(error.kind()).map_or_else(|| format!("系统错误（{error}）"), str::to_owned)
}

/// What is common among the things that a system says, in Chinese.
fn of_system(kind: ErrorKind) -> Option<&'static str> {
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

/// What is wrong with a model file, in Chinese. What was found is told as the file has it.
fn of_gguf(error: &FileError) -> Option<String> {
    let malformed = match error {
        FileError::Malformed(malformed) => malformed,
        FileError::Io { source, .. } => return of_system(source.kind()).map(str::to_owned),
        _ => return None,
    };
    let found = &malformed.found;
    let what = match (malformed.rule, &malformed.place) {
        (Rule::Magic, _) if found.contains("LFS") => "只是 Git LFS 的指针，模型本身还没有下载".into(),
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
        // What the file says is more than what is left of it.
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

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { zh: text.clone(), en: text }
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<session::Error> for Failure {
    fn from(error: session::Error) -> Self {
        let zh = match &error {
            session::Error::QueryTooLong { tokens, limit, n_ctx } => format!(
                "消息太长：连同系统提示和标记、不含此前的对话，共 {tokens} 个词元；上下文 {n_ctx} 中最多允许 {limit} 个"
            ),
            session::Error::NothingToRetry => "还没有可以重新回答的问题".into(),
            session::Error::BrokenModel => "模型没有给出数值：权重已损坏".into(),
            _ => return Self::of(&error),
        };
        Self::new(error.to_string(), zh)
    }
}

impl From<open::Error> for Failure {
    fn from(error: open::Error) -> Self {
        let zh = match &error {
            open::Error::Folder { path } => {
                format!("{}：是文件夹，不是 GGUF 文件；可用 huozi-convert 从检查点转换", path.display())
            }
            open::Error::Memory(memory) => format!(
                "内存不足：{} 在 {} 个词元的上下文下约需 {} MiB，可用 {} MiB；可缩短上下文 (-c)、用 --kv-type q8 \
                 或更小的类型，--no-memory-check 则照样加载",
                memory.name,
                memory.positions,
                memory.forecast.total >> 20,
                memory.available >> 20
            ),
            open::Error::NoChat { path } => {
                format!("{}：此模型没有对话格式，只能续写文本：请用 huozi run --raw", path.display())
            }
            open::Error::Cancelled { path } => format!("{}：已停止打开", path.display()),
            open::Error::File(of_file @ FileError::Malformed(malformed)) => match of_gguf(of_file) {
                Some(what) => format!("{}：{what}", malformed.file),
                None => return Self::of(&error),
            },
            _ => return Self::of(&error),
        };
        Self::new(error.to_string(), zh)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let zh = match &error {
            store::Error::Busy { path } => format!("{}：另一个 huozi 正在写入", path.display()),
            store::Error::Unknown { name } => format!("没有名为 {name:?} 的对话"),
            store::Error::Deleted { path } => format!("{}：此对话已被删除", path.display()),
            store::Error::Torn { path } => format!("{}：没有一行完整，不是对话文件", path.display()),
            store::Error::Gone { path } => format!("{}：被其他程序删除、替换或损坏", path.display()),
            store::Error::Line { path, line, what } => {
                format!("{}：第 {line} 行有错（{what}）", path.display())
            }
            store::Error::TooLarge { path, .. } => format!("{}：太大，不是对话文件", path.display()),
            store::Error::Full { path, .. } => format!("{}：编号已用尽，无法再写入", path.display()),
            store::Error::Name { name } => format!("{name:?} 不能用作对话名：不可含 / 或以 . 开头"),
            _ => return Self::of(&error),
        };
        Self::new(error.to_string(), zh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_reasons_are_told_in_chinese() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no.gguf");
        let never = std::sync::atomic::AtomicBool::new(false);
        let open = |path: &Path| {
            let source = open::Source::File(path.to_owned());
            open::open(&source, &Default::default(), &Default::default(), &|_, _, _| {}, &never)
                .err()
                .unwrap()
        };
        let store = |source: ErrorKind| store::Error::Io {
            path: "/a/chat-1.jsonl".into(),
            action: "write",
            source: source.into(),
        };
        let long = session::Error::QueryTooLong { tokens: 3000, limit: 1800, n_ctx: 2048 };
        for (failure, zh) in [
            (Failure::from(open(&missing)), format!("{}：文件不存在", missing.display())),
            (open(dir.path()).into(), format!("{}：是文件夹", dir.path().display())),
            (store(ErrorKind::StorageFull).into(), "/a/chat-1.jsonl：磁盘空间不足".into()),
            (store::Error::Busy { path: "/a".into() }.into(), "/a：另一个 huozi 正在写入".into()),
            (long.into(), "消息太长".into()),
            (Failure::io(Path::new("/b"), &ErrorKind::PermissionDenied.into()), "/b：没有权限".into()),
        ] {
            assert!(failure.text(Lang::Zh).starts_with(&zh), "{failure:?}");
            assert!(failure.text(Lang::En).is_ascii(), "{failure:?}");
        }
        // A model file that is none, each with what is wrong in it.
        for (name, bytes, zh) in [
            ("page.gguf", &b"<html>"[..], "不是 GGUF 模型文件：开头是 \"<htm\""),
            ("short.gguf", b"GGUF\x03\0\0\0\0", "文件不完整，末尾被截断"),
            ("new.gguf", b"GGUF\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "不支持这个版本的 GGUF：9"),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let failure = Failure::from(open(&path));
            assert_eq!(failure.text(Lang::Zh), format!("{}：{zh}", path.display()), "{failure:?}");
            let found = Found::look(&path);
            let failure = Failure::unusable(&found, found.needs().unwrap_err());
            assert_eq!(failure.text(Lang::Zh), zh);
            assert!(failure.text(Lang::En).starts_with("at byte"), "{failure:?}");
        }
        // What nobody has translated is told as the system has it.
        let other = Failure::from(store(ErrorKind::BrokenPipe));
        assert_eq!(other.text(Lang::Zh), "/a/chat-1.jsonl：系统错误（broken pipe）");
        let line = store::Error::Line { path: "/a".into(), line: 3, what: "schema 2 is not 1".into() };
        let why = Failure::from(line).after("last: ", "上次：");
        assert_eq!(why.text(Lang::Zh), "上次：/a：第 3 行有错（schema 2 is not 1）");
        assert_eq!(why.text(Lang::En), "last: /a:3: schema 2 is not 1");
    }
}
