//! team (being written).
