//! The forms of an input file.

/// What the records of an input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputForm {
    /// A JSON object a line.
    JsonLines,
    /// A prompt a line.
    Text,
    /// Comma-separated values with a line of names.
    Csv,
    /// Tab-separated values with a line of names.
    Tsv,
}

impl InputForm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::JsonLines, Self::Text, Self::Csv, Self::Tsv];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Text => "text",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
        }
    }

    /// The form with this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// The form that a file's name tells, `.gz` at its end left out; `None` if it tells none.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            "txt" | "text" => Some(Self::Text),
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            _ => None,
        }
    }

    /// JSON lines if one of the first lines begins as an object or an array of objects does, else text.
    pub(super) fn of_start(start: &[u8]) -> Self {
        let object = |line: &[u8]| {
            let bytes = line.iter().copied().filter(|b| !b.is_ascii_whitespace());
            let mut bytes = bytes.enumerate().filter(|&(i, b)| i > 0 || b != b'[').map(|(_, b)| b);
            bytes.next() == Some(b'{') && matches!(bytes.next(), Some(b'"') | None)
        };
        if start.split(|&b| b == b'\n').any(object) { Self::JsonLines } else { Self::Text }
    }

    /// The byte between the fields of a record.
    pub(super) fn delimiter(self) -> Option<u8> {
        match self {
            Self::Csv => Some(b','),
            Self::Tsv => Some(b'\t'),
            Self::JsonLines | Self::Text => None,
        }
    }
}
