//! The Slurm scripts of `examples/`, with programs in the place of Slurm's and of `huozi` that write down how
//! they were called; the length that the Ray example promises.

use std::path::{Path, PathBuf};
use std::process::Command;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// Runs a script where `huozi` ends with `code`: the exit code of the script, and all calls, a line each.
#[cfg(unix)]
fn script(name: &str, args: &[&str], code: i32, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let calls = dir.path().join("calls");
    for (program, end) in [
        ("srun", format!("exit {code}")),
        ("huozi", format!("exit {code}")),
        ("scontrol", String::new()),
        ("sleep", String::new()),
    ] {
        let path = dir.path().join(program);
        std::fs::write(&path, format!("#!/bin/sh\necho {program} \"$@\" >> '{}'\n{end}\n", calls.display()))
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for part in
        ["out.jsonl.0-of-2", "out.jsonl.1-of-2", "out.jsonl.1-of-2.partial", "out.jsonl.1-of-2.manifest"]
    {
        std::fs::write(dir.path().join(part), "").unwrap();
    }
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let status = Command::new("bash")
        .arg(example(name))
        .args(args)
        .current_dir(dir.path())
        .env("PATH", path)
        .env_remove("HUOZI")
        .env_remove("SHARDS")
        .env_remove("SLURM_RESTART_COUNT")
        .envs([("SLURM_CPUS_ON_NODE", "4"), ("SLURM_ARRAY_JOB_ID", "70"), ("SLURM_ARRAY_TASK_ID", "1")])
        .envs(environment.iter().copied())
        .status()
        .unwrap();
    (status.code(), std::fs::read_to_string(calls).unwrap_or_default())
}

#[cfg(unix)]
#[test]
fn a_slurm_task_takes_error_rows_as_success_and_is_queued_again_after_a_signal() {
    let args = ["huozi.gguf", "in.jsonl", "out.jsonl"];
    let run = "srun --cpus-per-task=4 huozi batch -m huozi.gguf -i in.jsonl -o out.jsonl --shard slurm";
    let again = "scontrol requeue 70_1";
    for (code, ends, queued) in
        [(0, 0, false), (3, 0, false), (2, 2, false), (137, 137, true), (143, 143, true)]
    {
        let (exit, calls) = script("slurm/batch.sbatch", &args, code, &[]);
        assert_eq!(exit, Some(ends), "huozi ended with {code}");
        assert_eq!(calls.lines().next(), Some(run));
        assert_eq!(calls.lines().any(|line| line == again), queued, "huozi ended with {code}: {calls}");
    }
    let (exit, calls) = script("slurm/batch.sbatch", &args, 137, &[("SLURM_RESTART_COUNT", "5")]);
    assert_eq!((exit, calls.contains(again)), (Some(137), false), "not without end");
    let (_, calls) = script("slurm/batch.sbatch", &args, 0, &[("SHARDS", "8")]);
    assert_eq!(calls.trim_end(), format!("{run} --shards 8"));
    assert_eq!(script("slurm/batch.sbatch", &args[..2], 0, &[]), (Some(2), String::new()));
}

#[cfg(unix)]
#[test]
fn the_slurm_merge_takes_finished_shards_only_and_keeps_error_rows() {
    for (code, ends) in [(0, 0), (3, 0), (2, 2)] {
        let (exit, calls) = script("slurm/merge.sbatch", &["out.jsonl"], code, &[]);
        assert_eq!(exit, Some(ends), "huozi ended with {code}");
        assert_eq!(calls, "huozi batch merge out.jsonl.0-of-2 out.jsonl.1-of-2 -o out.jsonl\n");
    }
    assert_eq!(script("slurm/merge.sbatch", &[], 0, &[]), (Some(2), String::new()));
}

#[test]
fn the_ray_example_has_at_most_80_lines() {
    let lines = std::fs::read_to_string(example("ray_batch.py")).unwrap().lines().count();
    assert!(lines <= 80, "{lines} lines");
}
