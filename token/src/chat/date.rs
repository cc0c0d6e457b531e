//! The date and time of a conversation as Python's `strftime` writes them.
//!
//! Templates ask for the date with `strftime_now(format)`. The caller fixes it: a prompt that is built again
//! later must be the same.

use jiff::civil::DateTime;
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};

/// Directives that `jiff` writes as the C library does, which Python calls.
const AS_IN_C: &str = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyY";

/// The text of `date`, which has no time zone, by a format of Python's `strftime` on Linux in the C locale.
///
/// # Errors
/// `%s`, which depends on the time zone.
pub(super) fn strftime(format: &str, date: DateTime) -> Result<String, String> {
    let (config, time) = (Config::new().custom(PosixCustom::new()), BrokenDownTime::from(date));
    let mut out = String::with_capacity(format.len() + 16);
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let flags = rest[1..].find(|c: char| !"_-0^#123456789:".contains(c)).map_or(rest.len(), |n| n + 1);
        let modifier = usize::from(rest[flags..].starts_with(['E', 'O']));
        let Some(directive) = rest[flags + modifier..].chars().next() else { break };
        let end = flags + modifier + directive.len_utf8();
        match directive {
            '%' => out.push('%'),
            'f' => out.push_str(&format!("{:06}", date.subsec_nanosecond() / 1000)),
            // A time without a zone has neither name nor offset.
            'z' | 'Z' => {}
            's' => return Err("strftime_now cannot write %s: the date has no time zone".into()),
            c if AS_IN_C.contains(c) => {
                let plain = format!("{}{c}", &rest[..flags]);
                time.format_with_config(&config, plain, &mut out).map_err(|e| e.to_string())?;
            }
            // As the C library does with a directive that it does not know.
            _ => out.push_str(&rest[..end]),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts: Python 3.11 on Linux, `datetime(2024, 3, 5, 14, 7, 9).strftime(...)`.
    #[test]
    fn as_python_writes_it() {
        let date = DateTime::constant(2024, 3, 5, 14, 7, 9, 0);
        for (format, want) in [
            ("%Y-%m-%d %H:%M:%S", "2024-03-05 14:07:09"),
            ("%d %b %Y", "05 Mar 2024"),
            ("%B %-d, %Y, %A %a %I:%M %p", "March 5, 2024, Tuesday Tue 02:07 PM"),
            ("%Y年%m月%d日", "2024年03月05日"),
            ("%j %U %W %w %u %y %C %G %V", "065 09 10 2 2 24 20 2024 10"),
            (
                "%c|%x|%X|%D|%F|%T|%R|%e|%k|%l|%h",
                concat!(
                    "Tue Mar  5 14:07:09 2024|03/05/24|14:07:09|03/05/24|2024-03-05|14:07:09|14:07",
                    "| 5|14| 2|Mar"
                ),
            ),
            ("%f%z%Z%%|%Ey %Od", "000000%|24 05"),
            ("%Q 100% %", "%Q 100% %"),
            ("", ""),
        ] {
            assert_eq!(strftime(format, date).unwrap(), want, "{format}");
        }
        assert!(strftime("%s", date).is_err());
    }
}
