//! Where an output goes: the regular file, or the directory, that a path stands for.
//!
//! A program that writes under another name and renames would replace whatever has the final name: a device
//! node, a FIFO, a symbolic link. Every output of the workspace therefore asks here first: a link is followed
//! to its target, which need not exist yet, and anything but a regular file is refused.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Links that lead to one target at most, as in Linux.
const MAX_LINKS: usize = 40;

/// Why a path is no place for an output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that an output must not replace.
    #[error("{} is {what}; an output must be {must_be}", path.display())]
    Kind {
        /// The path, behind all links.
        path: PathBuf,
        /// What it is, e.g. `a FIFO`.
        what: &'static str,
        /// What it would have to be.
        must_be: &'static str,
    },
    /// The operating system refused.
    #[error("{}: cannot look at it: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// What an output will be written to.
#[derive(Debug)]
pub struct OutputTarget {
    /// The path behind all symbolic links. Its directory need not exist.
    pub path: PathBuf,
    /// Of the regular file (or directory) that is there; `None` where nothing is.
    pub metadata: Option<Metadata>,
}

/// The regular file that `path` stands for, there or to be created.
///
/// # Errors
/// A directory, a device, a FIFO, a socket, a path that can only name a directory, links in a circle; what
/// the system says.
pub fn file(path: &Path) -> Result<OutputTarget, Error> {
    let kind = |path: &Path, what| Error::Kind { path: path.to_owned(), what, must_be: "a regular file" };
    let target = follow(path)?;
    match &target.metadata {
        Some(metadata) if metadata.is_file() => Ok(target),
        Some(metadata) => Err(kind(&target.path, name(metadata))),
        None if [path, &target.path].into_iter().any(names_directory) => {
            Err(kind(path, "the name of a directory"))
        }
        None => Ok(target),
    }
}

/// The directory that `path` stands for, there or to be created.
///
/// # Errors
/// Anything else that is there, links in a circle; what the system says.
pub fn directory(path: &Path) -> Result<OutputTarget, Error> {
    let target = follow(path)?;
    match &target.metadata {
        Some(metadata) if !metadata.is_dir() => {
            Err(Error::Kind { path: target.path.clone(), what: name(metadata), must_be: "a directory" })
        }
        _ => Ok(target),
    }
}

/// Follows symbolic links to what they stand for.
fn follow(path: &Path) -> Result<OutputTarget, Error> {
    let failed = |path: &Path, source| Error::Io { path: path.to_owned(), source };
    // What the system itself finds: a link below /proc leads to a pipe without naming a path.
    if let Ok(metadata) = fs::metadata(path)
        && !metadata.is_file()
    {
        return Ok(OutputTarget { path: path.to_owned(), metadata: Some(metadata) });
    }
    let mut at = path.to_owned();
    for _ in 0..=MAX_LINKS {
        match fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_symlink() => {
                let to = fs::read_link(&at).map_err(|e| failed(&at, e))?;
                // An absolute target replaces the directory.
                at = at.parent().unwrap_or(Path::new("")).join(to);
            }
            Ok(metadata) => return Ok(OutputTarget { path: at, metadata: Some(metadata) }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(OutputTarget { path: at, metadata: None });
            }
            Err(e) => return Err(failed(&at, e)),
        }
    }
    let what = "a symbolic link that leads back to itself";
    Err(Error::Kind { path: path.to_owned(), what, must_be: "a regular file" })
}

/// Whether a path can only mean a directory: `a/`, `..`, an empty one.
fn names_directory(path: &Path) -> bool {
    path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// What something is called that is no regular file.
fn name(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    let names = [
        (kind.is_char_device(), "a character device"),
        (kind.is_block_device(), "a block device"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (kind.is_dir(), "a directory"),
        (kind.is_file(), "a file"),
    ];
    names.into_iter().find(|(is, _)| *is).map_or("no regular file", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_link_is_followed_to_what_it_stands_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("real"), "old").unwrap();
        symlink("real", at("relative")).unwrap();
        symlink(at("real"), at("absolute")).unwrap();
        symlink("../relative", at("sub/chain")).unwrap();
        symlink("sub/new", at("dangling")).unwrap();
        symlink("../dangling", at("sub/longer")).unwrap();
        for (given, there) in
            [("real", true), ("relative", true), ("absolute", true), ("sub/chain", true), ("none", false)]
        {
            let found = file(&at(given)).unwrap();
            assert_eq!(found.metadata.is_some(), there, "{given}");
            if there {
                assert_eq!(found.path.canonicalize().unwrap(), at("real").canonicalize().unwrap(), "{given}");
            }
        }
        for given in ["dangling", "sub/longer"] {
            let found = file(&at(given)).unwrap();
            fs::write(&found.path, given).unwrap();
            assert_eq!(fs::read_to_string(at("sub/new")).unwrap(), given);
            fs::remove_file(at("sub/new")).unwrap();
            assert!(fs::symlink_metadata(at(given)).unwrap().is_symlink());
        }
        symlink("circle-b", at("circle-a")).unwrap();
        symlink("circle-a", at("circle-b")).unwrap();
        let error = file(&at("circle-a")).unwrap_err().to_string();
        assert!(error.contains("leads back to itself"), "{error}");
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(at("fifo")).status();
        assert!(fifo.is_ok_and(|status| status.success()), "mkfifo is part of every system");
        symlink("socket", at("link")).unwrap();
        symlink(dir.path(), at("folder-link")).unwrap();
        for (path, what) in [
            (at("socket"), "a socket"),
            (at("fifo"), "a FIFO"),
            (at("link"), "a socket"),
            (PathBuf::from("/dev/null"), "a character device"),
            (dir.path().to_owned(), "a directory"),
            (at("folder-link"), "a directory"),
            (at("new/"), "the name of a directory"),
            (at("..").join(".."), "a directory"),
            (PathBuf::new(), "the name of a directory"),
        ] {
            let error = file(&path).unwrap_err().to_string();
            assert!(error.contains(&format!(" is {what}; ")) && error.contains("regular"), "{error}");
            assert!(!error.contains("force"), "{error}");
        }
        assert!(directory(&at("folder-link")).unwrap().metadata.is_some());
        assert!(directory(&at("new/")).unwrap().metadata.is_none());
        assert!(directory(&at("fifo")).unwrap_err().to_string().contains("a FIFO"));
        fs::write(at("plain"), "").unwrap();
        assert!(directory(&at("plain")).unwrap_err().to_string().contains("is a file"));
        assert!(file(&at("plain/below")).is_err());
    }
}
