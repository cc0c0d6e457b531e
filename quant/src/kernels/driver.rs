//! Products on a unit that multiplies tiles: which kernel takes what, and how it walks through a matrix.
//!
//! Nothing here is compiled for an ISA. The kernels are: each is a [`Job`] that [`Features::run`] compiles.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::dense::{self, Stored};
use super::layout::{self, Kind, Rescaled, SLAB, act_block, panel_entries};
use super::line::{self, Line, pack::PAD};
use super::packing::{Packing, group_width};
use super::prefetch::Stream;
use super::unit::{Features, Finish, Job, Multiply, Product, Rows, Tiled, finish_all, padded};
use super::unpack::{self, Out, Unpack, with_unpack};
use super::vector::Vector;
use super::{rescale, tile};
use crate::formats::{self, Activation, Format};
use crate::tile::Tile;

/// Most columns for which a row is streamed instead of unpacked.
const LINE_COLUMNS: usize = 1;

/// Most rows of a tile of weights as they are stored.
const MOST_ROWS: usize = 32;

/// Vectors of rows in a tile of a family.
const fn height<U: Tiled, K: Kind>() -> usize {
    if K::RESCALED { 2 * U::HEIGHT } else { U::HEIGHT }
}

/// Rows of a tile of a family.
const fn tall<U: Tiled, K: Kind>() -> usize {
    height::<U, K>() * <U::V as Vector>::LANES
}

/// Rows of a tile of weights as they are stored.
const fn rows<U: Tiled>() -> usize {
    U::HEIGHT * <U::V as Vector>::LANES
}

impl<U: Tiled> Multiply for U {
    fn rows(rescaled: bool) -> usize {
        if rescaled { tall::<U, Rescaled>() } else { rows::<U>() }
    }

    fn packing(format: Format, rescaled: bool, m: usize) -> Packing {
        if format.activation() == Activation::F32 {
            return Packing::F32;
        }
        if m <= LINE_COLUMNS && !rescaled {
            return Packing::Line(with_unpack!(format, F => F::layout(<U::V as Vector>::LANES)));
        }
        let block = match rescaled {
            true => act_block::<Rescaled>(),
            false => with_unpack!(format, F => act_block::<<F as Unpack>::Kind>()),
        };
        Packing::Group { block, width: group_width(m, U::COLUMNS), across: U::ACROSS, depth: U::DEPTH }
    }

    unsafe fn multiply(product: Product<'_>, out: &mut Tile<'_>, finish: Finish<'_>) {
        // SAFETY: the caller's promises.
        unsafe {
            match product.format {
                Format::F32 => plain::<U, formats::f32::BlockF32>(product, out, finish),
                Format::F16 => plain::<U, formats::f16::BlockF16>(product, out, finish),
                Format::BF16 => plain::<U, formats::bf16::BlockBf16>(product, out, finish),
                format => with_unpack!(format, F => quantised::<U, F>(product, out, finish)),
            }
        }
    }
}

/// Products of quantised weights.
///
/// # Safety
/// As [`Multiply::multiply`].
unsafe fn quantised<U: Tiled, F: Line>(product: Product<'_>, out: &mut Tile<'_>, finish: Finish<'_>) {
    // SAFETY: the caller's promises.
    unsafe {
        match product.packing {
            Packing::Line(layout) if layout == F::layout(<U::V as Vector>::LANES) => {
                streamed::<U, F>(product, out);
                finish_all(out, product.w.first, finish);
            }
            Packing::Group { block, .. } if block == act_block::<Rescaled>() => {
                tiles::<U, F, Rescaled>(product, out, finish);
            }
            Packing::Group { block, .. } if block == act_block::<F::Kind>() => {
                tiles::<U, F, F::Kind>(product, out, finish);
            }
            packing => panic!("{packing:?} for {}", product.format),
        }
    }
}

/// Some rows with one column.
struct Lines<U, F> {
    w: *const u8,
    stride: usize,
    rows: usize,
    blocks: usize,
    a: *const i32,
    scratch: *mut i32,
    terms: *mut f32,
    of: PhantomData<(U, F)>,
}

impl<U: Tiled, F: Line> Job for Lines<U, F> {
    type Output = [f32; PAD];

    #[inline(always)]
    unsafe fn run(self) -> [f32; PAD] {
        const {
            let lanes = <U::V as Vector>::LANES;
            assert!(
                lanes <= PAD && PAD.is_multiple_of(lanes),
                "room for a sum of each lane, blocks in whole vectors"
            );
            assert!(lanes.is_multiple_of(4), "vectors of whole parts");
        }
        let Self { w, stride, rows, blocks, a, scratch, terms, .. } = self;
        let pitch = blocks.next_multiple_of(PAD);
        // SAFETY: the features are those of the unit; the rest is the caller's promise.
        unsafe {
            for r in 0..rows {
                F::terms::<U, U::V>(w.add(r * stride), blocks, a, scratch, terms.add(r * pitch));
            }
            let mut sums = [0.0; PAD];
            line::sums::<U::V>(terms, pitch, blocks, sums.as_mut_ptr());
            sums
        }
    }
}

/// One column at a time.
///
/// # Safety
/// As [`Multiply::multiply`].
unsafe fn streamed<U: Tiled, F: Line>(product: Product<'_>, out: &mut Tile<'_>) {
    let Product { w, packing, a, k, .. } = product;
    let lanes = <U::V as Vector>::LANES;
    let blocks = k / <F::Kind as Kind>::BLOCK;
    let len = packing.len(k);
    assert_eq!(blocks * F::BYTES, w.row_bytes, "{blocks} blocks");
    assert_eq!(a.len(), out.rows() * len, "packed activations");
    let mut scratch = vec![0i32; line::scratch_len(blocks)];
    let mut terms = vec![0.0f32; lanes * blocks.next_multiple_of(PAD)];
    let n = out.width();
    for (column, a) in a.chunks_exact(len).enumerate() {
        for r in (0..n).step_by(lanes) {
            let rows = lanes.min(n - r);
            let job = Lines::<U, F> {
                w: w.data[(w.first + r) * w.row_bytes..].as_ptr(),
                stride: w.row_bytes,
                rows,
                blocks,
                a: a.as_ptr(),
                scratch: scratch.as_mut_ptr(),
                terms: terms.as_mut_ptr(),
                of: PhantomData,
            };
            // SAFETY: the caller says that the CPU has the features and that rows `first .. first + n` lie in
            // `data`; a column, the scratch and the terms are as long as `line` says.
            let sums = unsafe { U::run(job) };
            out.row(column)[r..r + rows].copy_from_slice(&sums[..rows]);
        }
    }
}

/// Unpacks `blocks` blocks of the rows of a tile.
struct Panel<U, F> {
    p: *const u8,
    stride: usize,
    blocks: usize,
    to: *mut i32,
    ahead: Stream,
    of: PhantomData<(U, F)>,
}

impl<U: Tiled, F: Unpack> Job for Panel<U, F> {
    type Output = Stream;

    #[inline(always)]
    unsafe fn run(self) -> Stream {
        let Self { p, stride, blocks, to, mut ahead, .. } = self;
        let (entries, lanes) = (panel_entries::<F::Kind>(), <U::V as Vector>::LANES);
        for i in 0..blocks {
            for v in 0..U::HEIGHT {
                // SAFETY: the caller says that so many blocks of each row can be read, and a panel holds a
                // slab's.
                unsafe {
                    let p = p.add(v * lanes * stride + i * F::BYTES);
                    let first = to.add(i * entries * rows::<U>() + v * lanes);
                    let out = Out { first, rows: rows::<U>(), ahead: &mut ahead };
                    F::unpack::<U::V>(p, stride, out);
                }
            }
        }
        ahead
    }
}

/// Brings an unpacked slab to one scale: some of the rows of a rescaled panel.
struct OneScale<U, F> {
    unpacked: *const i32,
    to: *mut i32,
    of: PhantomData<(U, F)>,
}

impl<U: Tiled, F: Unpack> Job for OneScale<U, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        for v in 0..U::HEIGHT {
            let at = v * <U::V as Vector>::LANES;
            // SAFETY: the caller's panels hold a slab.
            unsafe {
                let ahead = &mut Stream::none() as *mut Stream;
                let out = Out { first: self.to.add(at), rows: tall::<U, Rescaled>(), ahead };
                rescale::rescale::<U::V, F>(self.unpacked.add(at), rows::<U>(), out);
            }
        }
    }
}

/// What the micro-kernel takes, see [`tile::micro`].
#[derive(Clone, Copy)]
struct Operands {
    panel: *const i32,
    a: *const i32,
    blocks: usize,
    zero: u32,
    ahead: Stream,
    c: *mut f32,
}

struct Micro<U, K, const R: usize, const W: usize>(Operands, PhantomData<(U, K)>);

impl<U: Tiled, K: Kind, const R: usize, const W: usize> Job for Micro<U, K, R, W> {
    type Output = Stream;

    #[inline(always)]
    unsafe fn run(self) -> Stream {
        let Operands { panel, a, blocks, zero, mut ahead, c } = self.0;
        // SAFETY: the features are those of the unit; the rest is the caller's promise.
        unsafe { tile::micro::<U, U::V, K, R, W>(panel, a, blocks, zero, &mut ahead, c) }
        ahead
    }
}

/// The micro-kernel for a tile of this unit and `w` columns. A unit's own sizes are all that is compiled.
///
/// # Safety
/// See [`tile::micro`]; the CPU has the unit's features.
unsafe fn micro<U: Tiled, K: Kind>(x: Operands, w: usize) -> Stream {
    const { assert!(matches!(height::<U, K>(), 1 | 2 | 4) && U::COLUMNS <= 6, "a tile of this size") };
    // SAFETY: the caller's promises.
    unsafe {
        match const { height::<U, K>() } {
            1 => by_width::<U, K, 1>(x, w),
            2 => by_width::<U, K, 2>(x, w),
            _ => by_width::<U, K, 4>(x, w),
        }
    }
}

/// [`micro`] with the height known.
///
/// # Safety
/// As [`micro`].
#[inline(always)]
unsafe fn by_width<U: Tiled, K: Kind, const R: usize>(x: Operands, w: usize) -> Stream {
    // SAFETY: the caller's promises.
    unsafe {
        match w {
            1 => U::run(Micro::<U, K, R, 1>(x, PhantomData)),
            2 => U::run(Micro::<U, K, R, 2>(x, PhantomData)),
            3 => U::run(Micro::<U, K, R, 3>(x, PhantomData)),
            4 => U::run(Micro::<U, K, R, 4>(x, PhantomData)),
            5 if const { U::COLUMNS >= 5 } => U::run(Micro::<U, K, R, 5>(x, PhantomData)),
            6 if const { U::COLUMNS >= 6 } => U::run(Micro::<U, K, R, 6>(x, PhantomData)),
            _ => panic!("groups of {w} columns"),
        }
    }
}

/// Memory for a panel, aligned to cache lines.
#[repr(C, align(64))]
struct Aligned<const N: usize>([i32; N]);

/// A cache line of outputs.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Outputs([f32; 16]);

/// Copies outputs; those of whole tiles without a call.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    #[inline(always)]
    fn whole<const N: usize>(to: &mut [f32], from: &[f32]) -> bool {
        match (<&mut [f32; N]>::try_from(to), <&[f32; N]>::try_from(from)) {
            (Ok(to), Ok(from)) => {
                *to = *from;
                true
            }
            _ => false,
        }
    }
    if !(whole::<64>(to, from) || whole::<32>(to, from) || whole::<16>(to, from) || whole::<8>(to, from)) {
        to.copy_from_slice(from);
    }
}

/// Many columns: `F` unpacked, and rescaled if `K` is [`Rescaled`].
///
/// # Safety
/// As [`Multiply::multiply`].
unsafe fn tiles<U: Tiled, F: Unpack, K: Kind>(product: Product<'_>, out: &mut Tile<'_>, finish: Finish<'_>) {
    const { assert!(rows::<U>() <= MOST_ROWS, "panels for a tile of this size") };
    let Product { w, packing, a: data, k, .. } = product;
    let n = const { tall::<U, K>() };
    let (m, width) = (out.rows(), packing.columns());
    let stored = <F::Kind as Kind>::BLOCK;
    assert!(
        width <= U::COLUMNS && k / stored * F::BYTES == w.row_bytes && k.is_multiple_of(K::BLOCK),
        "groups of {width}, {k} weights in {}",
        w.row_bytes
    );
    let group = packing.len(k);
    assert_eq!(data.len(), m.div_ceil(width) * group, "packed activations");
    if w.rows < n {
        // Too few rows for one tile: blocks of zeros beside them, which is a matrix of `n` rows.
        let mut padded = vec![0; n * w.row_bytes];
        padded[..w.data.len()].copy_from_slice(w.data);
        let product = Product { w: Rows { data: &padded, rows: n, next: None, ..w }, ..product };
        // SAFETY: the caller's promises; `padded` holds `n` rows.
        return unsafe { tiles::<U, F, K>(product, out, finish) };
    }
    let mut unpacked = MaybeUninit::<Aligned<{ layout::PANEL * MOST_ROWS }>>::uninit();
    let unpacked = unpacked.as_mut_ptr().cast::<i32>();
    let mut rescaled = MaybeUninit::<Aligned<{ layout::r::PANEL * 2 * MOST_ROWS }>>::uninit();
    let rescaled = rescaled.as_mut_ptr().cast::<i32>();
    let panel = if K::RESCALED { rescaled } else { unpacked };
    let mut c = vec![Outputs([0.0; 16]); (m * n).div_ceil(16)];
    let end = w.first + out.width();
    let mut done = w.first;
    while done < end {
        // The last tile of a matrix begins where a whole one fits; what it has before `done` is known.
        let start = done.min(w.rows - n);
        let next = if start + n < end { Some(start + n) } else { w.next };
        // The next tile is asked for while this one is multiplied. Pieces of a slab: reads of 16 bytes of a
        // vector of rows, about ten in every format, and 32 weights with a group of columns.
        let pieces = k.div_ceil(SLAB) * (10 * U::HEIGHT + SLAB / 32 * m.div_ceil(width));
        let mut ahead = match next {
            Some(next) => Stream::new(w.data[next * w.row_bytes..].as_ptr(), n * w.row_bytes, pieces),
            None => Stream::none(),
        };
        c.fill(Outputs([0.0; 16]));
        let c = c.as_mut_ptr().cast::<f32>();
        for from in (0..k).step_by(SLAB) {
            let weights = (k - from).min(SLAB);
            let (first, blocks) = (from / K::BLOCK, weights / K::BLOCK);
            let from = from / stored * F::BYTES;
            let at = start * w.row_bytes + from;
            // SAFETY: `start + n <= w.rows`, these weights end within `k`, and the caller says that `data`
            // holds `rows` rows of `row_bytes = k / stored * BYTES` and that the CPU has the features; a
            // slab fills at most a panel, and is whole where it is rescaled, since `k` is whole blocks of 256
            // then.
            unsafe {
                let at = w.data.as_ptr().add(at);
                for row in (0..n).step_by(rows::<U>()) {
                    let p = at.add(row * w.row_bytes);
                    let (stride, blocks) = (w.row_bytes, weights / stored);
                    ahead = U::run(Panel::<U, F> { p, stride, blocks, to: unpacked, ahead, of: PhantomData });
                    if K::RESCALED {
                        U::run(OneScale::<U, F> { unpacked, to: panel.add(row), of: PhantomData });
                    }
                }
            }
            for (i, column) in (0..m).step_by(width).enumerate() {
                let in_group = width.min(m - column);
                let block = act_block::<K>().len(in_group, padded::<U>(in_group));
                // SAFETY: a group is `group` long, which is room for `width` columns; there are as many
                // groups, asserted above; `c` holds `m * n` values; the jobs above filled the panel. The
                // caller says that the CPU has the features.
                unsafe {
                    let a = data.as_ptr().add(i * group + first * block);
                    let x = Operands { panel, a, blocks, zero: F::ZERO, ahead, c: c.add(column * n) };
                    ahead = micro::<U, K>(x, in_group);
                }
            }
        }
        let (from, to) = (done - start, (end - start).min(n));
        for column in 0..m {
            // SAFETY: `c` holds `m * n` values and no kernel writes them now.
            let c = unsafe { std::slice::from_raw_parts_mut(c.add(column * n), n) };
            // While they are in the cache: lines of `out` lie far apart and are written once.
            finish(column, done, &mut c[from..to]);
            copy(&mut out.row(column)[done - w.first..][..to - from], &c[from..to]);
        }
        done = start + to;
    }
}

struct Dense<U, S, const R: usize, const W: usize> {
    w: *const S,
    a: *const f32,
    k: usize,
    of: PhantomData<U>,
}

impl<U: Features, S: Stored, const R: usize, const W: usize> Job for Dense<U, S, R, W> {
    type Output = [[f32; R]; W];

    #[inline(always)]
    unsafe fn run(self) -> [[f32; R]; W] {
        // SAFETY: the features are those of the unit; the rest is the caller's promise.
        unsafe { dense::micro::<U::V, S, R, W>(self.w, self.a, self.k) }
    }
}

/// Products of weights that are floats.
///
/// # Safety
/// As [`Multiply::multiply`].
unsafe fn plain<U: Tiled, S: Stored>(product: Product<'_>, out: &mut Tile<'_>, finish: Finish<'_>) {
    // As many sums as leave registers for a row of weights and a factor.
    // SAFETY: the caller's promises.
    unsafe {
        if const { <U::V as Vector>::REGISTERS >= 32 } {
            plain_by::<U, S, 4, 6>(product, out, finish);
        } else {
            plain_by::<U, S, 2, 4>(product, out, finish);
        }
    }
}

/// [`plain`] with the size of a tile known.
///
/// # Safety
/// As [`Multiply::multiply`].
unsafe fn plain_by<U: Tiled, S: Stored, const R: usize, const W: usize>(
    product: Product<'_>,
    out: &mut Tile<'_>,
    finish: Finish<'_>,
) {
    let Product { w, packing, a, k, .. } = product;
    assert_eq!(packing, Packing::F32, "f32 activations");
    let a: &[f32] = bytemuck::cast_slice(a);
    let (m, n) = (out.rows(), out.width());
    assert_eq!(a.len(), m * k, "activations");
    let first = w.first;
    let w: &[S] = bytemuck::cast_slice(&w.data[w.first * w.row_bytes..][..n * w.row_bytes]);
    assert_eq!(w.len(), n * k, "weights");
    /// # Safety
    /// `w` holds `R` rows, `a` `W` columns of `k`; the CPU has the unit's features.
    unsafe fn at<U: Tiled, S: Stored, const R: usize, const W: usize>(
        w: *const S,
        a: *const f32,
        k: usize,
        (c, r): (usize, usize),
        out: &mut Tile<'_>,
    ) {
        // SAFETY: the caller's promise.
        let x = unsafe { U::run(Dense::<U, S, R, W> { w, a, k, of: PhantomData }) };
        for (j, x) in x.iter().enumerate() {
            out.row(c + j)[r..r + R].copy_from_slice(x);
        }
    }
    let mut c = 0;
    while c < m {
        let wide = m - c >= W;
        let mut r = 0;
        while r < n {
            let tall = n - r >= R;
            // SAFETY: rows `r..` and columns `c..` as many as each call takes are inside `w` and `a`, whose
            // lengths were asserted; the caller says that the CPU has the features.
            unsafe {
                let (w, a) = (w.as_ptr().add(r * k), a.as_ptr().add(c * k));
                match (tall, wide) {
                    (true, true) => at::<U, S, R, W>(w, a, k, (c, r), out),
                    (true, false) => at::<U, S, R, 1>(w, a, k, (c, r), out),
                    (false, true) => at::<U, S, 1, W>(w, a, k, (c, r), out),
                    (false, false) => at::<U, S, 1, 1>(w, a, k, (c, r), out),
                }
            }
            r += if tall { R } else { 1 };
        }
        c += if wide { W } else { 1 };
    }
    finish_all(out, first, finish);
}
