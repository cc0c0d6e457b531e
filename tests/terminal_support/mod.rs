//! `huozi-tui` and `huozi demo` in a terminal of their own, with the embedded model.
#![allow(dead_code)] // every test binary uses a part of it

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn cells(n: u16) -> NonZero<u16> {
    NonZero::new(n).unwrap()
}

/// The cache folder: the embedded model is converted once for all tests.
pub fn cache() -> String {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("tui-cache").to_str().unwrap().to_owned()
}

pub struct Terminal {
    pub master: File,
    pub child: Child,
    pub screen: Arc<Mutex<vt100::Parser>>,
    /// Reads what the program writes, until it is told to end.
    pub reader: Option<JoinHandle<()>>,
    pub ending: Arc<AtomicBool>,
}

impl Terminal {
    /// Starts the program in `home`, in a terminal of `size` columns and rows.
    pub fn start(home: &Path, size: (u16, u16), args: &[&str]) -> Self {
        Self::start_with(home, size, args, &[("XDG_CACHE_HOME", &cache())])
    }

    /// The same with these environment variables.
    pub fn start_with(home: &Path, size: (u16, u16), args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::run(&[], home, size, args, env)
    }

    /// The same as a job of a shell, which says when it has stopped, and lets it go on after a line is typed.
    pub fn job(home: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        const JOBS: &str =
            r#"set -m; "$0" "$@"; echo "[stopped $?]"; read go; fg; echo "[ended $?]"; read end"#;
        Self::run(&["sh", "-c", JOBS], home, (80, 24), args, env)
    }

    pub fn run(shell: &[&str], home: &Path, size: (u16, u16), args: &[&str], env: &[(&str, &str)]) -> Self {
        let program = [env!("CARGO_BIN_EXE_huozi-tui"), "--demo", "-t", "1"];
        Self::run_program(&[shell, &program, args].concat(), home, size, env)
    }

    /// Starts a program with its arguments.
    pub fn run_program(program: &[&str], home: &Path, size: (u16, u16), env: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let master = File::from(master);
        let winsize = |(columns, rows)| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, winsize(size)).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        // A session of its own, with this terminal: then it is told of changes of size.
        let mut command = Command::new("setsid");
        command.arg("--ctty").args(program);
        for key in [
            "HUOZI_MODEL",
            "HUOZI_THREADS",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
            "NO_COLOR",
            "LC_ALL",
            "LC_CTYPE",
            "LC_MESSAGES",
            "COLORFGBG",
        ] {
            command.env_remove(key);
        }
        command.env("HOME", home).env("LANG", "zh_CN.UTF-8").env("TERM", "xterm-256color");
        command.envs(env.iter().copied());
        let child = command.current_dir(home).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(size.1), cells(size.0), 0)));
        let (mut reader, to) = (master.try_clone().unwrap(), screen.clone());
        let ending = Arc::new(AtomicBool::new(false));
        let ends = ending.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(n) = reader.read(&mut bytes) {
                if n == 0 || ends.load(Ordering::SeqCst) {
                    break;
                }
                to.lock().unwrap().process(&bytes[..n]);
            }
        });
        Self { master, child, screen, reader: Some(reader), ending }
    }

    /// Starts it and waits for the chat.
    pub fn chat(home: &Path, size: (u16, u16), args: &[&str]) -> Self {
        Self::start(home, size, args).ready()
    }

    /// Waits for the chat.
    pub fn ready(mut self) -> Self {
        self.wait("the chat", |screen| screen.contains("/2048"));
        self
    }

    pub fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    #[track_caller]
    pub fn wait(&mut self, what: &str, found: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let contents = self.contents();
            if found(&contents) {
                return contents;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "no {what} ({ended:?}):\n{contents}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the screen has been the same for a while.
    pub fn settle(&mut self) -> String {
        let mut last = self.contents();
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_millis(400) {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.contents();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // The program may be slow to read: all of it is written, piece by piece.
        self.master.write_all(bytes).unwrap();
    }

    pub fn paste(&mut self, text: &str) {
        self.send(&format!("\u{1b}[200~{text}\u{1b}[201~"));
    }

    pub fn resize(&mut self, size: (u16, u16)) {
        self.screen.lock().unwrap().screen_mut().set_size(cells(size.1), cells(size.0));
        let winsize = Winsize { ws_row: size.1, ws_col: size.0, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, winsize).unwrap();
    }

    /// Closes the terminal: its other end is gone.
    pub fn hang_up(mut self) -> ExitStatus {
        self.ending.store(true, Ordering::SeqCst);
        // The reader waits for something to read.
        self.send("\u{c}");
        self.reader.take().unwrap().join().unwrap();
        self.master = File::open("/dev/null").unwrap();
        self.ended()
    }

    /// Sends a signal to the program that the shell runs.
    pub fn signal(&self, name: &str) {
        let shell = self.child.id();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        let status = Command::new("kill").args([name, children.trim()]).status();
        assert!(status.unwrap().success());
    }

    pub fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it goes on:\n{}", self.contents());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn quit(mut self) {
        self.send("\u{11}");
        assert_eq!(self.ended().code(), Some(0));
        self.is_restored();
    }

    /// The terminal is as it was before.
    pub fn is_restored(&self) {
        std::thread::sleep(Duration::from_millis(100));
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
    }

    /// Waits until the cursor is where text goes: a frame may be on its way.
    pub fn wait_for_cursor(&mut self) {
        let until = Instant::now() + PATIENCE;
        let good = |parser: &vt100::Parser| {
            let screen = parser.screen();
            let row = screen.cursor_position().0;
            let line = screen.rows(0, screen.size().1.get()).nth(usize::from(row)).unwrap_or_default();
            !screen.hide_cursor() && row + 1 < screen.size().0.get() && line.starts_with('>')
        };
        while !good(&self.screen.lock().unwrap()) {
            assert!(Instant::now() < until, "no cursor:\n{}", self.contents());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where the cursor is, column and row; it is shown, and not on the last row.
    pub fn cursor(&self) -> (u16, u16) {
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        let (row, column) = screen.cursor_position();
        assert!(
            !screen.hide_cursor() && row + 1 < screen.size().0.get(),
            "row {row}:\n{}",
            screen.contents()
        );
        (column, row)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
