//! Keys and values of a prefix in a file: made, mapped back, refused.

use crate::common;
use crate::schedule_support::request;
use huozi::engine::{KvType, Native};
use huozi::kv_file::prompt::{Error, PromptCache};
use huozi::schedule::{
    LogProbOptions, Request, RequestEvent, Scheduler, SchedulerHandle, SchedulerOptions, Timings,
};
use huozi_convert::plan::Preset;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, mpsc};

fn engine(kv: KvType) -> Native {
    common::open(&common::model("tiny-f32", Preset::F32), kv, 512, 1).1
}

/// A scheduler that has read nothing.
fn fresh(kv: KvType) -> SchedulerHandle {
    let options = SchedulerOptions { exact: true, ..SchedulerOptions::default() };
    let never = Arc::from(vec![false; 1024]);
    SchedulerHandle::of(Scheduler::with_options(Box::new(engine(kv)), never, options)).unwrap()
}

/// The tokens of a request and its log-probabilities, as bits, and how long it took.
fn run(scheduler: &SchedulerHandle, request: Request) -> (Vec<u32>, Vec<u64>, Timings) {
    let (tell, events) = mpsc::channel();
    let hook = move |event| tell.send(event).map_or(ControlFlow::Break(()), ControlFlow::Continue);
    scheduler.submit(request, hook).unwrap();
    let (mut tokens, mut bits) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            RequestEvent::Token { token, .. } => tokens.push(token),
            RequestEvent::LogProbs { at, .. } => bits.push(at.log_prob.to_bits()),
            RequestEvent::Stopped { timings, .. } => return (tokens, bits, timings),
            RequestEvent::Failed { error, .. } => panic!("{error}"),
            RequestEvent::Prompt { .. } => {}
        }
    }
    panic!("no end");
}

fn cache(path: &Path) -> PromptCache {
    PromptCache::at(path, "model".into()).unwrap()
}

/// A file with the prefix of `request(5, 150, _)`.
fn made(path: &Path) -> (SchedulerHandle, Request) {
    let (scheduler, first) = (fresh(KvType::F16), request(5, 150, 20));
    run(&scheduler, first.clone());
    cache(path).save(&scheduler, &first.ids).unwrap();
    (scheduler, first)
}

#[test]
fn what_was_read_once_is_not_read_again_and_the_answers_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.kv");
    assert!(cache(&path).open(&fresh(KvType::F16)).unwrap().is_none());
    let (_, first) = made(&path);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the file is left");
    let told = Some(LogProbOptions { top: 0, ids: Vec::new(), prompt_from: None });
    // The same prompt, a longer one, one that leaves the prefix within a block, with and without
    // log-probabilities, which are exact to the bit.
    let mut leaves = first.ids[..100].to_vec();
    leaves.extend(request(700, 60, 0).ids);
    for ids in [first.ids.clone(), [&first.ids[..], &request(800, 90, 0).ids].concat(), leaves] {
        for log_probs in [None, told.clone()] {
            let request = Request { ids: ids.clone(), log_probs, ..first.clone() };
            let expected = run(&fresh(KvType::F16), request.clone());
            let loaded = fresh(KvType::F16);
            let saved = cache(&path).open(&loaded).unwrap().expect("a file");
            assert_eq!(saved.ids(), first.ids);
            let common = saved.ids().iter().zip(&ids).take_while(|(a, b)| a == b).count();
            assert_eq!(saved.load(&loaded, common).unwrap(), common.next_multiple_of(64).min(150));
            let got = run(&loaded, request);
            assert_eq!((&got.0, &got.1), (&expected.0, &expected.1));
            assert_eq!(got.2.reused_tokens, common.min(ids.len() - 1));
            assert_eq!(got.2.prompt_tokens + got.2.reused_tokens, ids.len());
        }
    }
}

#[test]
fn what_an_exact_scheduler_may_not_use_it_does_not_get() {
    // Keys and values that were computed while an answer was generated do not go out as those of a prompt.
    let dir = tempfile::tempdir().unwrap();
    let (scheduler, first) = (fresh(KvType::F16), request(5, 100, 60));
    let tokens = run(&scheduler, first.clone()).0;
    let all = [&first.ids[..], &tokens[..40]].concat();
    let path = dir.path().join("p.kv");
    assert!(matches!(cache(&path).save(&scheduler, &all), Err(Error::Gone { .. })));
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is left of a file that failed");
    // A block whose phases are not certain is put back as such.
    cache(&path).save(&scheduler, &first.ids).unwrap();
    let ids: Arc<[u32]> = first.ids.clone().into();
    let mut block = scheduler.export_block(ids.clone(), 0).unwrap().unwrap();
    assert!(block.certain);
    block.certain = false;
    let other = fresh(KvType::F16);
    other.import_block(None, &[], block).unwrap().unwrap();
    assert!(!other.export_block(ids, 0).unwrap().unwrap().certain);
    assert_eq!(run(&other, first).2.reused_tokens, 0);
}

#[test]
fn another_model_type_or_arithmetic_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.kv");
    let (scheduler, _) = made(&path);
    let other = PromptCache::at(&path, "another".into()).unwrap();
    let said = other.open(&scheduler).unwrap_err().to_string();
    assert!(said.contains("was made with model model, this run has model another: delete"), "{said}");
    for (kv, name) in [(KvType::F32, "f32"), (KvType::Q8, "q8")] {
        let said = cache(&path).open(&fresh(kv)).unwrap_err().to_string();
        let expected = format!("KV type f16, this run has KV type {name}");
        assert!(said.contains(&expected) && said.contains("p.kv"), "{said}");
    }
    // Another instruction set, another version of the arithmetic, another shape.
    let whole = fs::read(&path).unwrap();
    for (name, change) in [("arithmetic: ", b'x'), ("engine: native ", b'0'), ("shape: ", b'9')] {
        let mut bytes = whole.clone();
        let at = bytes.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
        bytes[at + name.len()] = change;
        fs::write(&path, bytes).unwrap();
        let error = cache(&path).open(&scheduler).unwrap_err();
        assert!(matches!(error, Error::Differs { .. }), "{error}");
        let word = name.split(':').next().unwrap();
        assert!(error.to_string().contains(&format!("this run has {word} ")), "{error}");
    }
}

#[test]
fn a_damaged_or_foreign_file_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.kv");
    let (scheduler, first) = made(&path);
    let whole = fs::read(&path).unwrap();
    let start = 20 + u32::from_le_bytes(whole[16..20].try_into().unwrap()) as usize;
    let record = (whole.len() - start) / 3;
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = cache(&path).open(&scheduler).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), bytes, "it is left alone");
        error
    };
    for i in 0..3 {
        // One bit, anywhere in record `i`.
        for at in [0, 4, 8, 12, 300, record / 2, record - 1] {
            let mut bytes = whole.clone();
            bytes[start + i * record + at] ^= 2;
            let Error::Damaged { at, .. } = refused(&bytes) else { panic!("record {i}") };
            assert_eq!(at as usize, start + i * record);
        }
    }
    for cut in [start, start + 1, start + record / 2, whole.len() - 1] {
        assert!(matches!(refused(&whole[..cut]), Error::Damaged { .. }), "{cut} bytes");
    }
    for bytes in [&whole[..7], &whole[..19], &whole[..start - 1], b"", b"GGUF and more than twenty bytes"] {
        assert!(matches!(refused(bytes), Error::Foreign { .. }), "{bytes:?}");
    }
    // Lengths that no file has.
    for len in [u32::MAX, 0, 5000] {
        let mut bytes = whole.clone();
        bytes[16..20].copy_from_slice(&len.to_le_bytes());
        assert!(matches!(refused(&bytes), Error::Foreign { .. }), "{len}");
    }
    // A block after one that is not full, though each is intact: not what was written.
    let more = [&whole[..], &whole[start + 2 * record..]].concat();
    assert!(matches!(refused(&more), Error::Damaged { .. }));
    // The file of a conversation, which has generated tokens, is none: the second record's last is generated.
    let talk = fresh(KvType::F16);
    let tokens = run(&talk, Request { ids: first.ids[..100].to_vec(), ..first.clone() }).0;
    let ids: Arc<[u32]> = [&first.ids[..100], &tokens[..10]].concat().into();
    let mut bytes = whole[..start].to_vec();
    for number in 0..2 {
        let block = talk.export_block(ids.clone(), number).unwrap().unwrap();
        huozi::kv_file::write_record(&mut bytes, number as u64, &block).unwrap();
    }
    assert!(matches!(refused(&bytes), Error::Damaged { .. }));
    fs::write(&path, &whole).unwrap();
    assert!(cache(&path).open(&scheduler).unwrap().is_some());
    // What is no file is no place for one.
    for bad in [dir.path(), Path::new("/dev/null"), &dir.path().join("none/p.kv")] {
        assert!(PromptCache::at(bad, "model".into()).is_err(), "{}", bad.display());
    }
}

#[test]
fn a_cache_that_is_too_small_takes_what_fits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.kv");
    let (_, first) = made(&path);
    let small = common::open(&common::model("tiny-f32", Preset::F32), KvType::F16, 64, 1).1;
    let never = Arc::from(vec![false; 1024]);
    let small = SchedulerHandle::of(Scheduler::new(Box::new(small), never)).unwrap();
    let saved = cache(&path).open(&small).unwrap().unwrap();
    assert!(saved.load(&small, 150).unwrap() <= 64);
    let request = Request { ids: first.ids[..40].to_vec(), max_new: 4, ..first };
    assert_eq!(run(&small, request.clone()).0, run(&fresh(KvType::F16), request).0);
}
