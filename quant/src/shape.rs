//! shape (being written).
