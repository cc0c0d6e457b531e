//! The native engine through its trait: sequences, forks, company, cancel, a full cache.

use crate::common;
use crate::common::NEVER;
use huozi::engine::{Engine, EngineError, KvType, Native, Phase, Seq, Sink, StepItem, Want};
use huozi::eval::{Cut, divergence};
use huozi_quant::random::Random;
use huozi_token::{Specials, Tokenizer};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

fn engine(fixture: &str, preset: &str, kv: KvType, kv_positions: usize, threads: usize) -> Native {
    common::open(&common::model(fixture, preset.parse().unwrap()), kv, kv_positions, threads).1
}

/// Logits at every position of `ids` in a fresh sequence, read in pieces of `chunk`.
fn logits(engine: &mut dyn Engine, ids: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let seq = engine.seq_new();
    let mut rows = Vec::new();
    for tokens in ids.chunks(chunk) {
        rows.extend(append(engine, seq, tokens));
    }
    engine.seq_free(seq);
    rows
}

fn append(engine: &mut dyn Engine, seq: Seq, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    let item = StepItem { seq, tokens, phase: Phase::Given, want: Want::All };
    let mut sink = |_: usize, _: usize, row: &[f32]| rows.push(row.to_vec());
    engine.step(&[item], &mut Sink::InOrder(&mut sink), &NEVER).unwrap();
    rows
}

/// The sink of a step that must give no row.
fn no_row() -> Sink<'static> {
    Sink::Shared(&|_, _, _| panic!("no row is wanted"))
}

fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| 4 + i * 37 % 900).collect()
}

#[test]
fn chunks_threads_and_company_change_no_bit() {
    for preset in ["f32", "q8_0", "q4_k_m"] {
        let mut one = engine("tiny-k256-f16", preset, KvType::F16, 4096, 1);
        let mut two = engine("tiny-k256-f16", preset, KvType::F16, 4096, 2);
        let a = ids(150);
        let b: Vec<u32> = a.iter().rev().copied().collect();
        let alone = logits(&mut one, &a, 150);
        for chunk in [1, 7, 64, 149] {
            assert_eq!(logits(&mut one, &a, chunk), alone, "{preset}: chunks of {chunk}");
        }
        assert_eq!(logits(&mut two, &a, 50), alone, "{preset}: two threads");
        let (sa, sb) = (two.seq_new(), two.seq_new());
        let items = [(sb, &b), (sa, &a)].map(|(seq, ids)| StepItem {
            seq,
            tokens: ids,
            phase: Phase::Given,
            want: Want::All,
        });
        let mut rows = vec![Vec::new(); 2];
        let mut sink = |item: usize, _: usize, row: &[f32]| rows[item].push(row.to_vec());
        let stats = two.step(&items, &mut Sink::InOrder(&mut sink), &NEVER).unwrap();
        assert_eq!((stats.tokens, stats.rows), (300, 300));
        assert_eq!(rows[1], alone, "{preset}: in company");
        assert_eq!(rows[0], logits(&mut one, &b, 150), "{preset}: the other");
    }
}

#[test]
fn a_shared_sink_gets_each_row_once_and_the_same_bits() {
    let mut e = engine("tiny-f32", "f32", KvType::F32, 2048, 3);
    let (a, b) = (ids(150), ids(40));
    let (expected_a, expected_b) = (logits(&mut e, &a, 150), logits(&mut e, &b, 40));
    let (sa, sb) = (e.seq_new(), e.seq_new());
    let items = [
        StepItem { seq: sa, tokens: &a, phase: Phase::Given, want: Want::All },
        StepItem { seq: sb, tokens: &b, phase: Phase::Given, want: Want::Last },
    ];
    let rows = Mutex::new(BTreeMap::new());
    let sink = |item: usize, position: usize, row: &[f32]| {
        assert!(rows.lock().unwrap().insert((item, position), row.to_vec()).is_none(), "given twice");
    };
    let stats = e.step(&items, &mut Sink::Shared(&sink), &NEVER).unwrap();
    let rows = rows.into_inner().unwrap();
    assert_eq!((stats.rows, rows.len()), (151, 151));
    assert!((0..150).all(|position| rows[&(0, position)] == expected_a[position]));
    assert_eq!(rows[&(1, 39)], expected_b[39]);
}

#[test]
fn a_fork_goes_on_as_its_source_would_and_leaves_it_alone() {
    let mut e = engine("tiny-f32", "f32", KvType::F32, 1024, 2);
    let a = ids(200);
    let all = logits(&mut e, &a, 200);
    for at in [1, 63, 64, 65, 100, 128] {
        let src = e.seq_new();
        append(&mut e, src, &a[..130]);
        let free = e.kv_free_blocks();
        let fork = e.seq_fork(src, at).unwrap();
        assert_eq!(e.kv_free_blocks(), free, "a fork takes no block before it grows");
        assert_eq!(e.seq_len(fork), at);
        assert_eq!(append(&mut e, fork, &a[at..]), all[at..], "fork at {at}");
        assert_eq!(append(&mut e, src, &a[130..]), all[130..], "source after a fork at {at}");
        e.seq_free(src);
        e.seq_free(fork);
        assert_eq!(e.kv_free_blocks(), 16, "everything came back");
    }
    let empty = e.seq_new();
    assert!(matches!(e.seq_fork(empty, 1), Err(EngineError::PastEnd { len: 1, have: 0, .. })));
}

/// Appends `tokens` to each sequence in one step and gives the rows of each.
fn append_all(engine: &mut dyn Engine, work: &[(Seq, Vec<u32>, Phase)]) -> Vec<Vec<Vec<f32>>> {
    let items: Vec<_> = work
        .iter()
        .map(|(seq, tokens, phase)| StepItem { seq: *seq, tokens, phase: *phase, want: Want::All })
        .collect();
    let mut rows = vec![Vec::new(); work.len()];
    let mut sink = |item: usize, _: usize, row: &[f32]| rows[item].push(row.to_vec());
    engine.step(&items, &mut Sink::InOrder(&mut sink), &NEVER).unwrap();
    rows
}

#[test]
fn forks_in_one_step_get_the_bits_that_each_gets_alone() {
    let mut random = Random::new(7);
    for (fixture, kv) in
        [("tiny-f32", KvType::F32), ("tiny-k256-f16", KvType::F16), ("tiny-6heads-bf16", KvType::Q8)]
    {
        let mut e = engine(fixture, "q8_0", kv, 64 * 200, 2);
        let prefix = ids(300);
        let shots = |s: u32| -> Vec<u32> { ids(90).iter().map(|id| id ^ (s + 1)).collect() };
        // A prompt that all share, examples that some share, from the middle of a block or its end.
        let source = e.seq_new();
        append(&mut e, source, &prefix);
        type Pieces = Vec<(Vec<u32>, Phase)>;
        let mut sequences: Vec<(Seq, Pieces)> = Vec::new();
        for (s, at) in [300, 256, 200, 1].into_iter().enumerate() {
            let seq = e.seq_fork(source, at).unwrap();
            append(&mut e, seq, &shots(s as u32));
            for more in [90, 40, 0] {
                let fork = e.seq_fork(seq, at + more).unwrap();
                let read = [&prefix[..at], &shots(s as u32)[..more]].concat();
                sequences.push((fork, vec![(read, Phase::Given)]));
            }
            e.seq_free(seq);
        }
        let mut got = vec![Vec::new(); sequences.len()];
        for _ in 0..4 {
            let mut work = Vec::new();
            for (seq, history) in &mut sequences {
                let (n, phase) = match random.below(4) {
                    0 => (1 + random.below(70) as usize, Phase::Given),
                    1 => (5, Phase::Generated),
                    _ => (1, Phase::Generated),
                };
                let tokens: Vec<u32> = (0..n).map(|_| 4 + random.below(900) as u32).collect();
                history.push((tokens.clone(), phase));
                work.push((*seq, tokens, phase));
            }
            for (got, rows) in got.iter_mut().zip(append_all(&mut e, &work)) {
                got.extend(rows);
            }
        }
        for ((seq, history), got) in sequences.iter().zip(&got) {
            let alone = e.seq_new();
            let mut expected = Vec::new();
            for (i, (tokens, phase)) in history.iter().enumerate() {
                let rows = append_all(&mut e, &[(alone, tokens.clone(), *phase)]).remove(0);
                expected.extend(rows.into_iter().filter(|_| i > 0));
            }
            assert!(*got == expected, "{fixture}: after {} positions", history[0].0.len());
            e.seq_free(alone);
            e.seq_free(*seq);
        }
        e.seq_free(source);
        assert_eq!(e.kv_free_blocks(), 200, "everything came back");
    }
}

#[test]
fn truncation_rewinds() {
    let mut e = engine("tiny-f32", "f32", KvType::F32, 1024, 1);
    let a = ids(150);
    let all = logits(&mut e, &a, 150);
    let seq = e.seq_new();
    append(&mut e, seq, &ids(190)[..150].iter().map(|x| x ^ 1).collect::<Vec<_>>());
    e.seq_truncate(seq, 0).unwrap();
    append(&mut e, seq, &a[..140]);
    e.seq_truncate(seq, 70).unwrap();
    assert_eq!(append(&mut e, seq, &a[70..]), all[70..]);
    assert!(matches!(e.seq_truncate(seq, 151), Err(EngineError::PastEnd { len: 151, have: 150, .. })));
}

#[test]
fn a_full_cache_is_said_before_anything_happens() {
    let mut e = engine("tiny-f32", "f32", KvType::F32, 128, 1);
    let (a, b) = (e.seq_new(), e.seq_new());
    append(&mut e, a, &ids(64));
    let long = ids(65);
    let items = [
        StepItem { seq: b, tokens: &long[..1], phase: Phase::Given, want: Want::None },
        StepItem { seq: a, tokens: &long[..1], phase: Phase::Given, want: Want::None },
    ];
    let full = e.step(&items, &mut no_row(), &NEVER);
    assert_eq!(full, Err(EngineError::KvFull { needed: 2, free: 1 }));
    assert_eq!((e.seq_len(a), e.seq_len(b), e.kv_free_blocks()), (64, 0, 1));
}

#[test]
fn keys_and_values_taken_out_and_put_back_change_no_bit() {
    for kv in KvType::ALL {
        let mut source = engine("tiny-6heads-bf16", "q8_0", kv, 512, 2);
        let all = ids(200);
        let seq = source.seq_new();
        append(&mut source, seq, &all[..150]);
        let blocks = |engine: &mut Native, seq| {
            let state = engine.kv_state().unwrap();
            let out = [64, 64, 6].iter().enumerate().map(|(block, &n)| {
                let mut out = Vec::new();
                state.kv_export(seq, block, n, &mut out).unwrap();
                assert_eq!(out.len(), state.kv_export_bytes());
                (n, out)
            });
            out.collect::<Vec<_>>()
        };
        let out = blocks(&mut source, seq);
        source.seq_truncate(seq, 134).unwrap();
        // A sequence that never was longer gives the same bytes: nothing of what follows leaves with a block.
        let mut short = engine("tiny-6heads-bf16", "q8_0", kv, 512, 1);
        let never_longer = short.seq_new();
        append(&mut short, never_longer, &all[..134]);
        assert!(blocks(&mut short, never_longer) == out, "{}", kv.name());
        // Into blocks that held something else.
        let mut target = engine("tiny-6heads-bf16", "q8_0", kv, 512, 2);
        let other = target.seq_new();
        append(&mut target, other, &ids(512));
        target.seq_free(other);
        let back = target.seq_new();
        for (n, bytes) in &out {
            target.kv_state().unwrap().kv_import(back, *n, bytes).unwrap();
        }
        assert_eq!(target.seq_len(back), 134);
        let expected = append(&mut source, seq, &all[134..]);
        assert_eq!(append(&mut target, back, &all[134..]), expected, "{}", kv.name());
    }
    let mut engine = engine("tiny-f32", "f32", KvType::F16, 64, 1);
    let seq = engine.seq_new();
    let mut out = Vec::new();
    append(&mut engine, seq, &ids(10));
    let state = engine.kv_state().unwrap();
    assert!(matches!(
        state.kv_export(seq, 0, 11, &mut out),
        Err(EngineError::PastEnd { len: 11, have: 10, .. })
    ));
    assert!(matches!(state.kv_export(seq, usize::MAX, 1, &mut out), Err(EngineError::PastEnd { .. })));
    state.kv_export(seq, 0, 10, &mut out).unwrap();
    assert!(matches!(state.kv_import(seq, 10, &out), Err(EngineError::Failed(_))), "after a part of a block");
    let next = engine.seq_new();
    let state = engine.kv_state().unwrap();
    assert!(matches!(state.kv_import(next, 10, &out[1..]), Err(EngineError::Failed(_))), "too short");
    assert!(matches!(state.kv_import(next, 10, &out), Err(EngineError::KvFull { needed: 1, free: 0 })));
}

#[test]
fn wrong_steps_are_refused() {
    let mut e = engine("tiny-f32", "f32", KvType::F32, 128, 1);
    let seq = e.seq_new();
    let item = |seq, tokens| StepItem { seq, tokens, phase: Phase::Given, want: Want::Last };
    let mut step = |items: &[StepItem<'_>]| e.step(items, &mut no_row(), &NEVER);
    assert_eq!(step(&[item(seq, &[])]), Err(EngineError::NoTokens));
    assert_eq!(step(&[item(seq, &[1024])]), Err(EngineError::TokenOutOfRange { token: 1024, n_vocab: 1024 }));
    assert_eq!(step(&[item(seq, &[1]), item(seq, &[2])]), Err(EngineError::SeqTwice(seq)));
    e.seq_free(seq);
    assert_eq!(e.step(&[item(seq, &[1])], &mut no_row(), &NEVER), Err(EngineError::UnknownSeq(seq)));
}

#[test]
fn a_cancelled_step_leaves_the_sequence_as_it_was() {
    let mut e = engine("tiny-f32", "f32", KvType::F32, 1024, 2);
    let a = ids(200);
    let all = logits(&mut e, &a, 200);
    let seq = e.seq_new();
    append(&mut e, seq, &a[..100]);
    let free = e.kv_free_blocks();
    let cancel = AtomicBool::new(false);
    let item = StepItem { seq, tokens: &a[100..], phase: Phase::Given, want: Want::All };
    let mut stop = |_: usize, _: usize, _: &[f32]| cancel.store(true, Ordering::Relaxed);
    let outcome = e.step(&[item], &mut Sink::InOrder(&mut stop), &cancel);
    assert_eq!(outcome, Err(EngineError::Cancelled));
    assert_eq!((e.seq_len(seq), e.kv_free_blocks()), (100, free));
    assert_eq!(append(&mut e, seq, &a[100..]), all[100..]);
}

#[test]
fn a_cancel_takes_effect_within_200_ms_while_a_long_prompt_is_read() {
    let mut e = engine("nano", "q4_k_m", KvType::F16, 2048, 2);
    let seq = e.seq_new();
    let long = ids(2000);
    let item = StepItem { seq, tokens: &long, phase: Phase::Given, want: Want::None };
    let cancel = AtomicBool::new(false);
    let asked = std::sync::OnceLock::new();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            cancel.store(true, Ordering::Relaxed);
            asked.set(std::time::Instant::now()).unwrap();
        });
        e.step(&[item], &mut no_row(), &cancel)
    });
    assert_eq!(
        outcome,
        Err(EngineError::Cancelled),
        "2000 tokens were read within 50 ms: make the prompt longer"
    );
    let late = asked.get().unwrap().elapsed();
    assert!(late < std::time::Duration::from_millis(200), "{late:?}");
    assert_eq!(e.seq_len(seq), 0);
}

#[test]
fn a_file_that_shrinks_between_steps_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::copy(common::model("tiny-k256-f16", "q8_0".parse().unwrap()), &path).unwrap();
    let (_, mut engine) = common::open(&path, KvType::F16, 256, 1);
    let seq = engine.seq_new();
    append(&mut engine, seq, &ids(3));
    // By less than a page, which the test itself survives.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let item = StepItem { seq, tokens: &ids(1), phase: Phase::Generated, want: Want::Last };
    let error = engine.step(&[item], &mut no_row(), &NEVER).unwrap_err();
    assert!(matches!(&error, EngineError::File(what) if what.contains("m.gguf: the file was shortened")));
    assert_eq!(engine.seq_len(seq), 3, "as before the step");
}

/// Given tokens are read in the wide arithmetic, generated ones in the narrow.
#[test]
fn how_far_the_two_phases_are_apart() {
    let text = std::fs::read_to_string(common::fixture("nano-sampled.txt")).unwrap();
    let open =
        |preset: &str| common::open(&common::model("nano", preset.parse().unwrap()), KvType::F32, 1024, 2);
    let (reader, mut truth) = open("f16");
    let ids = Tokenizer::from_gguf(reader.meta()).unwrap().encode(&text, Specials::Plain);
    for preset in ["q4_k_m", "q6_k"] {
        let (mut one, mut other) = (open(preset).1, open(preset).1);
        let mut kl = |base: &mut Native, base_phase| {
            let cut = Cut { max_chunks: 4, second_half: true, phase: Phase::Given, ..Cut::plain(256) };
            let result = divergence(&mut one, base, &ids, &cut, base_phase, &NEVER, &mut |_| {});
            result.unwrap().kl_mean
        };
        assert_eq!(kl(&mut other, Phase::Given), 0.0, "{preset}: the same bits");
        let (phases, format) = (kl(&mut other, Phase::Generated), kl(&mut truth, Phase::Given));
        eprintln!("{preset}: KL divergence {phases:.2e} between the phases, {format:.2e} from f16");
        // Seen: 2.9e-4 for both, a ninth of what Q4_K_M costs and nearly half of what Q6_K does. 0 would be
        // no measurement.
        assert!(phases > 0.0 && phases < 5e-4, "{preset}: {phases}, {format} from f16");
    }
}
