//! Wall time of a frame of the terminal chat: `cargo bench --bench tui_frame`.
//!
//! The conversation has 200,000 characters, and an answer of 20,000 more is on its way. Printed for each
//! size: a frame after a key, a frame after a token, a frame after the size changed (every row is made again,
//! unless the text is capped at a width that both sizes pass).

#[path = "../tests/tui_support/mod.rs"]
mod tui_support;

use crossterm::event::KeyCode;
use huozi::session::Event;
use huozi::tui::event::Msg;
use huozi::tui::look::Lang;
use std::time::Instant;
use tui_support::{World, conversation, turn};

const FRAMES: usize = 300;

fn main() {
    let answer = conversation()[1].answer.clone();
    let long = answer.repeat(2000 / answer.chars().count() + 1);
    let turns: Vec<_> = (0..100).map(|n| turn(&format!("第 {n} 个问题"), &long)).collect();
    let chars: usize = turns.iter().map(|t| t.question.chars().count() + t.answer.chars().count()).sum();
    assert!(chars >= 200_000, "{chars}");
    eprintln!("{chars} characters; milliseconds a frame: median, p99, most");
    for size in [(40, 12), (80, 24), (200, 60)] {
        let mut world = World::chat(size, Lang::Zh, turns.clone());
        let key = milliseconds(
            &mut world,
            |world, n| drop(world.key(if n % 2 == 0 { KeyCode::PageUp } else { KeyCode::Char('字') })),
            FRAMES,
        );
        world.key(KeyCode::Enter);
        world.event(Event::Prompt { done: 1, total: 1 });
        for _ in 0..20_000 / 1000 {
            world.event(Event::Text("一段话。\n\n".repeat(100)));
            world.event(Event::Text("一句很长的话，".repeat(85)));
        }
        let token = milliseconds(
            &mut world,
            |world, n| {
                world.event(Event::Token(n as u32));
                world.event(Event::Text("字".into()));
            },
            FRAMES,
        );
        let resize = milliseconds(
            &mut world,
            |world, n| drop(world.send(Msg::Resize(size.0 - n as u16 % 2, size.1))),
            10,
        );
        let show = |[median, p99, most]: [f64; 3]| format!("{median:.2} {p99:.2} {most:.2}");
        eprintln!(
            "{:>3}x{:<2}  key {}  token {}  resize {}",
            size.0,
            size.1,
            show(key),
            show(token),
            show(resize)
        );
        assert!(key[1] < 16.0 && token[1] < 16.0, "a frame takes too long");
    }
}

/// Median, 99th percentile and the most of `n` frames, each after `change`.
fn milliseconds(world: &mut World, change: impl Fn(&mut World, usize), n: usize) -> [f64; 3] {
    let mut times: Vec<f64> = (0..n)
        .map(|n| {
            let began = Instant::now();
            change(world, n);
            world.frame();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    [times[n / 2], times[n * 99 / 100], times[n - 1]]
}
