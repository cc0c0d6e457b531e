//! Signals and exit codes of the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use huozi_convert::{Error, ErrorKind};

/// The exit code of an error; `signal`: the number of the signal that came, or 0.
pub(crate) fn exit_code(error: &Error, signal: usize) -> u8 {
    match error.kind() {
        ErrorKind::Failed => 1,
        ErrorKind::Usage => 2,
        ErrorKind::BadInput => 4,
        ErrorKind::NoRoom => 5,
        // 128 + the signal's number, as shells have it.
        ErrorKind::Interrupted => u8::try_from(128 + signal).unwrap_or(130),
    }
}

/// A flag that SIGINT, SIGTERM and SIGHUP set, and the number of the last signal.
pub(crate) fn watch_signals() -> io::Result<(Arc<AtomicBool>, Arc<AtomicUsize>)> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    let cancel = Arc::new(AtomicBool::new(false));
    let number = Arc::new(AtomicUsize::new(0));
    let ignored = ignored_signals();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Started with `nohup`.
        if signal == SIGHUP && ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        // The number first: a thread that sees the flag finds it.
        signal_hook::flag::register_usize(signal, number.clone(), signal as usize)?;
        signal_hook::flag::register(signal, cancel.clone())?;
    }
    // With this a file larger than the limit makes the write fail instead of ending the process.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok((cancel, number))
}

/// The signals that are ignored, bit 0 for the first; none where the system does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
