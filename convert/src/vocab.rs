//! vocab (being written).
