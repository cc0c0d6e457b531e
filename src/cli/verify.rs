//! `huozi verify`: whether a GGUF file is as its writer made it.

use super::args::VerifyCommand;
use super::exit::BadFile;
use super::load;
use super::printer::{Printer, SCHEMA, bytes, escaped};
use super::settings::Config;
use super::show::Counter;
use crate::open::{OpenOptions, locate};
use anyhow::Result;
use huozi_quant::gguf::check;
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Damaged tensors that are named.
const SHOWN: usize = 8;

/// Runs the command.
///
/// # Errors
/// See [`super::exit`]; [`BadFile`] when a checksum does not match.
pub fn run(args: &VerifyCommand, config: &Config, printer: &mut Printer) -> Result<()> {
    let path = locate(&config.model(args.path.as_deref().or(args.model.as_deref()))?)?;
    let model = load::open(&path, &OpenOptions::default())?;
    // What `run` would refuse is not called good, whatever its checksums say.
    model.check_usable()?;
    load::show_notes(&model, args.quiet);
    let reader = model.reader();
    let total = reader.tensors().iter().map(|t| t.bytes).sum();
    let counter = Mutex::new(Counter::patient(total, true, args.quiet));
    let done = AtomicU64::new(0);
    let checked = check::check(&path, &|n| {
        let done = done.fetch_add(n, Relaxed) + n;
        // A thread that does not get the lock skips the display: another one is updating it.
        if let Ok(mut counter) = counter.try_lock() {
            counter.set(done, "of the tensors");
        }
        Ok(())
    })?;
    drop(counter);
    let name = escaped(reader.name().as_bytes());
    if args.json {
        printer.json(&json!({
            "schema": SCHEMA,
            "model": path.display().to_string(),
            "bytes": reader.file_bytes(),
            "tensors": checked.tensors,
            "sums": checked.sums,
            "damaged": checked.damaged,
            "ok": checked.damaged.is_empty(),
        }))?;
    } else if checked.damaged.is_empty() {
        let (n, size) = (checked.tensors, bytes(checked.bytes));
        printer.line(&if checked.sums {
            format!(
                "{name}: the structure is sound, {n} tensors ({size}) have the SHA-256 that the file carries"
            )
        } else {
            format!("{name}: the structure is sound; the file carries no SHA-256 of its {n} tensors ({size})")
        })?;
    }
    if checked.damaged.is_empty() {
        return Ok(());
    }
    let n = checked.damaged.len();
    let first: Vec<String> = checked.damaged.iter().take(SHOWN).map(|t| escaped(t.as_bytes())).collect();
    let more = if n > SHOWN { format!(" and {} more", n - SHOWN) } else { String::new() };
    let (of, list) = (checked.tensors, first.join(", "));
    Err(BadFile(format!("{name}: the checksums of {n} of {of} tensors do not match: {list}{more}")).into())
}
