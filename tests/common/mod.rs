//! What the tests of the program share: models converted from the fixtures, and runs of the binary.
#![allow(dead_code)] // every test binary uses a part of it

use huozi::engine::{KvType, Native, NativeOptions};
use huozi_convert::pipeline;
use huozi_convert::plan::Preset;
use huozi_convert::{Options, Source};
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock};

/// The five tiny checkpoints.
pub const TINY: [&str; 5] =
    ["tiny-f32", "tiny-bin-f16", "tiny-6heads-bf16", "tiny-untied-oldkeys-f16", "tiny-k256-f16"];

/// The folder of a fixture; `nano` is the embedded model.
pub fn checkpoint(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if name == "nano" { root.join("src/demo") } else { fixture(name) }
}

/// A file or folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The checkpoint `name` as a GGUF file of type `preset`, converted once per test binary.
pub fn model(name: &str, preset: Preset) -> PathBuf {
    static DONE: OnceLock<(PathBuf, Mutex<HashMap<String, PathBuf>>)> = OnceLock::new();
    let (folder, done) = DONE.get_or_init(|| {
        // One per test binary, emptied when it starts: a static is never dropped, so a temporary folder would
        // stay.
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("models-", env!("CARGO_CRATE_NAME")));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder for models");
        (folder, Mutex::default())
    });
    let key = format!("{name}-{}", preset.name());
    let mut done = done.lock().expect("no panic while converting");
    done.entry(key.clone())
        .or_insert_with(|| {
            let out = folder.join(format!("{key}.gguf"));
            let options = Options::new(Source::Path(checkpoint(name)), preset, &out);
            pipeline::run(&options, &(), &AtomicBool::new(false)).expect("converts");
            out
        })
        .clone()
}

/// A cancel flag that is never set.
pub static NEVER: AtomicBool = AtomicBool::new(false);

/// The native engine over a file.
pub fn open(file: &Path, kv: KvType, kv_positions: usize, threads: usize) -> (Reader, Native) {
    let reader = Reader::open(file, How::Map).expect("opens");
    let options = NativeOptions { threads: Some(threads), kv, kv_positions };
    let engine = Native::open(&reader, &options).expect("is a model");
    (reader, engine)
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    pub fn out(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("UTF-8")
    }

    /// Asserts success and gives standard output.
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        self.out()
    }

    /// Asserts success and gives the JSON lines, each with its schema.
    pub fn json(&self) -> Vec<serde_json::Value> {
        let lines: Vec<serde_json::Value> =
            self.ok().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| line["schema"] == 2), "{}", self.out());
        lines
    }

    /// Asserts an exit code, an empty standard output and exactly one line `huozi: ...` that holds `what`.
    #[track_caller]
    pub fn fails(&self, code: i32, what: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("huozi: ") && self.stderr.contains(what), "{self:?}");
    }
}

/// The program, without the settings of the user who runs the tests.
pub fn huozi(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_huozi"));
    for key in [
        "HUOZI_MODEL",
        "HUOZI_THREADS",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
        "HF_HOME",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "TRANSFORMERS_CACHE",
    ] {
        command.env_remove(key);
    }
    command.env("HOME", home).current_dir(home);
    command
}

/// Runs the program in a home folder of its own.
pub fn run<S: AsRef<std::ffi::OsStr>>(args: &[S], stdin: &str) -> Run {
    let home = tempfile::tempdir().expect("a temporary folder");
    finish(huozi(home.path()).args(args), stdin)
}

/// Runs a prepared command.
pub fn finish(command: &mut Command, stdin: &str) -> Run {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let text = stdin.to_owned();
    // It may end without reading.
    let writer = std::thread::spawn(move || {
        let _ = pipe.write_all(text.as_bytes());
    });
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("written");
    Run {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A path as an argument.
pub fn arg(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// The methods of an engine that a wrapper with a field `inner` passes on.
#[allow(unused_macros)] // as above
macro_rules! forward_to_inner {
    () => {
        fn info(&self) -> &huozi::engine::Info {
            self.inner.info()
        }
        fn seq_new(&mut self) -> huozi::engine::Seq {
            self.inner.seq_new()
        }
        fn seq_len(&self, seq: huozi::engine::Seq) -> usize {
            self.inner.seq_len(seq)
        }
        fn seq_fork(
            &mut self,
            src: huozi::engine::Seq,
            len: usize,
        ) -> Result<huozi::engine::Seq, huozi::engine::EngineError> {
            self.inner.seq_fork(src, len)
        }
        fn seq_truncate(
            &mut self,
            seq: huozi::engine::Seq,
            len: usize,
        ) -> Result<(), huozi::engine::EngineError> {
            self.inner.seq_truncate(seq, len)
        }
        fn seq_free(&mut self, seq: huozi::engine::Seq) {
            self.inner.seq_free(seq);
        }
        fn kv_free_blocks(&self) -> usize {
            self.inner.kv_free_blocks()
        }
        fn kv_state(&mut self) -> Option<&mut dyn huozi::engine::KvState> {
            self.inner.kv_state()
        }
    };
}
#[allow(unused_imports)]
pub(crate) use forward_to_inner;
