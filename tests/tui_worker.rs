//! The threads behind the terminal chat, with a small model: what they tell, and what they leave on disk.

mod common;

use huozi::session::open::{Options, Source, Step, Wanted};
use huozi::session::store::{self, Choices, Conversation};
use huozi::session::{Event, KvType, Sampling, Stop, Turn};
use huozi::tui::failure::Failure;
use huozi::tui::look::Lang;
use huozi::tui::worker::{Ask, Chosen, Desk, Report, Setup, Talk, Typed, Work, Workers};
use huozi_convert::plan::Preset;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Both threads, and what they tell.
struct Threads {
    workers: Workers,
    reports: Receiver<Report>,
}

fn nothing() -> Arc<AtomicBool> {
    Arc::default()
}

impl Threads {
    fn start(setup: Setup) -> Self {
        let (send, reports) = mpsc::channel();
        let workers = Workers::start(setup, Arc::new(move |report| drop(send.send(report)))).unwrap();
        Self { workers, reports }
    }

    /// What `found` takes of the reports; those before it are dropped.
    #[track_caller]
    fn wait<T>(&self, found: impl Fn(Report) -> Option<T>) -> T {
        loop {
            let report = self.reports.recv_timeout(PATIENCE).expect("a report in time");
            if let Some(found) = found(report) {
                return found;
            }
        }
    }

    /// Opens the model and stops that at once: why it did not open.
    fn stopped(&self) -> Failure {
        let source = Source::File(common::model("nano", Preset::Q8_0));
        let cancel = Arc::new(AtomicBool::new(true));
        self.workers.work(Work::Load { source, options: Options::default(), cancel });
        self.wait(|report| match report {
            Report::Ready { .. } => panic!("it opened"),
            Report::LoadFailed(why) => Some(why),
            _ => None,
        })
    }

    /// Opens the model; settings of a new conversation, and of the one that goes on.
    fn load(&self, options: Options) -> (Chosen, Chosen) {
        let source = Source::File(common::model("nano", Preset::Q8_0));
        self.workers.work(Work::Load { source, options, cancel: nothing() });
        let chosen = self.wait(|report| match report {
            Report::Ready { fresh, chosen, .. } => Some((*fresh, *chosen)),
            Report::LoadFailed(why) => panic!("{why:?}"),
            _ => None,
        });
        self.talk();
        chosen
    }

    fn talk(&self) -> Talk {
        self.wait(|report| if let Report::Talk(talk) = report { Some(*talk) } else { None })
    }

    /// The settings of the conversation that `work` opens.
    fn opened(&self, work: Work) -> Chosen {
        self.workers.work(work);
        self.wait(|report| match report {
            Report::Talk(talk) if talk.opened => Some(talk.chosen.expect("settings")),
            Report::NotOpened(why) => panic!("{why:?}"),
            _ => None,
        })
    }

    /// Asks, and waits for the end of the answer.
    fn ask(&self, question: &str, chosen: &Chosen) -> Vec<Report> {
        let (question, chosen) = (question.to_owned(), chosen.clone());
        self.workers.work(Work::Ask { ask: Ask::New, question, chosen, cancel: nothing() });
        let mut all = Vec::new();
        while !matches!(all.last(), Some(Report::Answered(_))) {
            all.push(self.reports.recv_timeout(PATIENCE).expect("an answer in time"));
        }
        all
    }
}

fn setup(home: &Path) -> Setup {
    Setup { folder: Some(home.join("sessions")), ..Setup::default() }
}

/// Few tokens and one thread.
fn options() -> Options {
    Options { threads: Some(1), kv: Some(KvType::F16), ..Options::default() }
}

fn short(chosen: &Chosen) -> Chosen {
    let mut chosen = chosen.clone();
    chosen.settings.max_new = 3;
    chosen
}

/// Two questions and their answers.
fn talked(home: &Path) -> (Threads, Chosen) {
    let threads = Threads::start(setup(home));
    let chosen = short(&threads.load(options()).1);
    for question in ["你好", "写诗"] {
        threads.ask(question, &chosen);
    }
    (threads, chosen)
}

/// A conversation on disk that somebody chose settings for.
fn saved(home: &Path, choices: Choices) {
    let turn = Turn {
        question: "写一首关于月的诗。".into(),
        answer: "床前明月光".into(),
        ids: None,
        attempt: 0,
        stop: Stop::MaxTokens,
    };
    let conversation = Conversation {
        title: Some("月".into()),
        system: Some("你是诗人。".into()),
        choices: Some(choices),
        turns: vec![turn],
    };
    store::save(&home.join("sessions"), "old", &conversation, "").unwrap();
}

fn choices() -> Choices {
    let sampling = Some(Sampling { temperature: 0.9, top_k: 3, ..Sampling::default() });
    Choices {
        sampling,
        max_new: Some(5),
        seed: Some(77),
        threads: Some(2),
        kv: Some("q8".into()),
        engine: None,
    }
}

#[test]
fn what_was_set_stays_when_the_engine_is_opened_anew() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let threads = Threads::start(setup(home.path()));
    let (fresh, _) = threads.load(options());
    let old = threads.opened(Work::Open("old".into()));
    assert_eq!((old.options.kv, old.options.threads), (Some(KvType::Q8), Some(2)));
    assert_eq!((old.settings.seed, old.settings.max_new), (77, 5));
    // It is read by the engine that it asks for.
    threads.workers.work(Work::Warm(nothing()));
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
    threads.workers.work(Work::Undo);
    threads.talk();
    let stored = store::load(&home.path().join("sessions"), "old", "").unwrap();
    assert_eq!(stored.system.as_deref(), Some("你是诗人。"));
    assert_eq!(threads.opened(Work::New).options, fresh.options);
}

#[test]
fn options_that_were_chosen_wait_for_the_next_answer() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let (_, mut chosen) = threads.load(options());
    chosen.options.kv = Some(KvType::Q8);
    threads.workers.work(Work::Keep(chosen.clone()));
    threads.workers.work(Work::Rename("x".into()));
    let talk = threads.talk();
    assert!(talk.chosen.is_none(), "the screen knows what was chosen");
    let (_, after) = threads.load(options());
    assert_eq!(after.options.kv, Some(KvType::Q8));
}

#[test]
fn what_was_typed_holds_and_what_differs_is_kept() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let typed = Wanted { temperature: Some(0.2), ..Wanted::default() };
    let setup = Setup {
        wanted: typed.clone(),
        typed: Typed { sampling: typed, kv: true, ..Typed::default() },
        system: Some("简短。".into()),
        ..setup(home.path())
    };
    let threads = Threads::start(setup);
    let (fresh, _) = threads.load(Options { kv: Some(KvType::F32), ..options() });
    let old = threads.opened(Work::Open("old".into()));
    assert_eq!((old.settings.sampling.temperature, old.settings.sampling.top_k), (0.2, 3));
    assert_eq!((old.options.kv, old.options.threads), (Some(KvType::F32), Some(2)));
    assert_eq!(old.settings.system.as_deref(), Some("简短。"));
    let new = threads.opened(Work::New);
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
    let expected = Choices { max_new: Some(3), seed: Some(new.settings.seed), ..Choices::default() };
    assert_eq!(kept, expected);
}

#[test]
fn opening_a_file_is_stopped_and_begins_again() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let why = threads.stopped();
    assert!(why.text(Lang::En).ends_with(": stopped while it was opened"), "{why:?}");
    assert!(why.text(Lang::Zh).ends_with("：已停止打开"), "{why:?}");
    threads.load(Options::default());
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
    threads.workers.work(Work::Load { source, options: Options::default(), cancel: nothing() });
    let why = threads.wait(|report| match report {
        Report::Loading(Step::Read, ..) => panic!("its weights are of no use"),
        Report::LoadFailed(why) => Some(why),
        _ => None,
    });
    assert!(why.text(Lang::En).ends_with("use `huozi run --raw`"), "{why:?}");
    assert!(
        why.text(Lang::Zh).ends_with("：此模型没有对话格式，只能续写文本：请用 huozi run --raw"),
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
    assert!(why.text(Lang::Zh).starts_with("内存不足"), "{why:?}");
    let reports = threads.ask("你好", &short(&chosen));
    assert!(matches!(reports.last(), Some(Report::Answered(None))), "{reports:?}");
    // Nor does a changed question cost the exchange that it was to replace.
    let (question, cancel) = ("写诗".to_owned(), nothing());
    threads.workers.work(Work::Ask { ask: Ask::Revise, question, chosen: large, cancel });
    assert_eq!(threads.talk().turns[0].question, "你好");
}

#[test]
fn what_is_read_again_says_nothing_of_the_turns() {
    let home = tempfile::tempdir().unwrap();
    let (threads, _) = talked(home.path());
    threads.workers.work(Work::Warm(nothing()));
    threads.workers.work(Work::Undo);
    assert_eq!(threads.talk().turns.len(), 1, "the first that is told is what is left");
}

#[test]
fn a_changed_question_that_is_stopped_at_once_costs_no_answer() {
    let home = tempfile::tempdir().unwrap();
    let (threads, chosen) = talked(home.path());
    let question = "写词".to_owned();
    let cancel = Arc::new(AtomicBool::new(true));
    threads.workers.work(Work::Ask { ask: Ask::Revise, question, chosen, cancel });
    let talk = threads.talk();
    let asked: Vec<&str> = talk.turns.iter().map(|turn| turn.question.as_str()).collect();
    assert_eq!(asked, ["你好", "写诗"]);
    assert!(!talk.turns[1].answer.is_empty());
    let why = threads.wait(|r| if let Report::Answered(why) = r { Some(why) } else { None });
    assert!(why.is_some_and(|why| why.text(Lang::Zh).starts_with("回答开始前已停止")));
    // And so it stands on disk.
    let stored = store::load(&home.path().join("sessions"), &talk.name.unwrap(), "").unwrap();
    assert_eq!(
        stored.turns.iter().map(|turn| turn.answer.as_str()).collect::<Vec<_>>(),
        [talk.turns[0].answer.as_str(), talk.turns[1].answer.as_str()]
    );
}

#[test]
fn options_that_nobody_waited_for_still_hold() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let threads = Threads::start(setup(home.path()));
    threads.load(options());
    let chosen = threads.opened(Work::Open("old".into()));
    assert_eq!(chosen.options.kv, Some(KvType::Q8));
    // A question comes while the engine is opened to read the conversation.
    let stopped = || Arc::new(AtomicBool::new(true));
    threads.workers.work(Work::Warm(stopped()));
    let reopened = || {
        threads.wait(|r| if let Report::Reopened(about, back) = r { Some((about.kv, back)) } else { None })
    };
    assert!(matches!(reopened(), (KvType::F16, None)));
    // As does one that was itself stopped.
    let (question, of) = ("你好".to_owned(), short(&chosen));
    threads.workers.work(Work::Ask { ask: Ask::New, question, chosen: of, cancel: stopped() });
    assert!(matches!(reopened(), (KvType::F16, None)));
    threads.workers.work(Work::Warm(nothing()));
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
        let (source, options) = (Source::File(path), Options::default());
        threads.workers.work(Work::Load { source, options, cancel: nothing() });
        let why = threads.wait(|report| match report {
            Report::LoadFailed(why) => panic!("the model is gone: {why:?}"),
            Report::Refused(why) => Some(why),
            _ => None,
        });
        assert!(why.text(Lang::Zh).contains('：'), "{why:?}");
    }
    assert!(matches!(threads.ask("你好", &short(&chosen)).last(), Some(Report::Answered(None))));
}

#[test]
fn what_is_not_opened_is_told() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let (_, chosen) = threads.load(options());
    let refused = |work: Work| {
        threads.workers.work(work);
        threads.wait(|report| match report {
            Report::NotOpened(why) => Some(why),
            Report::Talk(talk) if talk.opened => panic!("it was opened"),
            _ => None,
        })
    };
    assert_eq!(refused(Work::Resume), None, "there is none");
    assert!(refused(Work::Open("missing".into())).is_some());
    let reports = threads.ask("你好", &short(&chosen));
    let name =
        reports.iter().find_map(|r| if let Report::Named(name, _) = r { Some(name.clone()) } else { None });
    let name = name.unwrap();
    assert_eq!(refused(Work::Open(name.clone())), None, "it is open");
    // No trash can be made: the conversation stays, and goes on.
    let sessions = home.path().join("sessions");
    fs::write(sessions.join("trash"), "").unwrap();
    assert!(refused(Work::Delete).is_some());
    threads.ask("再见", &short(&chosen));
    assert_eq!(store::load(&sessions, &name, "").unwrap().turns.len(), 2);
}

#[test]
fn without_a_home_it_is_said_once_that_nothing_is_saved() {
    let threads = Threads::start(Setup::default());
    let (_, chosen) = threads.load(options());
    let told = |question: &str| {
        let reports = threads.ask(question, &short(&chosen));
        reports.iter().filter(|report| matches!(report, Report::DeskFailed(_))).count()
    };
    assert_eq!((told("你好"), told("再见")), (1, 0));
    threads.workers.desk(Desk::List(String::new()));
    let found = threads.wait(|report| match report {
        Report::Talks(_, found) => Some(found),
        Report::DeskFailed(why) => panic!("the list would be asked for again: {why:?}"),
        _ => None,
    });
    assert!(found.is_empty());
    threads.workers.desk(Desk::Prefs("{}".into()));
    let why = threads.wait(|report| if let Report::DeskFailed(why) = report { Some(why) } else { None });
    assert!(why.text(Lang::En).contains("XDG_STATE_HOME"), "{why:?}");
}

#[test]
fn the_end_waits_for_the_desk() {
    let home = tempfile::tempdir().unwrap();
    let sessions = home.path().join("sessions");
    let turns: Vec<Turn> = (0..300)
        .map(|n| Turn {
            question: format!("{n}"),
            answer: "春眠不觉晓".repeat(100),
            ids: None,
            attempt: 0,
            stop: Stop::MaxTokens,
        })
        .collect();
    let long = Conversation { turns, ..Conversation::default() };
    for n in 0..20 {
        store::save(&sessions, &format!("chat-{n}"), &long, "").unwrap();
    }
    let threads = Threads::start(setup(home.path()));
    let out = home.path().join("out.md");
    threads.workers.desk(Desk::List("nothing like it".into()));
    // The search has begun, and other things wait behind it.
    std::thread::sleep(Duration::from_millis(20));
    threads.workers.desk(Desk::Export(out.clone(), "text".into()));
    threads.workers.desk(Desk::Delete("chat-3".into()));
    threads.workers.finish(PATIENCE);
    assert_eq!(fs::read_to_string(out).unwrap(), "text");
    assert!(!sessions.join("chat-3.jsonl").exists());
}

/// The names and questions of all conversations.
fn on_disk(home: &Path) -> Vec<(String, Vec<String>)> {
    let folder = home.join("sessions");
    let entries = store::list(&folder).into_iter().map(|entry| {
        let turns = store::load(&folder, &entry.name, "").unwrap().turns;
        (entry.name, turns.into_iter().map(|turn| turn.question).collect())
    });
    entries.collect()
}

fn is_moved(reports: &[Report]) -> bool {
    reports.iter().any(|report| matches!(report, Report::Moved))
}

#[test]
fn what_somebody_takes_away_is_written_again() {
    let home = tempfile::tempdir().unwrap();
    let (threads, chosen) = talked(home.path());
    let sessions = home.path().join("sessions");
    let file = |name: &str| sessions.join(format!("{name}.jsonl"));
    let [(_, _)] = &on_disk(home.path())[..] else { panic!("one conversation") };
    // Removed, and all conversations with it.
    fs::remove_dir_all(&sessions).unwrap();
    assert!(is_moved(&threads.ask("春", &chosen)));
    let [(second, questions)] = &on_disk(home.path())[..] else { panic!("one conversation") };
    assert_eq!(questions[..], ["你好", "写诗", "春"]);
    // Another file under its name: that one stays as it is.
    fs::write(file("other"), "mine").unwrap();
    fs::rename(file("other"), file(second)).unwrap();
    assert!(is_moved(&threads.ask("夏", &chosen)));
    assert_eq!(fs::read(file(second)).unwrap(), b"mine");
    fs::remove_file(file(second)).unwrap();
    let [(third, questions)] = &on_disk(home.path())[..] else { panic!("one conversation") };
    assert_eq!(questions[..], ["你好", "写诗", "春", "夏"]);
    assert_ne!(third, second, "what is somebody else's stays");
    // Cut: the same file says all of it again.
    let length = fs::metadata(file(third)).unwrap().len();
    fs::File::options().write(true).open(file(third)).unwrap().set_len(length / 2).unwrap();
    assert!(!is_moved(&threads.ask("秋", &chosen)));
    assert_eq!(
        on_disk(home.path()),
        [(third.clone(), ["你好", "写诗", "春", "夏", "秋"].map(String::from).to_vec())]
    );
    // Something else in it: no line of that is lost either.
    fs::write(file(third), "something else\n").unwrap();
    assert!(is_moved(&threads.ask("冬", &chosen)));
    assert_eq!(fs::read(file(third)).unwrap(), b"something else\n");
    fs::remove_file(file(third)).unwrap();
    assert_eq!(on_disk(home.path())[0].1.len(), 6);
    // A title of its own goes with it.
    fs::remove_dir_all(&sessions).unwrap();
    threads.workers.work(Work::Rename("四季".into()));
    threads.talk();
    assert_eq!(store::list(&sessions)[0].title, "四季");
    assert_eq!(on_disk(home.path())[0].1.len(), 6);
}

#[test]
fn what_cannot_be_saved_is_told_kept_and_saved_when_it_can_be() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let chosen = short(&threads.load(options()).1);
    let sessions = home.path().join("sessions");
    fs::write(&sessions, "no folder").unwrap();
    let told = threads.ask("你好", &chosen);
    assert!(told.iter().any(|report| matches!(report, Report::NotSaved(_))), "{told:?}");
    // Another conversation would be the end of this one.
    threads.workers.work(Work::New);
    let why = threads.wait(|report| match report {
        Report::NotOpened(why) => why,
        Report::Talk(talk) if talk.opened => panic!("it is gone"),
        _ => None,
    });
    assert!(why.text(Lang::En).starts_with("this is not saved; again to leave it so: "), "{why:?}");
    // There is room again: nobody has to do anything.
    fs::remove_file(&sessions).unwrap();
    let name = threads.wait(|report| if let Report::Named(name, _) = report { Some(name) } else { None });
    threads.wait(|report| matches!(report, Report::Saved).then_some(()));
    assert_eq!(on_disk(home.path()), [(name, vec!["你好".to_owned()])]);
    // The same at the end.
    fs::remove_dir_all(&sessions).unwrap();
    fs::write(&sessions, "no folder").unwrap();
    threads.ask("再见", &chosen);
    fs::remove_file(&sessions).unwrap();
    assert!(threads.workers.finish(PATIENCE));
    assert_eq!(on_disk(home.path())[0].1, ["你好", "再见"]);
    // And where there is none it is told at the end, too.
    let threads = Threads::start(setup(home.path()));
    threads.load(options());
    fs::remove_dir_all(&sessions).unwrap();
    fs::write(&sessions, "no folder").unwrap();
    threads.ask("你好", &chosen);
    assert!(threads.workers.finish(PATIENCE));
    let last = threads.reports.try_iter().last();
    assert!(matches!(last, Some(Report::NotSaved(_))), "{last:?}");
    assert_eq!(fs::read(&sessions).unwrap(), b"no folder");
}

#[test]
fn what_is_given_up_is_not_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let chosen = short(&threads.load(options()).1);
    let sessions = home.path().join("sessions");
    fs::write(&sessions, "no folder").unwrap();
    threads.ask("你好", &chosen);
    threads.workers.work(Work::Private(true));
    threads.opened(Work::New);
    threads.ask("再见", &chosen);
    // Or by a second wish.
    threads.workers.work(Work::New);
    threads.wait(|report| matches!(report, Report::NotOpened(Some(_))).then_some(()));
    threads.opened(Work::New);
    fs::remove_file(&sessions).unwrap();
    threads.ask("春", &chosen);
    assert_eq!(on_disk(home.path())[0].1, ["春"]);
    // What is taken back before it could be saved leaves no file.
    threads.opened(Work::New);
    fs::remove_dir_all(&sessions).unwrap();
    fs::write(&sessions, "no folder").unwrap();
    threads.ask("夏", &chosen);
    threads.workers.work(Work::Undo);
    threads.wait(|report| matches!(report, Report::Saved).then_some(()));
    threads.opened(Work::New);
}

#[test]
fn what_is_taken_away_during_an_answer_is_written_while_it_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let mut chosen = threads.load(options()).1;
    chosen.settings.max_new = 1800;
    chosen.settings.sampling.do_sample = false;
    let cancel = nothing();
    let (question, stop) = ("写".to_owned(), cancel.clone());
    threads.workers.work(Work::Ask { ask: Ask::New, question, chosen: chosen.clone(), cancel });
    let moved = std::cell::Cell::new(false);
    let text = |threads: &Threads| {
        threads.wait(|report| match report {
            Report::Moved => {
                moved.set(true);
                None
            }
            Report::Event(Event::Text(text)) => Some(text),
            Report::Answered(_) => panic!("the answer ended"),
            _ => None,
        })
    };
    let mut said = text(&threads);
    fs::remove_dir_all(home.path().join("sessions")).unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    let found = loop {
        said += &text(&threads);
        let found = store::list(&home.path().join("sessions"));
        if let [entry] = &found[..] {
            break entry.name.clone();
        }
        assert!(std::time::Instant::now() < until, "it is not written again");
    };
    let turns = store::load(&home.path().join("sessions"), &found, "").unwrap().turns;
    assert_eq!((turns[0].question.as_str(), turns[0].answer.is_empty()), ("写", false));
    assert!(said.starts_with(turns[0].answer.chars().next().unwrap()), "from its beginning");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    threads.wait(|report| match report {
        Report::Moved => {
            moved.set(true);
            None
        }
        Report::Answered(_) => Some(()),
        _ => None,
    });
    assert!(moved.get(), "it is told");
    let turns = store::load(&home.path().join("sessions"), &found, "").unwrap().turns;
    assert_eq!((turns.len(), turns[0].stop), (1, Stop::Cancelled));
    assert_eq!(store::list(&home.path().join("sessions")).len(), 1);
}

#[test]
fn what_cannot_be_erased_goes_on_being_saved() {
    let home = tempfile::tempdir().unwrap();
    let (threads, chosen) = talked(home.path());
    let sessions = home.path().join("sessions");
    let [(name, _)] = &on_disk(home.path())[..] else { panic!("one conversation") };
    // No file any more.
    let path = sessions.join(format!("{name}.jsonl"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    threads.workers.work(Work::Private(true));
    threads.wait(|report| matches!(report, Report::DeskFailed(_)).then_some(()));
    assert!(!threads.talk().private);
    threads.opened(Work::New);
    assert_eq!(on_disk(home.path())[0].1, ["你好", "写诗"]);
    threads.ask("再见", &chosen);
    assert_eq!(on_disk(home.path()).len(), 2);
}

#[test]
fn a_damaged_last_conversation_is_told() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let sessions = home.path().join("sessions");
    fs::write(sessions.join("zzz.jsonl"), "{}\n").unwrap();
    let threads = Threads::start(setup(home.path()));
    threads.load(options());
    threads.workers.work(Work::Resume);
    let why = threads.wait(|report| if let Report::NotOpened(why) = report { why } else { None });
    assert!(why.text(Lang::Zh).starts_with("上次的对话无法打开，这里是新对话："), "{why:?}");
    assert!(why.text(Lang::Zh).contains("zzz.jsonl：第 1 行有错"), "{why:?}");
    // One that holds nothing is none.
    fs::write(sessions.join("zzz.jsonl"), "").unwrap();
    threads.workers.work(Work::Resume);
    let talk = threads.wait(|report| match report {
        Report::Talk(talk) if talk.opened => Some(talk),
        Report::NotOpened(why) => panic!("{why:?}"),
        _ => None,
    });
    assert_eq!(talk.title.as_deref(), Some("月"));
    assert_eq!(store::list(&sessions).len(), 1);
}

#[test]
fn a_draft_waits_for_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let drafts = home.path().join("drafts");
    let setup = || Setup { drafts: Some(drafts.clone()), ..setup(home.path()) };
    let one = Threads::start(setup());
    one.workers.desk(Desk::Draft("春眠不觉晓，处处闻啼鸟".into()));
    one.workers.desk(Desk::Draft("春眠\n不觉晓".into()));
    one.workers.desk(Desk::Export(home.path().join("a.md"), String::new()));
    one.wait(|report| matches!(report, Report::Exported(_)).then_some(()));
    // It is another's while that one lives.
    let two = Threads::start(setup());
    two.workers.desk(Desk::Draft("夏".into()));
    two.workers.finish(PATIENCE);
    assert!(!two.reports.try_iter().any(|report| matches!(report, Report::Draft(..))));
    // What else may lie there keeps nobody waiting.
    fs::write(drafts.join("draft-empty.txt"), "").unwrap();
    fs::write(drafts.join("draft-long.txt"), vec![b'a'; 17 << 20]).unwrap();
    fs::create_dir(drafts.join("draft-folder.txt")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, drafts.join("draft-pipe.txt"), rustix::fs::Mode::RWXU).unwrap();
    fs::write(drafts.join("mine.txt"), "mine").unwrap();
    std::os::unix::fs::symlink("mine.txt", drafts.join("draft-link.txt")).unwrap();
    let next = || {
        let threads = Threads::start(setup());
        let text = threads.wait(|report| if let Report::Draft(text, _) = report { Some(text) } else { None });
        (threads, text)
    };
    let (three, text) = next();
    assert_eq!(text, "夏");
    // Until the screen has it nothing takes its place.
    three.workers.desk(Desk::Draft("冬".into()));
    three.workers.finish(PATIENCE);
    let (three, text) = next();
    assert_eq!(text, "夏\n冬");
    three.workers.desk(Desk::DraftTaken);
    one.workers.finish(PATIENCE);
    let (four, text) = next();
    assert_eq!(text, "春眠\n不觉晓");
    four.workers.desk(Desk::DraftTaken);
    for threads in [three, four] {
        threads.workers.desk(Desk::Draft(String::new()));
        threads.workers.finish(PATIENCE);
    }
    let left: Vec<_> = fs::read_dir(&drafts).unwrap().flatten().map(|file| file.file_name()).collect();
    assert_eq!(left.len(), 5, "what was sent leaves nothing: {left:?}");
    // Somebody cleans up, or there is no room: it is kept as soon as it can be.
    let threads = Threads::start(setup());
    threads.workers.desk(Desk::Draft("秋".into()));
    threads.workers.desk(Desk::Models);
    threads.wait(|report| matches!(report, Report::Models(..)).then_some(()));
    fs::remove_dir_all(&drafts).unwrap();
    fs::write(&drafts, "no folder").unwrap();
    threads.workers.desk(Desk::Draft("秋天".into()));
    threads.wait(|report| matches!(report, Report::DraftNotKept(_)).then_some(()));
    fs::remove_file(&drafts).unwrap();
    assert!(threads.workers.finish(PATIENCE));
    assert_eq!(next().1, "秋天");
}

#[test]
fn a_search_gives_way_to_the_next() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let threads = Threads::start(setup(home.path()));
    for text in ["床", "床前", "床前明月光", "月"] {
        threads.workers.desk(Desk::List(text.into()));
    }
    let found = threads.wait(|report| match report {
        Report::Talks(text, found) if text == "月" => Some(found),
        _ => None,
    });
    assert_eq!(found.len(), 1);
    // It is asked before anything is read.
    let asked = std::cell::Cell::new(0);
    let go_on = || asked.replace(asked.get() + 1) > 0;
    assert!(store::search(&home.path().join("sessions"), "月", &go_on).is_none());
    assert_eq!(asked.get(), 1);
}
