//! The words of the interface: one file per language, in a form that the compiler holds both to.

mod en;
mod form;
mod zh;
mod zh_files;

pub use form::Words;

use super::look::Lang;

/// The words of a language.
pub fn words(lang: Lang) -> &'static Words {
    match lang {
        Lang::En => &en::WORDS,
        Lang::Zh => &zh::WORDS,
    }
}

#[cfg(test)]
mod tests {
    use super::words;
    use crate::session::catalog::Found;
    use crate::session::{self, open, store};
    use crate::tui::failure::Failure;
    use crate::tui::look::Lang;
    use std::io::ErrorKind;
    use std::path::Path;
    use std::sync::Arc;

    fn in_zh(failure: &Failure) -> String {
        (words(Lang::Zh).failure)(failure)
    }

    fn in_en(failure: &Failure) -> String {
        (words(Lang::En).failure)(failure)
    }

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
            (open(dir.path()).into(), format!("{}：是空文件夹", dir.path().display())),
            (store(ErrorKind::StorageFull).into(), "/a/chat-1.jsonl：磁盘空间不足".into()),
            (store::Error::Busy { path: "/a".into() }.into(), "/a：另一个 huozi 正在写入".into()),
            (long.into(), "消息太长".into()),
            (Failure::file(Path::new("/b"), ErrorKind::PermissionDenied.into()), "/b：没有权限".into()),
        ] {
            assert!(in_zh(&failure).starts_with(&zh), "{failure:?}");
            assert!(in_en(&failure).is_ascii(), "{failure:?}");
        }
        // A model file that is damaged, with the fault; tests/it/diagnosis.rs has those that are none.
        {
            let (name, bytes, zh) = ("short.gguf", &b"GGUF\x03\0\0\0\0"[..], "文件不完整，末尾被截断");
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let failure = Failure::from(open(&path));
            assert_eq!(in_zh(&failure), format!("{}：{zh}", path.display()), "{failure:?}");
            let failure = Failure::Unusable(Arc::new(Found::look(&path)));
            assert_eq!(in_zh(&failure), zh);
            assert!(in_en(&failure).starts_with("at byte"), "{failure:?}");
        }
        // An error without a translation is told as the system has it.
        let other = Failure::from(store(ErrorKind::BrokenPipe));
        assert_eq!(in_zh(&other), "/a/chat-1.jsonl：系统错误（broken pipe）");
        let line = store::Error::Line { path: "/a".into(), line: 3, what: "schema 2 is not 1".into() };
        let why = Failure::LeavesUnsaved(Box::new(line.into()));
        assert_eq!(in_zh(&why), "当前对话尚未保存，再按一次则放弃：/a：第 3 行有错（schema 2 is not 1）");
        assert_eq!(
            in_en(&why),
            "this conversation is not saved; repeat to leave it anyway: /a:3: schema 2 is not 1"
        );
    }
}
