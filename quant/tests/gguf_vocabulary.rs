//! GGUF: opening a file with BLOOM's 250,880 tokens costs no allocation per string, and hardly any time.
//!
//! One test in a program of its own: it counts every allocation of the process.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use huozi_quant::gguf::{Layout, MetaValue, Reader, Writer};
use huozi_quant::map::How;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Memory) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise about `layout` is the one asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Memory) {
        // SAFETY: `at` came from `System.alloc` above with this `layout`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_vocabulary_is_opened_without_an_allocation_per_string() {
    const N: usize = 250_880;
    let tokens: Vec<String> = (0..N).map(|i| format!("Ġ字{i}")).collect();
    let types: Vec<i32> = (0..N).map(|i| (i % 5) as i32).collect();
    let meta = [
        ("tokenizer.ggml.tokens".to_owned(), MetaValue::Strings(tokens.clone())),
        ("tokenizer.ggml.token_type".to_owned(), MetaValue::I32s(types.clone())),
    ];
    let file = tempfile::NamedTempFile::new().unwrap();
    let layout = Layout::new(&meta, vec![]).unwrap();
    Writer::create(file.reopen().unwrap(), layout).unwrap().finish().unwrap();

    let (before, start) = (ALLOCATIONS.load(Relaxed), Instant::now());
    let reader = Reader::open(file.path(), How::Map).unwrap();
    let found = reader.meta().strings("tokenizer.ggml.tokens").unwrap().unwrap();
    let bytes: usize = found.iter().map(str::len).sum();
    let ints = reader.meta().ints("tokenizer.ggml.token_type").unwrap().unwrap();
    let sum: i64 = ints.iter().sum();
    let (allocations, elapsed) = (ALLOCATIONS.load(Relaxed) - before, start.elapsed());

    assert!(allocations < 100, "{allocations} allocations");
    assert!(elapsed < Duration::from_millis(300), "{elapsed:?}");
    eprintln!("{allocations} allocations, {elapsed:?}");
    assert_eq!((found.len(), bytes), (N, tokens.iter().map(String::len).sum()));
    assert!(found.iter().eq(tokens.iter().map(String::as_str)));
    assert_eq!((ints.len(), sum), (N, types.iter().map(|&t| i64::from(t)).sum()));
}
