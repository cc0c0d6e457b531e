//! The terminal chat, without terminal and model: what is shown, and that it is so.

use crate::tui_support::{
    World, about, answered, chosen, command, conversation, disk_full, entries, models, stats, turn,
};
use crossterm::event::KeyCode;
use huozi::session::{Event, HistoryLimit, Notice, Stop, Turn};
use huozi::tui::app::Screen;
use huozi::tui::event::{Effect, Msg};
use huozi::tui::live::Busy;
use huozi::tui::look::Lang;
use huozi::tui::words::words;
use huozi::tui::worker::{DeskTask, ModelTask, Report, Talk};
use ratatui::style::Modifier;

fn title(world: &World) -> String {
    world.app.talk().title(words(world.app.interface().lang()))
}

#[test]
fn the_open_conversation_is_named_and_stays() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    command(&mut world, "hello");
    world.key(KeyCode::F(3));
    world.effects.clear();
    world.report(Report::Named("chat-1".into(), Some("hello there".into())));
    assert!(matches!(world.effects[..], [Effect::Desk(DeskTask::List(_))]));
    assert_eq!(title(&world), "hello there");
    world.listed(entries());
    assert!(world.screen().contains("* 写一首"), "{}", world.screen());
    assert!(world.key(KeyCode::Enter).is_empty() && world.app.panels().open().is_none());
    assert!(world.app.talk().live().is_some_and(|live| !live.stopping), "the answer goes on");
    assert!(!world.app.talk().is_switching());
}

#[test]
fn an_export_holds_the_answer_on_its_way() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("first", "one")]);
    let exported = |world: &mut World| {
        let effects = command(world, "/export a.md");
        let [Effect::Desk(DeskTask::Export(_, text))] = &effects[..] else { panic!("{effects:?}") };
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
    assert!(text.ends_with("another\n\n## You\n\nsecond\n\n## Huozi\n\ntwo\n"), "{text}");
    // Who said it and when, the system prompt, and lines that stay lines.
    let mut with_system = chosen();
    with_system.settings.system = Some("a\nb".into());
    let talk = Talk { opened: true, chosen: Some(with_system), ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
    let stopped = Turn { stop: Stop::MaxTokens, ..turn("q\nr", "床前明月光，\n疑是地上霜。") };
    answered(&mut world, vec![stopped], None);
    let text = exported(&mut world);
    let (head, rest) = text.split_once(" · ").unwrap();
    let day = head.strip_prefix("# q\n\n*exported ").expect(&text);
    assert!(day.len() == 16 && day.starts_with("20") && day.as_bytes()[13] == b':', "{text}");
    assert_eq!(
        rest,
        "huozi-7b-rlhf q4_k*\n\n> a  \n> b\n\n## You\n\nq  \nr\n\n## Huozi\n\n床前明月光，  \n疑是地上霜。\n\n\
         *[stopped: max_new_tokens reached]*\n"
    );
    // Another model's answer is not signed with this one's name.
    answered(&mut world, vec![Turn { ids: None, ..turn("q", "a") }], None);
    assert!(!exported(&mut world).contains("huozi-7b-rlhf"));
}

#[test]
fn messages_are_seen_wherever_one_is() {
    let error = disk_full();
    for (lang, said) in [(Lang::En, "/a.jsonl: cannot write"), (Lang::Zh, "磁盘空间不足")] {
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
        assert!(matches!(world.app.screen(), Screen::Load(_)) && world.screen().contains(said));
    }
}

#[test]
fn a_panel_that_opens_shows_its_keys() {
    for key in [KeyCode::F(1), KeyCode::F(2), KeyCode::F(3), KeyCode::F(9)] {
        let mut world = World::chat((80, 24), Lang::En, conversation());
        world.ctrl('c');
        assert!(world.screen().contains("again to quit"));
        world.key(key);
        assert!(!world.screen().contains("again to quit") && world.screen().contains("Esc"), "{key:?}");
    }
    // And a conversation nothing that was said of another one.
    let mut world = World::chat((80, 24), Lang::En, conversation());
    command(&mut world, "q");
    world.key(KeyCode::F(5));
    assert!(world.screen().contains("the model is generating"));
    world.ctrl('n');
    assert!(!world.screen().contains("the model is generating"));
    // An engine that is open is not being opened.
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.report(Report::Reopening);
    assert!(world.screen().contains("reopening the engine"));
    world.report(Report::Reopened(Box::new(about()), None));
    assert!(!world.screen().contains("reopening the engine"));
    world.report(Report::Reopened(Box::new(about()), Some((Box::new(chosen().options), "no room".into()))));
    assert!(world.screen().contains("no room"));
}

#[test]
fn hints_name_the_keys_that_were_chosen() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    command(&mut world, "/set send_key alt+enter");
    world.pass(20_000);
    assert!(world.screen().contains("press Alt+Enter. Enter begins"), "{}", world.screen());
    let mut world = World::chat((80, 24), Lang::Zh, vec![turn("q", "a")]);
    command(&mut world, "/set send_key alt+enter");
    world.key(KeyCode::F(7));
    assert!(world.screen().contains("Alt+Enter 重新提问"), "{}", world.screen());
    command(&mut world, "/lang fr");
    assert_eq!(world.app.interface().lang(), Lang::Zh);
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
        assert!(screen.contains("generating 1/512") && screen.contains(&said[..5]), "{screen}");
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
        assert!(screen.contains("generating 1/512"), "{screen}");
    }
}

#[test]
fn common_notices_are_chinese_in_chinese() {
    for (notice, said) in [
        (Notice::EmptyAnswer, "模型的回答是空的"),
        (Notice::LongContext { n_ctx: 4096, trained: 2048 }, "超过模型训练时的 2048"),
        (Notice::FewerThreads { wanted: 64, used: 2 }, "设为 64 个线程，实际运行 2 个"),
    ] {
        let mut world = World::chat((80, 24), Lang::Zh, conversation());
        world.event(Event::Notice(notice));
        assert!(world.screen().contains(said), "{}", world.screen());
    }
    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    world.report(Report::NotSaved(disk_full()));
    assert!(world.screen().contains("没有保存：/a.jsonl：磁盘空间不足"));
}

#[test]
fn the_end_of_the_help_is_reached() {
    for size in [(40, 12), (24, 8), (80, 24)] {
        let mut world = World::chat(size, Lang::En, Vec::new());
        world.key(KeyCode::F(1));
        world.key(KeyCode::End);
        let end = world.screen();
        assert!(end.contains("/quit"), "{end}");
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
    world.pass(20_000);
    world.event(Event::Dropped { exchanges: 2, limit: HistoryLimit::Tokens(1800) });
    assert!(world.screen().contains("最早的 2 轮对话已移出提示（上限：1800 词元）"), "{}", world.screen());
    world.pass(20_000);
    let (count, mark, last, question) = marks(&mut world);
    assert!(count == 1 && mark > last && mark < question, "{}", world.screen());
    assert!(world.screen().contains("以上 3 轮"));
    // It failed: all is as before.
    told(&mut world, three(), 1);
    world.report(Report::Answered(Some("no".into())));
    world.pass(20_000);
    let (count, mark, last, _) = marks(&mut world);
    assert!(count == 1 && mark < last, "{}", world.screen());
}

#[test]
fn the_gauge_follows_when_an_exchange_is_taken_back() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.event(Event::Stats(stats()));
    assert!(world.screen().contains("238/2048"));
    let undone = world.key(KeyCode::F(6));
    assert!(
        matches!(undone[..], [Effect::Work(ModelTask::Undo), Effect::Work(ModelTask::Warm(_))]),
        "{undone:?}"
    );
    assert!(!world.screen().contains("238/2048"));
    world.report(Report::Warmed { filled: 101, dropped: 0 });
    assert!(world.screen().contains("101/2048") && matches!(world.app.talk().busy(), Busy::Idle));
    // Nothing is left to read.
    let mut world = World::chat((80, 24), Lang::En, vec![turn("q", "a")]);
    world.event(Event::Stats(stats()));
    assert!(matches!(world.key(KeyCode::F(6))[..], [Effect::Work(ModelTask::Undo)]));
    assert!(world.screen().contains(" 0/2048"), "{}", world.screen());
    // Twice in a row: the model is busy until the second reading ends.
    let mut world = World::chat((80, 24), Lang::En, [conversation(), conversation()].concat());
    world.key(KeyCode::F(6));
    world.key(KeyCode::F(6));
    world.report(Report::Warmed { filled: 0, dropped: 0 });
    assert!(matches!(world.app.talk().busy(), Busy::Warming { .. }));
    world.report(Report::Warmed { filled: 90, dropped: 0 });
    assert!(matches!(world.app.talk().busy(), Busy::Idle) && world.app.talk().context_used() == 90);
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
                    world.listed(entries());
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
    for (typed, said) in [
        ("/set top_k 7", "top_k = 7"),
        ("/set foo 3", "unknown setting \"foo\"; valid: max_new_tokens"),
        ("/set top_p 9", "top_p: "),
    ] {
        world.write(typed);
        world.key(KeyCode::Enter);
        assert!(
            world.screen().contains(said) && world.app.panels().open().is_none(),
            "{typed}: {}",
            world.screen()
        );
    }
}

#[test]
fn what_is_seen_where_there_is_little_room() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    let last = |world: &mut World| world.screen().lines().nth(23).unwrap().to_owned();
    // The speed of the prompt gives way to the help, those of memory and answer do not.
    world.event(Event::Stats(stats()));
    world.report(Report::Memory(5_400_000_000));
    (0..12).for_each(|_| world.event(Event::Stats(stats())));
    let figures = last(&mut world);
    assert!(figures.contains("mem 5.0 GiB") && figures.ends_with("F1 help"), "{figures}");
    world.resize((100, 24));
    let figures = last(&mut world);
    assert!(figures.contains("prefill") && figures.ends_with("F1 help"), "{figures}");
    // Beside a window there is nothing that cannot be read.
    world.resize((80, 24));
    world.key(KeyCode::F(3));
    world.listed(entries());
    assert!(
        world.screen().lines().take(23).all(|row| row.starts_with(['┌', '│', '└'])),
        "{}",
        world.screen()
    );
    // The row that is chosen has one look, its grey part too.
    let (buffer, _) = world.frame();
    let row: Vec<_> = (2..78).map(|x| buffer[(x, 3)].style()).collect();
    assert!(row.iter().all(|style| *style == row[0]), "{row:?}");
    assert!(row[0].add_modifier.contains(Modifier::REVERSED) && !row[0].add_modifier.contains(Modifier::DIM));
    world.resize((100, 24));
    assert!(world.screen().lines().nth(3).unwrap().find('│').is_some_and(|at| at >= 8));
}

#[test]
fn where_the_question_went_and_what_is_raw() {
    let mut world = World::chat((80, 24), Lang::En, vec![turn("one", "**a**"), turn("two", "b")]);
    world.key(KeyCode::F(6));
    assert!(world.screen().contains("its question is in the input") && world.app.composer().text() == "two");
    // What is being written stays.
    world.key(KeyCode::F(6));
    assert!(world.screen().contains("Up brings its question back") && world.app.composer().text() == "two");
    let mut world = World::chat((80, 24), Lang::Zh, vec![turn("one", "**a**")]);
    assert!(!world.screen().contains("原文"));
    world.alt('r');
    assert!(world.screen().contains("[原文]") && world.screen().contains("**a**"), "{}", world.screen());
}

#[test]
fn a_conversation_is_called_by_its_first_line() {
    let file = "\nnotes.txt\n```\nmuch text\n```\nsum it up";
    let mut world = World::chat((80, 24), Lang::En, vec![turn(file, "a")]);
    assert_eq!(title(&world), "notes.txt");
    command(&mut world, "/export");
    let exported = world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Desk(DeskTask::Export(path, _)) => Some(path.clone()),
        _ => None,
    });
    assert_eq!(exported.unwrap().to_str(), Some("notes-txt.md"));
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    world.send(Msg::Paste(file.into()));
    world.key(KeyCode::Enter);
    assert_eq!(title(&world), "notes.txt");
}

#[test]
fn an_attached_file_stands_in_a_fence_of_its_own() {
    let mut world = World::chat((80, 24), Lang::En, Vec::new());
    world.write("look:");
    world.key(KeyCode::F(9));
    world.write("a.txt");
    let asked = world.key(KeyCode::Enter);
    assert!(
        matches!(&asked[..], [Effect::Desk(DeskTask::Attach(path))] if path.as_os_str() == "a.txt"),
        "{asked:?}"
    );
    world.report(Report::Attached("/d/a.txt".into(), "one\n\n".into(), None));
    world.report(Report::Attached("b.md".into(), "```\ntwo\n```".into(), Some("gb18030")));
    assert!(world.screen().contains("read as gb18030"), "{}", world.screen());
    world.write("?");
    assert_eq!(
        world.app.composer().text(),
        "look:\na.txt\n```\none\n```\nb.md\n~~~~\n```\ntwo\n```\n~~~~\n?"
    );
}

#[test]
fn what_is_opened_can_be_stopped_and_says_so() {
    for leave in [KeyCode::Esc, KeyCode::Char('q')] {
        let mut world = World::new((80, 24), Lang::En);
        world.report(Report::Models(models(), None));
        world.key(KeyCode::Enter);
        let Screen::Load(loading) = world.app.screen() else { panic!() };
        let cancel = loading.cancel().clone();
        assert!(world.screen().contains("Esc stops"), "{}", world.screen());
        let stopped = || cancel.load(std::sync::atomic::Ordering::Relaxed);
        assert!(!stopped());
        match leave {
            KeyCode::Esc => drop(world.key(leave)),
            _ => drop(world.ctrl('q')),
        }
        assert!(stopped());
        if leave == KeyCode::Esc {
            assert!(world.screen().contains("stopping…") && !world.screen().contains("Esc stops"));
        }
    }
}

#[test]
fn a_screen_without_rows_or_columns_shows_nothing() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    for size in [(80, 0), (0, 24), (0, 0), (1, 1), (19, 5)] {
        world.resize(size);
        assert_eq!(world.frame().1, None, "{size:?}");
    }
}

#[test]
fn what_was_thrown_away_comes_back_one_by_one_however_fast_the_keys_are() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.key(KeyCode::F(3));
    for name in ["a", "b"] {
        world.report(Report::Deleted(name.into()));
    }
    for name in [Some("b"), Some("a"), None] {
        let asked = world.ctrl('z');
        let [Effect::Desk(DeskTask::Undelete(found))] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(found.as_deref(), name);
    }
}
