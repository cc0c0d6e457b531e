//! The requests that wait, in their order.

use super::prefix::{Wanted, keys};
use super::running::Running;
use std::collections::VecDeque;

/// Waiting requests, and the prefixes that they could continue from.
pub(super) struct Waiting {
    queue: VecDeque<(Running, Vec<u64>)>,
    wanted: Wanted,
    /// Positions of a KV block.
    block: usize,
}

impl Waiting {
    pub fn new(block: usize) -> Self {
        Self { queue: VecDeque::new(), wanted: Wanted::default(), block }
    }

    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn get(&self, i: usize) -> Option<&Running> {
        self.queue.get(i).map(|(r, _)| r)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Running> {
        self.queue.iter_mut().map(|(r, _)| r)
    }

    pub fn push_back(&mut self, r: Running) {
        let entry = self.entry(r);
        self.queue.push_back(entry);
    }

    pub fn push_front(&mut self, r: Running) {
        let entry = self.entry(r);
        self.queue.push_front(entry);
    }

    fn entry(&mut self, r: Running) -> (Running, Vec<u64>) {
        let keys = keys(r.reusable(), self.block);
        self.wanted.add(&keys);
        (r, keys)
    }

    pub fn remove(&mut self, i: usize) -> Option<Running> {
        let (r, keys) = self.queue.remove(i)?;
        self.wanted.remove(&keys);
        Some(r)
    }

    /// Takes out those that end, and gives them to `ended`.
    pub fn drop_ended(&mut self, mut ended: impl FnMut(&Running)) {
        self.queue.retain(|(r, keys)| {
            if r.ends.is_some() {
                self.wanted.remove(keys);
                ended(r);
            }
            r.ends.is_none()
        });
    }
}
