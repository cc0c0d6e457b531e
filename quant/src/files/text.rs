//! Text from files, and paths, as they may stand in a message or in a command.

use std::path::Path;

pub(super) use crate::message::shown;

/// A path or name as a word of a shell command: between quotes where the shell would split or expand it.
pub(super) fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The command that converts the checkpoint `source`, a folder or a name in the Hugging Face cache.
pub(super) fn convert_command(source: &Path) -> String {
    let full = if source.is_dir() { source.canonicalize().ok() } else { None };
    let name = full.as_deref().unwrap_or(source).file_name().unwrap_or_default().to_string_lossy();
    // A leading `-` would be read as an option.
    let name = name.trim_start_matches('-');
    let out = if name.is_empty() { "model-q4_k_m.gguf".to_owned() } else { format!("{name}-q4_k_m.gguf") };
    format!("huozi-convert {} -t q4_k_m -o {}", word(source), word(Path::new(&out)))
}

/// A number of bytes: exact, and rounded where there are many.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let unit = UNITS.iter().find(|(unit, _)| bytes as f64 >= 10.0 * unit);
    match unit {
        Some((unit, name)) => format!("{bytes} bytes, {:.1} {name}", bytes as f64 / unit),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

/// A list of names, the first few of many.
pub(super) fn some(names: &[String]) -> String {
    const MOST: usize = 4;
    let mut out: Vec<String> = names.iter().take(MOST).map(|name| shown(name)).collect();
    if names.len() > MOST {
        out.push(format!("{} more", names.len() - MOST));
    }
    out.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command() {
        for (path, expected) in [
            ("org/name", "org/name"),
            ("模型/活字", "模型/活字"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("a\u{1b}[2J", "'a?[2J'"),
        ] {
            assert_eq!(word(Path::new(path)), expected);
        }
        let command = convert_command(Path::new("org/name"));
        assert_eq!(command, "huozi-convert org/name -t q4_k_m -o name-q4_k_m.gguf");
    }

    #[test]
    fn sizes() {
        assert_eq!(size(1), "1 byte");
        assert_eq!(size(9999), "9999 bytes");
        assert_eq!(size(14_138_192_896), "14138192896 bytes, 14.1 GB");
    }
}
