//! The scheduler over the native engine: company, prefixes, a cache that is too small, reasons to stop.

use crate::common;
use huozi::engine::{Engine, EngineError, Info, Item, KvType, Native, Seq, Sink, StepStats};
use huozi::sample::Sampling;
use huozi::schedule::{Event, Refused, Request, RequestId, Scheduler, Stop, Timings};
use huozi_convert::plan::Preset;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

fn scheduler(kv_positions: usize) -> Scheduler {
    let file = common::model("tiny-f32", Preset::F32);
    let engine = common::open(&file, KvType::F32, kv_positions, 2).1;
    Scheduler::new(Box::new(engine), Arc::from(vec![false; 1024]))
}

fn request(first: u32, prompt: usize, max_new: usize) -> Request {
    Request {
        ids: (0..prompt as u32).map(|i| (first + i * 37) % 1000).collect(),
        sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, ..Sampling::default() },
        seed: u64::from(first),
        stop_ids: Vec::new(),
        max_new,
        n_ctx: 2048,
    }
}

#[derive(Default)]
struct Outcome {
    tokens: Vec<u32>,
    prompt: Vec<usize>,
    stop: Option<(Stop, Timings)>,
}

fn note(outcomes: &mut BTreeMap<RequestId, Outcome>, event: Event) {
    match event {
        Event::Prompt { id, done, .. } => outcomes.entry(id).or_default().prompt.push(done),
        Event::Token { id, token } => outcomes.entry(id).or_default().tokens.push(token),
        Event::Stopped { id, stop, timings } => {
            let before = outcomes.entry(id).or_default().stop.replace((stop, timings));
            assert!(before.is_none(), "stopped twice");
        }
    }
}

fn run(scheduler: &mut Scheduler) -> BTreeMap<RequestId, Outcome> {
    let mut outcomes = BTreeMap::new();
    while scheduler.step(&common::NEVER, &mut |event| note(&mut outcomes, event)).unwrap() {}
    outcomes
}

fn alone(request: Request) -> Outcome {
    let mut s = scheduler(2048);
    let id = s.submit(request).unwrap();
    run(&mut s).remove(&id).unwrap()
}

#[test]
fn rows_in_company_and_in_a_cache_too_small_for_all_get_what_they_get_alone() {
    // Twelve rows of 100 + 60 positions want 36 blocks; ten are there, so rows wait, step back and are read again.
    for kv_positions in [4096, 640] {
        let mut s = scheduler(kv_positions);
        let ids: Vec<RequestId> = (0..12).map(|i| s.submit(request(i * 71, 100, 60)).unwrap()).collect();
        let outcomes = run(&mut s);
        for (i, id) in ids.iter().enumerate() {
            let expected = alone(request(i as u32 * 71, 100, 60));
            let got = &outcomes[id];
            assert_eq!(got.tokens, expected.tokens, "row {i} of a cache of {kv_positions}");
            assert_eq!(got.tokens.len(), 60);
            assert_eq!(got.stop.unwrap().0, Stop::MaxTokens);
        }
    }
}

#[test]
fn the_common_prefix_is_not_read_again() {
    let mut s = scheduler(2048);
    let first = request(5, 300, 20);
    let id = s.submit(first.clone()).unwrap();
    let answer = run(&mut s).remove(&id).unwrap().tokens;
    // The next turn: the first prompt, its answer, something new.
    let mut next = request(900, 30, 5);
    next.ids = [&first.ids[..], &answer, &next.ids].concat();
    let id = s.submit(next.clone()).unwrap();
    let second = run(&mut s).remove(&id).unwrap();
    let timings = second.stop.unwrap().1;
    // The last token of the answer was drawn, never read.
    assert_eq!((timings.reused_tokens, timings.prompt_tokens), (319, 31));
    assert_eq!(second.prompt.first(), Some(&319));
    assert_eq!(second.prompt.last(), Some(&350));
    assert_eq!(second.tokens, alone(next).tokens);
    // A retry of the first turn: all but the last token of the prompt is there.
    let id = s.submit(first).unwrap();
    let retry = run(&mut s).remove(&id).unwrap();
    assert_eq!(retry.stop.unwrap().1.reused_tokens, 299);
    assert_eq!(retry.tokens, answer);
}

#[test]
fn where_rows_must_be_exact_a_generated_token_is_no_prompt() {
    let mut s = scheduler(2048).exact();
    let first = request(5, 300, 20);
    let id = s.submit(first.clone()).unwrap();
    let answer = run(&mut s).remove(&id).unwrap().tokens;
    let mut next = request(900, 30, 5);
    next.ids = [&first.ids[..], &answer, &next.ids].concat();
    let id = s.submit(next).unwrap();
    assert_eq!(run(&mut s)[&id].stop.unwrap().1.reused_tokens, 300);
}

#[test]
fn rows_submitted_together_share_what_the_first_of_them_reads() {
    let mut s = scheduler(4096);
    let ids: Vec<RequestId> = (0..8)
        .map(|i| {
            let mut r = request(3, 200, 4);
            r.ids.extend([i, 500, 600]);
            s.submit(r).unwrap()
        })
        .collect();
    let outcomes = run(&mut s);
    let reused: Vec<usize> = ids.iter().map(|id| outcomes[id].stop.unwrap().1.reused_tokens).collect();
    assert_eq!(reused[0], 0);
    assert!(reused[1..].iter().all(|&n| n >= 192), "{reused:?}");
}

/// The native engine at the pace of a 7B on a slow board: 20 ms a token.
struct Slow(Native);

impl Engine for Slow {
    fn info(&self) -> &Info {
        self.0.info()
    }
    fn seq_new(&mut self) -> Seq {
        self.0.seq_new()
    }
    fn seq_len(&self, seq: Seq) -> usize {
        self.0.seq_len(seq)
    }
    fn seq_fork(&mut self, src: Seq, len: usize) -> Result<Seq, EngineError> {
        self.0.seq_fork(src, len)
    }
    fn seq_truncate(&mut self, seq: Seq, len: usize) -> Result<(), EngineError> {
        self.0.seq_truncate(seq, len)
    }
    fn seq_free(&mut self, seq: Seq) {
        self.0.seq_free(seq);
    }
    fn kv_free_blocks(&self) -> usize {
        self.0.kv_free_blocks()
    }
    fn step_watched(
        &mut self,
        items: &[Item<'_>],
        sink: &mut Sink<'_>,
        progress: &mut dyn FnMut(f64),
        cancel: &AtomicBool,
    ) -> Result<StepStats, EngineError> {
        let tokens: usize = items.iter().map(|i| i.tokens.len()).sum();
        for part in 1..=16 {
            std::thread::sleep(Duration::from_millis(20) * tokens as u32 / 16);
            progress(f64::from(part) / 16.0);
        }
        self.0.step(items, sink, cancel)
    }
}

#[test]
fn progress_comes_twice_a_second_from_the_first_token_on() {
    let file = common::model("tiny-f32", Preset::F32);
    let engine = Slow(common::open(&file, KvType::F32, 1024, 1).1);
    let mut s = Scheduler::new(Box::new(engine), Arc::from(vec![false; 1024]));
    s.submit(request(1, 100, 0)).unwrap();
    let mut last = Instant::now();
    let mut events = 0;
    let mut on = |event| {
        if let Event::Prompt { .. } = event {
            assert!(last.elapsed() < Duration::from_millis(500), "{:?} without progress", last.elapsed());
            last = Instant::now();
            events += 1;
        }
    };
    while s.step(&common::NEVER, &mut on).unwrap() {}
    assert!((5..20).contains(&events), "{events} events");
}

#[test]
fn each_reason_to_stop() {
    let full = alone(Request { n_ctx: 50, ..request(1, 40, 100) });
    assert_eq!((full.stop.unwrap().0, full.tokens.len()), (Stop::ContextFull, 10));
    let read = alone(request(1, 40, 0));
    assert_eq!((read.stop.unwrap().0, read.tokens.len()), (Stop::MaxTokens, 0));
    let free = alone(request(1, 40, 30));
    assert_eq!((free.stop.unwrap().0, free.tokens.len()), (Stop::MaxTokens, 30));
    let token = free.tokens[7];
    let at = free.tokens.iter().position(|t| *t == token).unwrap();
    let ended = alone(Request { stop_ids: vec![token], ..request(1, 40, 30) });
    assert_eq!(ended.stop.unwrap().0, Stop::EndToken(token));
    assert_eq!(ended.tokens, free.tokens[..at]);
    // One row that outgrows the whole cache.
    let mut s = scheduler(64);
    let id = s.submit(request(1, 40, 100)).unwrap();
    let outcome = run(&mut s).remove(&id).unwrap();
    assert_eq!((outcome.stop.unwrap().0, outcome.tokens.len()), (Stop::ContextFull, 25));
}

#[test]
fn a_cancelled_request_ends_and_the_others_go_on() {
    let mut s = scheduler(2048);
    let (a, b, c) = (
        s.submit(request(1, 40, 50)).unwrap(),
        s.submit(request(2, 40, 50)).unwrap(),
        s.submit(request(3, 40, 50)).unwrap(),
    );
    s.cancel(c);
    let mut outcomes = BTreeMap::new();
    for _ in 0..20 {
        s.step(&common::NEVER, &mut |event| note(&mut outcomes, event)).unwrap();
    }
    s.cancel(a);
    while s.step(&common::NEVER, &mut |event| note(&mut outcomes, event)).unwrap() {}
    assert_eq!(outcomes[&a].stop.unwrap().0, Stop::Cancelled);
    assert!(!outcomes[&a].tokens.is_empty() && outcomes[&a].tokens.len() < 50);
    assert_eq!(outcomes[&b].tokens, alone(request(2, 40, 50)).tokens);
    assert_eq!((outcomes[&c].stop.unwrap().0, outcomes[&c].tokens.len()), (Stop::Cancelled, 0));
}

#[test]
fn what_cannot_run_is_refused() {
    let mut s = scheduler(128);
    assert!(matches!(s.submit(request(1, 0, 1)), Err(Refused::Prompt(EngineError::NoTokens))));
    let long = s.submit(request(1, 129, 1));
    assert!(matches!(long, Err(Refused::Prompt(EngineError::KvFull { needed: 3, free: 2 }))));
    let strange = Request { ids: vec![1024], ..request(1, 1, 1) };
    assert!(matches!(s.submit(strange), Err(Refused::Prompt(EngineError::TokenOutOfRange { .. }))));
    let beyond = s.submit(Request { n_ctx: 10, ..request(1, 11, 1) });
    assert!(matches!(beyond, Err(Refused::TooLong { tokens: 11, n_ctx: 10 })));
    let mut hot = request(1, 1, 1);
    hot.sampling.temperature = f32::NAN;
    assert!(matches!(s.submit(hot), Err(Refused::Setting(_))));
}
