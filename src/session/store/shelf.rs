//! All conversations of a folder: list, search, rename, throw away and bring back, export.

use super::file::{Error, lock, make_private_directory, open_options, path, read};
use super::log::Log;
use super::writer::Writer;
use huozi_quant::output;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A conversation in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its title; the name where it has none.
    pub title: String,
    /// When something was last said.
    pub modified: SystemTime,
    /// Length of its file.
    pub bytes: u64,
}

fn error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, action, source }
}

/// The conversations in `directory`, the latest first. Files that are no conversations are left out, and
/// conversations without title and turns: all that was said in them was undone, or failed.
pub fn list(directory: &Path) -> Vec<Entry> {
    list_while(directory, &|| true).unwrap_or_default()
}

/// The same; `None` when `go_on`, which is asked before every file, says no.
fn list_while(directory: &Path, go_on: &dyn Fn() -> bool) -> Option<Vec<Entry>> {
    let mut found = Vec::new();
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !go_on() {
            return None;
        }
        found.extend(entry(&file.path()));
    }
    found.sort_by(|a, b| (b.modified, &b.name).cmp(&(a.modified, &a.name)));
    Some(found)
}

/// The name of the conversation in which something was said last; of other files than its own none is read.
pub fn latest(directory: &Path) -> Option<String> {
    let files = fs::read_dir(directory).ok()?.flatten();
    let found = files.filter_map(|file| named(&file.path()));
    let mut found: Vec<_> = found.map(|(name, meta)| (meta.modified().ok(), name)).collect();
    found.sort();
    found.into_iter().rev().map(|(_, name)| name).find(|name| has_a_line(directory, name))
}

/// Whether one line of the conversation is whole: it is none otherwise.
fn has_a_line(directory: &Path, name: &str) -> bool {
    let file = path(directory, name).ok().and_then(|path| File::open(path).ok());
    file.is_some_and(|file| BufReader::new(file).bytes().any(|byte| matches!(byte, Ok(b'\n'))))
}

/// The name of a conversation's file, and what the system knows of it.
fn named(path: &Path) -> Option<(String, fs::Metadata)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".jsonl")?.to_owned();
    let meta = fs::metadata(path).ok()?;
    (meta.is_file() && !name.starts_with('.')).then_some((name, meta))
}

fn entry(path: &Path) -> Option<Entry> {
    let (name, meta) = named(path)?;
    let bytes = read(path, &mut File::open(path).ok()?).ok()?;
    if !bytes.contains(&b'\n') {
        return None;
    }
    let title = last_title(&bytes).filter(|title| !title.trim().is_empty());
    if title.is_none() && says_nothing(path, &bytes) {
        return None;
    }
    let title = title.unwrap_or_else(|| name.clone());
    Some(Entry { name, title, modified: meta.modified().ok()?, bytes: meta.len() })
}

/// The text of the last `title` line.
fn last_title(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Title {
        kind: String,
        text: String,
    }
    lines_of(bytes, b"\"kind\":\"title\"").find_map(|line| {
        let title: Title = serde_json::from_slice(line).ok()?;
        (title.kind == "title").then_some(title.text)
    })
}

/// Whether the conversation has no turn (its last `head` line names no message, or there is no message) and
/// no answer in another branch that could be brought back.
fn says_nothing(path: &Path, bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Head {
        kind: String,
        parent: Option<u64>,
    }
    let mut heads = lines_of(bytes, b"\"kind\":\"head\"").filter_map(|line| {
        let head: Head = serde_json::from_slice(line).ok()?;
        (head.kind == "head").then_some(head.parent)
    });
    match heads.next() {
        Some(Some(_)) => false,
        Some(None) => !Log::parse(path, bytes).is_ok_and(|log| log.has_answers()),
        None => !bytes.windows(9).any(|w| w == b"\"message\""),
    }
}

/// The lines that hold `mark` near their beginning, the last first: a list is made of many long files, which
/// are not parsed whole for it.
fn lines_of<'a>(bytes: &'a [u8], mark: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let lines = bytes.split(|&b| b == b'\n').rev();
    lines.filter(move |line| line.windows(mark.len()).take(96).any(|w| w == mark))
}

impl Entry {
    /// Whether its title holds `text`, letter case aside.
    pub fn is_titled(&self, text: &str) -> bool {
        self.title.to_lowercase().contains(&text.to_lowercase())
    }
}

/// The name of the conversation that `text` names: its name, or else its title; of several with that title
/// the one in which something was said last.
///
/// # Errors
/// [`Error::Unknown`]; a name that could leave the folder, if no title is that text.
pub fn find(directory: &Path, text: &str) -> Result<String, Error> {
    let named = path(directory, text);
    if named.as_ref().is_ok_and(|path| path.is_file()) {
        return Ok(text.to_owned());
    }
    match list(directory).into_iter().find(|entry| entry.title == text) {
        Some(entry) => Ok(entry.name),
        None => named.and(Err(Error::Unknown { name: text.to_owned() })),
    }
}

/// The conversations of [`list`] whose title or messages hold `text`, letter case aside; `None` when `go_on`,
/// which is asked before every file, says no.
pub fn search(directory: &Path, text: &str, go_on: &dyn Fn() -> bool) -> Option<Vec<Entry>> {
    let lower = text.to_lowercase();
    let said = |entry: &Entry| {
        let path = path(directory, &entry.name).ok()?;
        let bytes = read(&path, &mut File::open(&path).ok()?).ok()?;
        let log = Log::parse(&path, &bytes).ok()?;
        Some(log.texts().any(|said| said.to_lowercase().contains(&lower)))
    };
    let mut found = Vec::new();
    for entry in list_while(directory, go_on)? {
        if !go_on() {
            return None;
        }
        if text.is_empty() || entry.is_titled(text) || said(&entry).unwrap_or(false) {
            found.push(entry);
        }
    }
    Some(found)
}

/// Gives a conversation another title.
///
/// # Errors
/// No such file; another process writes it.
pub fn rename(directory: &Path, name: &str, title: &str) -> Result<(), Error> {
    let path = path(directory, name)?;
    let said = fs::metadata(&path).and_then(|meta| meta.modified());
    Writer::open(directory, name, "")?.0.rename(title)?;
    // Nothing was said: its time, and its place in the list, are those of its last word. Where that fails it
    // is on top.
    if let Ok(said) = said {
        let _ = File::options().append(true).open(&path).and_then(|file| file.set_modified(said));
    }
    Ok(())
}

/// Throws a conversation away: it goes to `trash/`, under the name that is given back.
///
/// # Errors
/// No such file; another process writes it.
pub fn delete(directory: &Path, name: &str) -> Result<String, Error> {
    let from = path(directory, name)?;
    let file = open_options().open(&from).map_err(error(&from, "open"))?;
    lock(&file, &from)?;
    let trash = directory.join("trash");
    make_private_directory(&trash).map_err(error(&trash, "create the folder"))?;
    move_to(&from, &trash, name)
}

/// Brings back what [`delete`] threw away; gives its name.
///
/// # Errors
/// It is no longer there.
pub fn undelete(directory: &Path, trashed: &str) -> Result<String, Error> {
    move_to(&path(&directory.join("trash"), trashed)?, directory, trashed)
}

/// The name in `trash/` of what was thrown away last, of those that [`list`] would show.
pub fn trashed_last(directory: &Path) -> Option<String> {
    let files = fs::read_dir(directory.join("trash")).ok()?.flatten();
    let found = files.filter_map(|file| {
        let (name, meta) = named(&file.path())?;
        Some((thrown(&meta), name, file.path()))
    });
    let mut found = Vec::from_iter(found);
    found.sort();
    // One without turns was not thrown away by a person.
    found.into_iter().rev().find(|(.., path)| entry(path).is_some()).map(|(_, name, _)| name)
}

/// Removes for good what was thrown away more than `days` ago.
pub fn empty_trash(directory: &Path, days: u64) {
    let Ok(files) = fs::read_dir(directory.join("trash")) else { return };
    let old = SystemTime::now() - Duration::from_secs(days * 86_400);
    for file in files.flatten() {
        if named(&file.path()).is_some_and(|(_, meta)| thrown(&meta) < old) {
            // Another instance may have been first.
            let _ = fs::remove_file(file.path());
        }
    }
}

/// When a file came into its folder: the system notes the time of a move beside that of a change of the
/// content.
fn thrown(meta: &fs::Metadata) -> SystemTime {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (seconds, nanos) = (meta.ctime().max(0) as u64, meta.ctime_nsec().max(0) as u64);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos)
    }
    #[cfg(not(unix))]
    {
        meta.modified().unwrap_or_else(|_| SystemTime::now())
    }
}

/// Moves a file to the first of `name`, `name-1`, ... that is free.
fn move_to(from: &Path, directory: &Path, name: &str) -> Result<String, Error> {
    for n in 0..10_000 {
        let name = if n == 0 { name.to_owned() } else { format!("{name}-{n}") };
        let to = path(directory, &name)?;
        // A hard link never replaces what stands there.
        match fs::hard_link(from, &to) {
            Ok(()) => {
                fs::remove_file(from).map_err(error(from, "remove"))?;
                return Ok(name);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            // A file system without links.
            Err(_) if !to.exists() => {
                fs::rename(from, &to).map_err(error(from, "move"))?;
                return Ok(name);
            }
            Err(_) => {}
        }
    }
    Err(Error::Name { name: name.to_owned() })
}

/// Writes `text` to the regular file that `path` stands for, in place of what it held; whole or not at all.
///
/// # Errors
/// What the system says; anything but a regular file.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let target = output::file(path).map_err(io::Error::other)?.path;
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(&target)?;
    Ok(())
}

/// Removes a conversation for good.
///
/// # Errors
/// What the system says; no such file is none.
pub fn erase(directory: &Path, name: &str) -> Result<(), Error> {
    let path = path(directory, name)?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error(&path, "remove")(e)),
        _ => Ok(()),
    }
}

/// Writes `text` to `path`, or beside it with a number if a file stands there; whole or not at all. A
/// symbolic link that leads to no file yet is followed.
///
/// # Errors
/// What the system says; a folder, a device or anything else that is no regular file.
pub fn export(path: &Path, text: &str) -> Result<PathBuf, Error> {
    let names_folder = path.to_string_lossy().ends_with('/') || path.file_stem().is_none() || path.is_dir();
    let target = output::file(path).map_err(|refused| match refused {
        output::Error::Io { path, source } => error(&path, "write")(source),
        _ if names_folder => error(path, "write")(io::ErrorKind::IsADirectory.into()),
        refused => error(path, "write")(io::Error::new(io::ErrorKind::InvalidInput, refused)),
    })?;
    let path = if target.metadata.is_none() { &target.path } else { path };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(error(folder, "write into it")(io::ErrorKind::NotADirectory.into()));
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map_or("md".into(), |e| e.to_string_lossy().into_owned());
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(error(path, "write"))?;
    file.write_all(text.as_bytes()).map_err(error(path, "write"))?;
    file.as_file().sync_all().map_err(error(path, "sync"))?;
    for n in 0..10_000 {
        let to = match n {
            0 => path.to_owned(),
            n => folder.join(format!("{stem}-{n}.{extension}")),
        };
        match file.persist_noclobber(&to) {
            Ok(_) => return Ok(to),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => file = e.file,
            Err(e) => return Err(error(&to, "write")(e.error)),
        }
    }
    Err(error(path, "find a free name for")(io::ErrorKind::AlreadyExists.into()))
}
