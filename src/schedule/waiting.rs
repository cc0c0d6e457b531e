//! The requests that wait, in their order.

use super::prefix::{Wanted, keys};
use super::request::{RequestId, Stop};
use super::running::Running;
use std::collections::{HashMap, VecDeque};

/// Waiting requests, and the prefixes that they could continue from.
pub(super) struct Waiting {
    queue: VecDeque<(Running, Vec<u64>)>,
    /// Requests that end with the next [`Self::drop_ended`], or once they run: thousands may be cancelled at
    /// a time, and looking for each of them in the queue would take seconds.
    ending: HashMap<RequestId, Stop>,
    wanted: Wanted,
    /// Positions of a KV block.
    block: usize,
}

impl Waiting {
    pub fn new(block: usize) -> Self {
        Self { queue: VecDeque::new(), ending: HashMap::new(), wanted: Wanted::default(), block }
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

    /// Ends a request with `stop`, unless it is ended already or does not wait.
    pub fn end_later(&mut self, id: RequestId, stop: Stop) {
        self.ending.entry(id).or_insert(stop);
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
        let (mut r, keys) = self.queue.remove(i)?;
        self.wanted.remove(&keys);
        if let Some(stop) = self.ending.remove(&r.id) {
            r.ends.get_or_insert(stop);
        }
        Some(r)
    }

    /// Takes out a request by its id.
    pub fn remove_id(&mut self, id: RequestId) -> Option<Running> {
        self.remove(self.queue.iter().position(|(r, _)| r.id == id)?)
    }

    /// Takes out those that end, and gives them to `ended`.
    pub fn drop_ended(&mut self, mut ended: impl FnMut(&Running, Stop)) {
        // Of requests that do not wait, too: they are forgotten here.
        let ending = std::mem::take(&mut self.ending);
        self.queue.retain(|(r, keys)| {
            let stop = r.ends.or_else(|| ending.get(&r.id).copied());
            if let Some(stop) = stop {
                self.wanted.remove(keys);
                ended(r, stop);
            }
            stop.is_none()
        });
    }
}
