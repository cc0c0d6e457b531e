//! Damaged copies of a whole model file, loaded and asked: each ends in an answer or an error, within 10
//! seconds and 1 GiB.
//!
//! `HUOZI_DAMAGED=5000` makes as many copies. In a binary of its own: it watches the process's memory.

mod common;
#[allow(dead_code, reason = "each test binary uses a part")]
#[path = "../convert/tests/hostile_support/damage.rs"]
mod damage;

use common::NEVER;
use damage::{Watch, count, damage};
use huozi::engine::{Engine, KvType, Native, NativeOptions, Phase, Sink, StepItem, Want};
use huozi_quant::gguf::Reader;
use huozi_quant::random::Random;
use huozi_token::{ChatFormat, DateTime, Message, Role, Specials, Tokenizer};
use std::collections::BTreeSet;
use std::error::Error;

/// From the bytes of a file to the likeliest first tokens of an answer, as text.
fn ask(bytes: Vec<u8>) -> Result<String, Box<dyn Error>> {
    let reader = Reader::from_bytes("x.gguf", bytes)?;
    let tokenizer = Tokenizer::from_gguf(reader.meta())?;
    let format = ChatFormat::from_gguf(reader.meta(), &tokenizer)?;
    // A model without a format of its own is given the plain text.
    let mut ids = format
        .prompt_ids(&[Message::text(Role::User, "月 abc")], DateTime::MIN, &tokenizer)
        .unwrap_or_else(|_| tokenizer.encode("月 abc", Specials::Plain));
    ids.truncate(60);
    let options = NativeOptions { threads: Some(1), kv: KvType::F16, kv_positions: 64 };
    let mut engine = Native::open(&reader, &options)?;
    let seq = engine.seq_new();
    let mut answer = Vec::new();
    for _ in 0..3 {
        let phase = if answer.is_empty() { Phase::Given } else { Phase::Generated };
        let item = StepItem { seq, tokens: &ids, phase, want: Want::Last };
        let mut best = 0;
        let mut likeliest = |_: usize, _: usize, row: &[f32]| {
            best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
        };
        engine.step(&[item], &mut Sink::InOrder(&mut likeliest), &NEVER)?;
        ids = vec![best as u32];
        answer.push(best as u32);
    }
    Ok(tokenizer.decode(&answer, true))
}

#[test]
fn damaged_models_answer_or_give_an_error() {
    let good = std::fs::read(common::model("tiny-f32", "q8_0".parse().unwrap())).unwrap();
    ask(good.clone()).unwrap();
    let mut watch = Watch::new();
    let (mut answered, mut said) = (0, BTreeSet::new());
    for seed in 1..=count() {
        // Nearly all that is not weights: metadata, vocabulary, names.
        let bytes = damage(&mut Random::new(seed), &good, 40_000);
        match watch.case(&format!("seed {seed}"), || ask(bytes).map_err(|e| e.to_string())) {
            Ok(_) => answered += 1,
            Err(error) => drop(said.insert(error)),
        }
    }
    eprintln!(
        "{answered} of {} answered, {} different errors, slowest {:?}, {} MiB more",
        count(),
        said.len(),
        watch.slowest,
        watch.grown_kib() >> 10
    );
    assert!(answered > 0 && answered < count() && said.len() > 30, "the damage does not arrive");
}
