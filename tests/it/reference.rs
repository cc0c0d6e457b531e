//! Against Hugging Face transformers in float32: logits, greedy continuations, perplexity.

use crate::common;
use crate::common::{TINY, checkpoint, fixture, model};
use huozi::engine::{Engine, KvType, Native, Phase, Sink, StepItem, Want};
use huozi::eval::{Cut, perplexity};
use huozi_convert::plan::Preset;
use huozi_quant::gguf::Reader;
use huozi_token::{Specials, Tokenizer};
use safetensors::SafeTensors;
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn open(path: &Path, positions: usize) -> (Reader, Native) {
    common::open(path, KvType::F32, positions, 2)
}

fn prompts(json: &Path) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let text = |p: &serde_json::Value| p.as_str().or(p["prompt"].as_str()).unwrap().to_owned();
    json["prompts"].as_array().unwrap().iter().map(text).collect()
}

/// Asserts equal ids and logits within `limit`; gives the largest difference.
fn compare(name: &str, preset: Preset, prompts: &[String], reference: &Path, limit: f32) -> f32 {
    let bytes = std::fs::read(reference).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let (reader, mut engine) = open(&model(name, preset), 512);
    let tokenizer = Tokenizer::from_gguf(reader.meta()).unwrap();
    let mut worst = 0.0f32;
    for (k, prompt) in prompts.iter().enumerate() {
        let ids = reference.tensor(&format!("ids.{k}")).unwrap();
        let ids: Vec<u32> =
            ids.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
        assert_eq!(tokenizer.encode(prompt, Specials::Parse), ids, "{name} {prompt:?}");
        let logits = reference.tensor(&format!("logits.{k}")).unwrap();
        let logits: Vec<f32> =
            logits.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let n_vocab = logits.len() / ids.len();
        assert_eq!(n_vocab, engine.info().n_vocab);
        let seq = engine.seq_new();
        let item = StepItem { seq, tokens: &ids, phase: Phase::Given, want: Want::All };
        let mut rows = 0;
        let mut sink = |_: usize, position: usize, row: &[f32]| {
            rows += 1;
            for (id, (&got, &want)) in row.iter().zip(&logits[position * n_vocab..][..n_vocab]).enumerate() {
                let off = (got - want).abs();
                assert!(
                    off <= limit,
                    "{name} {preset:?} prompt {k} position {position} id {id}: {got} for {want}"
                );
                worst = worst.max(off);
            }
        };
        engine.step(&[item], &mut Sink::InOrder(&mut sink), &AtomicBool::new(false)).unwrap();
        assert_eq!(rows, ids.len());
        engine.seq_free(seq);
    }
    worst
}

#[test]
fn logits_of_every_prompt() {
    for (preset, limit) in [(Preset::F32, 2e-3), (Preset::F16, 1e-2)] {
        for name in TINY {
            let folder = checkpoint(name);
            let prompts = prompts(&folder.join("reference.json"));
            assert!(prompts.len() >= 5);
            let worst = compare(name, preset, &prompts, &folder.join("reference.safetensors"), limit);
            eprintln!("{name} {}: {worst:.2e}", preset.name());
        }
        let prompts = prompts(&fixture("nano-reference.json"));
        let worst = compare("nano", preset, &prompts, &fixture("nano-reference.safetensors"), limit);
        eprintln!("nano {}: {worst:.2e}", preset.name());
    }
}

#[test]
fn greedy_continuations_of_nano() {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("nano-reference.json")).unwrap()).unwrap();
    let file = common::arg(&model("nano", Preset::F32));
    let flags = [
        "--raw",
        "--specials",
        "-n",
        "64",
        "--greedy",
        "--repetition-penalty",
        "1",
        "--kv-type",
        "f32",
        "--json",
    ];
    for prompt in json["prompts"].as_array().unwrap() {
        let text = prompt["prompt"].as_str().unwrap();
        let args = [&["run", "-m", &file, "-p", text], &flags[..]].concat();
        let answer = &common::run(&args, "").json()[0];
        let mut ids = answer["ids"].as_array().unwrap().clone();
        if answer["stop"] == "end" {
            // The reference keeps the token that ended it.
            ids.push(serde_json::json!(6001));
        }
        assert_eq!(&ids, prompt["greedy"].as_array().unwrap(), "{text:?}");
    }
}

fn check_perplexity(name: &str) {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("nano-reference.json")).unwrap()).unwrap();
    let (reader, mut engine) = open(&model("nano", Preset::F16), 256);
    let tokenizer = Tokenizer::from_gguf(reader.meta()).unwrap();
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    let ids = tokenizer.encode(&text, Specials::Plain);
    let result =
        perplexity(&mut engine, &ids, &Cut::plain(256), &AtomicBool::new(false), &mut |_| {}).unwrap();
    let expected = &json["ppl"][name];
    assert_eq!(result.tokens as u64, expected["tokens"].as_u64().unwrap());
    assert_eq!(result.chunks as u64, expected["chunks"].as_u64().unwrap());
    assert_eq!(result.scored as u64, expected["scored"].as_u64().unwrap());
    let (got, want) = (result.ppl(), expected["ppl"].as_f64().unwrap());
    eprintln!("{name}: {got:.3}, reference {want:.3}");
    assert!((got / want - 1.0).abs() < 1e-3, "{name}: {got} for {want}");
}

#[test]
fn perplexity_of_the_poems() {
    check_perplexity("famous-poems.txt");
}

#[test]
fn perplexity_of_the_samples() {
    check_perplexity("nano-sampled.txt");
}

/// Files quantised by llama.cpp, tied and untied, load here and say what the float model says, to the
/// format's own error.
#[test]
fn files_written_by_llama_cpp() {
    for (name, file, limit) in [
        ("tiny-f32", "tiny-f32-q8_0.gguf", 0.02),
        ("tiny-untied-oldkeys-f16", "tiny-untied-oldkeys-f16-q5_1.gguf", 0.08),
    ] {
        let bytes = std::fs::read(checkpoint(name).join("reference.safetensors")).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        let (_, mut engine) = open(&fixture("llama-cpp").join(file), 512);
        let ids: Vec<u32> = reference
            .tensor("ids.1")
            .unwrap()
            .data()
            .chunks_exact(8)
            .map(|b| u32::from(b[0]) | u32::from(b[1]) << 8)
            .collect();
        let logits: Vec<f32> = reference
            .tensor("logits.1")
            .unwrap()
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let n_vocab = engine.info().n_vocab;
        let seq = engine.seq_new();
        let item = StepItem { seq, tokens: &ids, phase: Phase::Given, want: Want::All };
        let (mut error, mut power) = (0.0f64, 0.0f64);
        let mut sink = |_: usize, position: usize, row: &[f32]| {
            for (&got, &want) in row.iter().zip(&logits[position * n_vocab..][..n_vocab]) {
                error += f64::from(got - want).powi(2);
                power += f64::from(want).powi(2);
            }
        };
        engine.step(&[item], &mut Sink::InOrder(&mut sink), &AtomicBool::new(false)).unwrap();
        let relative = (error / power).sqrt();
        eprintln!("{file}: relative error of the logits {relative:.4}");
        assert!(relative > 0.0 && relative < limit, "{file}: {relative}");
    }
}
