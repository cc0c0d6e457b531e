//! Speculation changes how fast a row is, and nothing else.

use crate::common;
use crate::schedule_support::{Outcome, Watched, note, request, run, with_options};
use huozi::engine::{EngineError, StepItem, Want};
use huozi::sample::Sampling;
use huozi::schedule::{
    Drafter, LogProbOptions, Request, RequestEvent, RequestId, Scheduler, SchedulerOptions, Speculate, Stop,
    Timings,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Drafts what is known to follow; of a hundred positions so many are right.
#[derive(Debug)]
struct Script {
    ids: Vec<u32>,
    right: usize,
}

impl Drafter for Script {
    fn draft(&self, ids: &[u32], most: usize, draft: &mut Vec<u32>) {
        for (at, &id) in self.ids.iter().enumerate().skip(ids.len()).take(most) {
            let right = at * 37 % 100 < self.right;
            draft.push(if right { id } else { (id + 1) % 1000 });
        }
    }
}

/// Steps take equally long whatever their width: each draft that may be accepted pays.
fn flat(kv_positions: usize) -> Scheduler {
    let engine = Watched::new(kv_positions, |_, _, _| {
        std::thread::sleep(Duration::from_micros(1500));
        Ok(())
    });
    engine.scheduler(SchedulerOptions { exact: true, ..SchedulerOptions::default() })
}

/// What does not depend on drafts.
fn plain(timings: Timings) -> (usize, usize, usize) {
    (timings.prompt_tokens, timings.reused_tokens, timings.generated_tokens)
}

fn drafted(outcome: &Outcome) -> (usize, usize) {
    let timings = outcome.stop.unwrap().1;
    (timings.drafted_tokens, timings.accepted_tokens)
}

/// What a request leads to without drafts, alone.
fn without(request: &Request) -> Outcome {
    let mut s = with_options(2048, SchedulerOptions { exact: true, ..SchedulerOptions::default() });
    let id = s.submit(Request { speculate: Speculate::Off, ..request.clone() }).unwrap();
    run(&mut s).remove(&id).unwrap()
}

/// The request with drafts of which so many of a hundred are right.
fn scripted(request: &Request, right: usize) -> Request {
    let whole = without(&Request { stop_ids: Vec::new(), max_new: 200, n_ctx: 2048, ..request.clone() });
    let ids = [&request.ids[..], &whole.tokens].concat();
    Request { speculate: Speculate::From(Arc::new(Script { ids, right })), ..request.clone() }
}

/// Ids that repeat themselves, and draws that often follow them.
fn repeating(first: u32, max_new: usize) -> Request {
    let ids = (0..90).map(|i| first + i % 9).collect();
    Request { ids, speculate: Speculate::Lookup, ..request(first, 1, max_new) }
}

fn samplings() -> [Sampling; 3] {
    let greedy = Sampling { do_sample: false, repetition_penalty: 1.0, ..Sampling::default() };
    let drawn = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, ..Sampling::default() };
    [greedy, drawn, Sampling { temperature: 0.7, top_k: 20, repetition_penalty: 1.3, ..drawn }]
}

#[test]
fn rows_get_what_they_get_without() {
    let (mut verified, mut accepted) = (0, 0);
    for width in [1, 4, 16] {
        let requests: Vec<Request> = (0..width.max(6))
            .map(|i| {
                let mut r = repeating(3 + i * 71 % 900, 24);
                r.sampling = samplings()[i as usize % 3];
                r.log_probs =
                    (i % 4 == 1).then(|| LogProbOptions { top: 3, ids: vec![7], prompt_from: Some(80) });
                if i % 2 == 0 { scripted(&r, [100, 60, 0][i as usize / 2 % 3]) } else { r }
            })
            .collect();
        let options =
            SchedulerOptions { exact: true, running: width as usize, ..SchedulerOptions::default() };
        let engine = Watched::new(8192, |_, _, _| {
            std::thread::sleep(Duration::from_micros(1500));
            Ok(())
        });
        let mut s = engine.scheduler(options);
        let ids: Vec<RequestId> = requests.iter().map(|r| s.submit(r.clone()).unwrap()).collect();
        let outcomes = run(&mut s);
        for (i, (request, id)) in requests.iter().zip(&ids).enumerate() {
            let (got, expected) = (&outcomes[id], without(request));
            assert_eq!(got.tokens, expected.tokens, "row {i} of {width}");
            assert_eq!(got.log_probs, expected.log_probs, "row {i} of {width}");
            let (stop, timings) = got.stop.unwrap();
            assert_eq!(stop, expected.stop.unwrap().0);
            assert_eq!(timings.generated_tokens, expected.stop.unwrap().1.generated_tokens);
            verified += drafted(got).0;
            accepted += drafted(got).1;
        }
    }
    assert!(accepted > 100 && verified > accepted + 20, "{accepted} of {verified}");
}

#[test]
fn what_stays_in_the_cache_is_the_same() {
    for (i, right) in [100, 50, 0].into_iter().enumerate() {
        // The answer ends in the middle of a block, and after its first position.
        for max_new in [29, 39] {
            let mut speculates = scripted(&repeating(5 + i as u32, max_new), right);
            let truth = without(&speculates).tokens;
            let mut blocks = Vec::new();
            for speculate in [speculates.speculate.clone(), Speculate::Off] {
                speculates.speculate = speculate;
                let mut s = flat(1024);
                let id = s.submit(speculates.clone()).unwrap();
                let outcome = run(&mut s).remove(&id).unwrap();
                assert_eq!(outcome.tokens, truth);
                let ids = [&speculates.ids[..], &truth].concat();
                assert_eq!(s.kept(&ids), ids.len() - 1);
                let export = |n| s.export_block(&ids, n).unwrap();
                blocks.push((0..).map_while(export).collect::<Vec<_>>());
            }
            assert_eq!(blocks[0].len(), 2);
            assert!(blocks[0] == blocks[1], "keys and values with drafts, {right} of 100 right");
        }
    }
}

#[test]
fn a_request_ends_where_it_ends_without() {
    let mut in_draft = 0;
    for end in 0..14 {
        for right in [100, 70] {
            let base = scripted(&repeating(11, 60), right);
            let truth = without(&base).tokens;
            let first = truth.iter().position(|&t| t == truth[end]).unwrap();
            let cases = [
                Request { max_new: end + 1, ..base.clone() },
                Request { n_ctx: base.ids.len() + end + 1, ..base.clone() },
                Request { stop_ids: vec![truth[end]], ..base.clone() },
                Request { stop_ids: vec![truth[end]], speculate: Speculate::Lookup, ..base.clone() },
            ];
            for request in cases {
                let mut s = flat(1024);
                let id = s.submit(request.clone()).unwrap();
                let got = run(&mut s).remove(&id).unwrap();
                let expected = without(&request);
                assert_eq!((&got.tokens, got.stop.unwrap().0), (&expected.tokens, expected.stop.unwrap().0));
                assert_eq!(plain(got.stop.unwrap().1), plain(expected.stop.unwrap().1));
                let ids = [&request.ids[..], &truth[..first.min(end) + 1], &[999]].concat();
                assert!(s.kept(&ids) < request.ids.len() + got.tokens.len() + 1);
                in_draft += drafted(&got).1;
            }
            // The client ends it at a token.
            let mut lengths = Vec::new();
            for speculate in [base.speculate.clone(), Speculate::Off] {
                let mut s = flat(1024);
                s.submit(Request { speculate, ..base.clone() }).unwrap();
                let (mut seen, mut stop) = (Vec::new(), None);
                let mut on = |event: RequestEvent| {
                    match event {
                        RequestEvent::Token { token, .. } => seen.push(token),
                        RequestEvent::Stopped { stop: why, timings, .. } => {
                            stop = Some((why, plain(timings)))
                        }
                        _ => {}
                    }
                    if seen.len() > end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                while s.step(&common::NEVER, &mut on).unwrap() {}
                assert_eq!(seen, truth[..=end]);
                let whole = [&base.ids[..], &truth].concat();
                lengths.push((stop.unwrap(), s.kept(&whole)));
            }
            assert_eq!(lengths[0], lengths[1]);
            assert_eq!(lengths[0].0.0, Stop::Hook);
        }
    }
    assert!(in_draft > 100, "{in_draft}");
}

#[test]
fn a_full_cache_ends_rows_and_pushes_them_out_where_it_does_without() {
    // One row that outgrows the whole cache: 64 positions, one of them predicts a 65th.
    let base = scripted(&request(1, 40, 100), 100);
    let mut s = flat(64);
    let id = s.submit(base.clone()).unwrap();
    let got = run(&mut s).remove(&id).unwrap();
    assert_eq!((got.stop.unwrap().0, got.tokens.len()), (Stop::ContextFull, 25));
    assert_eq!(got.tokens, without(&base).tokens[..25]);
    assert!(drafted(&got).1 > 5);
    // Twelve rows of 100 + 60 positions in ten blocks.
    let requests: Vec<Request> = (0..12)
        .map(|i| if i % 2 == 0 { scripted(&request(i * 71, 100, 60), 80) } else { repeating(i * 71, 60) })
        .collect();
    let mut s = flat(640);
    let ids: Vec<RequestId> = requests.iter().map(|r| s.submit(r.clone()).unwrap()).collect();
    let outcomes = run(&mut s);
    for (request, id) in requests.iter().zip(&ids) {
        assert_eq!(outcomes[id].tokens, without(request).tokens);
        assert_eq!(outcomes[id].stop.unwrap().0, Stop::MaxTokens);
    }
    assert!(ids.iter().map(|id| drafted(&outcomes[id]).1).sum::<usize>() > 60);
}

#[test]
fn drafts_take_no_block_from_others() {
    // Two rows fill their second block to the last position; a kept sequence has the rest of the cache.
    let rows: Vec<Request> = [3, 400].map(|first| scripted(&request(first, 100, 29), 100)).into();
    let mut s = flat(6 * 64);
    let kept = request(700, 100, 1);
    s.submit(kept.clone()).unwrap();
    run(&mut s);
    let ids: Vec<RequestId> = rows.iter().map(|r| s.submit(r.clone()).unwrap()).collect();
    let outcomes = run(&mut s);
    for (row, id) in rows.iter().zip(&ids) {
        assert_eq!(outcomes[id].tokens, without(row).tokens);
        assert!(drafted(&outcomes[id]).1 > 10, "{:?}", drafted(&outcomes[id]));
    }
    assert_eq!(s.kept(&kept.ids), 100, "it was pushed out");
}

#[test]
fn a_step_with_drafts_that_fails_or_is_cancelled_can_be_taken_again() {
    let wide = |items: &[StepItem<'_>]| items.iter().any(|item| item.want == Want::All);
    for error in [EngineError::Cancelled, EngineError::Failed("a broken cable".into())] {
        let base = scripted(&repeating(7, 40), 70);
        let failures = Arc::new(AtomicUsize::new(0));
        let (seen, last) = (failures.clone(), AtomicBool::new(false));
        let failure = error.clone();
        let engine = Watched::new(1024, move |items, _, _| {
            std::thread::sleep(Duration::from_micros(1500));
            // Each time the first of two.
            let again = last.swap(wide(items), Ordering::Relaxed);
            if wide(items) && !again {
                seen.fetch_add(1, Ordering::Relaxed);
                return Err(failure.clone());
            }
            last.store(false, Ordering::Relaxed);
            Ok(())
        });
        let mut s = engine.scheduler(SchedulerOptions::default());
        let id = s.submit(base.clone()).unwrap();
        let mut outcomes = BTreeMap::new();
        loop {
            match s.step(&common::NEVER, &mut |event| note(&mut outcomes, event)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(got) => assert_eq!(got, error),
            }
        }
        assert_eq!(outcomes[&id].tokens, without(&base).tokens);
        assert_eq!(plain(outcomes[&id].stop.unwrap().1), plain(without(&base).stop.unwrap().1));
        assert!(failures.load(Ordering::Relaxed) > 3);
    }
}

/// Generates `n` tokens on an engine whose steps take `read` + `each` per token (in tenths of a
/// millisecond), and says how much longer that took than one token a step, as told by widths, not clocks.
fn cost(read: u32, each: u32, n: usize, right: usize) -> (f64, usize) {
    let widths = Arc::new(Mutex::new(Vec::new()));
    let seen = widths.clone();
    let engine = Watched::new(2048, move |items, _, _| {
        let width: u32 = items.iter().map(|item| item.tokens.len() as u32).sum();
        std::thread::sleep(Duration::from_micros(100) * (read + each * width));
        if items[0].phase == huozi::engine::Phase::Generated {
            seen.lock().unwrap().push(width);
        }
        Ok(())
    });
    let mut s = engine.scheduler(SchedulerOptions::default());
    let base = request(5, 60, n);
    let id = s.submit(scripted(&base, right)).unwrap();
    let accepted = drafted(&run(&mut s)[&id]).1;
    let took: u32 = widths.lock().unwrap().iter().map(|width| read + each * width).sum();
    (f64::from(took) / f64::from((read + each) * (n as u32 - 1)), accepted)
}

#[test]
fn it_is_off_where_it_does_not_pay_and_on_where_it_does() {
    // As many tokens as a scripted request knows.
    let (took, accepted) = cost(18, 2, 200, 0);
    assert!(took < 1.03 && accepted == 0, "{took} of the time without, nothing accepted");
    let (took, _) = cost(0, 20, 200, 90);
    assert!(took < 1.15, "{took} of the time without, each token as dear as the first");
    let (took, accepted) = cost(18, 2, 200, 100);
    assert!(took < 0.5 && accepted > 100, "{took} of the time without, all accepted");
    let (took, accepted) = cost(18, 2, 200, 60);
    assert!(took < 0.85 && accepted > 50, "{took} of the time without, {accepted} accepted");
}
