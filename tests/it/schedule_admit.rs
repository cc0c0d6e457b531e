//! Which requests the scheduler lets in, what they share, and which prefixes it keeps.

use crate::common;
use crate::schedule_support::{Outcome, Watched, alone, note, request, run, with_options};
use huozi::engine::Phase;
use huozi::schedule::{LogProbOptions, Request, RequestEvent, RequestId, SchedulerOptions, Stop};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn options(running: usize, kept: usize) -> SchedulerOptions {
    SchedulerOptions { running, kept, exact: true, grouped: false }
}

/// Prompt tokens that were computed.
fn computed(outcomes: &BTreeMap<RequestId, Outcome>, ids: &[RequestId]) -> Vec<usize> {
    ids.iter().map(|id| outcomes[id].stop.unwrap().1.prompt_tokens).collect()
}

#[test]
fn answers_of_one_prompt_read_it_once() {
    let mut s = with_options(4096, options(16, 4));
    let requests: Vec<Request> = (0..8).map(|i| Request { seed: i, ..request(3, 300, 6) }).collect();
    let ids: Vec<RequestId> = requests.iter().map(|r| s.submit(r.clone()).unwrap()).collect();
    let outcomes = run(&mut s);
    assert_eq!(computed(&outcomes, &ids), [300, 1, 1, 1, 1, 1, 1, 1]);
    for (request, id) in requests.into_iter().zip(&ids) {
        assert_eq!(outcomes[id].tokens, alone(request).tokens);
    }
}

#[test]
fn choices_read_their_prompt_once_and_are_scored_from_its_end() {
    let mut s = with_options(4096, options(16, 4));
    let prompt = request(3, 300, 0);
    let choice = |i: u32| Request {
        ids: [&prompt.ids[..], &[700 + i, 5, 6]].concat(),
        log_probs: Some(LogProbOptions { prompt_from: Some(300), ..LogProbOptions::default() }),
        ..prompt.clone()
    };
    let ids: Vec<RequestId> = (0..4).map(|i| s.submit(choice(i)).unwrap()).collect();
    let outcomes = run(&mut s);
    assert_eq!(computed(&outcomes, &ids), [303, 4, 4, 4]);
    for (i, id) in (0..).zip(&ids) {
        let told: Vec<(usize, u32)> =
            outcomes[id].log_probs.iter().map(|at| (at.position, at.token)).collect();
        assert_eq!(told, [(300, 700 + i), (301, 5), (302, 6)]);
        assert_eq!(outcomes[id].log_probs, alone(choice(i)).log_probs);
    }
}

#[test]
fn a_request_that_waits_for_a_prefix_lets_others_pass() {
    // 2000 tokens take some steps; the second request waits for them, the third does not.
    let mut s = with_options(8192, options(4, 4));
    let (first, other) = (request(3, 2000, 3), request(700, 40, 3));
    let ids: Vec<RequestId> = [&first, &first, &other].map(|r| s.submit(r.clone()).unwrap()).into();
    let (mut outcomes, mut begun) = (BTreeMap::new(), Vec::new());
    let mut on = |event: RequestEvent| {
        if !begun.contains(&event.id()) {
            begun.push(event.id());
        }
        note(&mut outcomes, event)
    };
    while s.step(&common::NEVER, &mut on).unwrap() {}
    assert_eq!(begun, [ids[0], ids[2], ids[1]]);
    assert_eq!(computed(&outcomes, &ids), [2000, 1, 40]);
}

#[test]
fn a_request_is_passed_so_often_and_no_more() {
    let mut s = with_options(64 * 64, options(3, 0));
    let long = request(3, 2000, 1);
    let waits = [long.clone(), long].map(|r| s.submit(r).unwrap())[1];
    // Short ones that end at once: without a bound they would pass one after the other.
    for i in 0..40 {
        s.submit(request(i * 23 + 7, 1, 1)).unwrap();
    }
    let (mut passed, mut begun) = (0, false);
    let mut on = |event: RequestEvent| {
        begun |= event.id() == waits;
        passed += usize::from(event.is_last() && !begun);
        ControlFlow::Continue(())
    };
    while s.step(&common::NEVER, &mut on).unwrap() {}
    assert!((1..=4).contains(&passed), "{passed}");
}

#[test]
fn a_prefix_that_waiting_requests_have_stays_longest() {
    // One runs at a time, two are kept. Between the rows of a prefix come four of others.
    let mut s = with_options(4096, options(1, 2));
    let shared =
        |i: u32| Request { ids: [&request(3, 256, 0).ids[..], &[600 + i, 7]].concat(), ..request(i, 1, 2) };
    let mut ids = vec![s.submit(shared(0)).unwrap()];
    for i in 0..4 {
        s.submit(request(400 + i * 57, 100, 2)).unwrap();
    }
    ids.push(s.submit(shared(1)).unwrap());
    let outcomes = run(&mut s);
    assert_eq!(computed(&outcomes, &ids), [258, 2]);
    // No request waits for it any more: the one used last goes last.
    for i in 0..2 {
        s.submit(request(400 + i * 57, 100, 2)).unwrap();
    }
    run(&mut s);
    assert!(s.kept(&shared(1).ids) < 64);
}

#[test]
fn a_queue_of_thousands_costs_little() {
    // What a step costs beside the engine, with an engine that does nothing: measured by the clock, so
    // generously.
    let mut s = crate::schedule_support::Idle::scheduler(options(64, 64));
    let shared = request(3, 600, 0).ids;
    let mut ids = Vec::new();
    let rows = 4000;
    for i in 0..rows {
        let tail = [i % 997, i / 997, 5];
        ids.push(s.submit(Request { ids: [&shared[..], &tail].concat(), ..request(i, 1, 4) }).unwrap());
    }
    let begun = Instant::now();
    let outcomes = run(&mut s);
    let each = begun.elapsed() / rows;
    assert_eq!(outcomes.len(), rows as usize);
    assert!(computed(&outcomes, &ids[1..]).iter().all(|&n| n <= 3 + 64), "read once");
    assert!(each < Duration::from_millis(1), "{each:?} for each row");
}

#[test]
fn thousands_of_waiting_requests_are_cancelled_at_once() {
    let mut s = crate::schedule_support::Idle::scheduler(options(8, 8));
    let ids: Vec<RequestId> = (0..150_000).map(|i| s.submit(request(i % 900, 1, 4)).unwrap()).collect();
    s.step(&AtomicBool::new(false), &mut |_| ControlFlow::Continue(())).unwrap();
    let begun = Instant::now();
    ids.iter().rev().for_each(|&id| s.cancel(id));
    let mut stopped = 0;
    let more = s.step(&AtomicBool::new(false), &mut |event| {
        stopped += usize::from(matches!(event, RequestEvent::Stopped { stop: Stop::Cancelled, .. }));
        ControlFlow::Continue(())
    });
    assert!(!more.unwrap() && s.is_idle());
    assert_eq!(stopped, ids.len());
    // Measured by the clock, so generously: a walk through the queue for each takes many times as long.
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn requests_are_let_in_by_groups_where_throughput_counts() {
    // Eight run, each of another length, so that they end one after the other.
    let steps = |grouped| {
        let reading = Arc::new(AtomicUsize::new(0));
        let seen = reading.clone();
        let engine = Watched::new(8192, move |items, _, _| {
            let reads = items.iter().any(|item| item.phase == Phase::Given);
            seen.fetch_add(usize::from(reads), Ordering::Relaxed);
            Ok(())
        });
        let mut s = engine.scheduler(SchedulerOptions { grouped, ..options(8, 0) });
        let requests: Vec<Request> = (0..40).map(|i| request(i * 23, 20, 10 + i as usize % 8 * 5)).collect();
        let ids: Vec<RequestId> = requests.iter().map(|r| s.submit(r.clone()).unwrap()).collect();
        let outcomes = run(&mut s);
        for (request, id) in requests.into_iter().zip(&ids) {
            assert_eq!(outcomes[id].tokens, alone(request).tokens);
        }
        reading.load(Ordering::Relaxed)
    };
    let (grouped, single) = (steps(true), steps(false));
    assert!(grouped * 3 < single * 2, "{grouped} steps read prompts, {single} without groups");
}
