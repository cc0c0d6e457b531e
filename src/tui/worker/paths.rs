//! Completion of a path that is typed.

use std::path::PathBuf;

/// Names looked at in a folder.
const MOST: usize = 100_000;

/// A path that was typed, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// What was typed.
    pub typed: String,
    /// The same or more of it.
    pub text: String,
    /// How it can go on, by name, where that is not the only way; folders end in a slash.
    pub names: Vec<String>,
}

/// The path that `typed` stands for: `~` is the home folder, and a file that was dropped onto the terminal
/// may stand in quotes.
pub fn path_of(typed: &str) -> PathBuf {
    let text = typed.strip_prefix(['\'', '"']).and_then(|t| t.strip_suffix(['\'', '"'])).unwrap_or(typed);
    let home = std::env::var_os("HOME").filter(|_| text.starts_with("~/"));
    match home {
        Some(home) => PathBuf::from(home).join(&text[2..]),
        None => PathBuf::from(text),
    }
}

/// Completes `typed` by the names there are: as far as all that fit are the same.
pub(super) fn complete(typed: String) -> Completed {
    let (folder, begun) = typed.split_at(typed.rfind('/').map_or(0, |at| at + 1));
    let there = path_of(if folder.is_empty() { "./" } else { folder });
    let entries = std::fs::read_dir(there).into_iter().flatten().flatten().take(MOST);
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // Hidden files are offered when the name begins with a dot.
            let fits = name.starts_with(begun) && (begun.starts_with('.') || !name.starts_with('.'));
            let slash = if fits && entry.path().is_dir() { "/" } else { "" };
            fits.then(|| name + slash)
        })
        .collect();
    names.sort();
    let Some(first) = names.first() else { return Completed { text: typed.clone(), typed, names } };
    let last = names.last().unwrap_or(first);
    // Of sorted names the first and the last differ soonest.
    let common: String =
        first.chars().zip(last.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let text = format!("{folder}{common}");
    if names.len() == 1 {
        names.clear();
    }
    Completed { typed, text, names }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_far_as_it_can_be_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["月光.txt", "月亮.md", "notes.txt", ".hidden"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("poems")).unwrap();
        let of = |begun: &str| {
            let done = complete(format!("{}/{begun}", dir.path().display()));
            let text = done.text.strip_prefix(&format!("{}/", dir.path().display())).unwrap().to_owned();
            (text, done.names)
        };
        let none = Vec::<String>::new;
        assert_eq!(of("n"), ("notes.txt".into(), none()));
        assert_eq!(of("po"), ("poems/".into(), none()));
        assert_eq!(of("月"), ("月".into(), vec!["月亮.md".into(), "月光.txt".into()]));
        assert_eq!(of("月亮"), ("月亮.md".into(), none()));
        assert_eq!(of("x"), ("x".into(), none()));
        assert_eq!(of("."), (".hidden".into(), none()));
        assert_eq!(of("").1.len(), 4);
        assert_eq!(of("no/such").0, "no/such");
    }

    #[test]
    fn what_a_terminal_makes_of_a_dropped_file() {
        assert_eq!(path_of("'/a b/c.txt'"), PathBuf::from("/a b/c.txt"));
        assert_eq!(path_of("a'"), PathBuf::from("a'"));
    }
}
