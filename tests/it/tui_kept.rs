//! The threads behind the terminal chat, with a small model: nothing is lost, whatever happens to the files.

use crate::worker_support::{PATIENCE, Threads, choices, nothing, options, saved, setup, short, talked};
use huozi::session::store::{self, Conversation};
use huozi::session::{Event, Stop, Turn};
use huozi::tui::look::Lang;
use huozi::tui::words::words;
use huozi::tui::worker::{AskKind, DeskTask, ModelTask, Report, Setup};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn without_a_home_it_is_said_once_that_nothing_is_saved() {
    let threads = Threads::start(Setup::default());
    let (_, chosen) = threads.load(options());
    let told = |question: &str| {
        let reports = threads.ask(question, &short(&chosen));
        reports.iter().filter(|report| matches!(report, Report::DeskFailed(_))).count()
    };
    assert_eq!((told("你好"), told("再见")), (1, 0));
    threads.workers.desk(DeskTask::List(String::new()));
    let found = threads.wait(|report| match report {
        Report::Talks(_, found) => Some(found),
        Report::DeskFailed(why) => panic!("the list would be asked for again: {why:?}"),
        _ => None,
    });
    assert!(found.is_empty());
    threads.workers.desk(DeskTask::Prefs("{}".into()));
    let why = threads.wait(|report| if let Report::DeskFailed(why) = report { Some(why) } else { None });
    assert!((words(Lang::En).failure)(&why).contains("XDG_STATE_HOME"), "{why:?}");
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
    threads.workers.desk(DeskTask::List("nothing like it".into()));
    // The search has begun, and other things wait behind it.
    std::thread::sleep(Duration::from_millis(20));
    threads.workers.desk(DeskTask::Export(out.clone(), "text".into()));
    threads.workers.desk(DeskTask::Delete("chat-3".into()));
    threads.workers.finish(Instant::now() + PATIENCE);
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
fn a_file_that_is_taken_away_is_written_again() {
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
    assert_ne!(third, second, "another program's file stays");
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
    threads.workers.work(ModelTask::Rename("四季".into()));
    threads.talk();
    assert_eq!(store::list(&sessions)[0].title, "四季");
    threads.workers.work(ModelTask::Rename("你好".into()));
    threads.talk();
    assert_eq!(store::list(&sessions)[0].title, "你好", "that of the first question can be given, too");
    assert_eq!(on_disk(home.path())[0].1.len(), 6);
}

#[test]
fn what_is_taken_away_and_left_is_not_lost() {
    let home = tempfile::tempdir().unwrap();
    let sessions = home.path().join("sessions");
    let (threads, chosen) = talked(home.path());
    let path = || sessions.join(format!("{}.jsonl", on_disk(home.path())[0].0));
    // Another program's file in its place is not erased, and not thrown away.
    fs::write(home.path().join("mine"), "mine\n").unwrap();
    let taken = path();
    fs::rename(home.path().join("mine"), &taken).unwrap();
    threads.workers.work(ModelTask::Private(true));
    assert!(threads.talk().private);
    assert_eq!(fs::read(&taken).unwrap(), b"mine\n");
    fs::remove_file(taken).unwrap();
    threads.workers.work(ModelTask::Private(false));
    threads.talk();
    assert_eq!(on_disk(home.path())[0].1.len(), 2);
    // It is left: for a new one, and for good.
    fs::remove_file(path()).unwrap();
    threads.opened(ModelTask::New);
    assert_eq!(on_disk(home.path())[0].1, ["你好", "写诗"]);
    threads.ask("再见", &chosen);
    // It is thrown away: all of it is, not only the rest of it.
    let newest = path();
    fs::File::options().write(true).open(&newest).unwrap().set_len(0).unwrap();
    threads.workers.work(ModelTask::Delete);
    let trashed = threads.wait(|report| if let Report::Deleted(name) = report { Some(name) } else { None });
    store::undelete(&sessions, &trashed).unwrap();
    assert_eq!(on_disk(home.path())[0].1, ["再见"]);
    threads.talk();
    threads.ask("春", &chosen);
    fs::remove_dir_all(&sessions).unwrap();
    assert!(threads.workers.finish(Instant::now() + PATIENCE));
    assert_eq!(on_disk(home.path())[0].1, ["春"]);
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
    threads.workers.work(ModelTask::New);
    let why = threads.wait(|report| match report {
        Report::NotOpened(why) => why,
        Report::Talk(talk) if talk.opened => panic!("it is gone"),
        _ => None,
    });
    assert!(
        (words(Lang::En).failure)(&why)
            .starts_with("this conversation is not saved; repeat to leave it anyway: "),
        "{why:?}"
    );
    // There is room again: it is saved without being asked.
    fs::remove_file(&sessions).unwrap();
    let name = threads.wait(|report| if let Report::Named(name, _) = report { Some(name) } else { None });
    threads.wait(|report| matches!(report, Report::Saved).then_some(()));
    assert_eq!(on_disk(home.path()), [(name, vec!["你好".to_owned()])]);
    // The same at the end.
    fs::remove_dir_all(&sessions).unwrap();
    fs::write(&sessions, "no folder").unwrap();
    threads.ask("再见", &chosen);
    fs::remove_file(&sessions).unwrap();
    assert!(threads.workers.finish(Instant::now() + PATIENCE));
    assert_eq!(on_disk(home.path())[0].1, ["你好", "再见"]);
    // And where there is none it is told at the end, too.
    let threads = Threads::start(setup(home.path()));
    threads.load(options());
    fs::remove_dir_all(&sessions).unwrap();
    fs::write(&sessions, "no folder").unwrap();
    threads.ask("你好", &chosen);
    assert!(threads.workers.finish(Instant::now() + PATIENCE));
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
    threads.workers.work(ModelTask::Private(true));
    threads.opened(ModelTask::New);
    threads.ask("再见", &chosen);
    // Or by a second wish.
    threads.workers.work(ModelTask::New);
    threads.wait(|report| matches!(report, Report::NotOpened(Some(_))).then_some(()));
    std::thread::sleep(Duration::from_millis(400));
    threads.opened(ModelTask::New);
    fs::remove_file(&sessions).unwrap();
    threads.ask("春", &chosen);
    assert_eq!(on_disk(home.path())[0].1, ["春"]);
    // What is taken back before it could be saved leaves no file.
    threads.opened(ModelTask::New);
    fs::remove_dir_all(&sessions).unwrap();
    fs::write(&sessions, "no folder").unwrap();
    threads.ask("夏", &chosen);
    threads.workers.work(ModelTask::Undo);
    threads.wait(|report| matches!(report, Report::Saved).then_some(()));
    threads.opened(ModelTask::New);
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
    threads.workers.work(ModelTask::Ask { ask: AskKind::New, question, chosen: chosen.clone(), cancel });
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
    let until = Instant::now() + PATIENCE;
    let found = loop {
        said += &text(&threads);
        let found = store::list(&home.path().join("sessions"));
        if let [entry] = &found[..] {
            break entry.name.clone();
        }
        assert!(Instant::now() < until, "it is not written again");
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
fn a_damaged_last_conversation_is_told() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let sessions = home.path().join("sessions");
    fs::write(sessions.join("zzz.jsonl"), "{}\n").unwrap();
    let threads = Threads::start(setup(home.path()));
    threads.load(options());
    threads.workers.work(ModelTask::Resume);
    let why = threads.wait(|report| if let Report::NotOpened(why) = report { why } else { None });
    assert!((words(Lang::Zh).failure)(&why).starts_with("上次的对话无法打开，这里是新对话："), "{why:?}");
    assert!((words(Lang::Zh).failure)(&why).contains("zzz.jsonl：第 1 行有错"), "{why:?}");
    // One that holds nothing is none.
    fs::write(sessions.join("zzz.jsonl"), "").unwrap();
    threads.workers.work(ModelTask::Resume);
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
    one.workers.desk(DeskTask::Draft("春眠不觉晓，处处闻啼鸟".into()));
    one.workers.desk(DeskTask::Draft("春眠\n不觉晓".into()));
    one.workers.desk(DeskTask::Export(home.path().join("a.md"), String::new()));
    one.wait(|report| matches!(report, Report::Exported(_)).then_some(()));
    // It is another's while that one lives.
    let two = Threads::start(setup());
    two.workers.desk(DeskTask::Draft("夏".into()));
    two.workers.finish(Instant::now() + PATIENCE);
    assert!(!two.reports.try_iter().any(|report| matches!(report, Report::Draft(..))));
    // Other kinds of files there block nothing.
    fs::write(drafts.join("draft-empty.txt"), "").unwrap();
    fs::write(drafts.join("draft-long.txt"), vec![b'a'; 17 << 20]).unwrap();
    fs::create_dir(drafts.join("draft-folder.txt")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, drafts.join("draft-pipe.txt"), rustix::fs::Mode::RWXU).unwrap();
    fs::write(drafts.join("mine.txt"), "mine").unwrap();
    let torn = fs::File::create(drafts.join("draft-torn.new")).unwrap();
    torn.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
    std::os::unix::fs::symlink("mine.txt", drafts.join("draft-link.txt")).unwrap();
    let next = || {
        let threads = Threads::start(setup());
        let text = threads.wait(|report| if let Report::Draft(text, _) = report { Some(text) } else { None });
        (threads, text)
    };
    let (three, text) = next();
    assert_eq!(text, "夏");
    // Until the screen has it nothing takes its place.
    three.workers.desk(DeskTask::Draft("冬".into()));
    three.workers.finish(Instant::now() + PATIENCE);
    let (three, text) = next();
    assert_eq!(text, "夏\n冬");
    three.workers.desk(DeskTask::DraftTaken);
    one.workers.finish(Instant::now() + PATIENCE);
    let (four, text) = next();
    assert_eq!(text, "春眠\n不觉晓");
    four.workers.desk(DeskTask::DraftTaken);
    for threads in [three, four] {
        threads.workers.desk(DeskTask::Draft(String::new()));
        threads.workers.finish(Instant::now() + PATIENCE);
    }
    let left: Vec<_> = fs::read_dir(&drafts).unwrap().flatten().map(|file| file.file_name()).collect();
    assert_eq!(left.len(), 5, "what was sent leaves nothing: {left:?}");
    // The folder is removed, or there is no room: it is kept as soon as it can be.
    let threads = Threads::start(setup());
    threads.workers.desk(DeskTask::Draft("秋".into()));
    threads.workers.desk(DeskTask::Models);
    threads.wait(|report| matches!(report, Report::Models(..)).then_some(()));
    fs::remove_dir_all(&drafts).unwrap();
    fs::write(&drafts, "no folder").unwrap();
    threads.workers.desk(DeskTask::Draft("秋天".into()));
    threads.wait(|report| matches!(report, Report::DraftNotKept(_)).then_some(()));
    fs::remove_file(&drafts).unwrap();
    assert!(threads.workers.finish(Instant::now() + PATIENCE));
    let (last, text) = next();
    assert_eq!(text, "秋天");
    last.workers.finish(Instant::now() + PATIENCE);
    // What waits for another start is told.
    fs::write(drafts.join("draft-more.txt"), "更多").unwrap();
    let threads = Threads::start(setup());
    let more = threads.wait(|report| if let Report::Draft(_, more) = report { Some(more) } else { None });
    assert_eq!(more, 1);
}

#[test]
fn a_search_gives_way_to_the_next() {
    let home = tempfile::tempdir().unwrap();
    saved(home.path(), choices());
    let threads = Threads::start(setup(home.path()));
    for text in ["床", "床前", "床前明月光", "月"] {
        threads.workers.desk(DeskTask::List(text.into()));
    }
    let found = threads.wait(|report| match report {
        Report::Talks(text, found) if text == "月" => Some(found),
        _ => None,
    });
    assert_eq!(found.len(), 1);
    // It is asked before any file is read, whatever that is, and between reading and searching.
    let notes = home.path().join("notes");
    fs::create_dir(&notes).unwrap();
    fs::write(notes.join("notes.txt"), "月").unwrap();
    assert_eq!(store::search(&notes, "月", &|| true), Some(Vec::new()));
    assert_eq!(store::search(&notes, "月", &|| false), None);
    let asked = std::cell::Cell::new(0);
    let once = || asked.replace(asked.get() + 1) == 0;
    assert_eq!(store::search(&home.path().join("sessions"), "月", &once), None);
}

#[test]
fn a_pipe_in_the_place_of_keys_and_values_blocks_nothing() {
    let home = tempfile::tempdir().unwrap();
    drop(talked(home.path()));
    let name = on_disk(home.path()).remove(0).0;
    let kv = home.path().join("kv");
    fs::create_dir(&kv).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, kv.join(format!("{name}.kv")), rustix::fs::Mode::RWXU).unwrap();
    let threads = Threads::start(Setup { kv_folder: Some(kv), kv_bytes: 1 << 30, ..setup(home.path()) });
    threads.load(options());
    threads.opened(ModelTask::Open(name));
    threads.workers.work(ModelTask::Warm(nothing()));
    let filled =
        threads.wait(|report| if let Report::Warmed { filled, .. } = report { Some(filled) } else { None });
    assert!(filled > 0, "it is read");
}
