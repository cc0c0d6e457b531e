//! The message in an editor of the person's choice.

use super::code::SignalCode;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// An editor's text is at most this long.
const MAX_EDITED_BYTES: u64 = 64 << 20;
/// How long an editor that is told to end has for giving the terminal back.
const GRACE: Duration = Duration::from_secs(1);

/// Lets a person edit `text` in `$VISUAL` or `$EDITOR`, until there is a `code` to exit with.
pub(super) fn edit(text: &str, code: &SignalCode) -> io::Result<String> {
    let var = |key| std::env::var(key).ok().filter(|value| !value.trim().is_empty());
    let editor = var("VISUAL").or_else(|| var("EDITOR")).unwrap_or_else(|| "vi".into());
    let mut file = tempfile::Builder::new().prefix("huozi-").suffix(".md").tempfile()?;
    file.write_all(text.as_bytes())?;
    // It may hold arguments of its own. An interrupt is the editor's: the shell around it waits for its end.
    let command = format!("trap : INT TERM; {editor} \"$1\"");
    let mut child = Command::new("sh").args(["-c", &command, "sh"]).arg(file.path()).spawn()?;
    let mut ends: Option<Instant> = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // What it wrote so far is read below. Where all of the job is ours it ends, too.
        if code.get() != 0 && ends.is_none() {
            if rustix::process::getpgrp() == rustix::process::getpid() {
                let _ = rustix::process::kill_current_process_group(rustix::process::Signal::TERM);
            }
            ends = Some(Instant::now() + GRACE);
        }
        if ends.is_some_and(|end| Instant::now() >= end) {
            break ExitStatus::default();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // What one that was killed had saved by then is not lost; the shell tells it so.
    let killed = status.signal().is_some() || status.code().is_some_and(|code| code > 128);
    if !status.success() && !killed {
        return Err(io::Error::other(format!("{editor}: {status}")));
    }
    // It may have put something in its place that never ends.
    if !std::fs::metadata(file.path())?.is_file() {
        return Err(io::Error::other(format!("{editor}: it left no file")));
    }
    let mut bytes = Vec::new();
    File::open(file.path())?.take(MAX_EDITED_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_EDITED_BYTES {
        return Err(io::Error::other(format!("{editor}: more than {} MiB", MAX_EDITED_BYTES >> 20)));
    }
    // Whatever it wrote: nothing is lost.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
