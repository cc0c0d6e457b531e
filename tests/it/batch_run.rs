//! `huozi batch` from a file of rows to a file of results, with the small model.

use crate::common::{self, Run, arg, finish, huozi};
use huozi_convert::plan::Preset;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = huozi(home);
    let model = arg(&common::model("nano", Preset::Q8_0));
    command.args(["batch", "-m", &model, "-t", "1"]).args(args);
    command
}

/// Runs `huozi batch` on rows.
fn batch(home: &TempDir, rows: &[Value], args: &[&str]) -> Run {
    write_rows(&home.path().join("in.jsonl"), rows);
    finish(&mut command(home.path(), args), "")
}

fn write_rows(path: &Path, rows: &[Value]) {
    let lines = rows.iter().map(|row| format!("{row}\n"));
    fs::write(path, lines.collect::<String>()).unwrap();
}

/// The lines by their `custom_id`, without what may differ between two runs.
fn results(text: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if let Some(body) = line.pointer_mut("/response/body").and_then(Value::as_object_mut) {
            assert!(body.remove("created").is_some() && body.remove("timings").is_some());
            body["usage"].as_object_mut().unwrap().remove("prompt_tokens_details");
        }
        let id = line["custom_id"].as_str().unwrap().to_owned();
        assert!(found.insert(id.clone(), line).is_none(), "{id} twice");
    }
    found
}

fn output(home: &TempDir) -> BTreeMap<String, Value> {
    results(&fs::read_to_string(home.path().join("out.jsonl")).unwrap())
}

/// Rows of every kind that share beginnings.
fn mixed(count: usize) -> Vec<Value> {
    let poem = "白日依山尽，黄河入海流。".repeat(8);
    let row = |i: usize| {
        let prompt = format!("{}{i}，", if i.is_multiple_of(2) { &poem } else { "春眠不觉晓" });
        let body = match i % 6 {
            0 | 1 => json!({"prompt": prompt, "max_tokens": 3 + i % 7}),
            2 => json!({"prompt": prompt, "max_tokens": 5, "n": 2, "temperature": 1.0}),
            3 => json!({"prompt": prompt, "max_tokens": 12, "stop": ["，", "。"]}),
            4 => json!({"prompt": prompt, "choices": ["山", "水", "一二三"]}),
            _ => json!({"prompt": prompt, "max_tokens": 4, "seed": i, "logprobs": 2}),
        };
        json!({"custom_id": format!("r{i}"), "method": "POST", "url": "/v1/completions", "body": body})
    };
    (0..count).map(row).collect()
}

const FILES: [&str; 4] = ["-i", "in.jsonl", "-o", "out.jsonl"];

#[test]
fn answers_do_not_depend_on_company_or_order() {
    let mut rows = mixed(36);
    let mut first: Option<BTreeMap<String, Value>> = None;
    for parallel in ["1", "4", "16"] {
        let home = tempfile::tempdir().unwrap();
        let run = batch(&home, &rows, &[&FILES[..], &["--parallel", parallel]].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let lines = fs::read_to_string(home.path().join("out.jsonl")).unwrap();
        let ids = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["custom_id"].clone());
        assert!(ids.eq(rows.iter().map(|row| row["custom_id"].clone())), "not in the order of the input");
        let found = output(&home);
        assert_eq!(found.len(), 36);
        match &first {
            None => first = Some(found),
            Some(first) => assert_eq!(found, *first, "--parallel {parallel}"),
        }
        rows.rotate_left(7);
        rows.reverse();
    }
    let first = first.unwrap();
    assert_eq!(first["r2"]["response"]["body"]["choices"].as_array().unwrap().len(), 2);
    assert_eq!(first["r4"]["response"]["body"]["scores"].as_array().unwrap().len(), 3);
    // Seeds come from the run's seed.
    let home = tempfile::tempdir().unwrap();
    let run = batch(&home, &rows, &[&FILES[..], &["--seed", "9"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let other = output(&home);
    let body = |of: &BTreeMap<String, Value>, id: &str| of[id]["response"]["body"]["choices"].clone();
    assert_ne!(body(&other, "r2"), body(&first, "r2"));
    assert_eq!(body(&other, "r5"), body(&first, "r5"), "a row's own seed");
}

#[test]
fn a_shared_prefix_is_read_once_wherever_its_rows_are() {
    let home = tempfile::tempdir().unwrap();
    let groups = ["白日依山尽，黄河入海流。", "春眠不觉晓，处处闻啼鸟。"];
    let groups = groups.map(|text| text.repeat(40));
    let rows = (0..48).map(|i| json!({"prompt": format!("{}{i}", groups[i % 2]), "max_tokens": 1}));
    let run = batch(&home, &Vec::from_iter(rows), &[&FILES[..], &["--json", "--parallel", "4"]].concat());
    let summary = run.json().pop().unwrap();
    let [asked, read] = ["prompt_tokens", "computed_tokens"].map(|key| summary[key].as_u64().unwrap());
    assert!(asked > 8 * read, "{summary}");
}

#[test]
fn rows_that_fail_have_a_line_and_exit_code_3() {
    let home = tempfile::tempdir().unwrap();
    let rows = [json!({"prompt": "白", "max_tokens": 2}), json!({"prompt": "日", "max_tokens": "2"})];
    let run = batch(&home, &rows, &FILES);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.stderr.contains("1 of 2 rows failed"), "{}", run.stderr);
    let found = output(&home);
    assert!(found["line-1"]["error"].is_null() && found["line-2"]["response"].is_null());
    // The same again finds everything done.
    let again = batch(&home, &rows, &FILES);
    assert_eq!(again.code, Some(3));
    assert!(again.stderr.contains("all 2 rows are done already"), "{}", again.stderr);
    assert_eq!(output(&home), found);
    // To a stream, in order.
    let rows = (0..9).map(|i| json!({"prompt": "白日", "max_tokens": 12 - i})).collect::<Vec<_>>();
    let run = batch(&home, &rows, &["-q", "-i", "in.jsonl", "-o", "-", "--parallel", "3"]);
    let ids = run.ok().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["custom_id"].clone());
    assert!(ids.eq((1..=9).map(|i| format!("line-{i}"))), "{}", run.out());
    assert_eq!(run.stderr, "");
}

#[test]
fn wrong_commands_have_their_exit_codes() {
    let home = tempfile::tempdir().unwrap();
    let rows = [json!({"prompt": "白", "max_tokens": 2})];
    for (args, code, what) in [
        (&["-i", "in.jsonl"][..], 2, "-o OUT is needed"),
        (&["-o", "out.jsonl"], 2, "-i IN is needed"),
        (&["-i", "none.jsonl", "-o", "out.jsonl"], 4, "none.jsonl"),
        (&["-i", "in.jsonl", "-o", "out.jsonl", "--memory", "1M"], 5, "of --memory"),
        (&["-i", "in.jsonl", "-o", "-", "--restart"], 2, "need a file"),
        (&["--follow", "-o", "out.jsonl"], 2, "--follow writes to standard output"),
        (&["-i", "in.jsonl", "-o", "out.jsonl", "--shard", "2/2"], 2, "2/2"),
        (&["-i", "in.jsonl", "-o", "out.jsonl", "--shard", "slurm"], 2, "SLURM_ARRAY_TASK_ID"),
    ] {
        let run = batch(&home, &rows, args);
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(what) && run.stdout.is_empty(), "{args:?}: {}", run.stderr);
        assert!(!home.path().join("out.jsonl.manifest.json").exists(), "{args:?}");
    }
}

#[test]
fn a_check_runs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let rows = [json!({"prompt": "白日依山尽", "max_tokens": 20}), json!({"prompt": 1})];
    let run = batch(&home, &rows, &["-i", "in.jsonl", "--check", "--json"]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    let found: Value = serde_json::from_str(run.out()).unwrap();
    assert_eq!((&found["rows"], &found["failed"]), (&json!(2), &json!(1)));
    assert_eq!(found["most_answer_tokens"], 20);
    assert!(found["seconds"].as_f64().unwrap() > 0.0 && found["memory_bytes"].as_u64().unwrap() > 1 << 20);
    let run = batch(&home, &rows[..1], &["-i", "in.jsonl", "--check"]);
    assert!(run.ok().contains("answer tokens  at most 20"), "{}", run.out());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "only the input");
}

#[test]
fn shards_merge_to_what_one_process_writes() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rows = mixed(12);
    assert_eq!(batch(&whole, &rows, &FILES).code, Some(0));
    for shard in ["0/2", "1/2"] {
        let run = batch(&parts, &rows, &[&FILES[..], &["--shard", shard]].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    let merge = ["batch", "merge", "out.jsonl.1-of-2", "out.jsonl.0-of-2", "-o", "out.jsonl"];
    let run = finish(huozi(parts.path()).args(merge), "");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(output(&parts), output(&whole));
}

/// Waits until `there` is true.
fn wait(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what} does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_run_that_is_ended_goes_on_where_it_was() {
    let rows: Vec<Value> = (0..60)
        .map(|i| {
            json!({"custom_id": format!("r{i}"), "body": {"prompt": format!("白日{i}"), "max_tokens": 40},
            "url": "/v1/completions", "method": "POST"})
        })
        .collect();
    let whole = tempfile::tempdir().unwrap();
    assert_eq!(batch(&whole, &rows, &FILES).code, Some(0));
    let home = tempfile::tempdir().unwrap();
    write_rows(&home.path().join("in.jsonl"), &rows);
    let partial = home.path().join("out.jsonl.partial");
    let lines = || fs::read(&partial).map_or(0, |text| text.iter().filter(|&&b| b == b'\n').count());
    for (name, code) in [("-INT", Some(130)), ("-KILL", None), ("-TERM", Some(143))] {
        let before = lines();
        let mut child = command(home.path(), &[&FILES[..], &["--parallel", "2"]].concat())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait("a new row", || lines() > before + 2);
        let asked = Instant::now();
        signal(&child, name);
        let ended = child.wait().unwrap();
        assert!(asked.elapsed() < Duration::from_secs(2), "{name}: {:?}", asked.elapsed());
        assert_eq!(ended.code(), code, "{name}");
        assert!(lines() < 60 && !home.path().join("out.jsonl").exists());
    }
    let run = finish(&mut command(home.path(), &FILES), "");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("of 60 rows are done already"), "{}", run.stderr);
    assert_eq!(output(&home), output(&whole));
    assert!(!partial.exists());
}

#[test]
fn followed_rows_are_answered_as_they_arrive() {
    let home = tempfile::tempdir().unwrap();
    let mut child = command(home.path(), &["--follow", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut ask = |row: Value| {
        // In two pieces: a line is read when it is complete.
        let line = row.to_string();
        stdin.write_all(&line.as_bytes()[..5]).unwrap();
        stdin.write_all(&line.as_bytes()[5..]).unwrap();
        stdin.write_all(b"\n").unwrap();
        let mut answer = String::new();
        stdout.read_line(&mut answer).unwrap();
        results(&answer).pop_first().unwrap()
    };
    let (id, first) = ask(json!({"custom_id": "a", "prompt": "白日", "max_tokens": 6}));
    assert_eq!((id.as_str(), &first["error"]), ("a", &Value::Null));
    let (id, second) = ask(json!({"custom_id": "a", "prompt": "白日", "max_tokens": 6}));
    assert_eq!((id.as_str(), second["error"]["code"].as_str()), ("a", Some("duplicate_id")));
    let (id, third) = ask(json!({"prompt": "白日", "max_tokens": 1.5}));
    assert_eq!(id, "line-3");
    assert!(third["error"].is_object(), "{third}");
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    // The answer is that of a batch.
    let rows = [json!({"custom_id": "a", "prompt": "白日", "max_tokens": 6})];
    assert_eq!(batch(&home, &rows, &FILES).code, Some(0));
    assert_eq!(output(&home)["a"], first);
}

#[test]
fn a_reader_that_reads_nothing_delays_no_end() {
    let home = tempfile::tempdir().unwrap();
    // More than a pipe holds.
    let stop = "x".repeat(1000);
    let row = json!({"prompt": "白日", "max_tokens": 60, "n": 4, "logprobs": 5, "stop": stop});
    write_rows(&home.path().join("in.jsonl"), &vec![row; 60]);
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = command(home.path(), &["-q", "-i", "in.jsonl", "-o", "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs(4));
        assert!(child.try_wait().unwrap().is_none(), "it does not wait for its reader");
        let asked = Instant::now();
        signal(&child, name);
        let ended = child.wait().unwrap();
        assert!(asked.elapsed() < Duration::from_secs(3), "{name}: {:?}", asked.elapsed());
        assert_eq!(ended.code(), Some(code), "{name}");
    }
}

#[test]
fn a_row_of_many_choices_runs_beside_others_whatever_runs_at_a_time() {
    let many: Vec<String> = (0..300).map(|i| format!("第{i}")).collect();
    let mut rows = mixed(12);
    rows.insert(3, json!({"custom_id": "many", "prompt": "白日依山尽", "choices": many}));
    rows.insert(9, json!({"custom_id": "answers", "prompt": "白日", "n": 20, "max_tokens": 4}));
    let homes = ["1", "8"].map(|parallel| {
        let home = tempfile::tempdir().unwrap();
        let run = batch(&home, &rows, &[&FILES[..], &["--parallel", parallel]].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        home
    });
    assert_eq!(output(&homes[0]), output(&homes[1]));
}

#[test]
fn a_closed_reader_ends_the_run_quietly() {
    let home = tempfile::tempdir().unwrap();
    write_rows(&home.path().join("in.jsonl"), &mixed(30));
    let mut child = command(home.path(), &["-q", "-i", "in.jsonl", "-o", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn what_a_run_writes_beside_its_output_is_never_its_input_nor_its_errors() {
    let home = tempfile::tempdir().unwrap();
    let row = format!("{}\n", json!({"prompt": "白", "max_tokens": 1}));
    for end in ["partial", "manifest.json", "finishing"] {
        let name = format!("out.jsonl.{end}");
        let path = home.path().join(&name);
        fs::write(&path, &row).unwrap();
        let args = ["--format", "jsonl", "-i", &name, "-o", "out.jsonl", "--restart"];
        let run = finish(&mut command(home.path(), &args), "");
        assert!(run.code != Some(0) && run.stderr.contains("also read by this run"), "{end}: {}", run.stderr);
        assert_eq!(fs::read_to_string(&path).unwrap(), row, "{end}");
        fs::remove_file(&path).unwrap();
        let errors = format!("../{}/{name}", home.path().file_name().unwrap().to_string_lossy());
        let run = batch(&home, &[json!({"prompt": 1})], &[&FILES[..], &["--errors", &errors]].concat());
        assert!(run.stderr.contains("is to hold the results and the errors"), "{end}: {}", run.stderr);
        assert!(!home.path().join("out.jsonl").exists() && !path.exists(), "{end}");
    }
    // Of another program.
    let other = home.path().join("out.jsonl.finishing");
    fs::write(&other, "precious").unwrap();
    let run = batch(&home, &[json!({"prompt": "白", "max_tokens": 1})], &FILES);
    assert!(run.stderr.contains("no manifest says"), "{}", run.stderr);
    assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
}
