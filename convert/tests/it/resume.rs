//! Conversions that are stopped: by a cancel, by signals, by a full disk, by a source that changes; and what
//! the next run makes of what they leave.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use huozi_convert::pipeline::run;
use huozi_convert::plan::Preset;
use huozi_convert::{Error, ErrorKind};
use huozi_convert::{Options, Progress, Report, Source};
use huozi_quant::gguf::check::check;

/// 6.3 million weights: 47 chunks.
fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/demo")
}

fn copy_demo(to: &Path) {
    fs::create_dir(to).unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        fs::copy(demo().join(name), to.join(name)).unwrap();
    }
}

fn options(preset: Preset, out: &Path) -> Options {
    Options { threads: Some(2), ..Options::new(Source::Path(demo()), preset, out) }
}

fn go(options: &Options) -> Result<Report, Error> {
    run(options, &(), &AtomicBool::new(false))
}

/// Sets the flag after so many bytes.
struct CancelAfter<'a>(u64, AtomicU64, &'a AtomicBool);

impl Progress for CancelAfter<'_> {
    fn advance(&self, bytes: u64) {
        if self.1.fetch_add(bytes, Relaxed) + bytes > self.0 {
            self.2.store(true, Relaxed);
        }
    }
}

/// Runs until so many bytes of the source are done; gives back what lies there then, sorted by name.
fn stop_after(options: &Options, bytes: u64) -> Vec<String> {
    let cancel = AtomicBool::new(false);
    let result = run(options, &CancelAfter(bytes, AtomicU64::new(0), &cancel), &cancel);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    names(options.outputs[0].1.parent().unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The file as it comes out in one go.
fn whole(preset: Preset) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("whole.gguf");
    go(&options(preset, &out)).unwrap();
    assert!(check(&out, &|_| Ok(())).unwrap().damaged.is_empty());
    fs::read(out).unwrap()
}

fn resumed_at(report: &Report) -> Option<u64> {
    let note = report.notes.iter().find_map(|n| n.split_once(": resumed at ")?.1.strip_suffix(" %"))?;
    Some(note.parse().unwrap())
}

#[test]
fn a_cancelled_run_goes_on_to_the_same_bytes() {
    let expected = whole(Preset::Q4_K_M);
    for (threads, stops) in [(1, &[2_000_000, 3_000_000, 100_000][..]), (2, &[6_000_000]), (3, &[1, 1, 1, 1])]
    {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a.gguf");
        let wanted = Options { threads: Some(threads), ..options(Preset::Q4_K_M, &out) };
        for bytes in stops {
            assert_eq!(stop_after(&wanted, *bytes), ["a.gguf.journal", "a.gguf.partial"]);
        }
        let report = go(&Options { threads: Some(4 - threads), verify: true, ..wanted }).unwrap();
        assert!(resumed_at(&report) > Some(0), "{:?}", report.notes);
        assert!(fs::read(&out).unwrap() == expected, "{threads} threads");
        assert_eq!(names(dir.path()), ["a.gguf"]);
    }
}

#[test]
fn one_of_several_goes_on_alone_and_reports_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
    let both = Options {
        outputs: vec![(Preset::Q8_0, a.clone()), (Preset::Q4_K_M, b.clone())],
        ..options(Preset::Q8_0, &a)
    };
    stop_after(&both, 6_000_000);
    assert_eq!(names(dir.path()).len(), 4);
    let report = go(&options(Preset::Q4_K_M, &b)).unwrap();
    assert!(resumed_at(&report) > Some(0));
    assert!(fs::read(&b).unwrap() == whole(Preset::Q4_K_M));
    // What the first run found out about its chunks is not lost.
    let fresh = go(&Options { force: true, ..options(Preset::Q4_K_M, &b) }).unwrap();
    assert_eq!(report.outputs[0].worst, fresh.outputs[0].worst);
    // The other is half done, this one is not begun; together they end as each alone.
    fs::remove_file(&b).unwrap();
    go(&both).unwrap();
    assert!(fs::read(&a).unwrap() == whole(Preset::Q8_0));
    assert!(fs::read(&b).unwrap() == whole(Preset::Q4_K_M));
}

#[test]
fn damage_between_the_runs_is_found() {
    let expected = whole(Preset::Q8_0);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let (partial, journal) = (dir.path().join("a.gguf.partial"), dir.path().join("a.gguf.journal"));
    let wanted = options(Preset::Q8_0, &out);
    let again = |what: &str, harm: &dyn Fn()| {
        stop_after(&wanted, 6_000_000);
        harm();
        let report = go(&wanted).unwrap();
        assert!(fs::read(&out).unwrap() == expected, "{what}");
        assert_eq!(names(dir.path()), ["a.gguf"]);
        fs::remove_file(&out).unwrap();
        resumed_at(&report)
    };
    let all = again("nothing", &|| {});
    assert!(all > Some(20), "{all:?}");
    let fewer = again("data", &|| {
        let file = fs::File::options().write(true).open(&partial).unwrap();
        let len = file.metadata().unwrap().len();
        for at in (0..len).step_by(200_000) {
            file.write_all_at(&[0xa5; 64], at).unwrap();
        }
    });
    assert!(fewer < all, "{fewer:?} {all:?}");
    again("a torn line", &|| {
        let text = fs::read(&journal).unwrap();
        fs::write(&journal, &text[..text.len() - 30]).unwrap();
    });
    again("chunks that are none", &|| {
        let text = fs::read_to_string(&journal).unwrap();
        let line = text.lines().nth(1).unwrap();
        let (_, rest) = line.split_once(' ').unwrap();
        fs::write(&journal, format!("{text}{line}\n999999999 {rest}\n1 {rest}\n")).unwrap();
    });
    let none = |what: &str, harm: &dyn Fn()| assert_eq!(again(what, harm), None, "{what}");
    none("no partial file", &|| fs::remove_file(&partial).unwrap());
    none("another length", &|| fs::File::options().write(true).open(&partial).unwrap().set_len(99).unwrap());
    // As after a kill at the very beginning.
    none("both empty", &|| {
        fs::write(&partial, "").unwrap();
        fs::write(&journal, "").unwrap();
    });
    none("a torn title", &|| {
        fs::write(&partial, "").unwrap();
        fs::write(&journal, "huozi-conv").unwrap();
    });
    // Without its journal it may belong to another program.
    stop_after(&wanted, 6_000_000);
    for harm in
        [&|| fs::remove_file(&journal).unwrap(), &|| fs::write(&journal, "").unwrap()] as [&dyn Fn(); 2]
    {
        harm();
        let before = fs::read(&partial).unwrap();
        let error = go(&wanted).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Usage && error.to_string().contains("move it out of the way"),
            "{error}"
        );
        assert!(fs::read(&partial).unwrap() == before);
        assert_eq!(names(dir.path()), ["a.gguf.partial"]);
    }
}

#[test]
fn what_is_done_outlasts_any_error_that_is_not_its_fault() {
    let expected = whole(Preset::Q8_0);
    let dir = tempfile::tempdir().unwrap();
    let (out, other) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
    let wanted = options(Preset::Q8_0, &out);
    let goes_on = |least: u64| {
        let report = go(&wanted).unwrap();
        assert!(resumed_at(&report) > Some(least), "{:?}", report.notes);
        assert!(fs::read(&out).unwrap() == expected);
        fs::remove_file(&out).unwrap();
    };
    let unfinished = |error: Error| match error {
        Error::Unfinished { source } => *source,
        other => panic!("{other}"),
    };
    // Another impossible output, found before anything is written.
    stop_after(&wanted, 6_000_000);
    fs::create_dir(dir.path().join("b.gguf.journal")).unwrap();
    let both = Options {
        outputs: vec![(Preset::Q8_0, out.clone()), (Preset::Q4_0, other.clone())],
        ..wanted.clone()
    };
    let error = unfinished(go(&both).unwrap_err());
    assert!(error.to_string().contains("b.gguf.journal"), "{error}");
    fs::remove_dir(dir.path().join("b.gguf.journal")).unwrap();
    assert_eq!(names(dir.path()), ["a.gguf.journal", "a.gguf.partial"]);
    goes_on(20);
    // Another process took the name in the meantime.
    struct Taken<'a>(&'a Path);
    impl Progress for Taken<'_> {
        fn sync(&self, _: u64) {
            fs::write(self.0, "mine").unwrap();
        }
    }
    let error = unfinished(run(&wanted, &Taken(&out), &AtomicBool::new(false)).unwrap_err());
    assert!(matches!(error, Error::Exists(_)), "{error}");
    assert_eq!(fs::read(&out).unwrap(), b"mine");
    fs::remove_file(&out).unwrap();
    goes_on(99);
    // A panic is our own fault, and not that of what is done.
    struct Panic(AtomicU64);
    impl Progress for Panic {
        fn advance(&self, bytes: u64) {
            assert!(self.0.fetch_add(bytes, Relaxed) < 6_000_000, "planted");
        }
    }
    let panicking = || run(&wanted, &Panic(AtomicU64::new(0)), &AtomicBool::new(false));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking));
    assert!(panicked.is_err());
    goes_on(20);
    // A full disk.
    stop_after(&wanted, 6_000_000);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 1024; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_huozi-convert")]);
    let output = command.arg(demo()).args(["-t", "q8_0", "-o"]).arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    assert!(text(&output).contains("the same command resumes"), "{}", text(&output));
    assert_eq!(names(dir.path()), ["a.gguf.journal", "a.gguf.partial"]);
    goes_on(20);
}

#[test]
fn zeros_are_counted_over_all_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (model, outs) = (dir.path().join("model"), dir.path().join("outs"));
    copy_demo(&model);
    fs::create_dir(&outs).unwrap();
    // A NaN in F16 here and there.
    let weights = fs::File::options().write(true).open(model.join("model.safetensors")).unwrap();
    let len = weights.metadata().unwrap().len();
    for at in (100_000..len).step_by(300_000) {
        weights.write_all_at(&[0, 0x7e], at).unwrap();
    }
    let out = outs.join("a.gguf");
    let wanted = Options { allow_nan: true, ..Options::new(Source::Path(model), Preset::Q8_0, &out) };
    let zeroed = |report: &Report| {
        let note = report
            .notes
            .iter()
            .find_map(|n| n.split_once(": ")?.1.strip_suffix(" NaN or infinite weights were written as 0"));
        note.map(|n| n.parse::<u32>().unwrap())
    };
    let fresh = zeroed(&go(&wanted).unwrap());
    assert!(fresh > Some(30), "{fresh:?}");
    fs::remove_file(&out).unwrap();
    stop_after(&wanted, 6_000_000);
    let report = go(&wanted).unwrap();
    assert!(resumed_at(&report) > Some(20));
    assert_eq!(zeroed(&report), fresh);
}

#[test]
fn another_conversion_starts_over_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    copy_demo(&model);
    let outs = dir.path().join("outs");
    fs::create_dir(&outs).unwrap();
    let out = outs.join("a.gguf");
    let first =
        Options { name: Some("m".into()), ..Options::new(Source::Path(model.clone()), Preset::Q8_0, &out) };
    let touch = || {
        let file = fs::File::options().append(true).open(model.join("model.safetensors")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    };
    // Another file in its place, of the same size and time.
    let replace = || {
        let (path, new) = (model.join("model.safetensors"), model.join("new"));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&new, bytes).unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::File::options().append(true).open(&new).unwrap().set_modified(time).unwrap();
        fs::rename(&new, &path).unwrap();
    };
    let as_before = &|| {};
    let cases: [(&str, Options, &dyn Fn()); 5] = [
        ("type", Options { outputs: vec![(Preset::Q4_0, out.clone())], ..first.clone() }, as_before),
        ("name", Options { name: Some("n".into()), ..first.clone() }, as_before),
        ("allow-nan", Options { allow_nan: true, ..first.clone() }, as_before),
        ("time of the source", first.clone(), &touch),
        ("content of the source", first.clone(), &replace),
    ];
    for (what, second, between) in cases {
        assert_eq!(stop_after(&first, 6_000_000).len(), 2, "{what}");
        between();
        let report = go(&second).unwrap();
        assert!(report.notes.iter().any(|n| n.contains("started over")), "{what}: {:?}", report.notes);
        assert_eq!(resumed_at(&report), None);
        let reference = dir.path().join("reference.gguf");
        let fresh =
            Options { outputs: vec![(second.outputs[0].0, reference.clone())], force: true, ..second };
        go(&fresh).unwrap();
        assert!(fs::read(&out).unwrap() == fs::read(&reference).unwrap(), "{what}");
        fs::remove_file(&out).unwrap();
    }
}

fn program(out: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_huozi-convert"));
    command.arg(demo()).args(args).arg("-o").arg(out);
    command.env("HF_HOME", "/nonexistent").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The slowest type.
const SLOW: [&str; 2] = ["-t", "q2_k"];

/// Waits until a few chunks are noted.
fn wait_for_progress(child: &mut Child, journal: &Path) {
    let started = Instant::now();
    while fs::metadata(journal).map_or(0, |m| m.size()) < 300 {
        assert!(started.elapsed() < Duration::from_secs(60), "no progress");
        if child.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Further outputs in the same pass: the conversion lasts several times as long, also on a busy machine.
fn more_outputs(command: &mut Command, folder: &Path) {
    for preset in ["q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "iq4_xs"] {
        command.args(["-t", preset, "-o"]).arg(folder.join(format!("{preset}.gguf")));
    }
}

fn kill(child: &Child, signal: &str) {
    let status = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn killed_at_any_moment_it_ends_with_the_same_bytes() {
    let expected = whole(Preset::Q2_K);
    let mut random = huozi_quant::random::Random::new(1);
    let (mut kills, mut resumed) = (0, 0);
    while kills < 8 || (resumed == 0 && kills < 40) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a.gguf");
        for round in 0.. {
            let threads = ["1", "2"][round % 2];
            let mut command = program(&out, &SLOW);
            command.args(["--threads", threads]);
            if round % 3 == 2 {
                command.env("HUOZI_ISA", "scalar");
            }
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random.below(700)));
            if child.try_wait().unwrap().is_none() {
                kill(&child, "KILL");
                kills += 1;
            }
            let output = child.wait_with_output().unwrap();
            resumed += u32::from(text(&output).contains("resumed at"));
            if out.exists() || kills >= 8 {
                break;
            }
            assert!(!output.status.success(), "{}", text(&output));
        }
        if !out.exists() {
            let output = program(&out, &SLOW).output().unwrap();
            resumed += u32::from(text(&output).contains("resumed at"));
            assert!(output.status.success(), "{}", text(&output));
            assert_eq!(names(dir.path()), ["a.gguf"]);
        }
        assert!(fs::read(&out).unwrap() == expected, "after {kills} kills");
    }
    assert!(resumed > 0, "never went on");
}

#[test]
fn signals_leave_what_the_next_run_goes_on_with() {
    let expected = whole(Preset::Q2_K);
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        if signal == "HUP" && u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 != 0 {
            eprintln!("SIGHUP not sent: these tests run with it ignored, as under nohup");
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a.gguf");
        let stopped = || {
            let mut child = program(&out, &SLOW).args(["--threads", "1"]).spawn().unwrap();
            wait_for_progress(&mut child, &dir.path().join("a.gguf.journal"));
            kill(&child, signal);
            child.wait_with_output().unwrap()
        };
        let mut output = stopped();
        // A test that gets no processor for a while sees the progress too late.
        for _ in 0..5 {
            if output.status.success() {
                fs::remove_file(&out).unwrap();
                output = stopped();
            }
        }
        assert_eq!(output.status.code(), Some(code), "SIG{signal}: {}", text(&output));
        assert!(text(&output).contains("the same command resumes"), "{}", text(&output));
        assert_eq!(names(dir.path()), ["a.gguf.journal", "a.gguf.partial"]);
        let output = program(&out, &SLOW).output().unwrap();
        assert!(output.status.success() && text(&output).contains("resumed at"), "{}", text(&output));
        assert!(fs::read(&out).unwrap() == expected);
        assert_eq!(names(dir.path()), ["a.gguf"]);
    }
    // Who starts it with `nohup` wants it to outlive the terminal.
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_huozi-convert")]);
    command.arg(demo()).args(["-t", "q2_k", "--threads", "1", "-o"]).arg(&out);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_progress(&mut child, &dir.path().join("a.gguf.journal"));
    kill(&child, "HUP");
    assert!(child.wait().unwrap().success());
    assert!(fs::read(&out).unwrap() == expected);
}

#[test]
fn a_second_writer_is_refused_and_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let mut command = program(&out, &SLOW);
    more_outputs(command.args(["--threads", "1"]), dir.path());
    let mut child = command.spawn().unwrap();
    wait_for_progress(&mut child, &dir.path().join("a.gguf.journal"));
    // Stopped meanwhile: on a busy machine it could be done before the second begins.
    kill(&child, "STOP");
    let second = program(&out, &SLOW).output().unwrap();
    kill(&child, "CONT");
    assert_eq!(second.status.code(), Some(1), "{}", text(&second));
    assert!(text(&second).contains("is being written by another conversion"));
    assert!(child.wait().unwrap().success());
    assert!(fs::read(&out).unwrap() == whole(Preset::Q2_K));
}

#[test]
fn no_room_is_said_clearly_and_leaves_nothing() {
    // The limit stands for a full disk: files of at most 512 KiB, then of too little for the last tensors.
    for blocks in ["1024", "9000"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a.gguf");
        let mut command = Command::new("sh");
        let script = format!("ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_huozi-convert")]);
        command.arg(demo()).args(["-t", "q8_0", "-o"]).arg(&out);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{}", text(&output));
        assert!(
            text(&output).lines().any(|l| l.starts_with("error: ") && l.contains("a.gguf")),
            "{}",
            text(&output)
        );
        assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
    }
}

#[test]
fn a_source_that_shrinks_or_changes_while_it_is_read() {
    for (what, shrink) in [("shrinks", true), ("changes", false)] {
        let dir = tempfile::tempdir().unwrap();
        let (model, outs) = (dir.path().join("model"), dir.path().join("outs"));
        copy_demo(&model);
        fs::create_dir(&outs).unwrap();
        let out = outs.join("a.gguf");
        let mut command = Command::new(env!("CARGO_BIN_EXE_huozi-convert"));
        command.arg(&model).args(["-t", "q2_k", "--threads", "1", "-o"]).arg(&out);
        more_outputs(&mut command, &outs);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_progress(&mut child, &outs.join("a.gguf.journal"));
        kill(&child, "STOP");
        let file = fs::File::options().write(true).open(model.join("model.safetensors")).unwrap();
        let len = file.metadata().unwrap().len();
        if shrink {
            file.set_len(len / 3).unwrap();
        } else {
            file.write_all_at(&[0; 8], len - 8).unwrap();
        }
        kill(&child, "CONT");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{what}: {}", text(&output));
        assert!(text(&output).contains("model"), "{}", text(&output));
        assert!(names(&outs).is_empty(), "{what}: {:?}", names(&outs));
    }
    // A folder where a shard should be.
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(demo().join(name), dir.path().join(name)).unwrap();
    }
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    let out = dir.path().join("a.gguf");
    let mut command = Command::new(env!("CARGO_BIN_EXE_huozi-convert"));
    let output = command.arg(dir.path()).args(["-t", "q8_0", "-o"]).arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("model.safetensors") && !out.exists(), "{}", text(&output));
}
