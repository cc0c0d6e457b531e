//! `huozi-tui`: the terminal, in and out; signals; a panic. What is shown and done is `huozi::tui`'s affair.
#![forbid(unsafe_code)]

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{
    self, DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture, Event,
    KeyCode, KeyEvent, KeyModifiers, MouseEvent, MouseEventKind,
};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use huozi::cli;
use huozi::tui::app::{App, Start};
use huozi::tui::event::{Effect, Msg};
use huozi::tui::failure::Failure;
use huozi::tui::update::update;
use huozi::tui::view;
use huozi::tui::worker::{DeskTask, Report, Setup, Workers};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Rect, Size};
use ratatui::{Terminal, TerminalOptions, Viewport};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH, SIGXCPU, SIGXFSZ,
};
use std::fs::File;
use std::io::{self, BufWriter, Read, Stdout, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Between two frames, when a key was pressed, and when the model writes.
const FRAMES: [Duration; 2] = [Duration::from_millis(8), Duration::from_millis(33)];
/// Between two frames while something moves that nobody reports.
const TICK: Duration = Duration::from_millis(250);
/// The longest wait of the thread that reads keys: how soon it lets an editor have them.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The shortest wait in which what has come is read.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How long that may take at most.
const PAUSE: Duration = Duration::from_millis(300);
/// How long the end waits for the last answer to be on disk.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long signals that come together may take.
const SIGNALS: Duration = Duration::from_millis(30);
/// Columns and rows that are used at most: a terminal may say that it has thousands of millions of cells.
const MOST_CELLS: (u16, u16) = (1000, 500);
/// An editor's text is at most this long.
const MAX_EDITED_BYTES: u64 = 64 << 20;

type Screen = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

fn main() -> ExitCode {
    let (start, setup) = match cli::tui::start() {
        Ok(started) => started,
        Err(code) => return ExitCode::from(code),
    };
    let hook = std::panic::take_hook();
    let main = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info| {
        // The model's thread reports its own; whatever else panics ends the program.
        if std::thread::current().id() == main {
            leave();
            hook(info);
        }
    }));
    let code = Arc::new(AtomicU8::new(0));
    let result = run(start, setup, &code);
    match result {
        Ok(saved) => match code.load(Ordering::SeqCst) {
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

fn enter(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
    if mouse {
        execute!(io::stdout(), EnableMouseCapture)?;
    }
    Ok(())
}

/// Gives the terminal back as it was; nothing can be done where that fails.
fn leave() {
    let _ = execute!(
        io::stdout(),
        EndSynchronizedUpdate,
        DisableMouseCapture,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    );
    let _ = disable_raw_mode();
}

/// Runs until somebody quits; whether all that was said is on disk.
fn run(start: Start, setup: Setup, code: &Arc<AtomicU8>) -> io::Result<bool> {
    let (send, messages) = mpsc::channel();
    // Dropped after `terminal`, which may hold a part of a frame when a panic unwinds: that part comes before it.
    let restore = Restore;
    let job = Arc::new(Job::default());
    // Before the terminal is changed: a signal that comes at once finds somebody who changes it back.
    watch_signals(send.clone(), code.clone(), job.clone())?;
    enter(start.prefs.mouse)?;
    let backend = CrosstermBackend::new(BufWriter::with_capacity(1 << 16, io::stdout()));
    let viewport = Viewport::Fixed(used(crossterm::terminal::size()?.into()));
    let mut terminal = Terminal::with_options(backend, TerminalOptions { viewport })?;
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
    let until = Instant::now() + PATIENCE;
    workers.end_model(until);
    // What it told since: a question that is in its conversation now is no draft any more.
    for msg in messages.try_iter() {
        for effect in update(&mut app, msg, Instant::now()) {
            if let Effect::Desk(desk @ DeskTask::Draft(_)) = effect {
                workers.desk(desk);
            }
        }
    }
    let done = workers.finish(until);
    // The desk does not end before it has told what it could not do.
    let mut draft = None;
    let mut failed = false;
    for msg in messages.try_iter() {
        match &msg {
            Msg::Report(Report::DraftNotKept(why)) => draft = Some(why.clone()),
            Msg::Report(Report::DeskFailed(why) | Report::PathFailed(why)) => {
                complain(why.text(app.lang()));
                failed = true;
            }
            _ => {}
        }
        update(&mut app, msg, Instant::now());
    }
    let lang = app.lang();
    let not_done = || {
        Failure::new(
            "the disk did not answer in time: not all may be there",
            "磁盘没有及时响应，可能没有全部写入",
        )
    };
    let conversation = lang.of("the conversation is not saved: ", "对话没有保存：");
    let unsaved = app.unsaved.clone().or_else(|| (!done).then(not_done));
    let lost = [
        (unsaved, conversation),
        (draft, lang.of("what was not sent is not kept: ", "未发送的内容没有保存：")),
    ];
    for (why, what) in lost.iter().filter_map(|(why, what)| Some((why.as_ref()?, what))) {
        complain(&format!("{what}{}", why.text(lang)));
    }
    Ok(!failed && lost.iter().all(|(why, _)| why.is_none()))
}

/// What of a terminal is used.
fn used(size: Size) -> Rect {
    Rect::new(0, 0, size.width.min(MOST_CELLS.0), size.height.min(MOST_CELLS.1))
}

/// Gives the terminal back when it goes.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The rest is done, and the reason stands on the screen; it would be hidden by a frame that has no end.
            let _ = execute!(io::stdout(), EndSynchronizedUpdate);
        } else {
            leave();
        }
    }
}

/// Whom effects go to.
struct Outside<'a> {
    workers: &'a Workers,
    keys: &'a Keys,
    job: &'a Job,
    /// The exit code, once a signal ends the program.
    code: &'a AtomicU8,
}

fn serve(
    terminal: &mut Screen,
    app: &mut App,
    effects: Vec<Effect>,
    outside: &Outside<'_>,
    messages: &Receiver<Msg>,
) {
    // For the test that the terminal is given back.
    let panics = cfg!(debug_assertions) && std::env::var_os("HUOZI_TUI_PANIC").is_some();
    let mut effects = effects;
    let mut drawn = Instant::now();
    // Whether the screen is behind, and whether somebody waits for it.
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
                carry_out(effect, terminal, app, outside).unwrap_or_else(|_| Some(hung_up(outside.code))),
            );
        }
        for msg in again {
            effects.extend(update(app, msg, Instant::now()));
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
                    // Where things are depends on what came before; characters that are typed need not know it.
                    if matches!(msg, Msg::Key(_) | Msg::Mouse(_)) && !is_plain(&msg) {
                        view::prepare(app);
                    }
                    effects.extend(update(app, msg, Instant::now()));
                }
                behind = true;
            }
            Err(RecvTimeoutError::Timeout) => {
                effects.extend(update(app, Msg::Tick, Instant::now()));
                behind = true;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let pause = if urgent { FRAMES[0] } else { FRAMES[1] };
        if behind && !app.quitting && drawn.elapsed() >= pause {
            if draw(terminal, app).is_err() {
                effects.extend(update(app, hung_up(outside.code), Instant::now()));
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

/// One frame; afterwards the cursor stands where text goes.
fn draw(terminal: &mut Screen, app: &mut App) -> io::Result<()> {
    let size = used(terminal.size()?);
    queue!(terminal.backend_mut(), BeginSynchronizedUpdate)?;
    if terminal.get_frame().area() != size {
        terminal.resize(size)?;
    }
    terminal.draw(|frame| {
        let area = frame.area();
        app.size = (area.width, area.height);
        view::prepare(app);
        if let Some(position) = view::render(app, Instant::now(), frame.buffer_mut()) {
            frame.set_cursor_position(position);
        }
    })?;
    queue!(terminal.backend_mut(), EndSynchronizedUpdate)?;
    terminal.backend_mut().flush()
}

fn carry_out(
    effect: Effect,
    terminal: &mut Screen,
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
        Effect::Redraw => repaint(terminal)?,
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
            let _ = enter(app.prefs.mouse);
            outside.keys.go_on();
            return Ok(Some(Msg::Edited(edited)));
        }
        Effect::Suspend => {
            if !Job::can_stop() {
                return Ok(None);
            }
            leave();
            outside.job.stop()?;
            // Whoever ends a job that is stopped lets it go on, too: it does not take the terminal then.
            let until = Instant::now() + SIGNALS;
            while outside.code.load(Ordering::SeqCst) == 0 {
                if Instant::now() >= until {
                    return Ok(Some(Msg::Continued));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            return Ok(Some(Msg::Terminate));
        }
        Effect::Enter => {
            // Whoever had the terminal may have changed its mode.
            disable_raw_mode()?;
            enter(app.prefs.mouse)?;
            repaint(terminal)?;
        }
        Effect::Quit => {}
    }
    Ok(None)
}

/// Clears the screen; the next frame paints all of it. (`Terminal::clear` would ask the terminal where its cursor is, and
/// the answer would go to the thread that reads keys.)
fn repaint(terminal: &mut Screen) -> io::Result<()> {
    let size = used(terminal.size()?);
    terminal.resize(size)
}

/// Lets a person edit `text` in `$VISUAL` or `$EDITOR`, until there is a `code` to exit with.
fn edit(text: &str, code: &AtomicU8) -> io::Result<String> {
    let var = |key| std::env::var(key).ok().filter(|value| !value.trim().is_empty());
    let editor = var("VISUAL").or_else(|| var("EDITOR")).unwrap_or_else(|| "vi".into());
    let mut file = tempfile::Builder::new().prefix("huozi-").suffix(".md").tempfile()?;
    file.write_all(text.as_bytes())?;
    // It may hold arguments of its own. An interrupt is the editor's: the shell around it waits for its end.
    let command = format!("trap : INT; {editor} \"$1\"");
    let mut child = Command::new("sh").args(["-c", &command, "sh"]).arg(file.path()).spawn()?;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            // What it wrote so far is read below. Where all of the job is ours it ends, too.
            None if code.load(Ordering::SeqCst) != 0 => {
                if rustix::process::getpgrp() == rustix::process::getpid() {
                    let _ = rustix::process::kill_current_process_group(rustix::process::Signal::TERM);
                }
                break ExitStatus::default();
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
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

/// This process as a part of a shell's job.
#[derive(Default)]
struct Job {
    /// An editor has the terminal, and the signals that its keys give are meant for it.
    editing: AtomicBool,
    /// The next SIGTSTP is the one that was sent from here.
    stopping: AtomicBool,
}

impl Job {
    /// Whether somebody would let this process go on again: not in the process group of the session's leader, which no
    /// shell looks after. There the system ignores SIGTSTP, too.
    fn can_stop() -> bool {
        rustix::process::getsid(None).is_ok_and(|session| session != rustix::process::getpgrp())
    }

    /// Stops the whole process group, as Ctrl+Z does outside of raw mode, until it is told to go on.
    fn stop(&self) -> io::Result<()> {
        self.stopping.store(true, Ordering::SeqCst);
        // The others may have something to do before they stop; here that is done.
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        signal_hook::low_level::emulate_default_handler(SIGTSTP)
    }

    /// Whether a signal is nobody else's affair.
    fn takes(&self, signal: i32) -> bool {
        match signal {
            SIGTSTP if self.stopping.swap(false, Ordering::SeqCst) => true,
            // The editor has stopped, and the shell waits until all of the job has.
            SIGTSTP if self.editing.load(Ordering::SeqCst) => {
                if Self::can_stop() {
                    let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
                }
                true
            }
            SIGINT | SIGQUIT => self.editing.load(Ordering::SeqCst),
            _ => false,
        }
    }
}

/// Who may read keys.
#[derive(Default)]
struct Keys {
    paused: AtomicBool,
    quiet: AtomicBool,
}

impl Keys {
    /// Returns when nobody here reads keys.
    fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        let until = Instant::now() + PAUSE;
        while !self.quiet.load(Ordering::SeqCst) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn go_on(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }
}

/// The terminal went away, whether a signal says so or not.
fn hung_up(code: &AtomicU8) -> Msg {
    let _ = code.compare_exchange(0, 128 + SIGHUP as u8, Ordering::SeqCst, Ordering::SeqCst);
    Msg::Terminate
}

fn read_keys(keys: Arc<Keys>, send: Sender<Msg>, code: Arc<AtomicU8>) -> io::Result<()> {
    std::thread::Builder::new().name("keys".into()).spawn(move || {
        loop {
            if keys.paused.load(Ordering::SeqCst) {
                keys.quiet.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            keys.quiet.store(false, Ordering::SeqCst);
            let stdin = io::stdin();
            match rustix::event::poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&POLL)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                _ => {}
            }
            // All that is there.
            let mut read = false;
            loop {
                let msg = match event::poll(AT_ONCE)
                    .and_then(|there| if there { event::read().map(Some) } else { Ok(None) })
                {
                    // One that hung up says so, and gives nothing.
                    Ok(None) if !read && tcgetwinsize(&stdin).is_err() => hung_up(&code),
                    Ok(None) => break,
                    Ok(Some(event)) => {
                        read = true;
                        match of_event(event) {
                            Some(msg) => msg,
                            None => continue,
                        }
                    }
                    Err(_) => hung_up(&code),
                };
                let last = matches!(msg, Msg::Terminate);
                if send.send(msg).is_err() || last {
                    return;
                }
            }
        }
    })?;
    Ok(())
}

/// What matters of what the terminal says. Its size is told by a signal.
fn of_event(event: Event) -> Option<Msg> {
    match event {
        Event::Key(key) => Some(Msg::Key(key)),
        // Nothing follows a mouse that is only moved.
        Event::Mouse(MouseEvent {
            kind: MouseEventKind::Moved | MouseEventKind::Drag(_) | MouseEventKind::Up(_),
            ..
        }) => None,
        Event::Mouse(mouse) => Some(Msg::Mouse(mouse)),
        Event::Paste(text) => Some(Msg::Paste(text)),
        Event::Resize(..) | Event::FocusGained | Event::FocusLost => None,
    }
}

fn watch_signals(send: Sender<Msg>, code: Arc<AtomicU8>, job: Arc<Job>) -> io::Result<()> {
    const ENDS: [i32; 8] = [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU];
    let others = [SIGTSTP, SIGCONT, SIGXFSZ, SIGWINCH];
    let mut signals = signal_hook::iterator::Signals::new(ENDS.iter().chain(&others))?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if job.takes(signal) {
                continue;
            }
            let msg = match signal {
                SIGTSTP => Msg::Suspend,
                SIGCONT => Msg::Continued,
                SIGWINCH => match crossterm::terminal::size() {
                    Ok(size) => {
                        let size = used(size.into());
                        Msg::Resize(size.width, size.height)
                    }
                    // The one who reads keys will say so.
                    Err(_) => continue,
                },
                // The write that was too much fails, and is told like a disk that is full.
                SIGXFSZ => continue,
                signal => {
                    let number = 128 + signal as u8;
                    // The first is the one that ends it.
                    let _ = code.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst);
                    // A terminal that takes nothing any more may hold the thread that would end.
                    let _ = std::thread::Builder::new().spawn(move || {
                        std::thread::sleep(2 * PATIENCE);
                        std::process::exit(number.into());
                    });
                    Msg::Terminate
                }
            };
            if send.send(msg).is_err() {
                break;
            }
        }
    })?;
    Ok(())
}
