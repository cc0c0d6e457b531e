//! One prompt to answers, or to the scores of choices.

use crate::common::{self, NEVER};
use huozi::complete::{
    AnswerOptions, ChoiceOptions, Finish, Job, JobAnswer, JobError, JobEvent, JobResult, Outcome, Task, run,
    submit,
};
use huozi::engine::{Engine, KvType, Phase, Sink, StepItem, Want};
use huozi::sample::Sampling;
use huozi::sample::log_probs::LogSoftmax;
use huozi::schedule::{Refused, Scheduler, SchedulerHandle, SchedulerOptions};
use huozi_convert::plan::Preset;
use huozi_token::{Specials, Tokenizer};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, mpsc};

fn start(kv_positions: usize) -> (SchedulerHandle, Arc<Tokenizer>) {
    let file = common::model("nano", Preset::Q8_0);
    let (reader, engine) = common::open(&file, KvType::F16, kv_positions, 2);
    let tokenizer = Arc::new(Tokenizer::from_gguf(reader.meta()).unwrap());
    let options = SchedulerOptions { exact: true, ..SchedulerOptions::default() };
    let scheduler = Scheduler::with_options(Box::new(engine), tokenizer.vocab().never(), options);
    (SchedulerHandle::of(scheduler).unwrap(), tokenizer)
}

fn options() -> AnswerOptions {
    AnswerOptions {
        sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, ..Sampling::default() },
        seeds: vec![7],
        max_new: 24,
        stop_ids: Vec::new(),
        stop: Vec::new(),
        log_probs: None,
        speculate: false,
    }
}

fn job(tokenizer: &Tokenizer, prompt: &str, options: AnswerOptions) -> Job {
    Job { prompt: tokenizer.encode(prompt, Specials::Plain), task: Task::Answers(options), n_ctx: 256 }
}

/// The outcome, and the text of each answer as it was streamed.
fn streamed(handle: &SchedulerHandle, tokenizer: &Arc<Tokenizer>, job: &Job) -> (Outcome, Vec<String>) {
    let mut texts = vec![String::new(); 8];
    let outcome = run(handle, tokenizer, job, &NEVER, &mut |event| {
        if let JobEvent::Text { part, text } = event {
            texts[part].push_str(&text);
        }
    });
    (outcome.unwrap(), texts)
}

fn answers(outcome: Outcome) -> Vec<JobAnswer> {
    match outcome.completed {
        JobResult::Answers(answers) => answers,
        JobResult::Choices(_) => panic!("choices"),
    }
}

#[test]
fn several_answers_share_the_prompt_and_each_is_that_of_its_seed() {
    let (handle, tokenizer) = start(4096);
    let seeds = vec![3, 4, 5];
    let prompt = "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。".repeat(8);
    let all = job(&tokenizer, &prompt, AnswerOptions { seeds: seeds.clone(), ..options() });
    let (outcome, texts) = streamed(&handle, &tokenizer, &all);
    assert_eq!(outcome.usage.prompt_tokens, all.prompt.len());
    assert!(outcome.usage.computed_tokens < all.prompt.len() + 130, "{:?}", outcome.usage);
    let all = answers(outcome);
    assert_eq!(all.len(), 3);
    for (i, (answer, seed)) in all.iter().zip(seeds).enumerate() {
        let (handle, tokenizer) = start(4096);
        let one = job(&tokenizer, &prompt, AnswerOptions { seeds: vec![seed], ..options() });
        assert_eq!(answers(streamed(&handle, &tokenizer, &one).0)[0], *answer);
        assert_eq!(texts[i], answer.text);
        assert!(!answer.ids.is_empty());
    }
    assert!(all[0].ids != all[1].ids && all[1].ids != all[2].ids);
}

#[test]
fn an_answer_ends_before_a_stop_text() {
    let (handle, tokenizer) = start(4096);
    let free = job(&tokenizer, "白日依山尽", AnswerOptions { log_probs: Some(2), ..options() });
    let free = answers(streamed(&handle, &tokenizer, &free).0).remove(0);
    assert_eq!(free.finish, Finish::MaxTokens);
    assert_eq!(free.log_probs.len(), free.ids.len());
    assert!(free.log_probs.iter().zip(&free.ids).all(|(at, &id)| at.token == id && at.top.len() == 2));
    let characters = Vec::from_iter(free.text.chars());
    let stop = String::from_iter(&characters[4..6]);
    let before = &free.text[..free.text.find(&stop).unwrap()];
    let stopped = AnswerOptions { stop: vec!["nowhere".into(), stop.clone()], ..options() };
    let (outcome, texts) = streamed(&handle, &tokenizer, &job(&tokenizer, "白日依山尽", stopped));
    let generated = outcome.usage.generated_tokens;
    let stopped = answers(outcome).remove(0);
    assert_eq!((stopped.text.as_str(), &stopped.finish), (before, &Finish::StopText(stop)));
    assert_eq!(texts[0], before);
    assert!(stopped.ids.len() < free.ids.len() && free.ids.starts_with(&stopped.ids));
    assert_eq!(generated, stopped.ids.len());
    // The end token is not part of the answer, and has its log-probability.
    let end = AnswerOptions { stop_ids: vec![free.ids[3]], log_probs: Some(0), ..options() };
    let ended = answers(streamed(&handle, &tokenizer, &job(&tokenizer, "白日依山尽", end)).0).remove(0);
    let first = free.ids.iter().position(|&id| id == free.ids[3]).unwrap();
    assert_eq!(ended.finish, Finish::EndToken(free.ids[3]));
    assert_eq!((ended.ids.len(), ended.log_probs.len()), (first, first + 1));
}

#[test]
fn choices_are_the_sums_of_their_log_probabilities() {
    let (handle, tokenizer) = start(4096);
    let prompt = tokenizer.encode("白日依山尽，", Specials::Plain);
    let choices = ["黄河入海流", "一", "更上一层楼。"].map(|choice| {
        let mut ids = tokenizer.encode(&format!("白日依山尽，{choice}"), Specials::Plain);
        ids.push(2);
        ids
    });
    let common = |ids: &Vec<u32>| ids.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
    let from = choices.iter().map(common).min().unwrap();
    let task = Task::Choices(ChoiceOptions { ids: choices.to_vec(), from });
    let scored = run(&handle, &tokenizer, &Job { prompt, task, n_ctx: 256 }, &NEVER, &mut |_| {}).unwrap();
    assert_eq!(scored.usage.choice_tokens, choices.iter().map(|ids| ids.len() - from).sum::<usize>());
    let JobResult::Choices(scores) = scored.completed else { panic!("answers") };
    let mut engine = common::open(&common::model("nano", Preset::Q8_0), KvType::F16, 512, 1).1;
    for (ids, score) in choices.iter().zip(&scores) {
        let sum = Mutex::new(0.0);
        let seq = engine.seq_new();
        let item = StepItem { seq, tokens: ids, phase: Phase::Given, want: Want::All };
        let row = |_: usize, position: usize, logits: &[f32]| {
            if position + 1 >= from && position + 1 < ids.len() {
                *sum.lock().unwrap() += LogSoftmax::of(logits).at(ids[position + 1]);
            }
        };
        engine.step(&[item], &mut Sink::Shared(&row), &NEVER).unwrap();
        let sum = sum.into_inner().unwrap();
        assert!((score.log_prob - sum).abs() < 1e-9, "{score:?} {sum}");
        assert_eq!(score.tokens, ids.len() - from);
    }
    assert!(scores[0].log_prob != scores[1].log_prob);
}

#[test]
fn what_has_no_outcome_says_why() {
    let (handle, tokenizer) = start(128);
    let fails = |job: &Job| run(&handle, &tokenizer, job, &NEVER, &mut |_| {}).unwrap_err();
    let mut full = job(&tokenizer, "白日依山尽", options());
    full.n_ctx = full.prompt.len();
    let error = fails(&full);
    assert_eq!(error, JobError::NoRoom { tokens: full.n_ctx, n_ctx: full.n_ctx });
    full.n_ctx -= 1;
    assert!(matches!(fails(&full), JobError::Refused(Refused::TooLong { .. })));
    let small = job(&tokenizer, "白日依山尽", AnswerOptions { max_new: 200, ..options() });
    assert_eq!(fails(&small), JobError::KvFull { tokens: 129, n_ctx: 256 });
    let one = AnswerOptions { seeds: Vec::new(), ..options() };
    let none = run(&handle, &tokenizer, &job(&tokenizer, "白", one), &NEVER, &mut |_| {}).unwrap();
    assert_eq!(none.completed, JobResult::Answers(Vec::new()));
}

#[test]
fn a_job_ends_once_when_it_is_cancelled() {
    let (handle, tokenizer) = start(4096);
    let many = AnswerOptions { seeds: vec![1, 2, 3], max_new: 200, ..options() };
    let many = job(&tokenizer, "白日依山尽", many);
    let (tell, events) = mpsc::channel();
    let on = move |event| {
        let _ = tell.send(event);
        ControlFlow::Continue(())
    };
    let submitted = submit(&handle, &tokenizer, &many, on).unwrap();
    while !matches!(events.recv().unwrap(), JobEvent::Token { .. }) {}
    submitted.cancel();
    let rest = Vec::from_iter(events.iter());
    let ends = Vec::from_iter(rest.iter().filter(|event| matches!(event, JobEvent::Ended(_))));
    assert_eq!(ends, [&JobEvent::Ended(Err(JobError::Cancelled))]);
    assert_eq!(rest.last(), Some(ends[0]));
    // The receiver ends it with its answer.
    let (tell, events) = mpsc::channel();
    let on = move |event: JobEvent| {
        let first = matches!(event, JobEvent::Token { .. });
        let _ = tell.send(event);
        if first { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let _submitted = submit(&handle, &tokenizer, &many, on).unwrap();
    let tokens = events.iter().filter(|event| matches!(event, JobEvent::Token { .. })).count();
    assert_eq!(tokens, 1);
}
