//! `huozi` (being written).
fn main() {}
