//! sample (being written).

/// Settings.
#[derive(Clone, Debug)]
pub struct Sampling {}
