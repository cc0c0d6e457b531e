//! Draws the screens of the README as SVG: `cargo run --example tui_screens -- docs`.

#[path = "../tests/tui_support/mod.rs"]
mod tui_support;

use crossterm::event::KeyCode;
use huozi::session::Event;
use huozi::tui::look::Lang;
use huozi::tui::text::width;
use huozi::tui::worker::Report;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Position;
use ratatui::style::{Color, Modifier};
use std::fmt::Write;
use std::path::PathBuf;
use tui_support::{World, conversation, stats};

/// Pixels of a cell.
const CELL: (usize, usize) = (9, 19);
const BACKGROUND: &str = "#1b1d23";
const FOREGROUND: &str = "#d6d9e0";

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "docs".into()));
    std::fs::create_dir_all(&folder)?;
    let save = |name: &str, mut world: World| {
        let (buffer, cursor) = world.frame();
        std::fs::write(folder.join(name), svg(&buffer, cursor))
    };

    let mut world = World::chat((80, 24), Lang::Zh, conversation());
    world.event(Event::Stats(stats()));
    world.report(Report::Memory(5_400_000_000));
    world.write("再写一首关于雪的诗。");
    world.key(KeyCode::Enter);
    world.event(Event::Prompt { done: 238, total: 238 });
    for (n, c) in "江雪\n\n千山鸟飞绝，万径人踪灭。\n孤舟蓑笠翁，".chars().enumerate() {
        world.event(Event::Token(n as u32));
        world.event(Event::Text(c.into()));
        world.now += std::time::Duration::from_millis(90 + 7 * (n as u64 % 5));
    }
    world.write("接下来");
    save("chat.svg", world)?;

    let mut world = World::chat((80, 24), Lang::En, conversation());
    world.event(Event::Stats(stats()));
    world.report(Report::Memory(5_400_000_000));
    world.key(KeyCode::F(2));
    world.key(KeyCode::Down);
    save("settings.svg", world)?;

    let mut world = World::chat((40, 16), Lang::Zh, conversation()[..1].to_vec());
    world.event(Event::Stats(stats()));
    world.write("这首诗是谁写的？");
    save("narrow.svg", world)
}

fn svg(buffer: &Buffer, cursor: Option<Position>) -> String {
    let area = buffer.area();
    let (w, h) = (usize::from(area.width) * CELL.0, usize::from(area.height) * CELL.1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\">\n\
         <rect width=\"{w}\" height=\"{h}\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n\
         <g font-family=\"'DejaVu Sans Mono','Noto Sans Mono CJK SC','Noto Sans CJK SC',\
         'WenQuanYi Zen Hei Mono',monospace\" \
         font-size=\"15\">\n"
    );
    for y in 0..area.height {
        let mut x = 0;
        while x < area.width {
            let style = look(&buffer[(x, y)]);
            let start = x;
            // Cells of one look are drawn together, their words and wide characters each in its place: how
            // wide a font makes a space is its own affair.
            let mut pieces: Vec<(u16, String)> = Vec::new();
            let mut word = false;
            while x < area.width && look(&buffer[(x, y)]) == style {
                let symbol = buffer[(x, y)].symbol();
                let wide = width(symbol) > 1;
                match pieces.last_mut().filter(|_| word && !wide) {
                    Some((_, text)) if symbol != " " => text.push_str(symbol),
                    _ if symbol != " " => pieces.push((x, symbol.to_owned())),
                    _ => {}
                }
                word = symbol != " " && !wide;
                x += width(symbol).max(1) as u16;
            }
            run(&mut svg, (start, x, y), &style, &pieces);
        }
    }
    if let Some(at) = cursor {
        let (x, y) = (usize::from(at.x) * CELL.0, usize::from(at.y) * CELL.1);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"2\" height=\"{}\" fill=\"{FOREGROUND}\"/>",
            CELL.1
        );
    }
    svg + "</g>\n</svg>\n"
}

/// Colours and weight of a cell.
#[derive(PartialEq)]
struct Look {
    ink: &'static str,
    paper: &'static str,
    modifier: Modifier,
}

fn look(cell: &Cell) -> Look {
    let style = cell.style();
    let modifier = style.add_modifier;
    let ink = match style.fg.unwrap_or(Color::Reset) {
        _ if modifier.contains(Modifier::DIM) => "#7f848e",
        Color::Cyan => "#56b6c2",
        Color::Green => "#98c379",
        Color::LightBlue => "#61afef",
        Color::LightYellow => "#e5c07b",
        Color::Yellow => "#d19a66",
        Color::LightRed => "#e06c75",
        _ => FOREGROUND,
    };
    let (ink, paper) =
        if modifier.contains(Modifier::REVERSED) { (BACKGROUND, ink) } else { (ink, BACKGROUND) };
    Look { ink, paper, modifier }
}

fn run(svg: &mut String, (start, end, y): (u16, u16, u16), look: &Look, pieces: &[(u16, String)]) {
    let (x, y) = (usize::from(start) * CELL.0, usize::from(y) * CELL.1);
    if look.paper != BACKGROUND {
        let w = usize::from(end - start) * CELL.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{}\" fill=\"{}\"/>",
            CELL.1, look.paper
        );
    }
    let weight = if look.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let slant = if look.modifier.contains(Modifier::ITALIC) { " font-style=\"italic\"" } else { "" };
    let line =
        if look.modifier.contains(Modifier::UNDERLINED) { " text-decoration=\"underline\"" } else { "" };
    for (column, text) in pieces {
        let (x, y) = (usize::from(*column) * CELL.0, y + CELL.1 - 5);
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let ink = look.ink;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{ink}\"{weight}{slant}{line}>{text}</text>");
    }
}
