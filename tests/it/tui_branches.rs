//! The threads behind the terminal chat, with a small model: answers that were replaced come back, and what
//! holds nothing is in no list.

use crate::worker_support::{Threads, nothing, options, setup, short, talked};
use huozi::session::Turn;
use huozi::session::store;
use huozi::tui::worker::{AskKind, Chosen, DeskTask, ModelTask, Report, Talk};
use std::fs;
use std::path::Path;

impl Threads {
    /// Asks like this, and waits for the end; the conversation then.
    fn asks(&self, ask: AskKind, question: &str, chosen: &Chosen) -> Talk {
        let (question, chosen) = (question.to_owned(), chosen.clone());
        self.workers.work(ModelTask::Ask { ask, question, chosen, cancel: nothing() });
        let talk = self.talk();
        self.wait(|report| if let Report::Answered(why) = report { Some(why) } else { None });
        talk
    }

    /// What was replaced comes back; the conversation then.
    fn back(&self) -> Talk {
        self.workers.work(ModelTask::BringBack);
        let talk = self.talk();
        self.wait(|report| matches!(report, Report::BroughtBack).then_some(()));
        talk
    }

    fn undo(&self) -> Talk {
        self.workers.work(ModelTask::Undo);
        self.talk()
    }

    fn listed(&self) -> Vec<String> {
        self.workers.desk(DeskTask::List(String::new()));
        let found = self.wait(|report| if let Report::Talks(_, found) = report { Some(found) } else { None });
        found.into_iter().map(|entry| entry.title).collect()
    }
}

/// Settings with which every attempt is another answer, the same in every run.
fn drawn(chosen: &Chosen) -> Chosen {
    let mut chosen = chosen.clone();
    (chosen.settings.seed, chosen.settings.max_new, chosen.settings.sampling.temperature) = (7, 12, 1.5);
    chosen
}

fn stored(home: &Path, talk: &Talk) -> Vec<Turn> {
    let model = fingerprint(home, talk);
    store::load(&home.join("sessions"), talk.name.as_ref().unwrap(), &model).unwrap().turns
}

/// The model that the file names: with it ids are those of the file.
fn fingerprint(home: &Path, talk: &Talk) -> String {
    let file = home.join("sessions").join(format!("{}.jsonl", talk.name.as_ref().unwrap()));
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| Some(line["model"].as_str()?.to_owned())).next_back().unwrap_or_default()
}

/// The turns without the number of the attempt, which goes on counting.
fn said(turns: &[Turn]) -> Vec<(&str, &str, &Option<Vec<u32>>)> {
    turns.iter().map(|turn| (turn.question.as_str(), turn.answer.as_str(), &turn.ids)).collect()
}

#[test]
fn every_way_to_replace_an_answer_leads_back() {
    let home = tempfile::tempdir().unwrap();
    let (threads, chosen) = talked(home.path());
    let chosen = drawn(&chosen);
    let first = threads.asks(AskKind::New, "月", &chosen);
    assert!(!first.replaced && first.turns.len() == 3);
    // Another attempt.
    let second = threads.asks(AskKind::Retry, "月", &chosen);
    assert!(second.replaced && said(&second.turns) != said(&first.turns));
    let file = home.path().join("sessions").join(format!("{}.jsonl", first.name.as_ref().unwrap()));
    let before = fs::read_to_string(&file).unwrap();
    for expected in [&first, &second, &first] {
        let talk = threads.back();
        assert_eq!(said(&talk.turns), said(&expected.turns));
        assert!(talk.replaced);
        assert_eq!(said(&stored(home.path(), &talk)), said(&expected.turns), "the file says so");
    }
    let added = fs::read_to_string(&file).unwrap();
    let added = added.strip_prefix(&before).expect("nothing is rewritten");
    assert_eq!((added.lines().count(), added.matches("\"kind\":\"head\"").count()), (3, 3), "{added}");
    // A further attempt is a third answer, not the second once more.
    let third = threads.asks(AskKind::Retry, "月", &chosen);
    assert_ne!(said(&third.turns), said(&second.turns));
    assert_eq!(said(&threads.back().turns), said(&first.turns));
    // An edited question.
    let edited = threads.asks(AskKind::Revise, "日", &chosen);
    assert_eq!(edited.turns[2].question, "日");
    assert_eq!(said(&threads.back().turns), said(&first.turns));
    assert_eq!(said(&threads.back().turns), said(&edited.turns));
    // One exchange that was taken back, and two.
    for undone in [1, 2] {
        let before = threads.asks(AskKind::New, "雪", &chosen);
        (0..undone).for_each(|_| drop(threads.undo()));
        let talk = threads.back();
        assert_eq!(said(&talk.turns), said(&before.turns));
        assert!(!talk.replaced, "nothing took their place");
        assert_eq!(said(&stored(home.path(), &talk)), said(&before.turns));
    }
    let last = threads.back();
    assert_eq!(last.turns.len(), 5, "there is nothing to bring back");
}

#[test]
fn what_comes_back_is_what_the_model_goes_on_with() {
    // With and without the way round.
    let answers = [false, true].map(|round| {
        let home = tempfile::tempdir().unwrap();
        let threads = Threads::start(setup(home.path()));
        let chosen = drawn(&threads.load(options()).1);
        threads.asks(AskKind::New, "写一首关于月的诗。", &chosen);
        if round {
            threads.asks(AskKind::Retry, "写一首关于月的诗。", &chosen);
            threads.back();
            threads.workers.work(ModelTask::Warm(nothing()));
            let filled = threads
                .wait(|report| if let Report::Warmed { filled, .. } = report { Some(filled) } else { None });
            assert!(filled > 0);
        }
        let talk = threads.asks(AskKind::New, "再写一首。", &chosen);
        talk.turns.iter().map(|turn| (turn.answer.clone(), turn.ids.clone())).collect::<Vec<_>>()
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn it_comes_back_after_a_restart_another_model_and_a_failure() {
    let home = tempfile::tempdir().unwrap();
    let (threads, chosen) = talked(home.path());
    let chosen = drawn(&chosen);
    let first = threads.asks(AskKind::New, "月", &chosen);
    let second = threads.asks(AskKind::Retry, "月", &chosen);
    drop(threads);
    let threads = Threads::start(setup(home.path()));
    let chosen = drawn(&threads.load(options()).1);
    threads.opened(ModelTask::Resume);
    for expected in [&first, &second, &first] {
        assert_eq!(said(&threads.back().turns), said(&expected.turns));
    }
    // The engine is opened again between.
    let mut other = chosen.clone();
    other.options.kv = Some(huozi::session::KvType::Q8);
    let edited = threads.asks(AskKind::Revise, "日", &other);
    threads.load(options());
    assert_eq!(said(&threads.back().turns), said(&first.turns));
    assert_eq!(said(&threads.back().turns), said(&edited.turns));
    // What failed took the place of nothing.
    threads.asks(AskKind::Revise, &"长".repeat(9000), &chosen);
    assert_eq!(said(&threads.back().turns), said(&first.turns));
}

#[test]
fn private_answers_come_back_and_leave_nothing() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let chosen = drawn(&threads.load(options()).1);
    threads.workers.work(ModelTask::Private(true));
    threads.talk();
    let first = threads.asks(AskKind::New, "月", &chosen);
    threads.asks(AskKind::Retry, "月", &chosen);
    assert_eq!(said(&threads.back().turns), said(&first.turns));
    assert!(threads.listed().is_empty() && !home.path().join("sessions").exists());
}

#[test]
fn a_conversation_without_an_answer_is_in_no_list() {
    let home = tempfile::tempdir().unwrap();
    let threads = Threads::start(setup(home.path()));
    let chosen = short(&threads.load(options()).1);
    let files = || {
        let all = fs::read_dir(home.path().join("sessions")).into_iter().flatten().flatten();
        all.filter(|file| file.path().is_file()).count()
    };
    // A question that failed, then one that was taken back.
    for undo in [false, true] {
        threads.asks(AskKind::New, &"长".repeat(if undo { 1 } else { 9000 }), &chosen);
        if undo {
            assert_eq!(threads.listed().len(), 1);
            threads.undo();
        }
        assert_eq!(threads.listed().len(), usize::from(undo), "undo: {undo}");
        assert_eq!(files(), 1, "it goes on in its file");
        threads.opened(ModelTask::New);
        // An answer that was taken back can be brought back.
        assert_eq!(files(), usize::from(undo));
    }
    // What is thrown away by a person is what comes back; these are not.
    threads.asks(AskKind::New, "月", &chosen);
    threads.workers.work(ModelTask::Delete);
    threads.wait(|report| matches!(report, Report::Deleted(_)).then_some(()));
    threads.talk();
    threads.asks(AskKind::New, &"长".repeat(9000), &chosen);
    threads.opened(ModelTask::New);
    threads.workers.desk(DeskTask::Undelete(None));
    threads.wait(|report| matches!(report, Report::Undeleted(..)).then_some(()));
    assert_eq!((threads.listed()[0].as_str(), threads.listed().len()), ("月", 2));
    // One with a title that a person gave stays, as does a file of another program.
    let mut writer = store::Writer::create(&home.path().join("sessions"), "").unwrap();
    writer.rename("人物设定").unwrap();
    let spaced = r#"{"schema": 1, "id": 1, "parent": null, "kind": "message", "role": "user", "text": "a"}"#;
    fs::write(home.path().join("sessions/other.jsonl"), format!("{spaced}\n")).unwrap();
    assert_eq!(threads.listed().len(), 4);
}
