//! A piece of a row-major matrix that one member of a team writes.

use std::marker::PhantomData;

/// Some consecutive columns of some consecutive rows of a row-major matrix; no other piece of the phase has
/// any of them.
pub struct Tile<'a> {
    start: *mut f32,
    rows: usize,
    stride: usize,
    width: usize,
    data: PhantomData<&'a mut [f32]>,
}

impl Tile<'_> {
    /// The tile of `rows` rows of `width` values, the first at `start`, each `stride` values after the one
    /// before.
    ///
    /// # Safety
    /// All of its values can be written while the tile lives, and nothing else reads or writes them.
    pub(crate) unsafe fn new(start: *mut f32, rows: usize, stride: usize, width: usize) -> Self {
        Self { start, rows, stride, width, data: PhantomData }
    }

    /// Rows of the matrix.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of this tile.
    #[inline(always)]
    pub fn width(&self) -> usize {
        self.width
    }

    /// This tile's part of row `r`.
    ///
    /// # Panics
    /// When `r` is not a row.
    #[inline(always)]
    pub fn row(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows);
        // SAFETY: `new` was promised that the rows can be written and belong to this tile; `&mut self` lends
        // one row at a time.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(r * self.stride), self.width) }
    }
}
