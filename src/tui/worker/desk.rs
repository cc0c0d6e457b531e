//! The thread for what takes a moment on disk.

use super::{Desk, Model, Report, Setup};
use crate::session::catalog::{self, Found, Memory};
use crate::session::store;
use std::fs;
use std::path::{Path, PathBuf};

/// A file that is attached is at most this long: a context holds far less.
const MAX_ATTACHED_BYTES: u64 = 4 << 20;

/// Does a task.
pub(super) fn work(task: Desk, setup: &Setup) -> Option<Report> {
    let failed = |error: store::Error| Report::DeskFailed(error.to_string());
    let folder = || {
        let none = "neither XDG_DATA_HOME nor HOME says where conversations are kept";
        setup.folder.as_deref().ok_or_else(|| Report::DeskFailed(none.into()))
    };
    let list = |folder: &Path, text: &str| {
        let mut entries = store::list(folder);
        if !text.is_empty() {
            let names = store::search(folder, text);
            entries.retain(|entry| names.contains(&entry.name));
        }
        Report::Talks(entries)
    };
    let done = match task {
        Desk::Models => Ok(models(&setup.models)),
        Desk::List(text) => folder().map(|folder| list(folder, &text)),
        Desk::Rename(name, title) => folder().and_then(|folder| {
            store::rename(folder, &name, &title).map_err(failed)?;
            Ok(list(folder, ""))
        }),
        Desk::Delete(name) => folder().and_then(|folder| {
            let trashed = store::delete(folder, &name).map_err(failed)?;
            if let Some(mut cache) = setup.kv_cache() {
                cache.remove(&name);
            }
            Ok(Report::Deleted(trashed))
        }),
        Desk::Undelete(name) => {
            folder().and_then(|folder| store::undelete(folder, &name).map(Report::Undeleted).map_err(failed))
        }
        Desk::Export(path, text) => store::export(&path, &text).map(Report::Exported).map_err(failed),
        Desk::Attach(path) => Ok(attach(path)),
        Desk::Prefs(text) => match setup.prefs.as_ref().map(|path| write_prefs(path, &text)) {
            Some(Err(error)) => Err(Report::DeskFailed(error.to_string())),
            _ => return None,
        },
    };
    Some(done.unwrap_or_else(|report| report))
}

fn write_prefs(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    fs::write(file.path(), text)?;
    file.persist(path)?;
    Ok(())
}

fn models(first: &[PathBuf]) -> Report {
    let found = catalog::everywhere(first);
    let models = found.iter().map(|path| {
        let found = Found::look(path);
        Model { needs: found.needs(), path: found.path, bytes: found.bytes }
    });
    Report::Models(models.collect(), Memory::now().map(|memory| memory.available))
}

fn attach(path: PathBuf) -> Report {
    let failed = |what: String| Report::DeskFailed(format!("{}: {what}", path.display()));
    match fs::metadata(&path) {
        Ok(meta) if !meta.is_file() => return failed("not a file".into()),
        Ok(meta) if meta.len() > MAX_ATTACHED_BYTES => {
            return failed(format!("{} bytes are too many for a message", meta.len()));
        }
        Ok(_) => {}
        Err(error) => return failed(error.to_string()),
    }
    match fs::read(&path).map(String::from_utf8) {
        Ok(Ok(text)) => {
            let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
            Report::Attached(path, text)
        }
        Ok(Err(error)) => failed(format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to())),
        Err(error) => failed(error.to_string()),
    }
}
