//! names (being written).
