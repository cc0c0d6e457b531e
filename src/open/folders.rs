//! The user's folders.

use std::path::PathBuf;

/// The folder in environment variable `key` if it is absolute, else `fallback` below the home folder.
pub fn xdg(key: &str, fallback: &str) -> Option<PathBuf> {
    // The XDG specification says that a relative path is to be ignored.
    let set = std::env::var_os(key).map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        home.map(|home| home.join(fallback))
    })
}
