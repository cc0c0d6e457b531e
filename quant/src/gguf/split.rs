//! A model in several files, as `llama-gguf-split` and llama.cpp's converter write it:
//! `NAME-00001-of-00003.gguf` and so on, read as one.
//!
//! The first part has the metadata; the others have the keys `split.no` (from 0), `split.count` and
//! `split.tensors.count`, and their tensors.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Error, Meta, MetaValue, Place, Rule};

/// `split.count`: an unsplit file has no such key, or 0 or 1.
const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TENSORS: &str = "split.tensors.count";

/// Parts of a model at most: `llama-gguf-split` with a tensor a part makes 365 of a BLOOM-7B1.
pub const MAX_PARTS: u64 = 1024;

/// Links that lead to one file at most, as in Linux.
const MAX_LINKS: usize = 41;

/// `STEM-00002-of-00003.gguf`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartName {
    /// The path as far as the hyphen before the number.
    stem: PathBuf,
    /// `gguf`, in the case it has.
    extension: Vec<u8>,
    /// From 1.
    pub number: u32,
    /// Parts of the model.
    pub count: u32,
}

impl PartName {
    /// The part that `path` is called; `None` for a name that is not built like this.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.as_bytes();
        let dot = name.len().checked_sub(5)?;
        let (base, extension) = (&name[..dot], &name[dot..]);
        // -00002-of-00003
        let (stem, ending) = base.split_at(base.len().checked_sub(15)?);
        let digits = |part: &[u8]| {
            let all = part.iter().all(u8::is_ascii_digit);
            all.then(|| std::str::from_utf8(part).ok()?.parse::<u32>().ok()).flatten()
        };
        let built =
            extension.eq_ignore_ascii_case(b".gguf") && ending[0] == b'-' && &ending[6..10] == b"-of-";
        let (number, count) = (digits(&ending[1..6])?, digits(&ending[10..])?);
        (built && (1..=count).contains(&number)).then(|| Self {
            stem: path.with_file_name(OsStr::from_bytes(stem)),
            extension: extension[1..].to_vec(),
            number,
            count,
        })
    }

    /// The name of the model: that of the file, without the number and the extension.
    pub fn model(&self) -> &OsStr {
        self.stem.file_name().unwrap_or_default()
    }

    /// The path of another part of the same model; `number` from 1.
    pub fn path(&self, number: u32) -> PathBuf {
        let mut path = self.stem.as_os_str().to_owned();
        path.push(format!("-{number:05}-of-{:05}.", self.count));
        path.push(OsStr::from_bytes(&self.extension));
        path.into()
    }
}

/// The paths without the later parts of split models: of each model the part with the lowest number that is
/// among them stays. The order stays.
pub fn without_later_parts(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut lowest: BTreeMap<PathBuf, u32> = BTreeMap::new();
    // The path of part 1 stands for the model.
    for part in paths.iter().filter_map(|path| PartName::of(path)) {
        let number = lowest.entry(part.path(1)).or_insert(part.number);
        *number = part.number.min(*number);
    }
    let stays = |path: &PathBuf| match PartName::of(path) {
        Some(part) => lowest.get(&part.path(1)) == Some(&part.number),
        None => true,
    };
    paths.into_iter().filter(stays).collect()
}

/// What a part says about its split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// From 0.
    pub number: u64,
    /// At least 2.
    pub count: u32,
    /// Tensors of all parts, where the file says so.
    pub tensors: Option<u64>,
}

impl Split {
    /// What the metadata says; `None` for a whole file.
    pub fn of(meta: &Meta<'_>) -> Result<Option<Self>, Error> {
        let Some(count) = meta.uint(COUNT)?.filter(|&count| count > 1) else { return Ok(None) };
        if count > MAX_PARTS {
            return Err(meta.error(
                Rule::Split,
                COUNT,
                &format!("at most {MAX_PARTS} parts"),
                &count.to_string(),
            ));
        }
        let number = meta.uint(NUMBER)?.ok_or_else(|| meta.missing(NUMBER, "the number of this part"))?;
        if number >= count {
            let expected = format!("a number below the {count} of {COUNT}");
            return Err(meta.error(Rule::Split, NUMBER, &expected, &number.to_string()));
        }
        Ok(Some(Self { number, count: count as u32, tensors: meta.uint(TENSORS)? }))
    }

    /// The name of the first part of a model whose metadata is `self`, opened as `path`.
    ///
    /// Links whose own names say nothing are followed as far as one that does: in the Hugging Face cache the
    /// links have the names, elsewhere the files.
    ///
    /// # Errors
    /// Another part than the first; a name by which the other parts cannot be found.
    pub fn first(self, file: &str, path: &Path) -> Result<PartName, Error> {
        let fits = |name: &PartName| (u64::from(name.number), name.count) == (self.number + 1, self.count);
        let next = |at: &PathBuf| Some(at.parent().unwrap_or(Path::new("")).join(at.read_link().ok()?));
        let mut links = std::iter::successors(Some(path.to_owned()), next).take(MAX_LINKS);
        let named = links.find_map(|at| PartName::of(&at).filter(fits));
        let this = format!("part {} of {}", self.number + 1, self.count);
        if self.number > 0 {
            let first = match &named {
                Some(name) => name.path(1).display().to_string(),
                None => format!("the file that ends in -00001-of-{:05}.gguf", self.count),
            };
            let expected = format!("the first part of a split model: give {first}");
            return Err(refuse(file, expected, this));
        }
        named.ok_or_else(|| {
            let ending = format!("-00001-of-{:05}.gguf", self.count);
            let expected = format!(
                "a name that ends in {ending}, for the file is {this} of a split model and the other parts \
                 are found by its name"
            );
            let found = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            refuse(file, expected, super::shown(&found))
        })
    }

    /// Checks that `part`, the metadata of part number `number` from 0, continues the model of `self` and
    /// `meta`.
    ///
    /// # Errors
    /// [`Rule::Split`].
    pub fn check(self, meta: &Meta<'_>, number: u32, part: &Meta<'_>) -> Result<(), Error> {
        let wrong =
            |key: &str, expected: &str, found: &str| Err(part.error(Rule::Split, key, expected, found));
        let expected = Self { number: number.into(), ..self };
        let other = |key: &str, ours: u64| match part.uint(key)? {
            Some(theirs) if theirs == ours => Ok(()),
            None if key == TENSORS => Ok(()),
            theirs => {
                let found = theirs.map_or("none".to_owned(), |n| n.to_string());
                let found = format!("{found}: another part or of another model; download the parts again");
                wrong(key, &format!("{ours}, as part {} of {} has", number + 1, self.count), &found)
            }
        };
        other(COUNT, expected.count.into())?;
        other(NUMBER, expected.number)?;
        if let Some(tensors) = expected.tensors {
            other(TENSORS, tensors)?;
        }
        for (key, value) in part.iter().filter(|(key, _)| *key != NUMBER && *key != "general.alignment") {
            let Some(first) = meta.get(key) else { continue };
            // Widths of numbers may differ between programs, the keys of the split above are compared as
            // numbers.
            if !key.starts_with("split.") && MetaValue::from(first) != MetaValue::from(value) {
                let found = format!("another value, so the part is of another model: {}", value.describe());
                return wrong(key, "what the first part says", &found);
            }
        }
        Ok(())
    }
}

/// A part of a split model that stands alone in memory.
pub(super) fn alone(file: &str, split: Split) -> Error {
    let found = format!("part {} of {} without the others", split.number + 1, split.count);
    refuse(file, "a whole model".into(), found)
}

/// The other part is not there.
pub(super) fn missing(first: &str, number: u32, count: u32, path: &Path) -> Error {
    let expected = format!("part {number} of {count} beside it, {}", path.display());
    refuse(first, expected, "no such file; download all parts into one folder".into())
}

/// The parts have another number of tensors together.
pub(super) fn miscounted(first: &str, split: Split, expected: u64, found: usize) -> Error {
    refuse(first, format!("{expected} tensors in its {} parts ({TENSORS})", split.count), found.to_string())
}

fn refuse(file: &str, expected: String, found: String) -> Error {
    Error::malformed(Rule::Split, file, Place::Header, None, expected, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        let of = |path: &str| PartName::of(Path::new(path)).map(|name| (name.number, name.count));
        assert_eq!(of("a/b-q4-00001-of-00003.gguf"), Some((1, 3)));
        assert_eq!(of("模型-00003-of-00003.GGUF"), Some((3, 3)));
        assert_eq!(of("-00001-of-00001.gguf"), Some((1, 1)));
        for other in [
            "b.gguf",
            "b-00000-of-00003.gguf",
            "b-00004-of-00003.gguf",
            "b-0001-of-0003.gguf",
            "b-00001_of_00003.gguf",
            "b-+0001-of-00003.gguf",
            "b_00001-of-00003.gguf",
            "b-00001-of-00003.bin",
            "b-00001-of-00003.gguf.part",
            ".gguf",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        let name = PartName::of(Path::new("a/x-00001-of-00003.GGUF")).unwrap();
        assert_eq!(name.path(3), Path::new("a/x-00003-of-00003.GGUF"));
        assert_eq!(name.path(1), Path::new("a/x-00001-of-00003.GGUF"));
        assert_eq!(name.model(), "x");
    }

    #[test]
    fn a_split_model_is_one_in_a_list() {
        let list = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let given = list(&[
            "z.gguf",
            "a-00003-of-00003.gguf",
            "a-00001-of-00003.gguf",
            "a-00002-of-00003.gguf",
            "b/a-00002-of-00003.gguf",
            "b/a-00003-of-00003.gguf",
            "a-00001-of-00002.gguf",
        ]);
        let left = ["z.gguf", "a-00001-of-00003.gguf", "b/a-00002-of-00003.gguf", "a-00001-of-00002.gguf"];
        assert_eq!(without_later_parts(given), list(&left));
    }
}
