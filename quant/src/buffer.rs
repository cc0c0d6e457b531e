//! Large working memory that lives long: on huge pages where the system has them.
//!
//! Outputs of a product lie a row apart for each column: without huge pages every store needs another entry
//! of the translation buffer.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use memmap2::{MmapMut, MmapOptions};

/// From so many bytes on memory is mapped: two huge pages of 2 MiB.
const MAPPED: usize = 4 << 20;

enum Store<T> {
    Heap(Vec<T>),
    Pages(MmapMut),
}

/// `len` values, zero when they are new.
pub struct Buffer<T> {
    store: Store<T>,
    len: usize,
}

impl<T: Pod> Buffer<T> {
    /// `len` zeros. A large buffer costs nothing before it is written.
    ///
    /// Ends the process as [`Vec`] does when there is no memory.
    pub fn zeroed(len: usize) -> Self {
        let layout = Layout::array::<T>(len).expect("no more than half the address space");
        if layout.size() < MAPPED {
            return Self { store: Store::Heap(vec![T::zeroed(); len]), len };
        }
        let Ok(pages) = MmapOptions::new().len(layout.size()).map_anon() else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        Self { store: Store::Pages(pages), len }
    }

    /// Makes it `len` values of any content; reuses the memory it has.
    pub fn resize(&mut self, len: usize) {
        let room = match &self.store {
            Store::Heap(vec) => vec.len(),
            Store::Pages(pages) => pages.len() / size_of::<T>(),
        };
        if len <= room { self.len = len } else { *self = Self::zeroed(len) }
    }

    /// The values as they lie in memory.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }

    /// The values as they lie in memory, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self)
    }
}

impl<T: Pod> Default for Buffer<T> {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.store {
            Store::Heap(vec) => &vec[..self.len],
            Store::Pages(pages) => bytemuck::cast_slice(&pages[..self.len * size_of::<T>()]),
        }
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.store {
            Store::Heap(vec) => &mut vec[..self.len],
            Store::Pages(pages) => bytemuck::cast_slice_mut(&mut pages[..self.len * size_of::<T>()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_mapped_buffers_hold_what_is_written_and_new_memory_is_zero() {
        for len in [0, 3, MAPPED / 4 - 1, MAPPED / 4, MAPPED / 4 + 5] {
            let mut buffer = Buffer::<f32>::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&x| x == 0.0));
            for (i, x) in buffer.iter_mut().enumerate() {
                *x = i as f32;
            }
            buffer.resize(len / 2);
            assert!(buffer.len() == len / 2 && buffer.iter().enumerate().all(|(i, &x)| x == i as f32));
            buffer.resize(2 * len + 1);
            assert!(buffer.len() == 2 * len + 1 && buffer.iter().all(|&x| x == 0.0));
        }
    }
}
