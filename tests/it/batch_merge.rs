//! The shards of a batch, and one output of them.

use crate::batch_output_support::{Batch, id, untimed, write};
use huozi::batch::output::{MergeOptions, ResultOrder, RunIdentity, Shard, manifest_path, merge};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A batch as `count` finished shards.
fn shards(count: u32, errors: bool) -> Vec<Batch> {
    let shard = |index| {
        let mut batch = Batch::new(40);
        batch.identity.shard = Some(Shard::new(index, count).unwrap());
        batch.options.errors = errors.then(|| batch.at("err.jsonl"));
        if index == 1 {
            batch.options.order = ResultOrder::Done;
        }
        batch.run(batch.open());
        let named = format!("out.jsonl.{index}-of-{count}");
        assert!(batch.files().contains(&named), "{:?}", batch.files());
        batch.options.out = batch.at(&named);
        batch
    };
    (0..count).map(shard).collect()
}

fn outs(parts: &[Batch]) -> Vec<PathBuf> {
    parts.iter().map(|part| part.options.out.clone()).collect()
}

#[test]
fn merged_shards_are_what_one_process_writes() {
    let one = Batch::new(40);
    one.run(one.open());
    for (count, errors) in [(1, false), (3, false), (4, true)] {
        let parts = shards(count, errors);
        let to = Batch::new(40);
        let mut paths = outs(&parts);
        paths.reverse();
        paths.push(manifest_path(&paths[0]));
        let options =
            MergeOptions { parts: paths, out: to.options.out.clone(), errors: None, restart: false };
        let summary = merge(&options).unwrap();
        assert_eq!((summary.rows, summary.failed), (40, 8));
        assert_eq!(to.lines(), one.lines());
        assert_eq!(to.files(), ["out.jsonl", "out.jsonl.manifest.json"]);
        // Once more, and as the output of one process.
        merge(&options).unwrap();
        assert!(to.complete().already);
        let errors = to.at("errors.jsonl");
        merge(&MergeOptions { errors: Some(errors.clone()), ..options }).unwrap();
        assert_eq!(untimed(&fs::read_to_string(errors).unwrap()).len(), 8);
        assert_eq!(to.lines().len(), 32);
    }
}

#[test]
fn merge_refuses_what_is_not_whole() {
    let parts = shards(3, false);
    let to = tempfile::tempdir().unwrap();
    let refused = |parts: &[PathBuf]| {
        let out = to.path().join("out.jsonl");
        let options = MergeOptions { parts: parts.to_vec(), out: out.clone(), ..MergeOptions::default() };
        let error = merge(&options).unwrap_err().to_string();
        assert!(!out.exists(), "{error}");
        error
    };
    let all = outs(&parts);
    assert!(refused(&[]).contains("no parts"));
    let error = refused(&all[..1]);
    assert!(error.contains("2 of 3 shards missing: 1/3, 2/3"), "{error}");
    let twice = [&all[..], &all[..1]].concat();
    assert!(refused(&twice).contains("shard 0/3 is named twice"));
    let one = Batch::new(40);
    one.run(one.open());
    let foreign = [&all[..2], std::slice::from_ref(&one.options.out)].concat();
    assert!(refused(&foreign).contains("only outputs of --shard"));
    assert!(refused(&[to.path().join("none")]).contains("manifest.json is missing"));
    let mut unfinished = Batch::new(40);
    unfinished.identity.shard = Shard::new(2, 3).ok();
    let mut writer = unfinished.open();
    write(&mut writer, unfinished.rows()[0], false);
    drop(writer);
    let with = |part: PathBuf| [&all[..2], &[part]].concat();
    assert!(refused(&with(unfinished.at("out.jsonl.2-of-3"))).contains("unfinished"));
    assert!(refused(&with(unfinished.at("out.jsonl.2-of-3.partial"))).contains("unfinished"));
    for (change, expected) in [
        ((|run| run.isa_class = "other".into()) as fn(&mut RunIdentity), "class of the instruction set"),
        (|run| run.settings["seed"] = 1.into(), "seed: was 1, is 7"),
        (|run| run.shard = Shard::new(2, 4).ok(), "number of shards: was 4, is 3"),
        (|run| run.input.rows = 41, "rows of the input"),
    ] {
        let mut other = Batch::new(40);
        other.identity.shard = Shard::new(2, 3).ok();
        change(&mut other.identity);
        let out = other.run(other.open()).out;
        let error = refused(&with(out));
        assert!(error.contains("different runs") && error.contains(expected), "{error}");
    }
    // As many lines, but one of a row that the other shard has.
    let mut stolen = Batch::new(40);
    stolen.identity.shard = Shard::new(2, 3).ok();
    let mut writer = stolen.open();
    let own = stolen.rows();
    let rows = [&parts[0].rows()[..1], &own[1..]].concat();
    rows.iter().for_each(|&row| write(&mut writer, row, false));
    let out = writer.finish(rows.len()).unwrap().out;
    assert!(refused(&with(out)).contains("belongs to another shard"));
    // Changed contents, and manifests that lie.
    let (out, whole) = (&all[2], fs::read_to_string(&all[2]).unwrap());
    fs::write(out, whole.replacen("answer", "ANSWER", 1)).unwrap();
    assert!(refused(&all).contains("was changed or cut"));
    fs::write(out, &whole[..whole.len() - 1]).unwrap();
    assert!(refused(&all).contains("its manifest says"));
    fs::write(out, &whole).unwrap();
    let path = manifest_path(out);
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    type Lie = fn(&mut Value);
    let lies: [(Lie, &str); 6] = [
        (|value| value["run"]["shard"]["index"] = 7.into(), "no share of the rows"),
        (|value| value["result"]["results"]["lines"] = json!(1_u64 << 60), "its manifest says"),
        (|value| value["result"]["results"]["lines"] = 1.into(), "the input has 40 rows"),
        (|value| value["result"]["results"]["rows"] = "/////////////w==".into(), "which rows its lines are"),
        (|value| value["result"]["results"]["rows"] = Value::Null, "which rows its lines are"),
        (|value| value["result"]["results"]["rows"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(), ""),
    ];
    for (lie, expected) in lies {
        let mut value = good.clone();
        lie(&mut value);
        fs::write(&path, value.to_string()).unwrap();
        let error = refused(&all);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    fs::write(&path, good.to_string()).unwrap();
    let out = to.path().join("out.jsonl");
    fs::write(&out, "mine").unwrap();
    let options = MergeOptions { parts: all.clone(), out, ..MergeOptions::default() };
    assert!(merge(&options).unwrap_err().to_string().contains("no manifest says"));
    let onto = MergeOptions { out: all[0].clone(), ..options.clone() };
    assert!(merge(&onto).unwrap_err().to_string().contains("is also read"));
    assert_eq!(merge(&MergeOptions { restart: true, ..options }).unwrap().rows, 40);
}

#[test]
fn a_shard_is_named_or_that_of_a_slurm_task() {
    assert_eq!("2/3".parse(), Shard::new(2, 3));
    for text in ["3/3", "0/0", "-1/2", "1", "a/b", "1/2/3", ""] {
        assert!(text.parse::<Shard>().is_err(), "{text}");
    }
    assert_eq!(Shard::new(1, 4).unwrap().path(Path::new("a/o.jsonl")), Path::new("a/o.jsonl.1-of-4"));
    let held = (0..1000).filter(|&row| Shard::new(0, 4).unwrap().holds(&id(row))).count();
    assert!((200..300).contains(&held), "{held}");
    let slurm = |values: [&'static str; 5], shards| {
        let names = ["ID", "COUNT", "MIN", "MAX", "STEP"];
        let find = move |name: &str| {
            let at = names.iter().position(|n| name == format!("SLURM_ARRAY_TASK_{n}")).unwrap();
            (!values[at].is_empty()).then(|| values[at].to_owned())
        };
        Shard::slurm(find, shards).map_err(|error| error.to_string())
    };
    assert_eq!(slurm(["3", "8", "0", "7", "1"], None), Ok(Shard::new(3, 8).unwrap()));
    assert_eq!(slurm(["9", "2", "4", "9", "5"], Some(10)), Ok(Shard::new(9, 10).unwrap()));
    for (values, shards, why) in [
        (["", "", "", "", ""], None, "SLURM_ARRAY_TASK_ID is not set"),
        (["x", "8", "0", "7", "1"], None, "is no number"),
        (["3", "8", "1", "8", "1"], None, "say --shards N"),
        (["3", "4", "0", "6", "2"], None, "say --shards N"),
        (["3", "4", "0", "7", "1"], None, "say --shards N"),
        (["3", "", "", "", ""], None, "say --shards N"),
        (["8", "1", "8", "8", "1"], Some(8), "numbers them from 0 to 7"),
    ] {
        let error = slurm(values, shards).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
