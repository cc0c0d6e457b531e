//! How things look: languages of the interface, colours, glyphs.

pub use crate::lang::Lang;

use ratatui::style::{Color, Modifier, Style};

/// Which colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// For a dark background.
    #[default]
    Dark,
    /// For a light background.
    Light,
    /// None: bold, dim, underlined and reversed only.
    Plain,
}

impl Theme {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dark, Self::Light, Self::Plain];

    /// From the environment: `NO_COLOR`, `TERM`, and `COLORFGBG` where the terminal sets it.
    pub fn from_env(no_color: bool, term: &str, colorfgbg: Option<&str>) -> Self {
        if no_color || matches!(term, "dumb" | "vt100" | "vt220") || term.ends_with("-m") {
            return Self::Plain;
        }
        let background = colorfgbg.and_then(|value| value.rsplit(';').next()?.parse::<u8>().ok());
        if matches!(background, Some(7 | 15)) { Self::Light } else { Self::Dark }
    }
}

/// Styles and glyphs. The sixteen colours of the terminal and its own background, so that every terminal can
/// show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Colours.
    pub theme: Theme,
    /// Only ASCII for lines, bars and marks: for the Linux console, for other encodings than UTF-8, and for
    /// terminals that show characters of ambiguous width in two cells.
    pub ascii: bool,
}

impl Look {
    fn colour(self, dark: Color, light: Color) -> Style {
        match self.theme {
            Theme::Dark => Style::new().fg(dark),
            Theme::Light => Style::new().fg(light),
            Theme::Plain => Style::new(),
        }
    }

    /// The person's name and marks.
    pub fn user(self) -> Style {
        self.colour(Color::Cyan, Color::Blue).add_modifier(Modifier::BOLD)
    }

    /// The model's name.
    pub fn model(self) -> Style {
        self.colour(Color::Green, Color::Magenta).add_modifier(Modifier::BOLD)
    }

    /// Headings.
    pub fn heading(self) -> Style {
        self.colour(Color::LightBlue, Color::Blue).add_modifier(Modifier::BOLD)
    }

    /// Code.
    pub fn code(self) -> Style {
        self.colour(Color::LightYellow, Color::Red)
    }

    /// What matters less. Not the bright black of the sixteen colours: that is the background itself in some
    /// palettes.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// A note.
    pub fn note(self) -> Style {
        self.colour(Color::Yellow, Color::Magenta)
    }

    /// Something went wrong.
    pub fn error(self) -> Style {
        self.colour(Color::LightRed, Color::Red).add_modifier(Modifier::BOLD)
    }

    /// A bar across the screen.
    pub fn bar(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The line that is chosen, whatever its parts are like: reversed, grey would be hard to read.
    pub fn chosen(self) -> Style {
        Style::reset().add_modifier(Modifier::REVERSED)
    }

    /// A horizontal line.
    pub fn rule(self) -> &'static str {
        if self.ascii { "-" } else { "─" }
    }

    /// A vertical line.
    pub fn side(self) -> &'static str {
        if self.ascii { "|" } else { "│" }
    }

    /// The mark of an item of a list.
    pub fn bullet(self) -> &'static str {
        if self.ascii { "*" } else { "•" }
    }

    /// `done` of `width` cells full.
    pub fn gauge(self, done: f64, width: usize) -> String {
        let full = (done.clamp(0.0, 1.0) * width as f64).round() as usize;
        let (on, off) = if self.ascii { ("#", ".") } else { ("█", "░") };
        on.repeat(full) + &off.repeat(width - full)
    }

    /// Bars as high as the values are.
    pub fn spark(self, values: impl Iterator<Item = f64> + Clone) -> String {
        const BLOCKS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
        const ASCII: [&str; 8] = ["_", "_", ".", "-", "-", "=", "=", "#"];
        let most = values.clone().fold(f64::MIN_POSITIVE, f64::max);
        let level = |value: f64| ((value / most * 8.0).ceil() as usize).clamp(1, 8) - 1;
        values.map(|value| if self.ascii { ASCII[level(value)] } else { BLOCKS[level(value)] }).collect()
    }
}

/// Bytes for a person: `4.4 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A duration for a person: `42 s`, `3 min`, `2 h`.
pub fn seconds(n: f64) -> String {
    match n {
        n if n < 99.5 => format!("{n:.0} s"),
        n if n < 5970.0 => format!("{:.0} min", n / 60.0),
        n => format!("{:.0} h", n / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_followed() {
        assert_eq!(Lang::from_locale([None, Some(""), Some("zh_CN.UTF-8")]), Lang::Zh);
        assert_eq!(Lang::from_locale([Some("C"), None, Some("zh_CN.UTF-8")]), Lang::En);
        assert_eq!(Theme::from_env(true, "xterm", None), Theme::Plain);
        assert_eq!(Theme::from_env(false, "dumb", None), Theme::Plain);
        assert_eq!(Theme::from_env(false, "xterm", Some("0;15")), Theme::Light);
        assert_eq!(Theme::from_env(false, "linux", Some("15;0")), Theme::Dark);
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(
            [0, 512 << 10, 4_700_000_000, 999 << 20].map(bytes),
            ["0.0 KiB", "512 KiB", "4.4 GiB", "999 MiB"]
        );
        assert_eq!([1.2, 99.0, 300.0, 7200.0].map(seconds), ["1 s", "99 s", "5 min", "2 h"]);
        let look = Look { theme: Theme::Dark, ascii: true };
        assert_eq!(look.gauge(0.5, 8), "####....");
        assert_eq!(look.gauge(f64::NAN, 2), "..");
        assert_eq!(look.spark([0.0, 4.0, 8.0].into_iter()), "_-#");
        assert_eq!(Look { ascii: false, ..look }.spark([1.0, 8.0].into_iter()), "▁█");
    }
}
