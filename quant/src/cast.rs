//! cast (being written).
