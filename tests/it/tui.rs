//! The terminal chat, without terminal and model: every key, whole screens, and events that no person would
//! send.

use crate::tui_support::{World, about, asked, chosen, command, conversation, entries, models, stats, turn};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use huozi::session::open::Source;
use huozi::session::{Event, Stop, Turn};
use huozi::tui::app::{Screen, Start};
use huozi::tui::event::{Effect, Msg};
use huozi::tui::interface::Surroundings;
use huozi::tui::keys::BINDINGS;
use huozi::tui::live::Busy;
use huozi::tui::look::Lang;
use huozi::tui::worker::{AskKind, DeskTask, ModelTask, Report, Talk};

const SIZES: [(u16, u16); 3] = [(40, 12), (80, 24), (200, 60)];

/// Answers what was asked last, as the worker would.
fn answer(world: &mut World, said: &str, stop: Stop) {
    let (ask, question) = asked(&world.effects).expect("something was asked");
    world.effects.clear();
    let mut turns = world.app.talk().turns().to_vec();
    if ask != AskKind::New {
        turns.pop();
    }
    turns.push(Turn { stop, ..turn(&question, said) });
    world.event(Event::Prompt { done: 20, total: 20 });
    for piece in said.split_inclusive('\n') {
        world.event(Event::Token(1));
        world.event(Event::Text(piece.into()));
    }
    world.event(Event::Stopped(stop));
    world.event(Event::Stats(stats()));
    let talk = Talk { name: Some("chat-1".into()), turns, chosen: Some(chosen()), ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
    world.report(Report::Answered(None));
}

#[test]
fn ask_stop_retry_edit_undo() {
    let mut world = World::chat((80, 24), Lang::Zh, Vec::new());
    assert!(world.key(KeyCode::Enter).is_empty(), "nothing is written");
    world.write("你好");
    assert_eq!(asked(&world.key(KeyCode::Enter)), Some((AskKind::New, "你好".into())));
    assert!(world.app.composer().is_empty());
    // While it answers one can write, not send.
    world.write("下一个");
    assert_eq!(asked(&world.key(KeyCode::Enter)), None);
    assert_eq!(world.app.composer().text(), "下一个");
    world.key(KeyCode::Esc);
    assert!(world.app.talk().live().is_some_and(|live| live.stopping));
    answer(&mut world, "再见", Stop::Cancelled);
    assert!(matches!(world.app.talk().busy(), Busy::Idle) && world.screen().contains("[已停止]"));

    assert_eq!(asked(&world.key(KeyCode::F(5))), Some((AskKind::Retry, "你好".into())));
    answer(&mut world, "您好", Stop::EndToken(0));
    assert_eq!(world.app.talk().turns().len(), 1);

    world.key(KeyCode::F(7));
    assert_eq!((world.app.composer().text(), world.app.composer().is_editing()), ("你好", true));
    world.key(KeyCode::Esc);
    assert_eq!(
        (world.app.composer().text(), world.app.composer().is_editing()),
        ("下一个", false),
        "the draft is back"
    );
    world.alt('e');
    world.write("吗");
    assert_eq!(asked(&world.key(KeyCode::Enter)), Some((AskKind::Revise, "你好吗".into())));
    answer(&mut world, "好", Stop::EndToken(0));
    assert!(!world.app.composer().is_editing());

    world.ctrl('u');
    let undone = world.key(KeyCode::F(6));
    assert!(matches!(undone[..], [Effect::Work(ModelTask::Undo)]));
    assert_eq!(world.app.composer().text(), "你好吗", "the question is not lost");
    world.talk(Vec::new());
    assert!(world.key(KeyCode::F(5)).is_empty() && world.screen().contains("还没有对话内容"));
}

#[test]
fn a_question_that_failed_is_back_in_the_input() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    world.write("too long");
    world.key(KeyCode::Enter);
    world.report(Report::Talk(Box::default()));
    world.report(Report::Answered(Some("the message is too long".into())));
    assert_eq!(world.app.composer().text(), "too long");
    assert!(world.screen().contains("the message is too long"));
}

#[test]
fn every_key_of_the_table_does_something() {
    for binding in BINDINGS {
        for name in binding.keys.split(' ') {
            let mut world = World::chat((80, 24), Lang::En, conversation());
            world.write("ab");
            world.effects.clear();
            let before = (
                world.screen(),
                world.app.composer().text().to_owned(),
                world.app.interface().prefs().clone(),
            );
            let mut modifiers = KeyModifiers::NONE;
            let mut rest = name;
            for (prefix, modifier) in [
                ("Ctrl+", KeyModifiers::CONTROL),
                ("Alt+", KeyModifiers::ALT),
                ("Shift+", KeyModifiers::SHIFT),
            ] {
                if let Some(after) = rest.strip_prefix(prefix) {
                    (modifiers, rest) = (modifiers | modifier, after);
                }
            }
            let code = match rest {
                "Enter" => KeyCode::Enter,
                "Esc" => KeyCode::Esc,
                "PageUp" => KeyCode::PageUp,
                "PageDown" => KeyCode::PageDown,
                "Home" => KeyCode::Home,
                "End" => KeyCode::End,
                "Up" => KeyCode::Up,
                "Down" => KeyCode::Down,
                f if f.len() > 1 => KeyCode::F(f[1..].parse().unwrap()),
                c => KeyCode::Char(c.chars().next().unwrap().to_ascii_lowercase()),
            };
            // What goes down, closes, deletes or repeats needs something to do it to.
            match name {
                "Esc" => drop(world.key(KeyCode::F(7))),
                "PageDown" | "Alt+Down" | "Ctrl+End" => drop(world.key(KeyCode::PageUp)),
                "Alt+_" | "Alt+/" => drop(world.ctrl('_')),
                "Ctrl+Y" => drop(world.ctrl('u')),
                "Ctrl+D" => drop(world.key(KeyCode::Home)),
                "Alt+O" => world.talk(vec![turn(&"a\n".repeat(30), "b")]),
                _ => {}
            }
            let before = if world.app.composer().text() == before.1 {
                before
            } else {
                (
                    world.screen(),
                    world.app.composer().text().to_owned(),
                    world.app.interface().prefs().clone(),
                )
            };
            let screen = world.screen();
            let effects = world.send(Msg::Key(KeyEvent::new(code, modifiers)));
            let after = (
                world.screen(),
                world.app.composer().text().to_owned(),
                world.app.interface().prefs().clone(),
            );
            assert!(!effects.is_empty() || screen != after.0 || before.1 != after.1, "{name} does nothing");
        }
    }
}

#[test]
fn ctrl_c_stops_then_empties_then_quits() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    world.write("hello");
    world.key(KeyCode::Enter);
    world.write("next");
    assert!(world.ctrl('c').is_empty());
    assert!(world.app.talk().live().is_some_and(|live| live.stopping));
    assert_eq!(world.app.composer().text(), "next");
    answer(&mut world, "x", Stop::Cancelled);
    world.pass(3000);
    assert!(world.ctrl('c').is_empty() && world.app.composer().is_empty());
    world.pass(3000);
    assert!(world.ctrl('c').is_empty(), "the first one only warns");
    assert!(matches!(world.ctrl('c')[..], [Effect::Quit]));
    // What is written or pasted between two is not lost by the second.
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    for _ in 0..2 {
        world.ctrl('c');
        world.write("new");
        assert!(world.ctrl('c').is_empty() && world.app.composer().is_empty());
        world.send(Msg::Paste("pasted".into()));
        assert!(world.ctrl('c').is_empty() && world.app.composer().is_empty());
    }
    assert!(matches!(world.ctrl('c')[..], [Effect::Quit]));
    // Ctrl+D quits only with nothing written.
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    world.write("ab");
    assert!(world.ctrl('d').is_empty());
    world.ctrl('u');
    assert!(matches!(world.ctrl('d')[..], [Effect::Quit]));
}

#[test]
fn history_is_walked_from_the_first_and_the_last_row() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.write("draft");
    world.key(KeyCode::Up);
    assert!(world.app.composer().text().starts_with("比较李白"));
    world.key(KeyCode::Up);
    assert_eq!(world.app.composer().text(), "写一首关于月的诗。");
    world.key(KeyCode::Up);
    assert_eq!(world.app.composer().text(), "写一首关于月的诗。", "there is no older one");
    world.key(KeyCode::Down);
    world.key(KeyCode::Down);
    assert_eq!(world.app.composer().text(), "draft");
    world.key(KeyCode::Down);
    assert_eq!(world.app.composer().text(), "draft");
}

#[test]
fn the_send_key_can_be_changed_and_is_kept() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    command(&mut world, "/set send_key alt+enter");
    world.write("a");
    assert_eq!(asked(&world.key(KeyCode::Enter)), None);
    world.write("b");
    let sent = world.send(Msg::Key(KeyEvent::new(KeyCode::Enter, KeyModifiers::ALT)));
    assert_eq!(asked(&sent), Some((AskKind::New, "a\nb".into())));
}

#[test]
fn settings_are_changed_typed_refused_and_reset() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    world.key(KeyCode::F(2));
    let kept = |effects: &[Effect]| matches!(effects, [Effect::Work(ModelTask::Keep(_))]);
    assert!(kept(&world.key(KeyCode::Right)));
    assert_eq!(world.app.models().chosen().unwrap().settings.max_new, 576);
    world.key(KeyCode::Down);
    world.key(KeyCode::Enter);
    world.ctrl('u');
    world.write("1.25");
    let (_, cursor) = world.frame();
    assert!(cursor.is_some_and(|at| at.y < 23));
    assert!(kept(&world.key(KeyCode::Enter)));
    assert_eq!(world.app.models().chosen().unwrap().settings.sampling.temperature, 1.25);
    world.key(KeyCode::Enter);
    world.ctrl('u');
    world.write("-3");
    assert!(world.key(KeyCode::Enter).is_empty());
    assert_eq!(world.app.models().chosen().unwrap().settings.sampling.temperature, 1.25);
    assert!(world.screen().contains("temperature: a number from 0 to 5 is needed"));
    assert!(kept(&world.key(KeyCode::Delete)));
    assert_eq!(world.app.models().chosen().unwrap().settings.sampling.temperature, 0.5);
    // The next answer has them.
    world.key(KeyCode::Esc);
    world.write("x");
    let effects = world.key(KeyCode::Enter);
    let [Effect::Work(ModelTask::Ask { chosen, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(chosen.settings.max_new, 576);
    // By command.
    answer(&mut world, "y", Stop::EndToken(0));
    world.write("/set top_k 7");
    assert!(kept(&world.key(KeyCode::Enter)) && world.app.composer().is_empty());
    assert_eq!(world.app.models().chosen().unwrap().settings.sampling.top_k, 7);
}

#[test]
fn conversations_are_found_opened_renamed_deleted_and_brought_back() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    assert!(matches!(world.key(KeyCode::F(3))[..], [Effect::Desk(DeskTask::List(_))]));
    world.listed(entries());
    world.key(KeyCode::Down);
    world.ctrl('r');
    world.ctrl('u');
    world.write("租借");
    let effects = world.key(KeyCode::Enter);
    let [Effect::Desk(DeskTask::Rename(name, title)), _] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((name.as_str(), title.as_str()), ("chat-2", "租借"));
    assert!(
        matches!(&world.key(KeyCode::Delete)[..], [Effect::Desk(DeskTask::Delete(name))] if name == "chat-2")
    );
    world.report(Report::Deleted("chat-2-1".into()));
    assert!(
        matches!(&world.ctrl('u')[..], [Effect::Desk(DeskTask::Undelete(Some(name)))] if name == "chat-2-1")
    );
    world.listed(entries());
    world.write("月");
    assert!(matches!(world.effects.last(), Some(Effect::Desk(DeskTask::List(text))) if text == "月"));
    world.listed(entries()[..1].to_vec());
    // The open one is the model thread's to rename and delete.
    assert!(matches!(&world.key(KeyCode::Delete)[..], [Effect::Work(ModelTask::Delete)]));
    world.listed(entries());
    world.key(KeyCode::Esc);
    world.listed(entries());
    world.key(KeyCode::End);
    world.key(KeyCode::Down);
    world.key(KeyCode::Down);
    assert!(
        matches!(&world.key(KeyCode::Enter)[..], [Effect::Work(ModelTask::Open(name))] if name == "chat-3")
    );
    assert!(world.app.panels().open().is_none());
}

#[test]
fn a_conversation_is_read_again_in_the_background_and_gives_way() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    let long = vec![turn(&"床前明月光".repeat(40), "疑是地上霜")];
    let talk = Talk { name: Some("chat-9".into()), turns: long, opened: true, ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
    assert!(matches!(world.effects.last(), Some(Effect::Work(ModelTask::Warm(_)))));
    world.event(Event::Prompt { done: 100, total: 400 });
    world.pass(1000);
    world.event(Event::Prompt { done: 200, total: 400 });
    let screen = world.screen();
    assert!(screen.contains("200/400") && screen.contains("100 t/s, left: 2 s"), "{screen}");
    world.write("x");
    assert!(asked(&world.key(KeyCode::Enter)).is_some());
    world.report(Report::Warmed { filled: 250, dropped: 0 });
    assert!(world.app.talk().live().is_some(), "the answer is on its way");
}

#[test]
fn a_model_that_does_not_open_leads_back() {
    let mut world = World::new((80, 24), Lang::En);
    world.report(Report::Models(models(), Some(16 << 30)));
    world.key(KeyCode::Down);
    world.key(KeyCode::Down);
    assert!(world.screen().contains("not a GGUF file"));
    assert!(matches!(world.key(KeyCode::Enter)[..], [Effect::Work(ModelTask::Load { .. })]));
    assert!(matches!(world.app.screen(), Screen::Load(_)));
    world.report(Report::LoadFailed("./broken.gguf: not a GGUF file".into()));
    let screen = world.screen();
    assert!(
        screen.contains("./broken.gguf: not a GGUF file") && screen.contains("huozi-7b-rlhf"),
        "{screen}"
    );
    // It is still chosen; a path that was typed is there to be mended.
    assert!(matches!(world.app.screen(), Screen::Choose(choice) if choice.at() == 2));
    world.key(KeyCode::End);
    world.key(KeyCode::Enter);
    world.write("/no.gguf");
    assert!(matches!(world.key(KeyCode::Enter)[..], [Effect::Work(ModelTask::Load { .. })]));
    world.report(Report::LoadFailed("/no.gguf: not there".into()));
    world.key(KeyCode::Enter);
    let effects = world.key(KeyCode::Enter);
    let [Effect::Work(ModelTask::Load { source, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(*source, Source::File("/no.gguf".into()));
    world.key(KeyCode::Home);
    world.key(KeyCode::Enter);
    world.ready();
    assert!(matches!(world.app.screen(), Screen::Chat));
    assert!(
        matches!(world.effects.last(), Some(Effect::Work(ModelTask::Resume))),
        "the last conversation opens again"
    );
}

#[test]
fn turns_that_left_the_window_are_marked() {
    let mut world = World::chat((60, 20), Lang::Zh, Vec::new());
    let turns = vec![turn("一", "甲"), turn("二", "乙"), turn("三", "丙")];
    let talk = Talk { name: Some("x".into()), turns, dropped: 2, ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
    let screen = world.screen();
    let mark = screen.find("以上 2 轮已不在上下文中").expect("a mark");
    assert!(screen.find('乙').unwrap() < mark && mark < screen.find('三').unwrap());
}

#[test]
fn nothing_that_a_model_says_reaches_the_terminal_as_control() {
    let evil = "a\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\u{202e}b\u{200b}c\u{85}d\r\u{8}e";
    let mut world = World::chat(
        (80, 24),
        Lang::En,
        vec![turn(evil, evil), turn("q", &format!("```{evil}\n{evil}\n```\n|{evil}|x|\n|-|-|\n|{evil}|y|"))],
    );
    let mut entry = entries();
    entry[0].title = evil.into();
    for step in 0..4 {
        match step {
            0 => {}
            1 => drop(world.alt('r')),
            2 => {
                world.key(KeyCode::F(3));
                world.listed(entry.clone());
            }
            _ => {
                world.key(KeyCode::Esc);
                world.key(KeyCode::F(7));
            }
        }
        let (buffer, _) = world.frame();
        for cell in buffer.content() {
            let bad = |c: char| {
                c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}')
            };
            assert!(!cell.symbol().chars().any(bad), "{step}: {:?}", cell.symbol());
        }
        // Nothing is left out in silence: a sign stands for it.
        if step < 3 {
            let screen = world.screen();
            assert!(screen.contains("␛]0;title␇") && screen.contains('\u{fffd}'), "{step}: {screen}");
        }
    }
}

#[test]
fn the_cursor_stands_in_the_input_and_never_on_the_last_row() {
    for size in SIZES {
        for n in 0..size.0 as usize * 2 + 3 {
            let mut world = World::chat(size, Lang::Zh, conversation());
            world.send(Msg::Paste("x".repeat(n) + "汉"));
            let (buffer, cursor) = world.frame();
            let at = cursor.expect("a cursor");
            assert!(at.y + 1 < size.1 && at.x < size.0, "{n} at {size:?}: {at:?}");
            assert_eq!(buffer[(at.x - 2, at.y)].symbol(), "汉", "{n} at {size:?}");
            assert_eq!(buffer[(at.x - 1, at.y)].symbol(), " ");
        }
    }
}

#[test]
fn thousands_of_pasted_lines_stay_whole() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    let pasted: String = (0..5000).map(|n| format!("第 {n} 行 line\r\n")).collect();
    world.send(Msg::Paste(pasted.clone()));
    let (_, cursor) = world.frame();
    assert!(cursor.is_some_and(|at| at.y < 23));
    let asked = asked(&world.key(KeyCode::Enter)).unwrap();
    assert_eq!(asked.1, pasted.replace("\r\n", "\n").trim_end());
    world.ctrl('_');
    assert_eq!(world.app.composer().text().lines().count(), 5000, "undo brings it back");
}

#[test]
fn the_mouse_scrolls_and_chooses() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("q", &"line\n\n".repeat(100))]);
    let mouse =
        |kind, column, row| Msg::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE });
    world.frame();
    let end = world.app.talk().transcript().first();
    world.send(mouse(MouseEventKind::ScrollUp, 3, 3));
    assert_eq!(world.app.talk().transcript().first(), end - 3);
    world.send(mouse(MouseEventKind::ScrollDown, 3, 3));
    assert!(world.app.talk().transcript().follows());
    world.send(Msg::Paste("床前明月光".into()));
    world.frame();
    let input = world.app.places().input;
    world.send(mouse(MouseEventKind::Down(MouseButton::Left), input.x + 4, input.y));
    world.write("x");
    assert_eq!(world.app.composer().text(), "床前x明月光");
    world.key(KeyCode::F(3));
    world.listed(entries());
    let screen = world.screen();
    let row = screen.lines().position(|line| line.contains("borrow checker")).unwrap() as u16;
    world.send(mouse(MouseEventKind::Down(MouseButton::Left), 20, row));
    let opened = world.send(mouse(MouseEventKind::Down(MouseButton::Left), 20, row));
    assert!(matches!(&opened[..], [Effect::Work(ModelTask::Open(name))] if name == "chat-2"), "{opened:?}");
}

#[test]
fn commands_work_without_function_keys() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    for (typed, what) in [
        ("/retry", "Ask"),
        ("/undo", "Undo"),
        ("/new", "New"),
        ("/export a.md", "Export"),
        ("/attach b.txt", "Attach"),
        ("/quit", "Quit"),
    ] {
        let mut world = World::chat((80, 24), Lang::En, conversation());
        world.write(typed);
        let effects = world.key(KeyCode::Enter);
        assert!(format!("{effects:?}").contains(what), "{typed}: {effects:?}");
    }
    world.write("/nonsense");
    assert!(world.key(KeyCode::Enter).is_empty() && world.app.composer().text() == "/nonsense");
    world.ctrl('u');
    world.write("//slash");
    assert_eq!(asked(&world.key(KeyCode::Enter)).unwrap().1, "/slash");
}

/// Screens are compared with reviewed snapshots.
fn look(name: &str, world: &mut World) {
    for size in SIZES {
        world.resize(size);
        insta::assert_snapshot!(format!("{name}_{}x{}", size.0, size.1), world.screen());
    }
}

#[test]
fn screens() {
    for lang in [Lang::Zh, Lang::En] {
        let name = |name: &str| format!("{name}_{}", lang.of("en", "zh"));
        let mut world = World::new((80, 24), lang);
        world.report(Report::Models(models(), Some(8_100_000_000)));
        look(&name("chooser"), &mut world);

        let mut world = World::chat((80, 24), lang, conversation());
        world.write("下一个问题");
        look(&name("chat"), &mut world);
        world.key(KeyCode::F(1));
        look(&name("help"), &mut world);
        world.key(KeyCode::Esc);
        world.key(KeyCode::F(2));
        look(&name("settings"), &mut world);
        world.key(KeyCode::Esc);
        world.key(KeyCode::F(3));
        world.listed(entries());
        look(&name("talks"), &mut world);
        world.key(KeyCode::Esc);
        world.key(KeyCode::Enter);
        world.event(Event::Prompt { done: 60, total: 120 });
        look(&name("reading"), &mut world);
        for n in 0..40 {
            world.event(Event::Token(n));
            world.event(Event::Text("春眠不觉晓，".into()));
            world.now += std::time::Duration::from_millis(50 + u64::from(n));
        }
        world.report(Report::Memory(5_400_000_000));
        look(&name("writing"), &mut world);
    }
}

#[test]
fn ascii_screens_hold_no_characters_of_ambiguous_width() {
    let around = Surroundings { ascii: true, ..Surroundings::default() };
    let start = Start { around, ..Start::default() };
    let mut world = World::started(start, (80, 24)).in_chat(conversation());
    for key in [KeyCode::F(1), KeyCode::F(2), KeyCode::F(3)] {
        world.key(key);
        let screen = world.screen();
        assert!(!screen.contains(|c| "─│┌┐└┘█░▁•…".contains(c)), "{screen}");
        world.key(KeyCode::Esc);
    }
}

#[test]
fn about_is_shown_in_an_empty_conversation() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    let screen = world.screen();
    assert!(screen.contains(&about().name) && screen.contains("5.4 GiB"), "{screen}");
}
