//! The terminal chat, without terminal and model: what must not be lost, hidden or told wrongly.

mod tui_support;

use crossterm::event::{KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use huozi::session::{Event, Notice, Stop, Turn};
use huozi::tui::app::{App, Busy, Effect, Prefs, Screen, Start};
use huozi::tui::failure::Failure;
use huozi::tui::look::{Lang, Theme};
use huozi::tui::update::Msg;
use huozi::tui::worker::{Ask, Desk, Report, Talk, Work};
use std::time::Instant;
use tui_support::{World, about, chosen, conversation, entries, models, stats, turn};

fn asked(effects: &[Effect]) -> Option<(Ask, String)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Work(Work::Ask { ask, question, .. }) => Some((*ask, question.clone())),
        _ => None,
    })
}

/// The conversation is now this, and the answer has ended.
fn answered(world: &mut World, turns: Vec<Turn>, error: Option<Failure>) {
    let talk = Talk { name: Some("chat-1".into()), turns, ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
    world.report(Report::Answered(error));
}

fn command(world: &mut World, text: &str) -> Vec<Effect> {
    world.write(text);
    world.key(KeyCode::Enter)
}

fn click(world: &mut World, column: u16, row: u16) -> Vec<Effect> {
    let kind = MouseEventKind::Down(MouseButton::Left);
    world.send(Msg::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }))
}

#[test]
fn the_last_question_is_not_edited_while_it_is_answered() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("first", "a")]);
    command(&mut world, "second");
    world.key(KeyCode::F(7));
    assert!(!world.app.editing && world.app.input.is_empty());
    assert!(world.screen().contains("the model is writing"));
    answered(&mut world, vec![turn("first", "a"), turn("second", "b")], None);
    world.key(KeyCode::F(7));
    assert_eq!(world.app.input.text(), "second");
}

#[test]
fn keys_between_two_conversations_reach_neither() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    assert!(matches!(world.ctrl('n')[..], [Effect::Work(Work::New)]));
    // The old one is still on the screen.
    for refused in [KeyCode::F(5), KeyCode::F(6), KeyCode::F(7)] {
        assert!(world.key(refused).is_empty() && !world.app.editing, "{refused:?}");
    }
    assert!(command(&mut world, "x").is_empty() && world.app.input.text() == "x");
    assert!(world.screen().contains("is being opened"));
    world.key(KeyCode::Backspace);
    let max_new = |world: &World| world.app.chosen.as_ref().unwrap().settings.max_new;
    let before = max_new(&world);
    assert!(command(&mut world, "/set max_new_tokens 9").is_empty());
    assert!(command(&mut world, "/rename y").is_empty() && world.app.input.text() == "/rename y");
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
    world.report(Report::Talks(entries()));
    world.key(KeyCode::Down);
    // An answer ended: the order is another one.
    let mut other = entries();
    other.rotate_right(1);
    world.report(Report::Talks(other.clone()));
    let deleted = world.key(KeyCode::Delete);
    assert!(matches!(&deleted[..], [Effect::Desk(Desk::Delete(name))] if name == "chat-2"), "{deleted:?}");
    // What is renamed is what was chosen, and the search stays.
    world.report(Report::Talks(entries()));
    world.write("t");
    world.report(Report::Talks(entries()));
    world.key(KeyCode::Down);
    world.ctrl('r');
    world.report(Report::Talks(other));
    world.write("!");
    let renamed = world.key(KeyCode::Enter);
    let [Effect::Desk(Desk::Rename(name, _)), Effect::Desk(Desk::List(search))] = &renamed[..] else {
        panic!("{renamed:?}")
    };
    assert_eq!((name.as_str(), search.as_str()), ("chat-2", "t"));
    // The first of what is found.
    world.write("x");
    world.report(Report::Talks(entries()));
    let opened = world.key(KeyCode::Enter);
    assert!(opened.is_empty() && world.app.panel.is_none(), "the first is the open one: {opened:?}");
}

#[test]
fn the_open_conversation_is_named_and_stays() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    command(&mut world, "hello");
    world.key(KeyCode::F(3));
    world.effects.clear();
    world.report(Report::Named("chat-1".into(), Some("hello there".into())));
    assert!(matches!(world.effects[..], [Effect::Desk(Desk::List(_))]));
    assert_eq!(world.app.title(), "hello there");
    world.report(Report::Talks(entries()));
    assert!(world.screen().contains("* 写一首"), "{}", world.screen());
    assert!(world.key(KeyCode::Enter).is_empty() && world.app.panel.is_none());
    assert!(world.app.live().is_some_and(|live| !live.stopping), "the answer goes on");
    assert_eq!(world.app.switching, 0);
}

#[test]
fn an_export_holds_the_answer_on_its_way() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("first", "one")]);
    let exported = |world: &mut World| {
        let effects = command(world, "/export a.md");
        let [Effect::Desk(Desk::Export(_, text))] = &effects[..] else { panic!("{effects:?}") };
        text.clone()
    };
    world.key(KeyCode::F(5));
    world.event(Event::Text("another".into()));
    let text = exported(&mut world);
    assert!(text.contains("first") && text.contains("another") && !text.contains("one\n"), "{text}");
    answered(&mut world, vec![turn("first", "another")], None);
    command(&mut world, "second");
    world.event(Event::Text("two".into()));
    let text = exported(&mut world);
    assert!(text.ends_with("another\n\n## You\n\nsecond\n\n## Huozi\n\ntwo\n\n*[stopped]*\n"), "{text}");
    // Who said it and when, the system prompt, and lines that stay lines.
    world.app.chosen.as_mut().unwrap().settings.system = Some("a\nb".into());
    let stopped = Turn { stop: Stop::MaxTokens, ..turn("q\nr", "床前明月光，\n疑是地上霜。") };
    answered(&mut world, vec![stopped], None);
    let text = exported(&mut world);
    let (head, rest) = text.split_once(" · ").unwrap();
    let day = head.strip_prefix("# q\n\n*").expect(&text);
    assert!(day.len() == 16 && day.starts_with("20") && day.as_bytes()[13] == b':', "{text}");
    assert_eq!(
        rest,
        "huozi-7b-rlhf q4_k*\n\n> a  \n> b\n\n## You\n\nq  \nr\n\n## Huozi\n\n床前明月光，  \n疑是地上霜。\n\n\
         *[stopped: max_new_tokens is reached]*\n"
    );
}

#[test]
fn messages_are_seen_wherever_one_is() {
    let error = Failure::new("disk full, nothing was written", "磁盘空间不足，没有写入");
    for (lang, said) in [(Lang::En, "disk full, nothing"), (Lang::Zh, "磁盘空间不足")] {
        for key in [KeyCode::F(1), KeyCode::F(2), KeyCode::F(3), KeyCode::F(9)] {
            let mut world = World::chat((80, 24), lang, conversation());
            world.key(key);
            world.report(Report::DeskFailed(error.clone()));
            let screen = world.screen();
            assert_eq!(screen.matches(said).count(), 1, "{screen}");
        }
        let mut world = World::new((80, 24), lang);
        world.report(Report::Models(models(), None));
        world.report(Report::DeskFailed(error.clone()));
        assert!(world.screen().contains(said), "{}", world.screen());
        world.key(KeyCode::Enter);
        assert!(matches!(world.app.screen, Screen::Load(_)) && world.screen().contains(said));
    }
}

#[test]
fn a_long_error_is_shown_whole() {
    let long = format!("{} the end of it", "a reason that is long ".repeat(5));
    for panel in [false, true] {
        for size in [(40, 12), (80, 24)] {
            let mut world = World::chat(size, Lang::En, conversation());
            if panel {
                world.key(KeyCode::F(2));
            }
            world.report(Report::DeskFailed(long.as_str().into()));
            let screen = world.screen();
            let shown: Vec<&str> = screen.lines().flat_map(|line| line.split(['│', '─', '┌', '┘'])).collect();
            let shown = shown.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(shown.contains("the end of it") && shown.contains("a reason that is"), "{screen}");
        }
    }
}

#[test]
fn what_the_model_does_is_seen_beside_a_message() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    command(&mut world, "q");
    world.event(Event::Token(1));
    world.event(Event::Text("x".into()));
    for said in ["short", "much longer than what would find a place beside the state of the model"] {
        world.report(Report::DeskFailed(said.into()));
        let screen = world.screen();
        assert!(screen.contains("writing 1/512") && screen.contains(&said[..5]), "{screen}");
    }
    world.event(Event::Stats(stats()));
    world.report(Report::Memory(5_400_000_000));
    for size in [(80, 24), (40, 12)] {
        world.resize(size);
        let screen = world.screen();
        let last = screen.lines().nth(usize::from(size.1) - 1).unwrap();
        for part in ["/2048", "t/s", "5.0 GiB"] {
            assert!(last.contains(part), "{part} in {last:?}");
        }
        assert!(screen.contains("writing 1/512"), "{screen}");
    }
}

#[test]
fn common_notices_are_chinese_in_chinese() {
    for (notice, said) in [
        (Notice::EmptyAnswer, "模型的回答是空的"),
        (Notice::LongContext { n_ctx: 4096, trained: 2048 }, "超过模型训练时的 2048"),
    ] {
        let mut world = World::chat((80, 24), Lang::Zh, conversation());
        world.event(Event::Notice(notice));
        assert!(world.screen().contains(said), "{}", world.screen());
    }
    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    world.report(Report::NotSaved(Failure::new("disk full", "磁盘空间不足")));
    assert!(world.screen().contains("没有保存：磁盘空间不足"));
}

#[test]
fn the_end_of_the_help_is_reached() {
    for size in [(40, 12), (24, 8), (80, 24)] {
        let mut world = World::chat(size, Lang::En, Vec::new());
        world.key(KeyCode::F(1));
        world.key(KeyCode::End);
        let end = world.screen();
        assert!(end.contains("terminal does."), "{end}");
        // It is where scrolling ends, and the first key leads back.
        world.key(KeyCode::Down);
        assert_eq!(world.screen(), end);
        world.key(KeyCode::Up);
        assert_ne!(world.screen(), end);
        world.key(KeyCode::Home);
        for _ in 0..200 {
            world.key(KeyCode::PageDown);
        }
        assert_eq!(world.screen(), end);
    }
}

#[test]
fn what_failed_is_not_shown_as_done() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.key(KeyCode::F(3));
    world.report(Report::Talks(entries()));
    world.key(KeyCode::Down);
    world.key(KeyCode::Delete);
    assert_eq!(world.app.talks.len(), 2);
    world.effects.clear();
    world.report(Report::DeskFailed("another huozi is writing it".into()));
    assert!(matches!(world.effects[..], [Effect::Desk(Desk::List(_))]));
    // Two are thrown away, and both come back, the last one first.
    for name in ["chat-2", "chat-3"] {
        world.report(Report::Deleted(name.into()));
    }
    for name in ["chat-3", "chat-2"] {
        let asked = world.ctrl('u');
        assert!(matches!(&asked[..], [Effect::Desk(Desk::Undelete(Some(n)))] if n == name), "{asked:?}");
        assert!(!world.app.trashed.is_empty(), "it is there until it is back");
        world.report(Report::Undeleted(name.into(), format!("{name}-1")));
    }
    // What an earlier run threw away: the desk knows.
    assert!(matches!(world.ctrl('u')[..], [Effect::Desk(Desk::Undelete(None))]));
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
    assert!(matches!(&world.ctrl('u')[..], [Effect::Desk(Desk::List(text))] if text.is_empty()));
}

#[test]
fn a_draft_comes_back_after_an_edit() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("first", "a")]);
    let edit = |world: &mut World| {
        world.ctrl('u');
        world.write("draft");
        world.key(KeyCode::F(7));
        assert_eq!(world.app.input.text(), "first");
    };
    // Sent.
    edit(&mut world);
    assert_eq!(asked(&world.key(KeyCode::Enter)), Some((Ask::Revise, "first".into())));
    assert_eq!(world.app.input.text(), "draft");
    // It failed: the question is in the input, and the draft behind it.
    answered(&mut world, vec![turn("first", "a")], Some("too long".into()));
    assert_eq!((world.app.input.text(), world.app.editing), ("first", true));
    world.key(KeyCode::Esc);
    assert_eq!(world.app.input.text(), "draft");
    // Taken back, and another conversation.
    edit(&mut world);
    world.key(KeyCode::F(6));
    assert_eq!((world.app.input.text(), world.app.editing), ("draft", false));
    world.talk(vec![turn("first", "a")]);
    edit(&mut world);
    world.ctrl('n');
    assert_eq!(world.app.input.text(), "draft");
    world.talk(vec![turn("first", "a")]);
    edit(&mut world);
    world.ctrl('c');
    assert_eq!((world.app.input.text(), world.app.editing), ("draft", false));
}

#[test]
fn a_question_is_not_lost_with_its_model() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    command(&mut world, "what I asked");
    world.report(Report::LoadFailed("internal error".into()));
    assert!(matches!(world.app.screen, Screen::Choose(_)) && matches!(world.app.busy, Busy::Idle));
    world.report(Report::Models(models(), None));
    world.key(KeyCode::Enter);
    world.ready();
    assert_eq!(world.app.input.text(), "what I asked");
}

#[test]
fn settings_of_the_interface_are_set_by_command() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    let kept = |effects: &[Effect]| matches!(effects[0], Effect::Desk(Desk::Prefs(_)));
    assert!(kept(&command(&mut world, "/set language zh")) && world.app.lang() == Lang::Zh);
    assert!(kept(&command(&mut world, "/set language English")) && world.app.lang() == Lang::En);
    assert!(kept(&command(&mut world, "/set colours light")) && world.app.look().theme == Theme::Light);
    let mouse = command(&mut world, "/set mouse off");
    assert!(kept(&mouse) && matches!(mouse[1], Effect::Mouse(false)) && !world.app.prefs.mouse);
    for (wrong, said) in
        [("language fr", "zh en"), ("colours pink", "dark light none"), ("mouse 3", "on or off")]
    {
        assert!(command(&mut world, &format!("/set {wrong}")).is_empty());
        assert!(world.screen().contains(said), "{}", world.screen());
    }
    assert!(kept(&command(&mut world, "/set send_key alt+enter")) && !world.app.prefs.enter_sends);
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
fn the_mark_of_the_context_tells_what_is_so() {
    let three = || vec![turn("一", "甲"), turn("二", "乙"), turn("三", "丙")];
    let told = |world: &mut World, turns: Vec<Turn>, dropped: usize| {
        let talk = Talk { name: Some("x".into()), turns, dropped, ..Talk::default() };
        world.report(Report::Talk(Box::new(talk)));
    };
    let marks = |world: &mut World| {
        let screen = world.screen();
        let place = |text: &str| screen.find(text);
        (screen.matches("已不在上下文中").count(), place("已不在上下文中"), place("丙"), place("四"))
    };
    let mut world = World::chat((60, 40), Lang::Zh, Vec::new());
    // All of them.
    told(&mut world, three(), 3);
    let (count, mark, last, _) = marks(&mut world);
    assert!(count == 1 && mark > last, "{}", world.screen());
    // While an answer is on its way.
    told(&mut world, three(), 1);
    command(&mut world, "四");
    world.app.flash = None;
    world.event(Event::Dropped { exchanges: 2 });
    world.app.flash = None;
    let (count, mark, last, question) = marks(&mut world);
    assert!(count == 1 && mark > last && mark < question, "{}", world.screen());
    assert!(world.screen().contains("以上 3 轮"));
    // It failed: all is as before.
    told(&mut world, three(), 1);
    world.report(Report::Answered(Some("no".into())));
    world.app.flash = None;
    let (count, mark, last, _) = marks(&mut world);
    assert!(count == 1 && mark < last, "{}", world.screen());
}

#[test]
fn the_gauge_follows_when_an_exchange_is_taken_back() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.event(Event::Stats(stats()));
    assert!(world.screen().contains("238/2048"));
    let undone = world.key(KeyCode::F(6));
    assert!(matches!(undone[..], [Effect::Work(Work::Undo), Effect::Work(Work::Warm(_))]), "{undone:?}");
    assert!(!world.screen().contains("238/2048"));
    world.report(Report::Warmed(101));
    assert!(world.screen().contains("101/2048") && matches!(world.app.busy, Busy::Idle));
    // Twice in a row: the model is busy until the second reading ends.
    let mut world = World::chat((80, 24), Lang::En, [conversation(), conversation()].concat());
    world.key(KeyCode::F(6));
    world.key(KeyCode::F(6));
    world.report(Report::Warmed(0));
    assert!(matches!(world.app.busy, Busy::Warming { .. }));
    world.report(Report::Warmed(90));
    assert!(matches!(world.app.busy, Busy::Idle) && world.app.context_used == 90);
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
    world.report(Report::Talks(many(60)));
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
        assert!(
            matches!(&opened[..], [Effect::Work(Work::Open(name))] if *name == format!("chat-{}", n + 10)),
            "{opened:?}"
        );
        world.talk(conversation());
        world.key(KeyCode::F(3));
        world.report(Report::Talks(many(60)));
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
    assert!(matches!(click(&mut world, 20, y)[..], [Effect::Work(Work::Load { .. })]));
    let Screen::Load(loading) = &world.app.screen else { panic!() };
    assert_eq!(loading.name, "number-5.gguf");
}

#[test]
fn every_screen_fits_every_size() {
    let long = "床前明月光，疑是地上霜。".repeat(8);
    for lang in [Lang::En, Lang::Zh] {
        for step in 0..13 {
            let mut world = match step {
                0..=3 => World::new((80, 24), lang),
                _ => World::chat((80, 24), lang, conversation()),
            };
            match step {
                1 => world.report(Report::Models(Vec::new(), Some(1 << 33))),
                2 => world.report(Report::LoadFailed(long.as_str().into())),
                3 => {
                    world.report(Report::Models(models(), None));
                    world.key(KeyCode::Enter);
                }
                5..=8 => {
                    drop(world.key([KeyCode::F(1), KeyCode::F(2), KeyCode::F(3), KeyCode::F(9)][step - 5]))
                }
                9 => {
                    world.key(KeyCode::F(3));
                    world.report(Report::Talks(entries()));
                    world.key(KeyCode::Down);
                    world.key(KeyCode::Down);
                    world.ctrl('r');
                }
                10 => {
                    world.key(KeyCode::F(2));
                    for _ in 0..6 {
                        world.key(KeyCode::Down);
                    }
                    world.key(KeyCode::Enter);
                    world.write(&long);
                }
                11 => {
                    command(&mut world, "q");
                    world.event(Event::Token(1));
                }
                12 => drop(world.alt('p')),
                _ => {}
            }
            for said in [None, Some(long.as_str())] {
                if let Some(said) = said {
                    world.report(Report::DeskFailed(said.into()));
                }
                for width in 1..=30 {
                    for height in 1..=15 {
                        world.resize((width, height));
                        let (_, cursor) = world.frame();
                        let inside = |at: ratatui::layout::Position| at.x < width && at.y < height;
                        assert!(cursor.is_none_or(inside), "{step}: {cursor:?} in {width}x{height}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_holds_for_one_run_is_not_kept() {
    let prefs = Prefs { lang: Some(Lang::Zh), theme: Some(Theme::Light), ..Prefs::default() };
    let start = Start {
        prefs: prefs.clone(),
        typed_lang: Some(Lang::En),
        no_color: true,
        theme: Theme::Plain,
        ..Start::default()
    };
    let (app, effects) = App::new(start, (80, 24), Instant::now());
    let mut world = World { app, now: Instant::now(), effects };
    world.ready();
    world.talk(Vec::new());
    assert_eq!((world.app.lang(), world.app.look().theme), (Lang::En, Theme::Plain));
    world.alt('r');
    let kept = |world: &World| -> Prefs {
        let kept = world.effects.iter().rev().find_map(|effect| match effect {
            Effect::Desk(Desk::Prefs(text)) => Some(serde_json::from_str(text).unwrap()),
            _ => None,
        });
        kept.expect("it is kept")
    };
    assert_eq!(kept(&world), Prefs { raw: true, ..prefs });
    // What is chosen in this run is.
    world.alt('l');
    assert_eq!((world.app.lang(), kept(&world).lang), (Lang::Zh, Some(Lang::Zh)));
    command(&mut world, "/set colours dark");
    assert_eq!((world.app.look().theme, kept(&world).theme), (Theme::Dark, Some(Theme::Dark)));
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
    let temperature = |world: &World| world.app.chosen.as_ref().unwrap().settings.sampling.temperature;
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
    let kv = |world: &World| world.app.chosen.as_ref().unwrap().options.kv.unwrap().name();
    assert_eq!(kv(&world), "q8");
    world.report(Report::Reopened(Box::new(about()), Some(Box::new(chosen().options))));
    assert_eq!(kv(&world), "f16", "it did not work");
}

#[test]
fn another_model_that_goes_on_with_a_conversation_says_so() {
    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    assert!(!world.screen().contains("另一个模型"));
    let mut turns = conversation();
    turns.last_mut().unwrap().ids = None;
    let talk = Talk { name: Some("chat-2".into()), turns, opened: true, ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
    assert!(world.screen().contains("另一个模型"), "{}", world.screen());
}

#[test]
fn set_says_what_it_did() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    for (typed, said) in
        [("/set top_k 7", "top_k = 7"), ("/set foo 3", "foo: no such setting"), ("/set top_p 9", "top_p: ")]
    {
        world.write(typed);
        world.key(KeyCode::Enter);
        assert!(world.screen().contains(said) && world.app.panel.is_none(), "{typed}: {}", world.screen());
    }
}
