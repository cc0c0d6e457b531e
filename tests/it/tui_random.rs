//! The terminal chat, without terminal and model: ten thousand events that no person would send.

use crate::tui_support::{World, conversation, entries, models, text, turn};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use huozi::session::{Event, Turn};
use huozi::tui::event::{Effect, Msg};
use huozi::tui::look::Lang;
use huozi::tui::worker::{AskKind, DeskTask, ModelTask, Report, Talk};
use unicode_width::UnicodeWidthStr;

#[test]
fn ten_thousand_random_events_lose_nothing() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    // What the worker would know: the turns, and every question that was ever sent.
    let mut turns = conversation();
    let mut pending: Option<(AskKind, String, String)> = None;
    let (mut sent, mut failed) = (0, 0);
    for step in 0..10_000 {
        let codes = [
            KeyCode::Enter,
            KeyCode::Esc,
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::Left,
            KeyCode::Right,
            KeyCode::Home,
            KeyCode::End,
            KeyCode::PageUp,
            KeyCode::PageDown,
            KeyCode::Backspace,
            KeyCode::Delete,
            KeyCode::Tab,
            KeyCode::BackTab,
            KeyCode::Insert,
            KeyCode::Null,
        ];
        let letters: Vec<char> = "ab汉字，👧\u{301}\u{200d}\t /!\u{7f}egrnuksotxplmyz_".chars().collect();
        let code = match random(6) {
            2 => [KeyCode::Enter, KeyCode::Esc][random(2) as usize],
            0 => codes[random(codes.len() as u64) as usize],
            1 => KeyCode::F(1 + random(12) as u8),
            _ => KeyCode::Char(letters[random(letters.len() as u64) as usize]),
        };
        let modifiers = [
            KeyModifiers::NONE,
            KeyModifiers::NONE,
            KeyModifiers::CONTROL,
            KeyModifiers::ALT,
            KeyModifiers::SHIFT,
        ][random(5) as usize];
        let kinds = [
            MouseEventKind::ScrollUp,
            MouseEventKind::ScrollDown,
            MouseEventKind::Down(MouseButton::Left),
            MouseEventKind::Moved,
        ];
        let msg = match random(12) {
            0 => Msg::Resize(1 + random(210) as u16, 1 + random(70) as u16),
            1 => Msg::Paste(
                letters
                    .iter()
                    .cycle()
                    .skip(random(20) as usize)
                    .take(random(300) as usize)
                    .collect::<String>()
                    .replace('a', "\n"),
            ),
            2 => Msg::Mouse(MouseEvent {
                kind: kinds[random(4) as usize],
                column: random(220) as u16,
                row: random(80) as u16,
                modifiers,
            }),
            _ => Msg::Key(KeyEvent::new(code, modifiers)),
        };
        world.now += std::time::Duration::from_millis(random(300));
        let effects = world.send(msg);
        for effect in effects {
            match effect {
                Effect::Work(ModelTask::Ask { ask, question, .. }) => {
                    assert!(pending.is_none(), "two answers at a time");
                    sent += 1;
                    pending = Some((ask, question, String::new()));
                }
                Effect::Work(ModelTask::Undo) => {
                    assert!(pending.is_none());
                    turns.pop();
                    tell(&mut world, &turns);
                }
                Effect::Work(ModelTask::New | ModelTask::Delete | ModelTask::Open(_)) => {
                    end(&mut world, &mut turns, &mut pending);
                    turns.clear();
                    tell(&mut world, &turns);
                }
                Effect::Work(ModelTask::Warm(_)) => world.report(Report::Warmed { filled: 3, dropped: 0 }),
                Effect::Work(ModelTask::Load { .. }) => {
                    if random(3) == 0 {
                        world.report(Report::LoadFailed("no".into()));
                    } else {
                        world.ready();
                        tell(&mut world, &turns);
                    }
                }
                Effect::Desk(DeskTask::List(_)) => world.listed(entries()),
                Effect::Desk(DeskTask::Models) => world.report(Report::Models(models(), Some(1 << 33))),
                Effect::Desk(DeskTask::Delete(name)) => world.report(Report::Deleted(name)),
                Effect::Edit(text) => drop(world.send(Msg::Edited(Ok(text)))),
                _ => {}
            }
        }
        match random(40) {
            0 => world.report(Report::NotSaved("no".into())),
            1 => world.report(Report::Saved),
            2 => world.report(Report::Moved),
            3 => world.report(Report::Draft("草稿".into(), 0)),
            4 => world.report(Report::PathFailed("no".into())),
            5 => world.report(Report::DeskFailed("no".into())),
            _ => {}
        }
        if pending.is_some() {
            match random(20) {
                0..3 => end(&mut world, &mut turns, &mut pending),
                3 => {
                    let (_, question, _) = pending.take().unwrap();
                    tell(&mut world, &turns);
                    world.report(Report::Answered(Some("it failed".into())));
                    assert!(world.app.composer().history().contains(&question), "{step}: {question} is lost");
                    failed += 1;
                }
                4..7 => world.event(Event::Prompt { done: random(100) as usize, total: 100 }),
                _ => {
                    let piece = ["春", "眠\n", "**不", "```\n", "觉** ", "|a|b|\n"][random(6) as usize];
                    world.event(Event::Token(7));
                    world.event(Event::Text(piece.into()));
                    if let Some((_, _, said)) = &mut pending {
                        said.push_str(piece);
                    }
                }
            }
        }
        let (buffer, cursor) = world.frame();
        let (width, height) = world.app.size();
        if let Some(at) = cursor {
            assert!(at.x < width && at.y + 1 < height, "{step}: {at:?} in {width}x{height}");
        }
        if step % 50 == 0 && text(&buffer).contains('\u{1b}') {
            panic!("{step}: an escape on the screen");
        }
        // No half of a wide character anywhere: its second cell is empty.
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).filter(|_| step % 10 == 0) {
            let symbol = buffer[(x, y)].symbol();
            if !symbol.is_ascii() && symbol.width() > 1 {
                let next = (x + 1 < width).then(|| buffer[(x + 1, y)].symbol());
                assert!(matches!(next, Some(" " | "")), "{step}: {symbol} at {x},{y}, then {next:?}");
            }
        }
        if pending.is_none() {
            assert_eq!(world.app.talk().turns(), turns, "{step}");
        }
    }
    assert!(sent > 40 && failed > 5, "only {sent} questions were sent, {failed} failed");
}

fn tell(world: &mut World, turns: &[Turn]) {
    let name = (!turns.is_empty()).then(|| format!("chat-{}", turns.len()));
    let talk = Talk { name, turns: turns.to_vec(), opened: turns.is_empty(), ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
}

fn end(world: &mut World, turns: &mut Vec<Turn>, pending: &mut Option<(AskKind, String, String)>) {
    let Some((ask, question, said)) = pending.take() else { return };
    if ask != AskKind::New || turns.last().is_some_and(Turn::is_empty) {
        turns.pop();
    }
    turns.push(turn(&question, &said));
    tell(world, turns);
    world.report(Report::Answered(None));
}
