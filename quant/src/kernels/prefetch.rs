//! Asking for memory before it is read.

/// Asks for the cache line at `p`, which may lie anywhere, in the second-level cache.
#[inline(always)]
pub(crate) fn far(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch reads nothing: an address without a page is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for the cache line at `p`, which may lie anywhere, in the first-level cache.
#[inline(always)]
pub(crate) fn near(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Memory that is asked for line by line, spread evenly over other work: a CPU waits for lines in flight once
/// there are some twenty, and only work in between hides that.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    next: *const u8,
    /// Lines still to be asked for.
    left: usize,
    /// Lines for each piece of work, times [`ONE`](Self::ONE).
    rate: usize,
    /// Lines that are due, times `ONE`.
    due: usize,
}

impl Stream {
    const ONE: usize = 256;

    /// The lines of the `bytes` bytes at `from`, which may lie anywhere, over `pieces` of work.
    pub fn new(from: *const u8, bytes: usize, pieces: usize) -> Self {
        let left = bytes.div_ceil(64);
        Self { next: from, left, rate: (left * Self::ONE).div_ceil(pieces.max(1)), due: 0 }
    }

    /// Nothing to ask for.
    pub fn none() -> Self {
        Self::new(std::ptr::null(), 0, 1)
    }

    /// Asks for what is due with one more piece of work.
    #[inline(always)]
    pub fn tick(&mut self) {
        self.due += self.rate;
        let n = (self.due / Self::ONE).min(self.left);
        self.due %= Self::ONE;
        self.left -= n;
        for _ in 0..n {
            far(self.next);
            self.next = self.next.wrapping_add(64);
        }
    }
}
