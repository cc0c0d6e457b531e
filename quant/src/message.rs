//! Numbers and texts as they stand in messages: sizes, counts, text from outside.

use std::fmt::Display;

/// Characters of a text from outside that go into a message.
const SHOWN_CHARS: usize = 80;

/// Text from outside as it may stand in a message: at most 80 characters, no control characters (they could
/// drive the reader's terminal).
pub fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// A number of bytes in the unit that suits it: `768 B`, `3.00 KiB`, `14.2 MiB`, `4.35 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    // By the number as it is printed: nothing has 1024.0 KiB.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 9.995 { format!("{value:.2} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1 tensor`, `2 tensors`: a number and the name of what is counted.
pub fn counted<N: Display + PartialEq + From<u8>>(n: N, what: &str) -> String {
    let s = if n == N::from(1) { "" } else { "s" };
    format!("{n} {what}{s}")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units_that_suit_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (768, "768 B"),
            (3 << 10, "3.00 KiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (14_890_000, "14.2 MiB"),
            ((1 << 30) - 1, "1.00 GiB"),
            (4_670_685_184, "4.35 GiB"),
            (1 << 60, "1048576.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
