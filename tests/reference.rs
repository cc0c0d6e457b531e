//! Hugging Face transformers in float32 is the truth: logits, ids, greedy continuations, perplexity.

mod common;

use common::{CHECKPOINTS, NEVER, convert, open, path};
use huozi::engine::{Engine, Item, KvType, Phase, Want};
use huozi::sample::Sampling;
use huozi::schedule::{Event, Request, Scheduler, Stop};
use huozi::token::{Specials, Tokenizer};
use safetensors::SafeTensors;

fn i64s(st: &SafeTensors<'_>, name: &str) -> Vec<i64> {
    st.tensor(name)
        .unwrap()
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn f32s(st: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    st.tensor(name)
        .unwrap()
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

#[test]
fn logits_at_every_position_of_every_prompt() {
    let dir = tempfile::tempdir().unwrap();
    for (preset, tolerance) in [("f32", 2e-3f32), ("f16", 1e-2)] {
        for (checkpoint, reference) in CHECKPOINTS {
            let (reader, mut engine) = open(&convert(checkpoint, preset, dir.path()), KvType::F32, 1024, 2);
            let tokenizer = Tokenizer::from_gguf(reader.meta()).unwrap();
            let bytes = std::fs::read(path(reference)).unwrap();
            let st = SafeTensors::deserialize(&bytes).unwrap();
            let json = match checkpoint {
                "src/demo" => path("tests/fixtures/nano-reference.json"),
                _ => path(checkpoint).join("reference.json"),
            };
            let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
            let prompts = json["prompts"].as_array().unwrap();
            assert_eq!(prompts.len(), 6);
            let mut worst = 0.0f32;
            for (k, prompt) in prompts.iter().enumerate() {
                let text = prompt.as_str().or(prompt["prompt"].as_str()).unwrap();
                let ids: Vec<u32> = i64s(&st, &format!("ids.{k}")).iter().map(|&id| id as u32).collect();
                assert_eq!(tokenizer.encode(text, Specials::Parse), ids, "{checkpoint}: ids of {text:?}");
                let expected = f32s(&st, &format!("logits.{k}"));
                let n_vocab = engine.info().n_vocab;
                assert_eq!(expected.len(), ids.len() * n_vocab);
                let seq = engine.seq_new();
                let item = Item { seq, tokens: &ids, phase: Phase::Given, want: Want::All };
                let mut rows = 0;
                let mut sink = |_: usize, position: usize, logits: &[f32]| {
                    assert_eq!(position, rows);
                    rows += 1;
                    for (a, b) in logits.iter().zip(&expected[position * n_vocab..][..n_vocab]) {
                        let difference = (a - b).abs();
                        assert!(
                            difference <= tolerance,
                            "{checkpoint} {preset}, prompt {k}, position {position}: {a} {b}"
                        );
                        worst = worst.max(difference);
                    }
                };
                engine.step(&[item], &mut sink, &NEVER).unwrap();
                assert_eq!(rows, ids.len());
                engine.seq_free(seq);
            }
            eprintln!("{checkpoint} {preset}: largest difference {worst:e}");
        }
    }
}

#[test]
fn greedy_continuations_of_nano() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, engine) = open(&convert("src/demo", "f32", dir.path()), KvType::F32, 2048, 2);
    let tokenizer = Tokenizer::from_gguf(reader.meta()).unwrap();
    let mut scheduler = Scheduler::new(Box::new(engine), tokenizer.vocab().never());
    let json = std::fs::read(path("tests/fixtures/nano-reference.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let end = tokenizer.vocab().control("<|endofutterance|>").unwrap();
    // All six at once: company changes nothing.
    let mut expected = std::collections::HashMap::new();
    for prompt in json["prompts"].as_array().unwrap() {
        let ids = tokenizer.encode(prompt["prompt"].as_str().unwrap(), Specials::Parse);
        let sampling = Sampling { do_sample: false, repetition_penalty: 1.0, ..Sampling::default() };
        let request = Request { ids, sampling, seed: 0, stop_ids: vec![end], max_new: 64, n_ctx: 2048 };
        let id = scheduler.submit(request).unwrap();
        let greedy: Vec<u32> =
            prompt["greedy"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
        expected.insert(id, (greedy, Vec::new()));
    }
    let mut stopped = 0;
    let mut on = |event: Event| match event {
        Event::Token { id, token } => expected.get_mut(&id).unwrap().1.push(token),
        Event::Stopped { id, stop, .. } => {
            stopped += 1;
            if let Stop::EndToken(token) = stop {
                expected.get_mut(&id).unwrap().1.push(token);
            }
        }
        Event::Prompt { .. } => {}
    };
    while scheduler.step(&NEVER, &mut on).unwrap() {}
    assert_eq!(stopped, 6);
    for (greedy, ours) in expected.values() {
        assert_eq!(ours, greedy, "{}", tokenizer.decode(ours, true));
    }
}
