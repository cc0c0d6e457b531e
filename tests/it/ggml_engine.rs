//! llama.cpp as an engine through the trait: sequences, steps, refusals, and the program with `--engine
//! ggml`.

use crate::common::{self, NEVER, fixture, model};
use crate::ggml::{PHASES, Rows, peer};
use huozi::engine::ggml::{self, Ggml};
use huozi::engine::{Engine, EngineError, FlashAttention, KvType, Phase, Seq, Sink, StepItem, Want};
use huozi_convert::plan::Preset;
use std::sync::atomic::{AtomicBool, Ordering};

/// The sink of a step that must give no row.
fn no_row() -> Sink<'static> {
    Sink::Shared(&|_, _, _| panic!("no row is wanted"))
}

fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| 4 + i * 37 % 900).collect()
}

fn tiny(kv_positions: usize, sequences: usize) -> Ggml {
    peer(&model("tiny-f32", Preset::F32), kv_positions, sequences, 2)
}

fn append(engine: &mut dyn Engine, seq: Seq, tokens: &[u32], phase: Phase) -> Rows {
    let mut rows = Vec::new();
    let item = StepItem { seq, tokens, phase, want: Want::All };
    let mut sink = |_: usize, _: usize, row: &[f32]| rows.push(row.to_vec());
    let stats = engine.step(&[item], &mut Sink::InOrder(&mut sink), &NEVER).unwrap();
    assert_eq!((stats.tokens, stats.rows), (tokens.len(), tokens.len()));
    rows
}

/// llama.cpp adds in another order at another width, and its GELU is a table over f16, where the last bit
/// may turn a value into its neighbour: 1.2e-4 seen.
fn near(a: &[Vec<f32>], b: &[Vec<f32>], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert!((a - b).abs() < 1e-3, "{what}: {a} and {b}");
    }
}

#[test]
fn forks_and_truncation_go_on_as_their_source_would() {
    let mut e = tiny(512, 4);
    let a = ids(200);
    let first = e.seq_new();
    let all = append(&mut e, first, &a, Phase::Given);
    e.seq_free(first);
    for at in [1, 63, 64, 100] {
        let src = e.seq_new();
        append(&mut e, src, &a[..130], Phase::Given);
        let fork = e.seq_fork(src, at).unwrap();
        assert_eq!((e.seq_len(fork), e.kv_free_blocks()), (at, 512 - 130), "a fork shares its cells");
        near(&append(&mut e, fork, &a[at..150], Phase::Generated), &all[at..150], "fork");
        near(&append(&mut e, src, &a[130..], Phase::Given), &all[130..], "source");
        assert_eq!(e.kv_free_blocks(), 512 - 200 - (150 - at));
        e.seq_free(src);
        assert_eq!(e.kv_free_blocks(), 512 - 150, "what the fork shares stays");
        near(&append(&mut e, fork, &a[150..160], Phase::Given), &all[150..160], "fork without its source");
        e.seq_truncate(fork, 70.min(at)).unwrap();
        near(&append(&mut e, fork, &a[70.min(at)..], Phase::Given), &all[70.min(at)..], "truncated");
        e.seq_truncate(fork, 0).unwrap();
        near(&append(&mut e, fork, &a[..9], Phase::Given), &all[..9], "from the start");
        assert!(matches!(e.seq_truncate(fork, 10), Err(EngineError::PastEnd { len: 10, have: 9, .. })));
        assert!(matches!(e.seq_fork(fork, 10), Err(EngineError::PastEnd { len: 10, have: 9, .. })));
        e.seq_free(fork);
        assert_eq!(e.kv_free_blocks(), 512, "everything came back");
    }
}

#[test]
fn sequences_of_both_phases_share_a_step() {
    let mut e = tiny(1024, 3);
    let a = ids(90);
    let b: Vec<u32> = a.iter().rev().copied().collect();
    let seqs = [(); 3].map(|()| e.seq_new());
    let mut got = vec![Vec::new(); 3];
    let item = |i: usize, tokens, phase, want| StepItem { seq: seqs[i], tokens, phase, want };
    let items = [
        item(0, &a[..], Phase::Generated, Want::All),
        item(1, &b[..], Phase::Given, Want::Last),
        item(2, &b[..50], Phase::Generated, Want::None),
    ];
    let mut sink = |i: usize, at: usize, row: &[f32]| got[i].push((at, row.to_vec()));
    let stats = e.step(&items, &mut Sink::InOrder(&mut sink), &NEVER).unwrap();
    assert_eq!((stats.tokens, stats.rows), (230, 91));
    let positions: Vec<usize> = got[0].iter().map(|(at, _)| *at).collect();
    assert_eq!((positions, got[1][0].0, got[2].len()), ((0..90).collect(), 89, 0));
    for (i, ids) in [(0, &a), (1, &b)] {
        seqs.iter().for_each(|&seq| e.seq_free(seq));
        let alone = e.seq_new();
        let rows = append(&mut e, alone, ids, Phase::Given);
        let got: Rows = got[i].iter().map(|(_, row)| row.clone()).collect();
        near(&got, &rows[90 - got.len()..], "in company");
        e.seq_free(alone);
    }
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let mut e = tiny(128, 2);
    let [a, b, c] = [(); 3].map(|()| e.seq_new());
    append(&mut e, a, &ids(64), Phase::Given);
    let long = ids(65);
    let item = |seq, tokens| StepItem { seq, tokens, phase: Phase::Given, want: Want::Last };
    let mut step = |items: &[StepItem<'_>]| e.step(items, &mut no_row(), &NEVER);
    assert_eq!(step(&[item(b, &long)]), Err(EngineError::KvFull { needed: 65, free: 64 }));
    assert_eq!(step(&[item(a, &[])]), Err(EngineError::NoTokens));
    assert_eq!(step(&[item(a, &[1024])]), Err(EngineError::TokenOutOfRange { token: 1024, n_vocab: 1024 }));
    assert_eq!(step(&[item(a, &[1]), item(a, &[2])]), Err(EngineError::SeqTwice(a)));
    assert_eq!(step(&[item(b, &[1]), item(c, &[2])]), Err(EngineError::TooManySeqs { max: 2 }));
    assert_eq!((e.seq_len(a), e.seq_len(b), e.kv_free_blocks()), (64, 0, 64));
    append(&mut e, b, &long[..64], Phase::Given);
    assert_eq!(e.kv_free_blocks(), 0);
    assert_eq!(e.seq_fork(a, 3), Err(EngineError::TooManySeqs { max: 2 }));
    e.seq_free(b);
    assert_eq!(e.step(&[item(b, &[1])], &mut no_row(), &NEVER), Err(EngineError::UnknownSeq(b)));
    let options = ggml::GgmlOptions {
        threads: Some(1),
        kv: KvType::F16,
        kv_positions: 64,
        sequences: ggml::MAX_SEQUENCES + 1,
        shared: true,
        flash_attention: FlashAttention::Auto,
        mmap: true,
    };
    let file = model("tiny-f32", Preset::F32);
    assert!(matches!(Ggml::open(&file, &options), Err(ggml::Error::Option { asked: 257, .. })));
    let options = ggml::GgmlOptions { sequences: 1, ..options };
    assert!(matches!(Ggml::open(&file.join("none"), &options), Err(ggml::Error::Load { .. })));
}

#[test]
fn a_cancelled_step_leaves_the_sequences_as_they_were() {
    let mut e = tiny(2048, 2);
    let a = ids(1400);
    let (seq, other) = (e.seq_new(), e.seq_new());
    let all = append(&mut e, seq, &a, Phase::Given);
    e.seq_truncate(seq, 100).unwrap();
    for phase in PHASES {
        let cancel = AtomicBool::new(false);
        let items = [
            StepItem { seq, tokens: &a[100..], phase, want: Want::All },
            StepItem { seq: other, tokens: &a[..9], phase: Phase::Given, want: Want::None },
        ];
        let mut rows = 0;
        let mut stop = |_: usize, _: usize, _: &[f32]| {
            rows += 1;
            cancel.store(true, Ordering::Relaxed);
        };
        assert_eq!(e.step(&items, &mut Sink::InOrder(&mut stop), &cancel), Err(EngineError::Cancelled));
        assert!(rows <= ggml::MICRO_BATCH, "{rows} rows after it was cancelled");
        assert_eq!((e.seq_len(seq), e.seq_len(other), e.kv_free_blocks()), (100, 0, 2048 - 100));
    }
    near(&append(&mut e, seq, &a[100..], Phase::Given), &all[100..], "after it");
}

#[test]
fn the_program_runs_it() {
    let file = common::arg(&model("nano", Preset::F32));
    let run = |args: &[&str]| common::run(args, "");
    let greedy =
        ["run", "-m", &file, "--raw", "-p", "白日依山尽", "-n", "24", "--greedy", "--json", "-q", "-t", "2"];
    let ours = &run(&greedy).json()[0];
    for flags in [&["--engine", "ggml"][..], &["--engine", "ggml", "--flash-attn", "on", "--no-mmap"]] {
        let run = run(&[&greedy[..], flags].concat());
        let theirs = &run.json()[0];
        assert_eq!(ours["ids"], theirs["ids"], "{flags:?}");
        assert!(theirs["runs_on"].as_str().unwrap().starts_with("llama.cpp ("), "{theirs}");
        assert_eq!(run.stderr, "", "llama.cpp says nothing");
    }
    let text = common::arg(&fixture("famous-poems.txt"));
    for phase in ["given", "generated"] {
        let kl =
            ["eval", "kl", "-m", &file, "--base", &file, "--base-engine", "ggml", &text, "--phase", phase];
        let kl =
            &run(&[&kl[..], &["--chunks", "1", "--json", "-q", "--flash-attn", "off"]].concat()).json()[0];
        let mean = kl["kl_mean"].as_f64().unwrap();
        assert!(mean > 0.0 && mean < 1e-5, "two engines on one file: {mean}");
        assert_eq!(kl["phase"], phase);
        assert!(kl["base_runs_on"].as_str().unwrap().starts_with("llama.cpp ("), "{kl}");
    }
    let logits = ["logits", "-m", &file, "--ids", "5,6,7", "--engine", "ggml", "--last", "--json"];
    assert_eq!(run(&logits).json()[0]["position"], 2);
    let chat = common::run(&["chat", "-m", &file, "--engine", "ggml", "--greedy", "-n", "4", "-q"], "月\n");
    assert!(!chat.ok().is_empty());
    run(&["run", "-m", &file, "-p", "a", "--flash-attn", "on"]).fails(2, "--engine ggml");
    let unknown = run(&["run", "-m", &file, "-p", "a", "--engine", "gpu"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("native or ggml"), "{unknown:?}");
}
