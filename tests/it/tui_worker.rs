//! The threads behind the terminal chat, with a small model: what they tell, and what they leave on disk.

use crate::common;
use crate::worker_support::{Threads, choices, nothing, options, saved, setup, short, talked};
use huozi::session::open::{SessionOptions, Source, Step};
use huozi::session::store;
use huozi::session::{Event, KvType, Notice};
use huozi::settings::Patch;
use huozi::tui::look::Lang;
use huozi::tui::words::words;
use huozi::tui::worker::{AskKind, DeskTask, ModelTask, Report, Setup};
use huozi_convert::plan::Preset;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[test]
fn what_was_set_stays_when_the_engine_is_reopened() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let threads = Threads::start(setup(home.path()));
    let (fresh, _) = threads.load(options());
    let old = threads.opened(ModelTask::Open("old".into()));
    assert_eq!((old.options.kv, old.options.threads), (Some(KvType::Q8), Some(2)));
    assert_eq!((old.settings.seed, old.settings.max_new), (77, 5));
    // It is read by the engine that it asks for.
    threads.workers.work(ModelTask::Warm(nothing()));
    threads.wait(|report| matches!(report, Report::Reopening).then_some(()));
    let back = threads.wait(|report| if let Report::Reopened(_, back) = report { Some(back) } else { None });
    assert!(back.is_none());
    let filled =
        threads.wait(|report| if let Report::Warmed { filled, .. } = report { Some(filled) } else { None });
    assert!(filled > 0);
    // And by the next model, too.
    let (usual, chosen) = threads.load(old.options.clone());
    assert_eq!(chosen, old);
    assert_eq!(usual.options, fresh.options, "a new conversation has what the program was started with");
    threads.workers.work(ModelTask::Undo);
    threads.talk();
    let stored = store::load(&home.path().join("sessions"), "old", "").unwrap();
    assert_eq!(stored.system.as_deref(), Some("你是诗人。"));
    assert_eq!(threads.opened(ModelTask::New).options, fresh.options);
}

#[test]
fn options_that_were_chosen_wait_for_the_next_answer() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let (_, mut chosen) = threads.load(options());
    chosen.options.kv = Some(KvType::Q8);
    threads.workers.work(ModelTask::Keep(chosen.clone()));
    threads.workers.work(ModelTask::Rename("x".into()));
    let talk = threads.talk();
    assert!(talk.chosen.is_none(), "the screen knows what was chosen");
    let (_, after) = threads.load(options());
    assert_eq!(after.options.kv, Some(KvType::Q8));
}

#[test]
fn what_was_typed_holds_and_what_differs_is_kept() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let typed = Patch {
        temperature: Some(0.2),
        kv: Some(KvType::F32),
        system: Some("简短。".into()),
        ..Patch::default()
    };
    let setup = Setup { wanted: typed.clone(), typed, ..setup(home.path()) };
    let threads = Threads::start(setup);
    let (fresh, _) = threads.load(SessionOptions { kv: Some(KvType::F32), ..options() });
    let old = threads.opened(ModelTask::Open("old".into()));
    assert_eq!((old.settings.sampling.temperature, old.settings.sampling.top_k), (0.2, 3));
    assert_eq!((old.options.kv, old.options.threads), (Some(KvType::F32), Some(2)));
    assert_eq!(old.settings.system.as_deref(), Some("简短。"));
    let new = threads.opened(ModelTask::New);
    assert_eq!(new.options, fresh.options);
    let reports = threads.ask("你好", &short(&new));
    // Its name is known before the first piece of its answer.
    let place = |found: fn(&Report) -> bool| reports.iter().position(found);
    let named = place(|report| matches!(report, Report::Named(_, title) if title.as_deref() == Some("你好")));
    assert!(
        named.expect("a name") < place(|report| matches!(report, Report::Event(Event::Token(_)))).unwrap()
    );
    let Some(Report::Named(name, _)) = named.map(|at| &reports[at]) else { panic!() };
    let kept = store::load(&home.path().join("sessions"), name, "").unwrap().choices.unwrap();
    let expected = Patch { max_new: Some(3), seed: Some(new.settings.seed), ..Patch::default() };
    assert_eq!(kept, expected);
}

#[test]
fn opening_a_file_is_stopped_and_begins_again() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let why = threads.stopped();
    assert!((words(Lang::En).failure)(&why).ends_with(": stopped while it was opened"), "{why:?}");
    assert!((words(Lang::Zh).failure)(&why).ends_with("：已停止打开"), "{why:?}");
    threads.load(SessionOptions::default());
}

#[test]
fn what_only_continues_text_is_refused_before_it_is_read() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    // Without Huozi's markers and a template, as BLOOM has neither.
    let mut bytes = fs::read(common::model("tiny-f32", Preset::F32)).unwrap();
    for (mark, other) in [
        ("<|beginofutterance|>", "<|beginofutteranc_|>"),
        ("tokenizer.chat_template", "tokenizer.chat_templat_"),
    ] {
        for at in 0..bytes.len() - mark.len() {
            if bytes[at..].starts_with(mark.as_bytes()) {
                bytes[at..at + mark.len()].copy_from_slice(other.as_bytes());
            }
        }
    }
    let path = home.path().join("bloom.gguf");
    fs::write(&path, bytes).unwrap();
    let source = Source::File(path);
    threads.workers.work(ModelTask::Load { source, options: SessionOptions::default(), cancel: nothing() });
    let why = threads.wait(|report| match report {
        Report::Loading(Step::Read, ..) => panic!("its weights are of no use"),
        Report::LoadFailed(why) => Some(why),
        _ => None,
    });
    assert!((words(Lang::En).failure)(&why).ends_with("use `huozi run --raw`"), "{why:?}");
    assert!(
        (words(Lang::Zh).failure)(&why).ends_with("：此模型没有对话格式，只能续写文本：请用 huozi run --raw"),
        "{why:?}"
    );
}

#[test]
fn an_engine_that_does_not_open_leaves_the_one_before() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let (_, chosen) = threads.load(options());
    let mut large = short(&chosen);
    large.options.n_ctx = Some(1 << 28);
    let reports = threads.ask("你好", &large);
    // The question is on disk before the engine is opened, and gone when there is none to answer it.
    let place = |what: fn(&Report) -> bool| reports.iter().position(what).expect("it is told");
    assert!(place(|r| matches!(r, Report::Named(..))) < place(|r| matches!(r, Report::Reopening)));
    let name =
        reports.iter().find_map(|r| if let Report::Named(name, _) = r { Some(name.as_str()) } else { None });
    let folder = home.path().join("sessions");
    assert!(store::load(&folder, name.unwrap(), "").unwrap().turns.is_empty());
    let back =
        reports.iter().find_map(|r| if let Report::Reopened(_, back) = r { back.clone() } else { None });
    assert_eq!(*back.expect("the options before").0, chosen.options);
    let Some(Report::Answered(Some(why))) = reports.last() else { panic!("{reports:?}") };
    assert!((words(Lang::Zh).failure)(why).starts_with("内存不足"), "{why:?}");
    let reports = threads.ask("你好", &short(&chosen));
    assert!(matches!(reports.last(), Some(Report::Answered(None))), "{reports:?}");
    // Nor does a changed question cost the exchange that it was to replace.
    let (question, cancel) = ("写诗".to_owned(), nothing());
    threads.workers.work(ModelTask::Ask { ask: AskKind::Revise, question, chosen: large, cancel });
    assert_eq!(threads.talk().turns[0].question, "你好");
}

#[test]
fn what_is_read_again_says_nothing_of_the_turns() {
    let home = tempfile::tempdir().unwrap();
    let (threads, _) = talked(home.path());
    threads.workers.work(ModelTask::Warm(nothing()));
    threads.workers.work(ModelTask::Undo);
    assert_eq!(threads.talk().turns.len(), 1, "the first that is told is what is left");
}

#[test]
fn a_changed_question_that_is_stopped_at_once_costs_no_answer() {
    let home = tempfile::tempdir().unwrap();
    let (threads, chosen) = talked(home.path());
    let question = "写词".to_owned();
    let cancel = Arc::new(AtomicBool::new(true));
    threads.workers.work(ModelTask::Ask { ask: AskKind::Revise, question, chosen, cancel });
    let talk = threads.talk();
    let asked: Vec<&str> = talk.turns.iter().map(|turn| turn.question.as_str()).collect();
    assert_eq!(asked, ["你好", "写诗"]);
    assert!(!talk.turns[1].answer.is_empty());
    let why = threads.wait(|r| if let Report::Answered(why) = r { Some(why) } else { None });
    assert!(why.is_some_and(|why| (words(Lang::Zh).failure)(&why).starts_with("回答开始前已停止")));
    // And so it stands on disk.
    let stored = store::load(&home.path().join("sessions"), &talk.name.unwrap(), "").unwrap();
    assert_eq!(
        stored.turns.iter().map(|turn| turn.answer.as_str()).collect::<Vec<_>>(),
        [talk.turns[0].answer.as_str(), talk.turns[1].answer.as_str()]
    );
}

#[test]
fn more_threads_than_processors_are_a_notice() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let run = std::thread::available_parallelism().unwrap().get();
    let noticed = |wanted: usize| {
        let told = threads.wait(|report| match report {
            Report::Event(Event::Notice(notice)) => Some(notice),
            _ => None,
        });
        assert_eq!(told, Notice::FewerThreads { wanted, used: run });
    };
    let (_, mut chosen) = threads.load(SessionOptions { threads: Some(1000), ..options() });
    noticed(1000);
    assert_eq!(chosen.options.threads, Some(run), "the pane shows what runs");
    chosen.options.threads = Some(999);
    let (question, chosen) = ("你好".to_owned(), short(&chosen));
    threads.workers.work(ModelTask::Ask { ask: AskKind::New, question, chosen, cancel: nothing() });
    noticed(999);
}

#[test]
fn options_whose_opening_was_cancelled_still_hold() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let threads = Threads::start(setup(home.path()));
    threads.load(options());
    let chosen = threads.opened(ModelTask::Open("old".into()));
    assert_eq!(chosen.options.kv, Some(KvType::Q8));
    // A question comes while the engine is opened to read the conversation.
    let stopped = || Arc::new(AtomicBool::new(true));
    threads.workers.work(ModelTask::Warm(stopped()));
    let reopened = || {
        threads.wait(|r| if let Report::Reopened(about, back) = r { Some((about.kv, back)) } else { None })
    };
    assert!(matches!(reopened(), (KvType::F16, None)));
    // As does one that was itself stopped.
    let (question, of) = ("你好".to_owned(), short(&chosen));
    threads.workers.work(ModelTask::Ask { ask: AskKind::New, question, chosen: of, cancel: stopped() });
    assert!(matches!(reopened(), (KvType::F16, None)));
    threads.workers.work(ModelTask::Warm(nothing()));
    assert!(matches!(reopened(), (KvType::Q8, None)));
}

#[test]
fn what_cannot_be_a_model_leaves_the_one_that_is_open() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let (_, chosen) = threads.load(options());
    let text = home.path().join("text.gguf");
    fs::write(&text, "no model").unwrap();
    for path in [home.path().join("missing.gguf"), home.path().to_owned(), text] {
        let (source, options) = (Source::File(path), SessionOptions::default());
        threads.workers.work(ModelTask::Load { source, options, cancel: nothing() });
        let why = threads.wait(|report| match report {
            Report::LoadFailed(why) => panic!("the model is gone: {why:?}"),
            Report::Refused(why) => Some(why),
            _ => None,
        });
        assert!((words(Lang::Zh).failure)(&why).contains('：'), "{why:?}");
    }
    assert!(matches!(threads.ask("你好", &short(&chosen)).last(), Some(Report::Answered(None))));
}

#[test]
fn what_is_not_opened_is_told() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let (_, chosen) = threads.load(options());
    let refused = |work: ModelTask| {
        threads.workers.work(work);
        threads.wait(|report| match report {
            Report::NotOpened(why) => Some(why),
            Report::Talk(talk) if talk.opened => panic!("it was opened"),
            _ => None,
        })
    };
    assert!(refused(ModelTask::Resume).is_none(), "there is none");
    assert!(refused(ModelTask::Open("missing".into())).is_some());
    let reports = threads.ask("你好", &short(&chosen));
    let name =
        reports.iter().find_map(|r| if let Report::Named(name, _) = r { Some(name.clone()) } else { None });
    let name = name.unwrap();
    assert!(refused(ModelTask::Open(name.clone())).is_none(), "it is open");
    // No trash can be made: the conversation stays, and goes on.
    let sessions = home.path().join("sessions");
    fs::write(sessions.join("trash"), "").unwrap();
    assert!(refused(ModelTask::Delete).is_some());
    threads.ask("再见", &short(&chosen));
    assert_eq!(store::load(&sessions, &name, "").unwrap().turns.len(), 2);
}

#[test]
fn models_that_can_be_used_come_first() {
    let home = tempfile::tempdir().unwrap();
    let bad = home.path().join("bad.gguf");
    fs::write(&bad, "no model").unwrap();
    let good = common::model("nano", Preset::Q8_0);
    let threads = Threads::start(Setup { models: vec![bad.clone(), good.clone()], ..setup(home.path()) });
    threads.workers.desk(DeskTask::Models);
    let found = threads.wait(|report| if let Report::Models(found, _) = report { Some(found) } else { None });
    let place = |path: &PathBuf| found.iter().position(|model| model.path == *path).unwrap();
    assert!(place(&good) < place(&bad), "{found:?}");
}
