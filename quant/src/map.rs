//! map (being written).
