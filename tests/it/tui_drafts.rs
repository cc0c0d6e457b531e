//! The terminal chat, without terminal and model: what is written and not sent is not lost.

use crate::tui_support::{World, answered, asked, command, disk_full, turn};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use huozi::session::open::Source;
use huozi::tui::event::{Effect, Msg};
use huozi::tui::look::Lang;
use huozi::tui::worker::{AskKind, DeskTask, Report, Talk};

/// The draft that was last to be kept.
fn draft(world: &World) -> Option<&str> {
    world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Desk(DeskTask::Draft(text)) => Some(text.as_str()),
        _ => None,
    })
}

#[test]
fn a_draft_comes_back_after_an_edit() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("first", "a")]);
    let edit = |world: &mut World| {
        world.ctrl('u');
        world.write("draft");
        world.key(KeyCode::F(7));
        assert_eq!(world.app.composer().text(), "first");
    };
    // Sent.
    edit(&mut world);
    assert_eq!(asked(&world.key(KeyCode::Enter)), Some((AskKind::Revise, "first".into())));
    assert_eq!(world.app.composer().text(), "draft");
    // It failed: its question is in the input, and the draft behind it.
    answered(&mut world, vec![turn("first", "a")], Some("too long".into()));
    assert_eq!((world.app.composer().text(), world.app.composer().is_editing()), ("first", true));
    world.key(KeyCode::Esc);
    assert_eq!(world.app.composer().text(), "draft");
    // Taken back, and another conversation.
    edit(&mut world);
    world.key(KeyCode::F(6));
    assert_eq!((world.app.composer().text(), world.app.composer().is_editing()), ("draft", false));
    world.talk(vec![turn("first", "a")]);
    edit(&mut world);
    world.ctrl('n');
    assert_eq!(world.app.composer().text(), "draft");
    world.talk(vec![turn("first", "a")]);
    edit(&mut world);
    world.ctrl('c');
    assert_eq!((world.app.composer().text(), world.app.composer().is_editing()), ("draft", false));
}

#[test]
fn what_is_not_saved_is_marked_and_not_quit_at_once() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("moon", "light")]);
    let why = disk_full;
    let quits = |effects: &[Effect]| matches!(effects, [Effect::Quit]);
    world.report(Report::NotSaved(why()));
    assert!(
        world.screen().contains("[save failed]")
            && world.screen().contains("not saved: /a.jsonl: cannot write")
    );
    assert!(world.ctrl('q').is_empty());
    assert!(
        world.screen().contains("not saved; repeat to quit anyway: /a.jsonl: cannot write"),
        "{}",
        world.screen()
    );
    // The wish was another one then.
    world.pass(11_000);
    // A key that is held down is one wish.
    for _ in 0..5 {
        assert!(world.ctrl('q').is_empty());
        world.pass(30);
    }
    world.pass(400);
    assert!(quits(&world.ctrl('q')));
    // It is saved: nothing is asked.
    world.report(Report::Saved);
    assert!(!world.screen().contains("[save failed]") && world.screen().contains("saved again"));
    assert!(quits(&world.ctrl('q')));
    // A signal ends it without asking.
    world.report(Report::NotSaved(why()));
    world.pass(11_000);
    assert!(quits(&world.send(Msg::Terminate)));
    // It is given up.
    let talk = Talk { turns: vec![turn("moon", "light")], private: true, ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
    world.pass(11_000);
    assert!(quits(&world.ctrl('q')));
    world.report(Report::NotSaved(why()));
    world.report(Report::Named("chat-2".into(), Some("moon".into())));
    world.report(Report::Moved);
    assert!(world.screen().contains("it is kept in a") && !world.screen().contains("[save failed]"));
    // Ctrl+C, as often as it is asked for.
    world.pass(11_000);
    world.report(Report::NotSaved(why()));
    world.ctrl('c');
    assert!(world.ctrl('c').is_empty());
    world.pass(3000);
    assert!(quits(&world.ctrl('c')));
}

#[test]
fn what_is_typed_while_a_model_opens_is_there_when_it_is() {
    let mut world = World::new((80, 24), Lang::Zh);
    world.key(KeyCode::End);
    world.report(Report::Draft("昨天".into(), 0));
    world.app.load(Source::File("/m/huozi.gguf".into()), world.now);
    assert!(world.screen().contains("> 昨天") && world.screen().contains("上次未发送"), "{}", world.screen());
    world.write("，今天");
    world.send(Msg::Paste("。".into()));
    assert!(world.key(KeyCode::Enter).is_empty());
    assert!(
        world.screen().contains("> 昨天，今天。") && world.screen().contains("模型尚未打开"),
        "{}",
        world.screen()
    );
    let (_, cursor) = world.frame();
    assert_eq!(cursor.unwrap().x, 2 + 12);
    // It does not open: what is typed on is no wish to quit, or for the demo.
    world.report(Report::LoadFailed("no".into()));
    assert!(world.key(KeyCode::Char('q')).is_empty() && world.key(KeyCode::Char('d')).is_empty());
    assert!(world.screen().contains("已写的消息会保留"), "{}", world.screen());
    assert_eq!(world.app.composer().text(), "昨天，今天。qd");
    world.app.load(Source::File("/m/huozi.gguf".into()), world.now);
    world.ctrl('u');
    world.write("昨天，今天。");
    world.ready();
    assert_eq!(world.app.composer().text(), "昨天，今天。");
    world.app.load(Source::File("/m/huozi.gguf".into()), world.now);
    world.ctrl('u');
    world.write("/quit");
    assert!(matches!(&world.key(KeyCode::Enter)[..], [Effect::Quit]));
    world.ready();
    world.ctrl('u');
    world.write("昨天，今天。");
    // What was written before the draft came is not lost either.
    world.report(Report::Draft("前天".into(), 0));
    assert_eq!(world.app.composer().text(), "前天\n昨天，今天。");
    world.report(Report::Draft("前天".into(), 2));
    assert!(world.screen().contains("另有 2 份"), "{}", world.screen());
}

#[test]
fn what_is_written_is_kept_until_it_is_sent() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("moon", "light")]);
    world.pass(5000);
    world.write("moonligh");
    assert!(draft(&world).is_none() && world.app.animated(), "not at every key");
    world.pass(1100);
    world.pass(10);
    assert_eq!(draft(&world), Some("moonligh"));
    world.pass(5000);
    assert!(!world.app.animated(), "it sleeps until something happens");
    world.write("t");
    // At the end it does not wait, and comes before the end.
    let effects = world.app.update(Msg::Terminate, world.now);
    assert!(
        matches!(&effects[..], [Effect::Desk(DeskTask::Draft(text)), Effect::Quit] if text == "moonlight")
    );
}

#[test]
fn an_old_question_that_is_looked_at_is_no_draft() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("moon", "light")]);
    world.write("moonlight");
    world.pass(1100);
    world.pass(1100);
    world.effects.clear();
    world.key(KeyCode::Enter);
    world.pass(1100);
    assert_eq!(draft(&world), None, "it is on its way");
    world.report(Report::Begun);
    world.pass(1100);
    world.pass(1100);
    assert_eq!(draft(&world), Some(""), "it is in its conversation");
    end_of_answer(&mut world);
    // An old question is no draft; what was there before it is.
    world.write("draft");
    world.pass(1100);
    world.key(KeyCode::Up);
    assert_ne!(world.app.composer().text(), "draft");
    world.pass(1100);
    assert_eq!(draft(&world), Some("draft"));
    world.write("!");
    world.pass(1100);
    let made = format!("draft\n{}", world.app.composer().text());
    assert_eq!(draft(&world), Some(&*made), "what is made of it is one, too");
    // When that is sent, what was there before comes back.
    world.key(KeyCode::Enter);
    world.report(Report::Begun);
    assert_eq!(world.app.composer().text(), "draft");
    end_of_answer(&mut world);
    // The question as it is to be changed: the same.
    world.ctrl('u');
    world.write("aside");
    world.alt('e');
    world.pass(1100);
    world.pass(1100);
    assert_eq!(draft(&world), Some("aside"));
    world.write("?");
    world.pass(1100);
    world.pass(1100);
    assert_eq!(draft(&world), Some("aside\nmoonlight?"));
    world.key(KeyCode::Esc);
    // An old question and then the last one: it is the same.
    assert_eq!(world.app.composer().text(), "aside");
    world.key(KeyCode::Up);
    world.alt('e');
    world.pass(1100);
    world.pass(1100);
    assert_eq!(draft(&world), Some("aside"));
    world.key(KeyCode::Esc);
    assert_eq!(world.app.composer().text(), "aside");
    // Taken back while it is looked at.
    world.key(KeyCode::Up);
    world.alt('u');
    assert_eq!(world.app.composer().text(), "aside");
    // Nor when the program ends while the question is being changed.
    world.alt('e');
    world.ctrl('u');
    world.write("/quit");
    world.pass(1100);
    world.pass(1100);
    let effects = world.app.update(Msg::Key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE)), world.now);
    assert!(
        matches!(&effects[..], [Effect::Desk(DeskTask::Draft(text)), Effect::Quit] if text == "aside"),
        "{effects:?}"
    );
}

#[test]
fn a_private_conversation_leaves_no_draft() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("moon", "light")]);
    let wait = |world: &mut World| (0..2).for_each(|_| world.pass(1100));
    let private = |world: &mut World, turns| {
        let talk = Talk { private: true, turns, ..Talk::default() };
        world.report(Report::Talk(Box::new(talk)));
        world.report(Report::Answered(None));
    };
    world.write("aside");
    wait(&mut world);
    assert_eq!(draft(&world), Some("aside"));
    private(&mut world, Vec::new());
    wait(&mut world);
    assert_eq!(draft(&world), Some(""));
    // Nor does a message that was begun there, or a question of it, in the next one.
    world.ctrl('u');
    command(&mut world, "secret");
    private(&mut world, vec![turn("secret", "a")]);
    world.write("more");
    let asked = |world: &World, question: &str| world.app.composer().history().iter().any(|q| q == question);
    assert!(asked(&world, "secret"));
    world.talk(Vec::new());
    wait(&mut world);
    assert_eq!((world.app.composer().text(), draft(&world)), ("more", Some("")));
    assert!(!asked(&world, "secret"));
    // Nor a question that was taken back there.
    private(&mut world, Vec::new());
    world.ctrl('u');
    command(&mut world, "taken back");
    private(&mut world, vec![turn("taken back", "a")]);
    world.key(KeyCode::F(6));
    assert!(asked(&world, "taken back"));
    private(&mut world, Vec::new());
    world.talk(Vec::new());
    assert!(!asked(&world, "taken back"));
    world.ctrl('u');
    world.ctrl('y');
    assert_eq!(world.app.composer().text(), "taken back", "what is erased here can be put back here");
    world.ctrl('u');
    world.talk(Vec::new());
    private(&mut world, Vec::new());
    world.write("secret");
    world.ctrl('u');
    world.talk(Vec::new());
    world.ctrl('_');
    world.ctrl('y');
    assert!(world.app.composer().is_empty(), "nothing brings it back");
    world.write("new");
    wait(&mut world);
    assert_eq!(draft(&world), Some("new"));
}

/// The answer on its way ends.
fn end_of_answer(world: &mut World) {
    let mut turns = world.app.talk().turns().to_vec();
    turns.push(turn("moonlight", "a"));
    world.report(Report::Talk(Box::new(Talk { name: Some("chat-1".into()), turns, ..Talk::default() })));
    world.report(Report::Answered(None));
}
