//! The scheduler over the native engine: company, prefixes, a cache that is too small, reasons to stop.

use crate::common;
use crate::schedule_support::{Outcome, Watched, alone, note, request, run, scheduler, with_options};
use huozi::engine::EngineError;
use huozi::schedule::{LogProbOptions, Refused, Request, RequestEvent, RequestId, SchedulerOptions, Stop};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[test]
fn rows_in_company_and_in_a_cache_too_small_for_all_get_what_they_get_alone() {
    // Twelve rows of 100 + 60 positions want 36 blocks; ten are there, so rows wait, step back and are read
    // again.
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
    let mut s = with_options(2048, SchedulerOptions { exact: true, ..SchedulerOptions::default() });
    let first = request(5, 300, 20);
    let id = s.submit(first.clone()).unwrap();
    let answer = run(&mut s).remove(&id).unwrap().tokens;
    let mut next = request(900, 30, 5);
    next.ids = [&first.ids[..], &answer, &next.ids].concat();
    let id = s.submit(next).unwrap();
    assert_eq!(run(&mut s)[&id].stop.unwrap().1.reused_tokens, 300);
}

#[test]
fn a_request_with_log_probs_reuses_only_what_was_computed_in_its_phases() {
    let mut s = scheduler(4096);
    let mut reused = |request: Request| {
        let id = s.submit(request).unwrap();
        let outcome = run(&mut s).remove(&id).unwrap();
        (outcome.stop.unwrap().1.reused_tokens, outcome.tokens)
    };
    let first = request(5, 300, 20);
    let (_, answer) = reused(first.clone());
    let mut next = request(900, 30, 5);
    next.ids = [&first.ids[..], &answer, &next.ids].concat();
    assert_eq!(reused(next.clone()).0, 319);
    let scored = Request { log_probs: Some(LogProbOptions::default()), ..next };
    // The sequence that is kept from the request before has all of it, a part computed as an answer.
    assert_eq!(reused(scored.clone()).0, 300);
    assert_eq!(reused(scored).0, 349);
}

#[test]
fn an_engine_with_few_sequences_runs_more_requests_one_after_the_other() {
    let engine =
        Watched::new(
            4096,
            |items, _, _| {
                if items.len() > 2 { Err(EngineError::TooManySeqs { max: 2 }) } else { Ok(()) }
            },
        );
    let mut s = engine.scheduler(SchedulerOptions::default());
    let requests: Vec<Request> = (0..5).map(|i| request(i * 71, 40, 6)).collect();
    let ids: Vec<RequestId> = requests.iter().map(|r| s.submit(r.clone()).unwrap()).collect();
    let outcomes = run(&mut s);
    for (request, id) in requests.into_iter().zip(&ids) {
        assert_eq!(outcomes[id].tokens, alone(request).tokens);
    }
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

#[test]
fn progress_comes_twice_a_second_from_the_first_token_on() {
    // At the pace of a 7B on a slow board: 20 ms a token.
    let slow = Watched::new(1024, |items, progress, _| {
        let tokens: usize = items.iter().map(|i| i.tokens.len()).sum();
        for part in 1..=16 {
            std::thread::sleep(Duration::from_millis(20) * tokens as u32 / 16);
            progress(f64::from(part) / 16.0);
        }
        Ok(())
    });
    let mut s = slow.scheduler(SchedulerOptions::default());
    s.submit(request(1, 100, 0)).unwrap();
    let mut last = Instant::now();
    let mut events = 0;
    let mut on = |event| {
        if let RequestEvent::Prompt { .. } = event {
            assert!(last.elapsed() < Duration::from_millis(500), "{:?} without progress", last.elapsed());
            last = Instant::now();
            events += 1;
        }
        ControlFlow::Continue(())
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
    let asks = |top, ids| Request {
        log_probs: Some(LogProbOptions { top, ids: vec![5; ids], prompt_from: None }),
        ..request(1, 2, 1)
    };
    let refused = |list, asked, max| Err(Refused::TooManyLogProbs { list, asked, max });
    assert_eq!(s.submit(asks(1025, 0)), refused("top", 1025, 1024));
    assert_eq!(s.submit(asks(usize::MAX, 0)), refused("top", usize::MAX, 1024));
    assert_eq!(s.submit(asks(0, 4097)), refused("ids", 4097, 4096));
    assert!(s.submit(asks(1024, 4096)).is_ok());
    let mut hot = request(1, 1, 1);
    hot.sampling.temperature = f32::NAN;
    assert!(matches!(s.submit(hot), Err(Refused::Setting(_))));
}

#[test]
fn as_many_requests_run_and_as_many_sequences_are_kept_as_the_options_say() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let engine = Watched::new(4096, move |items, _, _| {
        seen.fetch_max(items.len(), Ordering::Relaxed);
        Ok(())
    });
    let mut s = engine.scheduler(SchedulerOptions { running: 3, kept: 2, ..SchedulerOptions::default() });
    let requests: Vec<Request> = (0..5).map(|i| request(i * 71, 100, 6)).collect();
    let ids: Vec<RequestId> = requests.iter().map(|r| s.submit(r.clone()).unwrap()).collect();
    let outcomes = run(&mut s);
    assert_eq!(most.load(Ordering::Relaxed), 3);
    for (request, id) in requests.iter().zip(&ids) {
        assert_eq!(outcomes[id].tokens, alone(request.clone()).tokens);
    }
    assert_eq!(requests.iter().filter(|r| s.kept(&r.ids) == 100).count(), 2);
    let mut s = with_options(1024, SchedulerOptions { running: 0, kept: 0, ..SchedulerOptions::default() });
    let id = s.submit(requests[0].clone()).unwrap();
    assert_eq!(run(&mut s)[&id].tokens.len(), 6, "one always runs");
    assert_eq!(s.kept(&requests[0].ids), 0);
}

#[test]
fn the_client_may_end_its_request_at_each_event() {
    let end_at = |stop: &dyn Fn(&RequestEvent) -> bool| {
        let mut s = scheduler(2048);
        let (a, b) = (s.submit(request(1, 100, 50)).unwrap(), s.submit(request(2, 40, 50)).unwrap());
        let mut outcomes = BTreeMap::new();
        let mut on = |event: RequestEvent| {
            let end = event.id() == a && !event.is_last() && stop(&event);
            let _ = note(&mut outcomes, event);
            if end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        while s.step(&common::NEVER, &mut on).unwrap() {}
        assert_eq!(outcomes[&b].tokens, alone(request(2, 40, 50)).tokens);
        let Outcome { tokens, stop, .. } = outcomes.remove(&a).unwrap();
        assert_eq!(stop.unwrap().0, Stop::Hook);
        tokens
    };
    let whole = alone(request(1, 100, 50)).tokens;
    let token =
        |event: &RequestEvent| matches!(event, RequestEvent::Token { token, .. } if *token == whole[7]);
    let at = whole.iter().position(|t| *t == whole[7]).unwrap();
    assert_eq!(end_at(&token), whole[..=at], "the token that led to it is part of the answer");
    assert!(end_at(&|event| matches!(event, RequestEvent::Prompt { .. })).is_empty());
    assert!(end_at(&|event| matches!(event, RequestEvent::Prompt { done: 100, .. })).is_empty());
}
