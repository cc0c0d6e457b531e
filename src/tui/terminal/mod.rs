//! The chat on a terminal: the loop between the state, its threads, and the terminal, from the first frame to
//! what is said after the last.

mod code;
mod decode;
mod editor;
mod keys;
mod screen;
mod signals;

use super::app::{App, Start};
use super::event::{Effect, Msg};
use super::failure::Failure;
use super::worker::{DeskTask, Report, Setup, Workers};
use code::SignalCode;
use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableMouseCapture, EnableMouseCapture, KeyCode, KeyEvent, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::disable_raw_mode;
use editor::edit;
use keys::{Keys, read_keys};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use screen::{Restore, TerminalScreen, draw, enter, leave, redraw};
use signals::{Job, watch_signals};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Between two frames, when a key was pressed, and when the model generates.
const FRAMES: [Duration; 2] = [Duration::from_millis(8), Duration::from_millis(33)];
/// Between two frames while the screen changes without a message.
const TICK: Duration = Duration::from_millis(250);
/// How long the end waits for the last answer to be on disk.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long signals that come together may take.
const SIGNALS: Duration = Duration::from_millis(30);

/// Runs the chat on the terminal of standard input and output; gives the exit code.
pub fn run(start: Start, setup: Setup) -> ExitCode {
    let hook = std::panic::take_hook();
    let main = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info| {
        // The threads report their own panics; one here ends the program.
        if std::thread::current().id() == main {
            leave();
            hook(info);
        }
    }));
    let code = SignalCode::default();
    match chat(start, setup, &code) {
        Ok(saved) => match code.get() {
            0 if !saved => ExitCode::from(1),
            code => ExitCode::from(code),
        },
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(1)
        }
    }
}

/// Says what is wrong; the terminal may be gone.
fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "huozi-tui: {what}");
}

/// Runs the chat until it ends; whether all that was said is on disk.
fn chat(start: Start, setup: Setup, code: &SignalCode) -> io::Result<bool> {
    let (send, messages) = mpsc::channel();
    // Dropped after `terminal`, which may hold a part of a frame when a panic unwinds: that part comes before
    // it.
    let restore = Restore;
    let job = Arc::new(Job::default());
    // Before the terminal is changed: a signal that comes at once has it changed back.
    watch_signals(send.clone(), code.clone(), job.clone())?;
    enter(start.prefs.mouse)?;
    let mut terminal = screen::screen()?;
    let size = terminal.get_frame().area();
    let (mut app, effects) = App::new(start, (size.width, size.height), Instant::now());
    draw(&mut terminal, &mut app)?;
    let to = send.clone();
    let workers = Workers::start(setup, Arc::new(move |report| drop(to.send(Msg::Report(report)))))?;
    let keys = Arc::new(Keys::default());
    read_keys(keys.clone(), send, code.clone())?;
    let outside = Outside { workers: &workers, keys: &keys, job: &job, code };
    serve(&mut terminal, &mut app, effects, &outside, &messages);
    drop(terminal);
    drop(restore);
    Ok(finish(&mut app, workers, &messages))
}

/// Ends the threads and says what is lost; whether nothing is.
fn finish(app: &mut App, workers: Workers, messages: &Receiver<Msg>) -> bool {
    let until = Instant::now() + PATIENCE;
    workers.end_model(until);
    // What it told since: a question that is in its conversation now is no draft any more.
    for msg in messages.try_iter() {
        for effect in app.update(msg, Instant::now()) {
            if let Effect::Desk(desk @ DeskTask::Draft(_)) = effect {
                workers.desk(desk);
            }
        }
    }
    let done = workers.finish(until);
    // The desk does not end before it has told what it could not do.
    let words = app.interface().words();
    let mut draft = None;
    let mut failed = false;
    for msg in messages.try_iter() {
        match &msg {
            Msg::Report(Report::DraftNotKept(why)) => draft = Some(why.clone()),
            Msg::Report(Report::DeskFailed(why) | Report::PathFailed(why)) => {
                complain(&(words.failure)(why));
                failed = true;
            }
            _ => {}
        }
        app.update(msg, Instant::now());
    }
    let unsaved = app.talk().unsaved().cloned().or_else(|| (!done).then_some(Failure::DiskSlow));
    let lost = [(unsaved, words.lost_conversation), (draft, words.lost_draft)];
    for (why, what) in lost.iter().filter_map(|(why, what)| Some((why.as_ref()?, what))) {
        complain(&format!("{what}{}", (words.failure)(why)));
    }
    !failed && lost.iter().all(|(why, _)| why.is_none())
}

/// What effects go to.
struct Outside<'a> {
    workers: &'a Workers,
    keys: &'a Keys,
    job: &'a Job,
    code: &'a SignalCode,
}

/// Messages to effects to frames, until the program ends.
fn serve(
    terminal: &mut TerminalScreen,
    app: &mut App,
    effects: Vec<Effect>,
    outside: &Outside<'_>,
    messages: &Receiver<Msg>,
) {
    // For the test that the terminal is given back.
    let panics = cfg!(debug_assertions) && std::env::var_os("HUOZI_TUI_PANIC").is_some();
    let mut effects = effects;
    let mut drawn = Instant::now();
    // Whether the screen is behind, and whether a key waits for it.
    let (mut behind, mut urgent) = (false, false);
    loop {
        let mut again = Vec::new();
        for effect in effects.drain(..) {
            if matches!(effect, Effect::Quit) {
                return;
            }
            // They clear the screen.
            let clears = matches!(effect, Effect::Redraw | Effect::Enter);
            (behind, urgent) = (behind || clears, urgent || clears);
            // A terminal that is gone ends the program, and everything that has to be written then is.
            again.extend(
                carry_out(effect, terminal, app, outside).unwrap_or_else(|_| Some(outside.code.hung_up())),
            );
        }
        for msg in again {
            effects.extend(app.update(msg, Instant::now()));
        }
        if !effects.is_empty() {
            continue;
        }
        let pause = if urgent { FRAMES[0] } else { FRAMES[1] };
        let wait = match (behind, app.animated()) {
            (true, _) => pause.saturating_sub(drawn.elapsed()),
            (false, true) => TICK,
            (false, false) => Duration::from_secs(3600),
        };
        match messages.recv_timeout(wait) {
            Ok(msg) => {
                // All that waits, then one frame.
                for msg in std::iter::once(msg).chain(messages.try_iter().take(1000)) {
                    urgent |= !matches!(msg, Msg::Report(_) | Msg::Tick);
                    assert!(!panics || !matches!(msg, Msg::Key(_)), "HUOZI_TUI_PANIC is set");
                    // Where things are depends on what came before; characters that are typed need not know
                    // it.
                    if matches!(msg, Msg::Key(_) | Msg::Mouse(_)) && !is_plain(&msg) {
                        app.prepare();
                    }
                    effects.extend(app.update(msg, Instant::now()));
                }
                behind = true;
            }
            Err(RecvTimeoutError::Timeout) => {
                effects.extend(app.update(Msg::Tick, Instant::now()));
                behind = true;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let pause = if urgent { FRAMES[0] } else { FRAMES[1] };
        if behind && !app.is_quitting() && drawn.elapsed() >= pause {
            if draw(terminal, app).is_err() {
                effects.extend(app.update(outside.code.hung_up(), Instant::now()));
            }
            drawn = Instant::now();
            (behind, urgent) = (false, false);
        }
    }
}

/// Whether it is a character without a modifier.
fn is_plain(msg: &Msg) -> bool {
    let plain = KeyModifiers::NONE | KeyModifiers::SHIFT;
    matches!(msg, Msg::Key(KeyEvent { code: KeyCode::Char(_), modifiers, .. }) if plain.contains(*modifiers))
}

/// Does what an effect asks for; may give a message.
fn carry_out(
    effect: Effect,
    terminal: &mut TerminalScreen,
    app: &App,
    outside: &Outside<'_>,
) -> io::Result<Option<Msg>> {
    match effect {
        Effect::Work(work) => outside.workers.work(work),
        Effect::Desk(desk) => outside.workers.desk(desk),
        Effect::Copy(text) => {
            execute!(terminal.backend_mut(), CopyToClipboard::to_clipboard_from(text))?;
        }
        Effect::Mouse(true) => execute!(terminal.backend_mut(), EnableMouseCapture)?,
        Effect::Mouse(false) => execute!(terminal.backend_mut(), DisableMouseCapture)?,
        Effect::Redraw => redraw(terminal)?,
        Effect::Edit(text) => {
            outside.keys.pause();
            leave();
            let before = tcgetattr(io::stdin());
            outside.job.editing.store(true, Ordering::SeqCst);
            let edited = edit(&text, outside.code).map_err(|error| error.to_string());
            outside.job.editing.store(false, Ordering::SeqCst);
            // Whatever the editor left: what is restored at the end is what was there before it.
            let _ = before.and_then(|before: Termios| tcsetattr(io::stdin(), OptionalActions::Now, &before));
            // If that fails, so does the next frame. What was written comes first.
            let _ = enter(app.interface().prefs().mouse);
            outside.keys.go_on();
            return Ok(Some(Msg::Edited(edited)));
        }
        Effect::Suspend => {
            if !Job::can_stop() {
                return Ok(None);
            }
            leave();
            outside.job.stop()?;
            // A stopped job that is ended is continued, too: it does not take the terminal then.
            let until = Instant::now() + SIGNALS;
            while outside.code.get() == 0 {
                if Instant::now() >= until {
                    return Ok(Some(Msg::Continued));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            return Ok(Some(Msg::Terminate));
        }
        Effect::Enter => {
            // Another program may have changed the terminal's mode.
            disable_raw_mode()?;
            enter(app.interface().prefs().mouse)?;
            redraw(terminal)?;
        }
        Effect::Quit => {}
    }
    Ok(None)
}
