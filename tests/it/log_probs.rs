//! Log-probabilities that a request is told, against those of transformers in float32.

use crate::common::{self, fixture, model};
use crate::schedule_support::{Outcome, note, run};
use huozi::engine::KvType;
use huozi::sample::Sampling;
use huozi::schedule::{
    LogProbOptions, PositionLogProbs, Refused, Request, RequestEvent, Scheduler, SchedulerOptions, Speculate,
    Stop,
};
use huozi_convert::plan::Preset;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Ids that are told whatever their rank.
const NAMED: [u32; 3] = [6001, 0, 77];

/// A prompt, and log-probabilities of every id at every position of it, `(ids.len(), n_vocab)` row-major.
struct Reference {
    ids: Vec<u32>,
    log_probs: Vec<f64>,
}

impl Reference {
    /// Those of the next token after `position`.
    fn row(&self, position: usize) -> &[f64] {
        let n_vocab = self.log_probs.len() / self.ids.len();
        &self.log_probs[position * n_vocab..][..n_vocab]
    }

    /// Asserts that what was told of the position is what the reference says.
    fn check(&self, told: &PositionLogProbs) {
        let row = self.row(told.position - 1);
        let near = |id: u32, got: f64| {
            let want = row[id as usize];
            assert!((got - want).abs() <= 1e-3, "position {} id {id}: {got} for {want}", told.position);
        };
        near(told.token, told.log_prob);
        assert_eq!((told.top.len(), told.ids.len()), (5, NAMED.len()));
        NAMED.iter().zip(&told.ids).for_each(|(&id, &got)| near(id, got));
        let mut largest: Vec<f64> = row.to_vec();
        largest.sort_by(|a, b| b.total_cmp(a));
        for (&(id, got), want) in told.top.iter().zip(largest) {
            near(id, got);
            assert!((got - want).abs() <= 1e-3, "position {}: not the likeliest", told.position);
        }
        assert!(told.top.is_sorted_by(|a, b| a.1 >= b.1));
    }
}

fn references() -> Vec<Reference> {
    let bytes = std::fs::read(fixture("nano-reference.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let prompts = (0..).map_while(|k| {
        let ids = tensors.tensor(&format!("ids.{k}")).ok()?;
        let ids: Vec<u32> =
            ids.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
        let logits = tensors.tensor(&format!("logits.{k}")).unwrap();
        let logits =
            logits.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
        let logits: Vec<f64> = logits.collect();
        let softmax = logits.chunks(logits.len() / ids.len()).flat_map(|row| {
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            row.iter().map(move |x| x - sum.ln())
        });
        Some(Reference { log_probs: softmax.collect(), ids })
    });
    prompts.collect()
}

fn scheduler() -> Scheduler {
    let (_, engine) = common::open(&model("nano", Preset::F32), KvType::F32, 8192, 2);
    let never = Arc::from(vec![false; 1 << 14]);
    Scheduler::with_options(Box::new(engine), never, SchedulerOptions { kept: 16, ..Default::default() })
}

fn request(ids: &[u32], max_new: usize, prompt_from: Option<usize>) -> Request {
    Request {
        ids: ids.to_vec(),
        // Far from the raw logits: what is told must not follow them.
        sampling: Sampling { temperature: 3.0, top_k: 2, repetition_penalty: 2.0, ..Sampling::default() },
        seed: 3,
        stop_ids: Vec::new(),
        max_new,
        n_ctx: 2048,
        log_probs: Some(LogProbOptions { top: 5, ids: NAMED.to_vec(), prompt_from }),
        speculate: Speculate::Off,
    }
}

#[test]
fn prompt_and_generated_positions_are_those_of_transformers() {
    let references = references();
    assert!(references.len() >= 5);
    let mut s = scheduler();
    let mut asked = Vec::new();
    // All in company, in two lots: the second finds the prompts of the first.
    for (lot, from) in [(0, 1), (1, 1), (2, 4)] {
        for reference in &references {
            let (ids, n) = (&reference.ids, reference.ids.len());
            let cut = (n / 2).max(1);
            let from = from.min(n);
            asked.push((lot, reference, from..n + 1, s.submit(request(ids, 1, Some(from))).unwrap()));
            // A shorter prompt: its generated position is one of the reference, too.
            asked.push((lot, reference, cut..cut + 1, s.submit(request(&ids[..cut], 1, None)).unwrap()));
            asked.push((
                lot,
                reference,
                from.min(cut)..cut,
                s.submit(request(&ids[..cut], 0, Some(from))).unwrap(),
            ));
        }
        if lot == 0 {
            continue;
        }
        let mut outcomes = run(&mut s);
        for (lot, reference, positions, id) in asked.drain(..) {
            let Outcome { tokens, log_probs, stop, .. } = outcomes.remove(&id).unwrap();
            let told: Vec<usize> = log_probs.iter().map(|at| at.position).collect();
            assert_eq!(told, positions.clone().collect::<Vec<_>>(), "lot {lot}");
            for at in &log_probs {
                reference.check(at);
                let token = reference.ids.get(at.position).filter(|_| at.position + 1 < positions.end);
                assert!(token.is_none_or(|&token| token == at.token));
            }
            if let Some(&token) = tokens.first() {
                assert_eq!(log_probs.last().unwrap().token, token);
            }
            let reused = stop.unwrap().1.reused_tokens;
            let first_row = positions.start - 1;
            assert!(reused <= first_row, "{reused} reused, the row at {first_row} is needed");
            assert!(lot < 2 || reused > 0 || first_row == 0, "what the first two lots read is there");
        }
    }
}

#[test]
fn a_prefix_is_reused_up_to_the_first_position_that_is_asked_for() {
    let reference = references().remove(0);
    let n = reference.ids.len();
    assert!(n > 6);
    for (from, expected) in [(None, n - 1), (Some(5), 4), (Some(1), 0), (Some(0), 0), (Some(n), n - 1)] {
        let mut s = scheduler();
        let mut last = None;
        for request in [
            Request { log_probs: None, ..request(&reference.ids, 1, None) },
            request(&reference.ids, 1, from),
        ] {
            let id = s.submit(request).unwrap();
            last = run(&mut s).remove(&id);
        }
        let Outcome { log_probs, stop, .. } = last.unwrap();
        assert_eq!(stop.unwrap().1.reused_tokens, expected, "{from:?}");
        assert_eq!(log_probs.len(), n + 1 - from.unwrap_or(n).max(1));
        log_probs.iter().for_each(|at| reference.check(at));
    }
}

#[test]
fn a_request_that_steps_back_is_told_each_position_once() {
    let reference = references().remove(0);
    let long: Vec<u32> = reference.ids.iter().copied().cycle().take(100).collect();
    let scheduler = |positions| {
        let (_, engine) = common::open(&model("nano", Preset::F32), KvType::F32, positions, 2);
        Scheduler::new(Box::new(engine), Arc::from(vec![false; 1 << 14]))
    };
    let mut requests = Vec::new();
    for i in 0..4u32 {
        let mut request = request(&long, 60, Some(20));
        request.ids.rotate_left(i as usize);
        requests.push(request);
    }
    let alone = requests.iter().map(|request| {
        let mut s = scheduler(1024);
        let id = s.submit(request.clone()).unwrap();
        run(&mut s).remove(&id).unwrap().log_probs
    });
    let alone: Vec<_> = alone.collect();
    // Four of three blocks each do not fit into six.
    let mut s = scheduler(6 * 64);
    let ids: Vec<_> = requests.iter().map(|request| s.submit(request.clone()).unwrap()).collect();
    let outcomes = run(&mut s);
    for (id, expected) in ids.iter().zip(&alone) {
        assert_eq!(expected.len(), 140);
        assert_eq!(&outcomes[id].log_probs, expected);
    }
}

#[test]
fn a_stop_id_is_told_and_the_client_may_end_the_request() {
    let reference = references().remove(0);
    let (ids, n) = (&reference.ids, reference.ids.len());
    let mut s = scheduler();
    let id = s.submit(request(ids, 4, None)).unwrap();
    let first = run(&mut s).remove(&id).unwrap();
    assert_eq!((first.tokens.len(), first.log_probs.len()), (4, 4));
    let id = s.submit(Request { stop_ids: vec![first.tokens[0]], ..request(ids, 4, None) }).unwrap();
    let stopped = run(&mut s).remove(&id).unwrap();
    assert_eq!(stopped.stop.unwrap().0, Stop::EndToken(first.tokens[0]));
    assert_eq!((stopped.tokens.len(), &stopped.log_probs[..]), (0, &first.log_probs[..1]));
    // Ended when a position of the prompt is told, and at a generated one before its token.
    for end in [n - 2, n + 1] {
        let id = s.submit(request(ids, 4, Some(1))).unwrap();
        let mut outcomes = BTreeMap::new();
        let mut on = |event: RequestEvent| {
            let end = matches!(&event, RequestEvent::LogProbs { at, .. } if at.position == end);
            let _ = note(&mut outcomes, event);
            if end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        while s.step(&common::NEVER, &mut on).unwrap() {}
        let outcome = outcomes.remove(&id).unwrap();
        assert_eq!((outcome.stop.unwrap().0, outcome.log_probs.len()), (Stop::Hook, end));
        assert_eq!(outcome.tokens, first.tokens[..end.saturating_sub(n)]);
    }
    let mut unknown = request(ids, 1, None);
    unknown.log_probs.as_mut().unwrap().ids.push(1 << 20);
    assert!(matches!(s.submit(unknown), Err(Refused::Prompt(_))));
}
