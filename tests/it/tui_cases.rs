//! The terminal chat, without terminal and model: what must not be lost.

use crate::tui_support::{
    World, about, answered, asked, chosen, command, conversation, entries, models, turn,
};
use crossterm::event::{KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use huozi::tui::app::{App, Screen, Start};
use huozi::tui::event::{Effect, Msg};
use huozi::tui::interface::Surroundings;
use huozi::tui::live::Busy;
use huozi::tui::look::{Lang, Theme};
use huozi::tui::prefs::Prefs;
use huozi::tui::worker::{AskKind, Completed, DeskTask, ModelTask, Report, Talk};
use std::time::Instant;

fn click(world: &mut World, column: u16, row: u16) -> Vec<Effect> {
    let kind = MouseEventKind::Down(MouseButton::Left);
    world.send(Msg::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }))
}

#[test]
fn the_last_question_is_not_edited_while_it_is_answered() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("first", "a")]);
    command(&mut world, "second");
    world.key(KeyCode::F(7));
    assert!(!world.app.composer().is_editing() && world.app.composer().is_empty());
    assert!(world.screen().contains("the model is generating"));
    answered(&mut world, vec![turn("first", "a"), turn("second", "b")], None);
    world.key(KeyCode::F(7));
    assert_eq!(world.app.composer().text(), "second");
}

#[test]
fn keys_between_two_conversations_reach_neither() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    assert!(matches!(world.ctrl('n')[..], [Effect::Work(ModelTask::New)]));
    // The old one is still on the screen.
    for refused in [KeyCode::F(5), KeyCode::F(6), KeyCode::F(7)] {
        assert!(world.key(refused).is_empty() && !world.app.composer().is_editing(), "{refused:?}");
    }
    assert!(command(&mut world, "x").is_empty() && world.app.composer().text() == "x");
    assert!(world.screen().contains("opening the conversation"));
    world.key(KeyCode::Backspace);
    let max_new = |world: &World| world.app.models().chosen().unwrap().settings.max_new;
    let before = max_new(&world);
    assert!(command(&mut world, "/set max_new_tokens 9").is_empty());
    assert!(command(&mut world, "/rename y").is_empty() && world.app.composer().text() == "/rename y");
    world.ctrl('u');
    world.key(KeyCode::F(2));
    for key in [KeyCode::Right, KeyCode::Delete] {
        assert!(world.key(key).is_empty(), "{key:?}");
    }
    assert_eq!(max_new(&world), before);
    world.key(KeyCode::Esc);
    // Twice as often: as many have to arrive.
    world.ctrl('n');
    world.talk(Vec::new());
    assert!(command(&mut world, "x").is_empty());
    world.talk(Vec::new());
    assert!(asked(&world.key(KeyCode::Enter)).is_some());
    // The last one at the start counts, too; and one that does not open leaves the other.
    let mut world = World::new((80, 24), Lang::En);
    world.ready();
    assert!(command(&mut world, "x").is_empty());
    world.report(Report::NotOpened(None));
    assert!(asked(&world.key(KeyCode::Enter)).is_some());
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.ctrl('n');
    world.report(Report::NotOpened(Some("no such file".into())));
    assert!(world.screen().contains("no such file"));
    assert!(asked(&world.key(KeyCode::F(5))).is_some());
}

#[test]
fn the_list_keeps_what_is_chosen_when_it_is_another() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.key(KeyCode::F(3));
    world.listed(entries());
    world.key(KeyCode::Down);
    // An answer ended: the order is another one.
    let mut other = entries();
    other.rotate_right(1);
    world.listed(other.clone());
    let deleted = world.key(KeyCode::Delete);
    assert!(
        matches!(&deleted[..], [Effect::Desk(DeskTask::Delete(name))] if name == "chat-2"),
        "{deleted:?}"
    );
    // What is renamed is what was chosen, and the search stays.
    world.listed(entries());
    world.write("t");
    world.listed(entries());
    world.ctrl('r');
    world.listed(other);
    world.write("!");
    let renamed = world.key(KeyCode::Enter);
    let [Effect::Desk(DeskTask::Rename(name, _)), Effect::Desk(DeskTask::List(search))] = &renamed[..] else {
        panic!("{renamed:?}")
    };
    assert_eq!((name.as_str(), search.as_str()), ("chat-2", "t"));
    // The first of what is found.
    world.write("x");
    world.listed(entries());
    let opened = world.key(KeyCode::Enter);
    assert!(
        opened.is_empty() && world.app.panels().open().is_none(),
        "the first is the open one: {opened:?}"
    );
}

#[test]
fn what_failed_is_not_shown_as_done() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.key(KeyCode::F(3));
    world.listed(entries());
    world.key(KeyCode::Down);
    world.key(KeyCode::Delete);
    assert_eq!(world.app.panels().talks().entries().len(), 2);
    world.effects.clear();
    world.report(Report::DeskFailed("another huozi is writing it".into()));
    assert!(matches!(world.effects[..], [Effect::Desk(DeskTask::List(_))]));
    // Two are thrown away, and both come back, the last one first.
    for name in ["chat-2", "chat-3"] {
        world.report(Report::Deleted(name.into()));
    }
    for name in ["chat-3", "chat-2"] {
        let asked = world.ctrl('u');
        assert!(matches!(&asked[..], [Effect::Desk(DeskTask::Undelete(Some(n)))] if n == name), "{asked:?}");
    }
    assert!(!world.app.panels().talks().has_trashed(), "each is asked for once, also by a key that repeats");
    for name in ["chat-3", "chat-2"] {
        world.report(Report::Undeleted(name.into(), format!("{name}-1")));
    }
    // What an earlier run threw away: the desk knows.
    assert!(matches!(world.ctrl('u')[..], [Effect::Desk(DeskTask::Undelete(None))]));
    world.report(Report::DeskFailed("nothing was deleted".into()));
    let rows = world.screen();
    let border = rows.lines().find(|row| row.contains("nothing was deleted")).unwrap();
    assert!(!border.contains("Esc"), "what is left of the keys: {border}");
    // Any key of the panel takes it away.
    world.key(KeyCode::Up);
    assert!(!world.screen().contains("nothing was deleted"));
    // In a search it clears the line.
    world.write("月");
    assert!(world.screen().contains("Esc clears the search"));
    assert!(matches!(&world.ctrl('u')[..], [Effect::Desk(DeskTask::List(text))] if text.is_empty()));
}

#[test]
fn a_question_is_not_lost_with_its_model() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    command(&mut world, "what I asked");
    world.report(Report::LoadFailed("internal error".into()));
    assert!(matches!(world.app.screen(), Screen::Choose(_)) && matches!(world.app.talk().busy(), Busy::Idle));
    world.report(Report::Models(models(), None));
    world.key(KeyCode::Enter);
    world.ready();
    assert_eq!(world.app.composer().text(), "what I asked");
}

#[test]
fn settings_of_the_interface_are_set_by_command() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    let kept = |effects: &[Effect]| matches!(effects[0], Effect::Desk(DeskTask::Prefs(_)));
    assert!(kept(&command(&mut world, "/set language zh")) && world.app.interface().lang() == Lang::Zh);
    assert!(kept(&command(&mut world, "/set language English")) && world.app.interface().lang() == Lang::En);
    assert!(
        kept(&command(&mut world, "/set colours light"))
            && world.app.interface().look().theme == Theme::Light
    );
    let mouse = command(&mut world, "/set mouse off");
    assert!(kept(&mouse) && matches!(mouse[1], Effect::Mouse(false)) && !world.app.interface().prefs().mouse);
    for (wrong, said) in
        [("language fr", "zh en"), ("colours pink", "dark light none"), ("mouse 3", "on or off")]
    {
        assert!(command(&mut world, &format!("/set {wrong}")).is_empty());
        assert!(world.screen().contains(said), "{}", world.screen());
    }
    assert!(
        kept(&command(&mut world, "/set send_key alt+enter")) && !world.app.interface().prefs().enter_sends
    );
}

#[test]
fn a_message_with_a_slash_stays_one() {
    let back = |world: &mut World| {
        let sent = asked(&world.key(KeyCode::Enter));
        assert_eq!(sent.map(|(_, question)| question).as_deref(), Some("/clear"), "{}", world.screen());
        world.effects.clear();
    };
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    world.write("//clear");
    back(&mut world);
    answered(&mut world, vec![turn("/clear", "a")], None);
    world.key(KeyCode::Up);
    back(&mut world);
    answered(&mut world, vec![turn("/clear", "a")], Some("failed".into()));
    back(&mut world);
    answered(&mut world, vec![turn("/clear", "a")], None);
    world.key(KeyCode::F(7));
    back(&mut world);
    answered(&mut world, vec![turn("/clear", "a")], None);
    world.key(KeyCode::F(6));
    back(&mut world);
}

#[test]
fn a_second_click_opens_what_the_first_has_chosen() {
    let many = |n: usize| {
        (0..n)
            .map(|n| {
                let mut entry = entries().remove(1);
                (entry.name, entry.title) = (format!("chat-{}", n + 10), format!("title {n}."));
                entry
            })
            .collect::<Vec<_>>()
    };
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.key(KeyCode::F(3));
    world.listed(many(60));
    let row = |world: &mut World, text: &str| {
        let screen = world.screen();
        screen.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{screen}")) as u16
    };
    // In the lower half, at the end, and after the pane has moved.
    for n in [17, 12, 1] {
        let y = row(&mut world, &format!("title {n}."));
        assert!(click(&mut world, 20, y).is_empty());
        assert_eq!(row(&mut world, &format!("title {n}.")), y, "nothing moves");
        let opened = click(&mut world, 20, y);
        let is = format!("chat-{}", n + 10);
        assert!(matches!(&opened[..], [Effect::Work(ModelTask::Open(name))] if *name == is), "{opened:?}");
        world.talk(conversation());
        world.key(KeyCode::F(3));
        world.listed(many(60));
    }
    for _ in 0..40 {
        world.key(KeyCode::Down);
    }
    row(&mut world, "title 40.");
    let before = world.screen();
    world.key(KeyCode::Up);
    assert_eq!(
        row(&mut world, "title 40."),
        before.lines().position(|l| l.contains("title 40.")).unwrap() as u16
    );
    // Models.
    let mut world = World::new((80, 12), Lang::En);
    let long: Vec<_> = (0..30)
        .map(|n| {
            let mut model = models().remove(0);
            model.path = format!("/m/number-{n}.gguf").into();
            model
        })
        .collect();
    world.report(Report::Models(long, None));
    let y = row(&mut world, "number-5.gguf");
    click(&mut world, 20, y);
    assert!(matches!(click(&mut world, 20, y)[..], [Effect::Work(ModelTask::Load { .. })]));
    let Screen::Load(loading) = world.app.screen() else { panic!() };
    assert_eq!(loading.name(), "number-5.gguf");
}

#[test]
fn what_holds_for_one_run_is_not_kept() {
    let prefs = Prefs { lang: Some(Lang::Zh), theme: Some(Theme::Light), ..Prefs::default() };
    let start = Start {
        prefs: prefs.clone(),
        around: Surroundings {
            typed_lang: Some(Lang::En),
            no_color: true,
            theme: Theme::Plain,
            ..Surroundings::default()
        },
        ..Start::default()
    };
    let (app, effects) = App::new(start, (80, 24), Instant::now());
    let mut world = World { app, now: Instant::now(), effects };
    world.ready();
    world.talk(Vec::new());
    assert_eq!((world.app.interface().lang(), world.app.interface().look().theme), (Lang::En, Theme::Plain));
    world.alt('r');
    let kept = |world: &World| -> Prefs {
        let kept = world.effects.iter().rev().find_map(|effect| match effect {
            Effect::Desk(DeskTask::Prefs(text)) => Some(serde_json::from_str(text).unwrap()),
            _ => None,
        });
        kept.expect("it is kept")
    };
    assert_eq!(kept(&world), Prefs { raw: true, ..prefs });
    // What is chosen in this run is.
    world.alt('l');
    assert_eq!((world.app.interface().lang(), kept(&world).lang), (Lang::Zh, Some(Lang::Zh)));
    command(&mut world, "/set colours dark");
    assert_eq!((world.app.interface().look().theme, kept(&world).theme), (Theme::Dark, Some(Theme::Dark)));
}

#[test]
fn del_resets_to_what_this_model_has() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    let mut fresh = chosen();
    fresh.settings.sampling.temperature = 0.9;
    let mut now = chosen();
    now.settings.sampling.temperature = 0.3;
    world.key(KeyCode::F(4));
    world.report(Report::Models(models(), None));
    world.key(KeyCode::Enter);
    let (fresh, now) = (Box::new(fresh), Box::new(now));
    world.report(Report::Ready { about: Box::new(about()), fresh, chosen: now });
    let temperature = |world: &World| world.app.models().chosen().unwrap().settings.sampling.temperature;
    assert_eq!(temperature(&world), 0.3);
    world.key(KeyCode::F(2));
    world.key(KeyCode::Down);
    world.key(KeyCode::Delete);
    assert_eq!(temperature(&world), 0.9);
}

#[test]
fn what_was_chosen_waits_while_the_thread_tells_other_things() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    command(&mut world, "/set kv_type q8");
    let told = Talk { name: Some("chat-1".into()), turns: conversation(), ..Talk::default() };
    world.report(Report::Talk(Box::new(told)));
    world.report(Report::Reopened(Box::new(about()), None));
    let kv = |world: &World| world.app.models().chosen().unwrap().options.kv.unwrap().name();
    assert_eq!(kv(&world), "q8");
    world.report(Report::Reopened(Box::new(about()), Some((Box::new(chosen().options), "no room".into()))));
    assert_eq!(kv(&world), "f16", "it did not work");
}

#[test]
fn an_edit_that_failed_replaces_nothing_elsewhere() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("a1", "x"), turn("a2", "y")]);
    world.key(KeyCode::F(7));
    assert_eq!(asked(&world.key(KeyCode::Enter)), Some((AskKind::Revise, "a2".into())));
    world.key(KeyCode::F(3));
    world.listed(entries());
    world.key(KeyCode::Down);
    assert!(matches!(world.key(KeyCode::Enter)[..], [Effect::Work(ModelTask::Open(_))]));
    world.report(Report::Answered(Some("too long".into())));
    world.talk(vec![turn("b1", "z")]);
    assert!(!world.app.composer().is_editing() && !world.screen().contains("[editing]"));
    world.write("b2");
    assert_eq!(asked(&world.key(KeyCode::Enter)), Some((AskKind::New, "b2".into())));
    // Nor where the model went away.
    let mut world = World::chat((80, 24), Lang::En, vec![turn("a1", "x")]);
    world.key(KeyCode::F(7));
    world.key(KeyCode::Enter);
    world.report(Report::LoadFailed("internal error".into()));
    world.report(Report::Models(models(), None));
    world.key(KeyCode::Enter);
    world.ready();
    assert_eq!((world.app.composer().text(), world.app.composer().is_editing()), ("a1", false));
}

#[test]
fn a_reading_that_ends_late_brings_nothing_back() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("one", "a"), turn("two", "b")]);
    let talk = Talk { turns: vec![turn("one", "a"), turn("two", "b")], opened: true, ..Talk::default() };
    world.ctrl('n');
    world.report(Report::Talk(Box::new(talk)));
    assert!(matches!(world.app.talk().busy(), Busy::Warming { .. }));
    world.key(KeyCode::F(6));
    // The reading that was stopped, then the one that follows.
    world.report(Report::Warmed { filled: 9, dropped: 2 });
    assert_eq!((world.app.talk().turns().len(), world.app.talk().dropped()), (1, 0));
    world.report(Report::Warmed { filled: 9, dropped: 1 });
    assert_eq!((world.app.talk().turns().len(), world.app.talk().dropped()), (1, 1));
}

#[test]
fn the_choice_of_a_model_stays_on_what_it_was() {
    let at = |world: &World| match world.app.screen() {
        Screen::Choose(choice) => choice.at(),
        _ => panic!("it chooses"),
    };
    let start = |path: &str| {
        let source = Some(huozi::session::open::Source::File(path.into()));
        let (app, effects) = App::new(Start { source, ..Start::default() }, (80, 24), Instant::now());
        World { app, now: Instant::now(), effects }
    };
    // What was typed and is nowhere: the row where it can be mended, whichever comes first.
    let mut world = start("typo.gguf");
    world.report(Report::LoadFailed("no such file".into()));
    world.report(Report::Models(models(), None));
    assert_eq!(at(&world), world.app.models().sources().len());
    world.key(KeyCode::Enter);
    assert!(world.screen().contains("typo.gguf"), "{}", world.screen());
    // One of the list.
    let mut world = start("/data/huozi-7b-sft-q8_0.gguf");
    world.report(Report::LoadFailed("too large".into()));
    world.report(Report::Models(models(), None));
    assert_eq!(at(&world), 1);
    // A list that is another one, and the first.
    world.report(Report::Models(models().split_off(1), None));
    assert_eq!(at(&world), 0);
    let mut world = World::new((80, 24), Lang::En);
    world.report(Report::Models(models(), None));
    assert_eq!(at(&world), 0);
}

#[test]
fn what_cannot_be_a_model_leads_back_to_the_one_that_is_open() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.key(KeyCode::F(4));
    assert!(world.screen().contains("Esc goes back"), "{}", world.screen());
    world.report(Report::Models(models(), None));
    world.key(KeyCode::End);
    world.key(KeyCode::Enter);
    world.write("no.gguf");
    assert!(matches!(world.key(KeyCode::Enter)[..], [Effect::Work(ModelTask::Load { .. })]));
    world.report(Report::Refused("no.gguf: no such file".into()));
    assert!(world.screen().contains("no such file") && world.screen().contains("Esc goes back"));
    assert!(world.key(KeyCode::Esc).is_empty() && matches!(world.app.screen(), Screen::Chat));
    assert!(asked(&world.key(KeyCode::F(5))).is_some());
}

#[test]
fn only_what_is_searched_for_is_shown_and_touched() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("moon", "light")]);
    world.key(KeyCode::F(3));
    world.listed(entries());
    let before = world.app.panels().talks().entries().len();
    let titled = entries().iter().filter(|entry| entry.title.contains("borrow")).count();
    assert!(0 < titled && titled < before);
    world.write("borrow");
    // Titles at once; the rest is on its way.
    assert_eq!(world.app.panels().talks().entries().len(), titled);
    assert!(world.screen().contains("searching…"), "{}", world.screen());
    // An answer to what was searched for before is too late.
    world.report(Report::Talks("bor".into(), entries()));
    assert_eq!(world.app.panels().talks().entries().len(), titled);
    world.listed(entries());
    assert_eq!(world.app.panels().talks().entries().len(), before);
    assert!(!world.screen().contains("searching…"));
    // What was chosen by its title is, below one that only says it.
    let renamed = world.ctrl('r');
    assert!(renamed.is_empty() && world.screen().contains("Explain the borrow checker"));
    world.write("!");
    let effects = world.key(KeyCode::Enter);
    let [Effect::Desk(DeskTask::Rename(name, _)), _] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(name, "chat-2");
    world.write("nothing like it");
    assert!(world.app.panels().talks().entries().is_empty() && world.screen().contains("searching…"));
    for code in [KeyCode::Enter, KeyCode::Delete] {
        assert!(world.key(code).is_empty());
    }
}

#[test]
fn a_path_is_completed_and_mended() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    world.key(KeyCode::F(9));
    world.write("~/no");
    let effects = world.key(KeyCode::Tab);
    assert!(matches!(&effects[..], [Effect::Desk(DeskTask::Complete(text))] if text == "~/no"));
    let completed = |typed: &str, text: &str, names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Report::Completed(Completed { typed: typed.into(), text: text.into(), names })
    };
    world.report(completed("~/n", "~/nothing", &[]));
    assert!(world.screen().contains("~/no "), "that was typed before");
    world.report(completed("~/no", "~/notes", &["notes.md", "notes.txt"]));
    assert!(
        world.screen().contains("~/notes ") && !world.screen().contains("notes.md"),
        "{}",
        world.screen()
    );
    world.report(completed("~/notes", "~/notes", &["notes.md", "notes.txt"]));
    assert!(world.screen().contains("notes.md  notes.txt"), "{}", world.screen());
    world.report(completed("~/notes", "~/notes", &[]));
    assert!(world.screen().contains("no other name begins like this"), "{}", world.screen());
    world.write("x");
    assert!(matches!(&world.key(KeyCode::Enter)[..], [Effect::Desk(DeskTask::Attach(_))]));
    assert!(world.app.panels().open().is_none());
    // It is not there: what was typed is, with the reason.
    let why = || Report::PathFailed("notesx: not found".into());
    world.report(why());
    assert!(
        world.screen().contains("~/notesx ") && world.screen().contains("not found"),
        "{}",
        world.screen()
    );
    world.key(KeyCode::Backspace);
    world.key(KeyCode::Enter);
    // Nothing is put over a pane that was opened meanwhile.
    world.key(KeyCode::F(1));
    world.report(why());
    world.key(KeyCode::Esc);
    assert!(world.app.panels().open().is_none());
}

#[test]
fn a_number_that_is_typed_takes_the_place_of_the_old_one() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    let max_new = |world: &World| world.app.models().chosen().unwrap().settings.max_new;
    world.key(KeyCode::F(2));
    world.key(KeyCode::Home);
    for (keys, is) in [("\n20\n", 20), ("34\n", 34), ("\n", 34)] {
        for c in keys.chars() {
            world.key(if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) });
        }
        assert_eq!(max_new(&world), is, "{keys:?}");
    }
    // A part of it is changed with the cursor.
    world.key(KeyCode::Left);
    world.write("9");
    world.key(KeyCode::Enter);
    assert_eq!(max_new(&world), 394);
}
