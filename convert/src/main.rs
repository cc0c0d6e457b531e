//! `huozi-convert` (being written).
fn main() {}
