//! The files of a batch after every way to end.

use crate::batch_output_support::{Batch, identity, ids, untimed, write};
use huozi::batch::output::{Manifest, ResultOrder, RunIdentity, manifest_path, partial_path};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

#[test]
fn lines_are_in_the_order_asked_for_and_errors_where_asked_for() {
    let mut batch = Batch::new(7);
    let summary = batch.run(batch.open());
    assert_eq!((summary.rows, summary.failed, summary.already), (7, 1, false));
    assert_eq!(ids(&batch.lines()), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(batch.files(), ["out.jsonl", "out.jsonl.manifest.json"]);
    assert!(batch.complete().already);

    batch.options.restart = true;
    batch.options.order = ResultOrder::Done;
    batch.run(batch.open());
    assert_eq!(ids(&batch.lines()), [6, 5, 4, 3, 2, 1, 0]);

    batch.options.errors = Some(batch.at("errors.jsonl"));
    let summary = batch.run(batch.open());
    assert_eq!((summary.rows, summary.failed), (7, 1));
    assert_eq!(ids(&batch.lines()), [6, 5, 3, 2, 1, 0]);
    let errors = untimed(&fs::read_to_string(batch.at("errors.jsonl")).unwrap());
    assert_eq!(ids(&errors), [4]);
    assert_eq!(batch.files(), ["errors.jsonl", "out.jsonl", "out.jsonl.manifest.json"]);
}

#[test]
fn a_line_torn_at_any_byte_is_cut_and_its_row_runs_again() {
    let batch = Batch::new(3);
    let mut writer = batch.open();
    write(&mut writer, 2, false);
    write(&mut writer, 0, true);
    let partial = partial_path(&batch.options.out);
    let before = fs::metadata(&partial).unwrap().len() as usize;
    write(&mut writer, 1, false);
    drop(writer);
    let whole = fs::read(&partial).unwrap();
    for end in before..=whole.len() {
        fs::write(&partial, &whole[..end]).unwrap();
        let mut writer = batch.open();
        let done = [0, 1, 2].map(|row| writer.is_done(row));
        assert_eq!(done, [true, end == whole.len(), true], "{end} of {}", whole.len());
        if !done[1] {
            assert_eq!(fs::read(&partial).unwrap(), whole[..before]);
            write(&mut writer, 1, false);
        }
        drop(writer);
        assert_eq!(
            untimed(&fs::read_to_string(&partial).unwrap()),
            untimed(std::str::from_utf8(&whole).unwrap())
        );
    }
    assert_eq!(batch.run(batch.open()).rows, 3);
    assert_eq!(ids(&batch.lines()), [0, 1, 2]);
}

#[test]
fn one_process_writes() {
    let batch = Batch::new(2);
    let writer = batch.open();
    let error = batch.refused();
    assert!(error.contains("another process writes it") && error.contains(".partial"), "{error}");
    drop(writer);
    // Nothing was done: nothing but the manifest is left.
    assert_eq!(batch.files(), ["out.jsonl.manifest.json"]);
    let mut writer = batch.open();
    write(&mut writer, 0, false);
    let error = writer.finish(2).unwrap_err().to_string();
    assert!(error.contains("1 of 2 rows"), "{error}");
    assert!(!batch.options.out.exists() && partial_path(&batch.options.out).exists());
}

#[test]
fn a_run_that_differs_is_refused_and_told_in_what() {
    type Change = fn(&mut RunIdentity);
    let changes: [(Change, &str); 12] = [
        (|run| run.version = "9".into(), "version of huozi: was 0.1.0, is 9"),
        (|run| run.model.fingerprint = "1".into(), "fingerprint of the model: was"),
        (|run| run.engine = "ggml".into(), "engine: was"),
        (|run| run.kv_type = "q8".into(), "KV type: was f16, is q8"),
        (|run| run.isa_class = "x86_64-separate".into(), "class of the instruction set: was"),
        (|run| run.date = Some("2026-01-01".into()), "date: was none, is"),
        (|run| run.input.sha256 = "x".into(), "SHA-256 of the input: was"),
        (|run| run.input.form = "text".into(), "form of the input: was"),
        (|run| run.settings["seed"] = 8.into(), "seed: was 7, is 8"),
        (|run| drop(run.settings.remove("max_new")), "max_new: was 9, is none"),
        (|run| drop(run.settings.insert("top_k".into(), 5.into())), "top_k: was none, is 5"),
        (|run| run.settings["temperature"] = json!(0.2_f32), "temperature: was 0.1"),
    ];
    for finished in [false, true] {
        let batch = Batch::new(3);
        let mut writer = batch.open();
        write(&mut writer, 0, false);
        if finished {
            drop(batch.run(writer))
        } else {
            drop(writer)
        }
        let held = if finished { batch.options.out.clone() } else { partial_path(&batch.options.out) };
        let before = fs::read(&held).unwrap();
        let mut other = Batch { identity: identity(3), options: batch.options.clone(), ..Batch::new(0) };
        for (change, expected) in changes {
            other.identity = identity(3);
            change(&mut other.identity);
            let error = other.refused();
            assert!(error.contains(expected) && error.contains("--restart"), "{expected}: {error}");
            assert_eq!(fs::read(&held).unwrap(), before);
        }
        // The name is for people.
        other.identity = identity(3);
        other.identity.model.name = "renamed".to_owned();
        assert!(other.try_open().is_ok());
        other.identity.settings["seed"] = 8.into();
        other.options.restart = true;
        assert!(!other.open().is_done(0));
    }
}

#[test]
fn a_process_killed_while_it_finishes_leaves_what_the_same_command_finishes() {
    for errors in [false, true] {
        let mut batch = Batch::new(6);
        batch.options.errors = errors.then(|| batch.at("err.jsonl"));
        let mut writer = batch.open();
        batch.rows().into_iter().for_each(|row| write(&mut writer, row, row % 5 == 4));
        drop(writer);
        let (out, partial) = (batch.options.out.clone(), partial_path(&batch.options.out));
        let running = [partial.clone(), manifest_path(&out)].map(|path| fs::read(path).unwrap());
        assert_eq!(batch.run(batch.open()).failed, 1);
        let complete = fs::read(manifest_path(&out)).unwrap();
        let finished = fs::read(&out).unwrap();
        let written = fs::read(batch.at("err.jsonl"));
        let names = batch.files();
        let state = |with_out: bool, manifest: &[u8], with_errors: bool| {
            batch.files().iter().for_each(|name| fs::remove_file(batch.at(name)).unwrap());
            fs::write(&partial, &running[0]).unwrap();
            fs::write(manifest_path(&out), manifest).unwrap();
            if with_out {
                fs::write(&out, &finished).unwrap();
            }
            if with_errors {
                fs::write(batch.at("err.jsonl"), "{}\n").unwrap();
            }
            fs::write(batch.at("out.jsonl.finishing"), &finished[..9]).unwrap();
        };
        for (with_out, manifest, with_errors) in [
            (false, &running[1], false),
            (false, &running[1], errors),
            (true, &running[1], errors),
            (false, &complete, errors),
        ] {
            state(with_out, manifest, with_errors);
            let writer = batch.open();
            assert!(batch.rows().into_iter().all(|row| writer.is_done(row)));
            assert_eq!(batch.run(writer).rows, 6);
            assert_eq!((fs::read(&out).unwrap(), batch.files()), (finished.clone(), names.clone()));
            assert_eq!(fs::read(manifest_path(&out)).unwrap(), complete);
        }
        // Everything but the removal.
        state(true, &complete, errors);
        if let Ok(written) = written {
            fs::write(batch.at("err.jsonl"), written).unwrap();
        }
        assert_eq!(batch.complete().failed, 1);
        assert!(!partial.exists() && fs::read(&out).unwrap() == finished);
    }
}

#[test]
fn rows_that_failed_run_again_where_asked_for() {
    let mut batch = Batch::new(7);
    batch.run(batch.open());
    let before = batch.lines();
    batch.options.retry_errors = true;
    let mut writer = batch.open();
    assert_eq!((0..7).filter(|&row| !writer.is_done(row)).collect::<Vec<_>>(), [4]);
    // Until it is done the finished file stays; a process killed here goes on.
    assert_eq!(batch.lines(), before);
    write(&mut writer, 4, true);
    drop(writer);
    assert_eq!(batch.lines(), before);
    let mut writer = batch.open();
    assert!(!writer.is_done(4) && writer.is_done(3));
    write(&mut writer, 4, false);
    assert_eq!(writer.finish(7).unwrap().failed, 0);
    assert_eq!(ids(&batch.lines()), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(batch.lines()[4]["error"], Value::Null);
    assert_eq!(batch.complete().failed, 0);
}

#[test]
fn a_complete_run_needs_its_file_of_errors() {
    let mut batch = Batch::new(7);
    let errors = batch.at("errors.jsonl");
    batch.options.errors = Some(errors.clone());
    batch.run(batch.open());
    let written = fs::read(&errors).unwrap();
    assert_eq!(batch.complete().failed, 1);
    fs::remove_file(&errors).unwrap();
    assert!(batch.refused().contains("is gone; run the rows that failed again with --retry-errors"));
    fs::write(&errors, &written[1..]).unwrap();
    assert!(batch.refused().contains("was changed since the batch wrote it"), "{}", batch.refused());
    fs::write(&errors, &written).unwrap();
    assert_eq!(batch.complete().failed, 1);
    batch.options.errors = Some(batch.at("other.jsonl"));
    assert!(batch.refused().contains("errors: errors.jsonl then, other.jsonl now"), "{}", batch.refused());
    // Without the option the run is what it was.
    batch.options.errors = None;
    assert_eq!(batch.complete().failed, 1);
    fs::remove_file(&errors).unwrap();
    batch.options.errors = Some(errors);
    batch.options.retry_errors = true;
    assert_eq!((0..7).filter(|&row| !batch.open().is_done(row)).collect::<Vec<_>>(), [4]);
}

#[test]
fn errors_do_not_go_into_the_output_of_another_batch() {
    let (mut batch, mut other) = (Batch::new(7), Batch::new(7));
    other.options.out = batch.at("other.jsonl");
    let mut writer = other.open();
    write(&mut writer, 1, false);
    drop(writer);
    batch.options.errors = Some(other.options.out.clone());
    for restart in [false, true] {
        batch.options.restart = restart;
        assert!(batch.refused().contains("is the output of another batch"), "{}", batch.refused());
    }
}

#[test]
fn files_of_others_stay() {
    let batch = Batch::new(2);
    let (out, partial) = (&batch.options.out, partial_path(&batch.options.out));
    fs::write(out, "mine\n").unwrap();
    assert!(batch.refused().contains("no manifest says"), "{}", batch.refused());
    assert_eq!(batch.files(), ["out.jsonl"]);
    fs::write(out, "").unwrap();
    fs::write(&partial, "mine\n").unwrap();
    assert!(batch.refused().contains("the manifest that says of which run is missing"));
    fs::remove_file(&partial).unwrap();
    std::os::unix::fs::symlink(batch.at("elsewhere"), &partial).unwrap();
    assert!(batch.refused().contains("symbolic link"));
    fs::remove_file(&partial).unwrap();

    let mut writer = batch.open();
    write(&mut writer, 1, false);
    drop(writer);
    let good = fs::read_to_string(&partial).unwrap();
    for (more, line, why) in [
        ("garbage\n".to_owned(), 2, "no line of results: expected value"),
        ("\n".to_owned(), 2, "no line of results"),
        ("\0\0\n".to_owned(), 2, "no line of results"),
        ("{\"custom_id\":\"row-0\"}\n".to_owned(), 2, "either a response or an error"),
        (good.replace("row-1", "row-9"), 2, "the input has no row \"row-9\""),
        (good.clone(), 2, "a second result of row \"row-1\""),
        (format!("{good}{}\n", "[".repeat(100_000)), 2, "a second result"),
    ] {
        fs::write(&partial, format!("{good}{more}")).unwrap();
        let error = batch.refused();
        assert!(error.contains(&format!("line {line}: ")) && error.contains(why), "{more:?}: {error}");
        assert_eq!(fs::read_to_string(&partial).unwrap(), format!("{good}{more}"));
    }
    // Without its line feed it is torn.
    fs::write(&partial, format!("{good}\0\0garbage")).unwrap();
    let batch_done = batch.run(batch.open());
    assert_eq!(batch_done.rows, 2);
    fs::write(out, "edited\n").unwrap();
    assert!(batch.refused().contains("was changed since the batch wrote it"));
    // A finished output that was removed is run anew.
    fs::remove_file(out).unwrap();
    assert!(!batch.open().is_done(0));
}

#[test]
fn a_hostile_manifest_is_an_error() {
    let batch = Batch::new(2);
    batch.run(batch.open());
    let path = manifest_path(&batch.options.out);
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let with = |change: fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        value.to_string()
    };
    for text in [
        String::new(),
        "[".repeat(100_000),
        "{}".to_owned(),
        "3".to_owned(),
        with(|value| value["schema"] = 2.into()),
        with(|value| value["run"] = json!([1])),
        with(|value| value["result"] = json!({"rows": -1})),
        with(|value| value["result"]["results"]["bytes"] = json!(1e300)),
    ] {
        fs::write(&path, &text).unwrap();
        let error = batch.refused();
        assert!(error.contains("no usable manifest"), "{}: {error}", &text[..text.len().min(99)]);
    }
    fs::write(&path, with(|value| value["run"] = json!({}))).unwrap();
    assert!(batch.refused().contains("differs from this one: "));
    assert!(Manifest::read(&batch.at("none")).unwrap().is_none());
}

#[test]
fn an_output_is_no_source_no_device_and_not_two_files() {
    let mut batch = Batch::new(1);
    let input = batch.at("in.jsonl");
    fs::write(&input, "").unwrap();
    std::os::unix::fs::symlink(&input, &batch.options.out).unwrap();
    batch.options.sources = vec![input.clone()];
    batch.options.restart = true;
    assert!(batch.refused().contains("is also read by this run"));
    batch.options.sources.clear();
    batch.options.errors = Some(input);
    assert!(batch.refused().contains("to hold the results and the errors"));
    batch.options.out = PathBuf::from("/dev/null");
    assert!(batch.refused().contains("a character device"));
}
