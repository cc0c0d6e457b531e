//! The terminal chat, without terminal and model: keys that go where they are meant to, and answers that come
//! back.

use crate::tui_support::{World, answered, asked, command, conversation, entries, turn};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use huozi::session::{KvType, Turn};
use huozi::settings::{GivenValue, InvalidSetting, SettingName};
use huozi::tui::app::Start;
use huozi::tui::event::{Effect, Msg};
use huozi::tui::interface::Surroundings;
use huozi::tui::look::Lang;
use huozi::tui::worker::{AskKind, DeskTask, ModelTask, Report, Talk};

const LANGS: [Lang; 2] = [Lang::En, Lang::Zh];

/// The draft that was last to be kept.
fn draft(world: &World) -> Option<&str> {
    world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Desk(DeskTask::Draft(text)) => Some(text.as_str()),
        _ => None,
    })
}

#[test]
fn no_character_typed_in_a_pane_reaches_the_chat() {
    for (open, rows) in [(KeyCode::F(1), 1), (KeyCode::F(2), 15), (KeyCode::F(3), 1), (KeyCode::F(9), 1)] {
        for row in 0..rows {
            for typed in ["q", "q8", "quit", "hello", "jk", "8", "y", "n", "?", "月", "+", "="] {
                let mut world = World::chat((80, 24), Lang::Zh, conversation());
                world.key(open);
                (0..row).for_each(|_| drop(world.key(KeyCode::Down)));
                world.write(typed);
                assert!(world.app.panels().open().is_some(), "{open:?} {row}: {typed:?} closes it");
                world.effects.clear();
                world.key(KeyCode::Enter);
                assert_eq!(asked(&world.effects), None, "{open:?} {row}: {typed:?} is sent");
                assert!(world.app.composer().is_empty(), "{open:?} {row}: {typed:?}");
            }
        }
    }
    // Nor does one leave the choice of a model, or open one.
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.key(KeyCode::F(4));
    world.effects.clear();
    world.write("qdemo");
    assert!(world.app.composer().is_empty() && world.effects.is_empty());
    world.key(KeyCode::Esc);
    assert!(world.screen().contains("写一首关于月的诗"));
    // A path can be typed at once.
    world.key(KeyCode::F(4));
    world.write("~/m.gguf");
    assert!(world.screen().contains("~/m.gguf"), "{}", world.screen());
}

#[test]
fn a_value_is_typed_in_any_row_of_the_settings() {
    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    let at = |world: &mut World, name: &str| {
        world.key(KeyCode::Esc);
        world.key(KeyCode::F(2));
        let rows = huozi::settings::Setting::ALL;
        let row = rows.iter().position(|setting| setting.name() == name).unwrap();
        (0..row).for_each(|_| drop(world.key(KeyCode::Down)));
    };
    let chosen = |world: &World| world.app.models().chosen().unwrap().clone();
    at(&mut world, "kv_type");
    world.write("q8");
    world.key(KeyCode::Enter);
    assert_eq!(chosen(&world).options.kv, Some(KvType::Q8));
    at(&mut world, "do_sample");
    world.write("关");
    world.key(KeyCode::Enter);
    assert!(!chosen(&world).settings.sampling.do_sample);
    // A wrong one is refused, and named as the row is.
    at(&mut world, "temperature");
    world.write("99999");
    world.key(KeyCode::Enter);
    assert!(world.screen().contains("温度 temperature：需要 0 到 5 的数"), "{}", world.screen());
    assert_eq!(chosen(&world).settings.sampling.temperature, 0.5);
    // A system prompt is added to.
    at(&mut world, "system");
    for (typed, system) in [("你是诗人", "你是诗人"), ("。", "你是诗人。")] {
        world.write(typed);
        world.key(KeyCode::Enter);
        assert_eq!(chosen(&world).settings.system.as_deref(), Some(system));
    }
    at(&mut world, "top_k");
    world.send(Msg::Paste("7".into()));
    world.key(KeyCode::Enter);
    assert_eq!(chosen(&world).settings.sampling.top_k, 7);
}

#[test]
fn what_is_typed_over_the_question_whether_to_erase_is_not_swallowed() {
    let erases = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::Work(ModelTask::Private(true))))
    };
    for typed in ["你好", "yes", "no", " a"] {
        let mut world = World::chat((80, 24), Lang::Zh, conversation());
        world.alt('p');
        assert!(world.screen().contains("不保存此对话？"));
        world.effects.clear();
        world.write(typed);
        assert_eq!(world.app.composer().text(), typed);
        assert!(world.app.panels().open().is_none() && !erases(&world.effects), "{typed:?}");
    }
    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    world.alt('p');
    world.send(Msg::Paste("粘贴".into()));
    assert_eq!(world.app.composer().text(), "粘贴");
    assert!(world.screen().contains("继续保存"), "{}", world.screen());
    // A key of the chat does what it does there.
    world.alt('p');
    world.key(KeyCode::F(2));
    assert!(world.screen().contains("温度"), "{}", world.screen());
    world.key(KeyCode::Esc);
    world.alt('p');
    assert!(!erases(&world.key(KeyCode::Esc)) && world.app.panels().open().is_none());
    world.alt('p');
    assert!(erases(&world.key(KeyCode::Enter)));
}

#[test]
fn a_recalled_question_that_was_not_changed_is_no_draft() {
    let quit = |world: &mut World| {
        world.app.update(Msg::Terminate, world.now).iter().find_map(|effect| match effect {
            Effect::Desk(DeskTask::Draft(text)) => Some(text.clone()),
            _ => None,
        })
    };
    let last = "比较李白和杜甫，并给出一个 Rust 的例子。";
    type Step = fn(&mut World);
    let steps: [(&str, Step); 6] = [
        ("nothing", |_| {}),
        ("a new conversation", |world| {
            world.ctrl('n');
            world.talk(Vec::new());
        }),
        ("another conversation", |world| {
            world.key(KeyCode::F(3));
            world.listed(entries());
            world.key(KeyCode::Down);
            world.key(KeyCode::Enter);
            world.talk(vec![turn("other", "b")]);
        }),
        ("another answer", |world| {
            world.key(KeyCode::F(5));
            answered(world, conversation(), None);
        }),
        ("a setting", |world| drop(world.key(KeyCode::F(2)))),
        ("time", |world| (0..3).for_each(|_| world.pass(1100))),
    ];
    for (what, step) in steps {
        let mut world = World::chat((80, 24), Lang::Zh, conversation());
        world.key(KeyCode::Up);
        assert_eq!(world.app.composer().text(), last);
        step(&mut world);
        let kept = quit(&mut world).or_else(|| draft(&world).map(str::to_owned));
        assert_eq!(kept.unwrap_or_default(), "", "{what}");
    }
    // It does not stand before what is typed next, elsewhere; what was written before it does.
    for written in ["", "草稿"] {
        let mut world = World::chat((80, 24), Lang::Zh, conversation());
        world.write(written);
        world.key(KeyCode::Up);
        world.ctrl('n');
        world.talk(Vec::new());
        assert_eq!(world.app.composer().text(), written);
        world.key(KeyCode::Up);
        world.key(KeyCode::F(5));
        world.report(Report::Draft("昨天".into(), 0));
        assert_eq!(world.app.composer().text(), if written.is_empty() { "昨天" } else { "昨天\n草稿" });
    }
    // One that was taken back is no draft either: it comes back with its answer.
    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    world.key(KeyCode::F(6));
    assert_eq!(world.app.composer().text(), last);
    assert_eq!(quit(&mut world), None);
    // One that was changed is.
    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    world.key(KeyCode::Up);
    world.write("！");
    world.ctrl('n');
    world.talk(Vec::new());
    assert_eq!(quit(&mut world), Some(format!("{last}！")));
    // An earlier draft that comes while the last question is edited waits for the end of the edit.
    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    world.key(KeyCode::F(7));
    world.report(Report::Draft("昨天".into(), 0));
    assert_eq!(world.app.composer().text(), last);
    world.key(KeyCode::Esc);
    assert_eq!(world.app.composer().text(), "昨天");
}

/// The worker's answer to what was asked last.
fn told(world: &mut World, turns: Vec<Turn>, replaced: bool) {
    let talk = Talk { name: Some("chat-1".into()), turns, replaced, ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
}

#[test]
fn an_answer_that_was_replaced_comes_back() {
    let back = |effects: &[Effect]| matches!(effects, [Effect::Work(ModelTask::BringBack), ..]);
    for (lang, hint, said) in [
        (Lang::En, "Alt+Z brings back the answer before", "brought back"),
        (Lang::Zh, "Alt+Z 恢复之前的回答", "已恢复"),
    ] {
        let mut world = World::chat((80, 24), lang, vec![turn("q", "first")]);
        assert!(world.alt('z').is_empty(), "nothing was replaced");
        assert_eq!(asked(&world.ctrl('r')), Some((AskKind::Retry, "q".into())));
        assert!(!back(&world.alt('z')), "not while it is answered");
        world.report(Report::Answered(None));
        told(&mut world, vec![turn("q", "second")], true);
        // The other order is the worker's.
        let mut world = World::chat((80, 24), lang, vec![turn("q", "first")]);
        world.ctrl('r');
        told(&mut world, vec![turn("q", "second")], true);
        world.report(Report::Answered(None));
        assert!(world.screen().contains(hint), "{}", world.screen());
        assert!(back(&world.alt('z')));
        told(&mut world, vec![turn("q", "first")], true);
        world.report(Report::BroughtBack);
        world.report(Report::Warmed { filled: 40, dropped: 0 });
        let screen = world.screen();
        assert!(screen.contains("first") && !screen.contains("second") && screen.contains(said), "{screen}");
        assert_eq!(world.app.talk().context_used(), 40);
        // By key and by command.
        assert!(back(&world.key(KeyCode::F(10))));
        world.report(Report::Warmed { filled: 40, dropped: 0 });
        assert!(back(&command(&mut world, "/back")));
        // It stands in the help.
        world.key(KeyCode::F(1));
        assert!(world.screen().contains("F10 Alt+Z"), "{}", world.screen());
    }
    // After an exchange was taken back its question leaves the input with the exchange.
    let mut world = World::chat((80, 24), Lang::Zh, vec![turn("问", "答")]);
    let undone = world.key(KeyCode::F(6));
    assert!(matches!(undone[..], [Effect::Work(ModelTask::Undo)]) && world.app.composer().text() == "问");
    assert!(world.screen().contains("Alt+Z 恢复"), "{}", world.screen());
    assert!(back(&world.alt('z')), "before the thread has told anything");
    told(&mut world, Vec::new(), true);
    told(&mut world, vec![turn("问", "答")], false);
    world.report(Report::BroughtBack);
    assert!(world.app.composer().is_empty() && world.screen().contains("已恢复"));
    // One that is being edited, too; what was changed in it stays.
    world.key(KeyCode::F(6));
    world.write("？");
    told(&mut world, Vec::new(), true);
    assert!(back(&world.alt('z')));
    assert_eq!(world.app.composer().text(), "问？");
}

#[test]
fn a_notice_of_many_settings_is_short() {
    let all: Vec<InvalidSetting> = ["temperature", "top_k", "top_p", "seed", "threads", "kv_type"]
        .iter()
        .map(|name| SettingName::find(name).unwrap().read(GivenValue::Other).unwrap_err())
        .collect();
    for (lang, first, more) in
        [(Lang::En, "temperature (not a single", "4 more"), (Lang::Zh, "温度 temperature", "另有 4 项")]
    {
        let mut world = World::chat((40, 12), lang, conversation());
        world.report(Report::InvalidSettings(all.clone()));
        let said = world.app.messages().current().unwrap().text().to_owned();
        assert!(said.contains(first) && said.ends_with(more) && !said.contains("seed"), "{said}");
    }
}

#[test]
fn hints_are_whole_where_there_is_little_room() {
    for (lang, keys) in LANGS.into_iter().flat_map(|lang| [1, 2, 3, 9].map(|key| (lang, KeyCode::F(key)))) {
        for columns in [24, 30, 40, 48, 60, 80] {
            let mut world = World::chat((columns, 12), lang, conversation());
            world.key(keys);
            let screen = world.screen();
            let frame = screen.lines().rev().find(|row| row.contains('└')).unwrap();
            assert!(!frame.contains('…') && frame.contains("Esc"), "{columns}: {frame}");
        }
    }
    // Nothing of what a key does is cut.
    for lang in LANGS {
        let mut world = World::chat((40, 200), lang, Vec::new());
        world.key(KeyCode::F(1));
        assert!(!world.screen().contains('…'), "{}", world.screen());
    }
}

#[test]
fn chinese_leads_in_the_chinese_interface() {
    let mut world = World::chat((80, 24), Lang::Zh, Vec::new());
    let screen = world.screen();
    assert!(screen.contains("avx2，4 线程") && !screen.contains("threads"), "{screen}");
    command(&mut world, "/set top_k 7");
    assert!(world.screen().contains("候选数 top_k = 7"), "{}", world.screen());
    command(&mut world, "/set top_p 7");
    assert!(world.screen().contains("累计概率 top_p：需要 0 到 1 的数"), "{}", world.screen());
}

#[test]
fn unknown_keys_of_the_configuration_are_named() {
    for (lang, said) in
        [(Lang::En, "unknown keys are ignored: colour, x"), (Lang::Zh, "未知的设置已忽略：colour、x")]
    {
        let keys = vec!["colour".to_owned(), "x".to_owned()];
        let around = Surroundings { lang, ..Surroundings::default() };
        let unknown_keys = Some(("/c/config.toml".into(), keys));
        let mut world = World::started(Start { around, unknown_keys, ..Start::default() }, (80, 24));
        assert!(world.screen().contains(said), "{}", world.screen());
    }
}

#[test]
fn a_key_with_shift_is_the_one_without() {
    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.key(KeyCode::F(2));
    // From a terminal that tells Shift with a capital letter.
    world.send(Msg::Key(KeyEvent::new(KeyCode::Char('Q'), KeyModifiers::SHIFT)));
    assert!(world.app.panels().open().is_some());
}
