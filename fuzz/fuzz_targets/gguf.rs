#![no_main]

#[path = "../../convert/tests/hostile_support/mod.rs"]
mod hostile_support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hostile_support::gguf(data);
});
