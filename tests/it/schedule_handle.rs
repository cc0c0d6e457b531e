//! A scheduler on a thread of its own: several clients, cancelling, errors and panics.

use crate::schedule_support::{BeforeStep, Watched, alone, request};
use huozi::engine::{EngineError, StepItem};
use huozi::schedule::{
    KvBlock, Refused, Request, RequestError, RequestEvent, RequestId, Scheduler, SchedulerHandle,
    SchedulerOptions, StartError, Stop,
};
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take here before it counts as hanging.
const LONG: Duration = Duration::from_secs(60);
/// How soon a client is told that its request is cancelled.
const SOON: Duration = Duration::from_millis(200);

fn start(options: SchedulerOptions, before: impl BeforeStep) -> SchedulerHandle {
    SchedulerHandle::start(move || Ok::<_, Infallible>(Watched::new(4096, before).scheduler(options)))
        .unwrap()
}

fn plain() -> SchedulerHandle {
    start(SchedulerOptions::default(), |_, _, _| Ok(()))
}

/// The id of a request, and its events with the time each came.
fn submit(handle: &SchedulerHandle, request: Request) -> (RequestId, Receiver<(Instant, RequestEvent)>) {
    let (tell, events) = mpsc::channel();
    let hook = move |event| match tell.send((Instant::now(), event)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    (handle.submit(request, hook).unwrap(), events)
}

/// The tokens of a request, and its last event with the time it came.
fn finish(events: &Receiver<(Instant, RequestEvent)>) -> (Vec<u32>, Instant, RequestEvent) {
    let mut tokens = Vec::new();
    loop {
        let (at, event) = events.recv_timeout(LONG).expect("an end");
        if event.is_last() {
            assert!(events.recv_timeout(Duration::from_millis(1)).is_err(), "something after the end");
            return (tokens, at, event);
        }
        if let RequestEvent::Token { token, .. } = event {
            tokens.push(token);
        }
    }
}

fn stop_of(event: &RequestEvent) -> Stop {
    match event {
        RequestEvent::Stopped { stop, .. } => *stop,
        other => panic!("{other:?}"),
    }
}

#[test]
fn clients_of_several_threads_get_what_they_get_alone() {
    let handle = plain();
    std::thread::scope(|scope| {
        for i in 0..6 {
            let handle = handle.clone();
            scope.spawn(move || {
                let (id, events) = submit(&handle, request(i * 71, 100, 30));
                let (tokens, _, end) = finish(&events);
                assert_eq!((stop_of(&end), end.id()), (Stop::MaxTokens, id));
                assert_eq!(tokens, alone(request(i * 71, 100, 30)).tokens);
            });
        }
    });
    let empty = handle.submit(request(1, 0, 1), |_| ControlFlow::Continue(()));
    assert!(matches!(empty, Err(Refused::Prompt(EngineError::NoTokens))));
    assert_eq!(handle.info().n_vocab, 1024);
}

/// Steps of 400 ms that end at once when they are cancelled; counts those that begin and those that were
/// cancelled.
fn slow(begun: &Arc<AtomicUsize>, cancelled: &Arc<AtomicUsize>) -> impl BeforeStep {
    let (begun, cancelled) = (begun.clone(), cancelled.clone());
    move |_: &[StepItem<'_>], _: &mut dyn FnMut(f64), cancel: &AtomicBool| {
        begun.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            if cancel.load(Ordering::Relaxed) {
                cancelled.fetch_add(1, Ordering::SeqCst);
                return Err(EngineError::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

#[test]
fn cancelling_one_request_takes_nothing_from_the_others() {
    let (begun, cancelled) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let options = SchedulerOptions { running: 2, ..SchedulerOptions::default() };
    let handle = start(options, slow(&begun, &cancelled));
    let (a, of_a) = submit(&handle, request(1, 20, 1000));
    let (_, of_b) = submit(&handle, request(2, 20, 6));
    // No room for this one before another ends.
    let (_, of_c) = submit(&handle, request(3, 20, 2));
    while begun.load(Ordering::SeqCst) < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
    let (asked, steps) = (Instant::now(), begun.load(Ordering::SeqCst));
    handle.cancel(a);
    let (tokens, at, end) = finish(&of_a);
    assert_eq!(stop_of(&end), Stop::Cancelled);
    assert!(at - asked < SOON && begun.load(Ordering::SeqCst) == steps, "{:?}", at - asked);
    let RequestEvent::Stopped { timings, .. } = end else { panic!("{end:?}") };
    assert_eq!((timings.prompt_tokens, timings.generated_tokens), (20, tokens.len()));
    assert!(!tokens.is_empty());
    // Its place is free after the running step, which goes on for the other.
    let (first, _) = of_c.recv_timeout(LONG).unwrap();
    assert!(first - asked < Duration::from_millis(700), "{:?}", first - asked);
    assert_eq!(finish(&of_b).0, alone(request(2, 20, 6)).tokens);
    assert_eq!(finish(&of_c).0, alone(request(3, 20, 2)).tokens);
    assert_eq!(cancelled.load(Ordering::SeqCst), 0, "no step was void");
}

#[test]
fn a_request_that_is_alone_in_its_step_ends_it_at_once() {
    let (begun, cancelled) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let options = SchedulerOptions { running: 1, ..SchedulerOptions::default() };
    let handle = start(options, slow(&begun, &cancelled));
    let (a, of_a) = submit(&handle, request(1, 20, 1000));
    // It waits: the step is not its own.
    let (b, of_b) = submit(&handle, request(2, 20, 1000));
    let (_, of_c) = submit(&handle, request(3, 20, 1));
    while begun.load(Ordering::SeqCst) < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let asked = Instant::now();
    handle.cancel(b);
    assert_eq!(stop_of(&finish(&of_b).2), Stop::Cancelled);
    assert_eq!(cancelled.load(Ordering::SeqCst), 0);
    handle.cancel(a);
    let (_, at, end) = finish(&of_a);
    assert_eq!(stop_of(&end), Stop::Cancelled);
    assert!(at - asked < SOON, "{:?}", at - asked);
    assert_eq!(finish(&of_c).0, alone(request(3, 20, 1)).tokens);
    assert_eq!(cancelled.load(Ordering::SeqCst), 1);
    handle.cancel(a);
}

/// llama.cpp ends a step only between two micro-batches.
#[test]
fn a_client_is_told_at_once_also_by_an_engine_that_ends_no_step_early() {
    let begun = Arc::<AtomicUsize>::default();
    let counted = begun.clone();
    let handle = start(SchedulerOptions::default(), move |_, _, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    });
    let (a, of_a) = submit(&handle, request(1, 20, 1000));
    while begun.load(Ordering::SeqCst) < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let asked = Instant::now();
    handle.cancel(a);
    let (_, at, end) = finish(&of_a);
    assert_eq!(stop_of(&end), Stop::Cancelled);
    assert!(at - asked < SOON, "{:?}", at - asked);
    // The engine is free for the next one after its step.
    let (_, of_b) = submit(&handle, request(2, 20, 1));
    assert_eq!(finish(&of_b).0, alone(request(2, 20, 1)).tokens);
}

#[test]
fn a_hook_that_ends_its_request_cancels_another_or_panics_harms_no_other() {
    let handle = plain();
    let (_, of_a) = submit(&handle, request(1, 40, 60));
    let (b, of_b) = submit(&handle, request(2, 40, 1000));
    let from_inside = handle.clone();
    let cancelling = move |event| {
        if let RequestEvent::Token { .. } = event {
            from_inside.cancel(b);
            panic!("the client's own affair");
        }
        ControlFlow::Continue(())
    };
    handle.submit(request(3, 40, 1000), cancelling).unwrap();
    let (_, of_d) = submit(&handle, request(4, 40, 1000));
    drop(of_d);
    let itself = Arc::new(Mutex::new(None));
    let (handle_e, id_e) = (handle.clone(), itself.clone());
    let (tell, of_e) = mpsc::channel();
    let id = handle
        .submit(request(5, 40, 1000), move |event| {
            if let (RequestEvent::Token { .. }, Some(id)) = (&event, *id_e.lock().unwrap()) {
                handle_e.cancel(id);
            }
            tell.send(event).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    *itself.lock().unwrap() = Some(id);
    assert_eq!(finish(&of_a).0, alone(request(1, 40, 60)).tokens);
    assert_eq!(stop_of(&finish(&of_b).2), Stop::Cancelled);
    let last = of_e.iter().last().expect("events");
    assert_eq!(stop_of(&last), Stop::Cancelled, "cancelled from inside its own hook");
    let (_, of_f) = submit(&handle, request(6, 40, 3));
    assert_eq!(finish(&of_f).0.len(), 3);
}

#[test]
fn an_error_of_the_engine_is_told_to_each_client_and_it_goes_on() {
    let mut failed = false;
    let handle = start(SchedulerOptions::default(), move |items, _, _| {
        // Once, in a step that carries all of them.
        let fails = !failed && items.len() == 3;
        failed |= fails;
        if fails { Err(EngineError::Failed("a broken cable".into())) } else { Ok(()) }
    });
    let clients = [1, 2, 3].map(|i| submit(&handle, request(i, 20, 1000)).1);
    for events in clients {
        let RequestEvent::Failed { error, .. } = finish(&events).2 else { panic!("no error") };
        assert_eq!(error, RequestError::Engine(EngineError::Failed("a broken cable".into())));
    }
    let (_, events) = submit(&handle, request(4, 20, 5));
    assert_eq!(finish(&events).0, alone(request(4, 20, 5)).tokens);
}

#[test]
fn a_panic_of_the_engine_is_told_to_everyone_and_nothing_hangs() {
    let handle = start(SchedulerOptions { running: 2, ..SchedulerOptions::default() }, |items, _, _| {
        assert!(items.iter().all(|item| item.tokens.len() > 1), "a loose screw");
        Ok(())
    });
    // The third waits.
    let clients = [1, 2, 3].map(|i| submit(&handle, request(i, 20, 1000)).1);
    let ended = |event: RequestEvent| match event {
        RequestEvent::Failed { error: RequestError::Ended(why), .. } => assert_eq!(why, "a loose screw"),
        other => panic!("{other:?}"),
    };
    for events in clients {
        ended(finish(&events).2);
    }
    ended(finish(&submit(&handle, request(4, 20, 5)).1).2);
    assert_eq!(handle.kept(&[1, 2]), Err(RequestError::Ended("a loose screw".into())));
    assert!(handle.kv_layout().is_err());
}

#[test]
fn what_does_not_start_says_why() {
    let refused = SchedulerHandle::start(|| Err::<Scheduler, _>(String::from("no such file")));
    assert!(matches!(refused, Err(StartError::Build(why)) if why == "no such file"));
    let panicked = SchedulerHandle::start(|| -> Result<Scheduler, String> { panic!("upside down") });
    let Err(StartError::Thread(error)) = panicked else { panic!("it started") };
    assert_eq!(error.to_string(), "upside down");
}

#[test]
fn the_last_handle_ends_the_thread_and_frees_the_engine() {
    let alive = Arc::new(());
    let (begun, cancelled) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let (mut work, inside) = (slow(&begun, &cancelled), alive.clone());
    let handle = start(SchedulerOptions::default(), move |items, progress, cancel| {
        let _inside = &inside;
        work(items, progress, cancel)
    });
    let (_, events) = submit(&handle, request(1, 20, 1000));
    while begun.load(Ordering::SeqCst) < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(handle.clone());
    assert_eq!(Arc::strong_count(&alive), 2, "one handle is left");
    let asked = Instant::now();
    drop(handle);
    assert_eq!(Arc::strong_count(&alive), 1, "the engine is gone");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    let RequestEvent::Failed { error: RequestError::Ended(_), .. } = finish(&events).2 else {
        panic!("it was told nothing")
    };
}

fn native(options: SchedulerOptions) -> SchedulerHandle {
    let file = crate::common::model("tiny-f32", huozi_convert::plan::Preset::F32);
    let engine = crate::common::open(&file, huozi::engine::KvType::F16, 256, 1).1;
    let never = Arc::from(vec![false; 1024]);
    SchedulerHandle::of(Scheduler::with_options(Box::new(engine), never, options)).unwrap()
}

#[test]
fn a_block_goes_in_only_after_the_ids_it_follows() {
    let handle = native(SchedulerOptions::default());
    let ids: Arc<[u32]> = request(5, 128, 0).ids.into();
    finish(&submit(&handle, request(5, 128, 0)).1);
    let blocks = [0, 1].map(|n| handle.export_block(ids.clone(), n).unwrap().expect("a block"));
    let other = native(SchedulerOptions::default());
    let seq = other.import_block(None, &[], blocks[0].clone()).unwrap();
    assert!(seq.is_some());
    // Another client's request continues from that block, and ends at the end of a block.
    let longer = Request { ids: [&ids[..64], &request(700, 64, 0).ids].concat(), ..request(5, 1, 0) };
    let RequestEvent::Stopped { timings, .. } = finish(&submit(&other, longer.clone()).1).2 else { panic!() };
    assert_eq!(timings.reused_tokens, 64);
    assert_eq!(other.import_block(seq, &ids[..64], blocks[1].clone()), Ok(None));
    assert_eq!(other.import_block(None, &ids[..64], blocks[1].clone()), Ok(None));
    assert_eq!(other.kept(&longer.ids), Ok(128), "what the request read is still there");
    let none = native(SchedulerOptions { kept: 0, ..SchedulerOptions::default() });
    assert_eq!(none.import_block(None, &[], blocks[0].clone()), Ok(None), "none are kept");
}

#[test]
fn requests_of_a_scheduler_that_is_handed_over_keep_their_ids() {
    let mut scheduler = crate::schedule_support::scheduler(2048);
    let before = scheduler.submit(request(1, 40, 200)).unwrap();
    let handle = SchedulerHandle::of(scheduler).unwrap();
    let (id, events) = submit(&handle, request(2, 40, 20));
    assert_ne!(id, before);
    assert_eq!(finish(&events).0, alone(request(2, 40, 20)).tokens);
}

#[test]
fn a_hook_that_panics_when_its_request_is_cancelled_ends_no_other() {
    let handle = plain();
    let (_, of_a) = submit(&handle, request(1, 40, 60));
    let own = Arc::new(Mutex::new(None));
    let (inside, own_id) = (handle.clone(), own.clone());
    let mut lock = own.lock().unwrap();
    let id = handle.submit(request(2, 40, 1000), move |event| {
        if let Some(id) = *own_id.lock().unwrap() {
            inside.cancel(id);
        }
        assert!(!event.is_last(), "the client's own affair");
        ControlFlow::Continue(())
    });
    *lock = id.ok();
    drop(lock);
    assert_eq!(finish(&of_a).0, alone(request(1, 40, 60)).tokens);
    assert_eq!(handle.kept(&[999]), Ok(0));
}

#[test]
fn an_error_of_the_engine_leaves_waiting_requests_alone() {
    let mut steps = 0;
    let handle = start(SchedulerOptions { running: 1, ..SchedulerOptions::default() }, move |_, _, _| {
        steps += 1;
        if steps == 3 { Err(EngineError::Failed("a broken cable".into())) } else { Ok(()) }
    });
    let [of_a, of_b] = [1, 2].map(|i| submit(&handle, request(i, 20, 6)).1);
    assert!(matches!(finish(&of_a).2, RequestEvent::Failed { .. }));
    assert_eq!(finish(&of_b).0, alone(request(2, 20, 6)).tokens);
}

#[test]
fn calls_that_follow_each_other_do_not_wait_for_a_step_each() {
    let (begun, cancelled) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let handle = start(SchedulerOptions::default(), slow(&begun, &cancelled));
    let (_, _events) = submit(&handle, request(1, 20, 1000));
    while begun.load(Ordering::SeqCst) < 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = begun.load(Ordering::SeqCst);
    for _ in 0..10 {
        handle.kept(&[1]).unwrap();
    }
    assert!(begun.load(Ordering::SeqCst) - before < 8, "a step for each");
}

#[test]
fn keys_and_values_go_out_and_in_block_by_block() {
    let native = || native(SchedulerOptions::default());
    let handle = native();
    let first = request(5, 150, 10);
    let tokens = finish(&submit(&handle, first.clone()).1).0;
    let ids: Arc<[u32]> = [&first.ids[..], &tokens].concat().into();
    assert_eq!(handle.kept(&ids), Ok(159));
    let block = |n| handle.export_block(ids.clone(), n).unwrap();
    let blocks: Vec<KvBlock> = (0..).map_while(block).collect();
    let sizes: Vec<_> = blocks.iter().map(|block| (block.ids.len(), block.given)).collect();
    assert_eq!(sizes, [(64, 64), (64, 64), (31, 22)]);
    assert!(blocks.iter().all(|block| block.certain));
    let other = native();
    let (mut seq, mut before) = (None, Vec::new());
    for block in &blocks {
        seq = other.import_block(seq, &before, block.clone()).unwrap();
        before.extend_from_slice(&block.ids);
        assert!(seq.is_some());
    }
    assert_eq!(other.kept(&ids), Ok(159));
    assert_eq!(other.import_block(seq, &before, blocks[0].clone()), Ok(None), "after a part of a block");
    // Room for one more block: the first goes in, and the second only in place of the kept sequence.
    let again = other.import_block(None, &[], blocks[0].clone()).unwrap();
    assert!(again.is_some());
    assert_eq!(other.import_block(again, &ids[..64], blocks[1].clone()), Ok(again));
    assert_eq!(other.kept(&ids), Ok(128));
    let next = Request { ids: ids[..140].to_vec(), ..request(5, 1, 4) };
    let (got, _, end) = finish(&submit(&other, next.clone()).1);
    let RequestEvent::Stopped { timings, .. } = end else { panic!("{end:?}") };
    assert_eq!((timings.reused_tokens, got), (128, finish(&submit(&native(), next).1).0));
}
