//! The table: which function multiplies rows of a format on an ISA.
//!
//! Every ISA above the baseline is one row of `levels!`: a vector unit, how many of its vectors a tile is tall (twice
//! as many where weights are rescaled), and how many columns a group may have. The functions are made from the generic
//! code in `tile`, `unpack` and `dense`. The baseline runs the portable `formats::*::dot`, row by row.

use super::line::{self, Line};
use super::unpack::{self, Out, Unpack};
use super::{Isa, Level, rescale, tile};
use crate::formats::q8_a::BlockQ8A;
use crate::formats::q8_k::{self, BlockQ8K};
use crate::formats::{self, Format};
use crate::tile::Tile;

/// `$body` with `$f` as the type of unpack that stands for a format of integers.
macro_rules! with_unpack {
    ($format:expr, $f:ident => $body:expr) => {
        with_unpack!(@ $format, $f, $body;
            Q4_0 Q4_0, Q4_1 Q4_1, Q5_0 Q5_0, Q5_1 Q5_1, Q8_0 Q8_0, IQ4_NL Iq4Nl,
            Q2_K Q2K, Q3_K Q3K, Q4_K Q4K, Q5_K Q5K, Q6_K Q6K, IQ4_XS Iq4Xs)
    };
    (@ $format:expr, $f:ident, $body:expr; $($name:ident $unpack:ident),*) => {
        match $format {
            $(Format::$name => {
                type $f = unpack::$unpack;
                $body
            })*
            Format::F32 | Format::F16 | Format::BF16 => unreachable!("floats are not unpacked"),
        }
    };
}

/// Some rows of a matrix that lies in whole rows of blocks.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// All rows of the matrix.
    pub data: &'a [u8],
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Rows of the matrix.
    pub rows: usize,
    /// The first row wanted; the tile of outputs says how many.
    pub first: usize,
}

/// Activations `(m, k)` as a product takes them.
#[derive(Clone, Copy)]
pub(crate) enum Columns<'a> {
    /// Row-major f32.
    F32(&'a [f32]),
    /// Row-major blocks of 32.
    Q8A(&'a [BlockQ8A]),
    /// Row-major blocks of 256.
    Q8K(&'a [BlockQ8K]),
    /// Groups of `width` columns (the last may have fewer), packed as `tile` says.
    Packed {
        /// All groups, each as long as a full one.
        data: &'a [i32],
        /// Columns of a group.
        width: usize,
        /// For weights that `rescale` brings to one scale.
        rescaled: bool,
    },
    /// Row-major blocks of 256 for weights that `rescale` brings to one scale.
    Rescaled(&'a [BlockQ8K]),
    /// One behind the other, packed as `line` says.
    Lines(&'a [i32]),
}

/// Columns that an ISA takes together, or `None` where activations stay row-major blocks.
pub(crate) fn columns(isa: Isa) -> Option<usize> {
    match isa.level() {
        Level::Scalar => None,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Some(avx2::COLUMNS),
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => Some(avxvnni::COLUMNS),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => Some(avx512::COLUMNS),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => Some(avx512vnni::COLUMNS),
    }
}

/// Most columns that go through `line` one by one, and how a format's are packed then; `None` where the ISA or the format
/// has no use for it.
pub(crate) fn line(isa: Isa, format: Format) -> Option<line::Layout> {
    let lanes = match isa.level() {
        Level::Scalar => return None,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => 8,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Vnni => 16,
    };
    match format {
        Format::F32 | Format::F16 | Format::BF16 => None,
        _ => Some(with_unpack!(format, F => F::layout(lanes))),
    }
}

/// Rows that an ISA takes together, of weights as they are stored or rescaled.
pub(crate) fn rows(isa: Isa, rescaled: bool) -> usize {
    let of = |rows, tall| if rescaled { tall } else { rows };
    match isa.level() {
        Level::Scalar => 1,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => of(avx2::ROWS, avx2::TALL),
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => of(avxvnni::ROWS, avxvnni::TALL),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => of(avx512::ROWS, avx512::TALL),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => of(avx512vnni::ROWS, avx512vnni::TALL),
    }
}

/// What becomes of sums: `(column, first row, sums of rows from there on)`, once for each output.
pub(crate) type Finish<'a> = &'a dyn Fn(usize, usize, &mut [f32]);

/// `out[c][r] = w row (first + r) . a row c`, then `finish`. Bits depend on that row and that column alone.
///
/// # Panics
/// When lengths do not fit each other.
pub(crate) fn multiply(
    isa: Isa,
    format: Format,
    w: Rows<'_>,
    a: Columns<'_>,
    k: usize,
    out: &mut Tile<'_>,
    finish: Finish<'_>,
) {
    // What every pointer in the kernels rests on.
    assert_eq!(w.row_bytes.checked_mul(w.rows), Some(w.data.len()), "whole rows");
    assert_eq!(format.row_bytes(k), Some(w.row_bytes), "rows of {k} weights in {format}");
    assert!(w.first + out.width() <= w.rows, "rows of the matrix");
    match isa.level() {
        Level::Scalar => scalar::multiply(format, w, a, k, out, finish),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::multiply(format, w, a, k, out, finish),
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => avxvnni::multiply(format, w, a, k, out, finish),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::multiply(format, w, a, k, out, finish),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => avx512vnni::multiply(format, w, a, k, out, finish),
    }
}

/// [`Finish`] for outputs that are all in place.
fn finish_all(out: &mut Tile<'_>, first: usize, finish: Finish<'_>) {
    for column in 0..out.rows() {
        finish(column, first, out.row(column));
    }
}

/// Portable code, compiled for what the architecture guarantees.
mod scalar {
    use super::*;

    /// Columns whose activations are walked together for each row of weights, so that they stay in the L2 cache.
    const GROUP: usize = 16;

    fn product<B: bytemuck::Pod, A>(w: Rows<'_>, a: &[A], out: &mut Tile<'_>, dot: fn(&[B], &[A]) -> f32) {
        let (rows, columns) = (out.width(), out.rows());
        let len = a.len() / columns;
        assert_eq!(len * columns, a.len(), "whole columns");
        for first in (0..columns).step_by(GROUP) {
            for r in 0..rows {
                let w = bytemuck::cast_slice(&w.data[(w.first + r) * w.row_bytes..][..w.row_bytes]);
                for c in first..(first + GROUP).min(columns) {
                    out.row(c)[r] = dot(w, &a[c * len..][..len]);
                }
            }
        }
    }

    pub(super) fn multiply(
        format: Format,
        w: Rows<'_>,
        a: Columns<'_>,
        _: usize,
        out: &mut Tile<'_>,
        finish: Finish<'_>,
    ) {
        if out.rows() == 0 {
            return;
        }
        match (format, a) {
            (Format::F32, Columns::F32(a)) => product(w, a, out, formats::f32::dot),
            (Format::F16, Columns::F32(a)) => product(w, a, out, formats::f16::dot),
            (Format::BF16, Columns::F32(a)) => product(w, a, out, formats::bf16::dot),
            (Format::Q4_0, Columns::Q8A(a)) => product(w, a, out, formats::q4_0::dot),
            (Format::Q4_1, Columns::Q8A(a)) => product(w, a, out, formats::q4_1::dot),
            (Format::Q5_0, Columns::Q8A(a)) => product(w, a, out, formats::q5_0::dot),
            (Format::Q5_1, Columns::Q8A(a)) => product(w, a, out, formats::q5_1::dot),
            (Format::Q8_0, Columns::Q8A(a)) => product(w, a, out, formats::q8_0::dot),
            (Format::IQ4_NL, Columns::Q8A(a)) => product(w, a, out, formats::iq4_nl::dot),
            (Format::Q2_K, Columns::Q8K(a)) => product(w, a, out, formats::q2_k::dot),
            (Format::Q3_K, Columns::Q8K(a)) => product(w, a, out, formats::q3_k::dot),
            (Format::Q4_K, Columns::Q8K(a)) => product(w, a, out, formats::q4_k::dot),
            (Format::Q5_K, Columns::Q8K(a)) => product(w, a, out, formats::q5_k::dot),
            (Format::Q6_K, Columns::Q8K(a)) => product(w, a, out, formats::q6_k::dot),
            (Format::IQ4_XS, Columns::Q8K(a)) => product(w, a, out, formats::iq4_xs::dot),
            (format, Columns::Rescaled(a)) => with_unpack!(format, F => rescaled::<F>(w, a, out)),
            (format, _) => panic!("activations for {format}"),
        }
        finish_all(out, w.first, finish);
    }

    fn rescaled<F: Unpack>(w: Rows<'_>, a: &[BlockQ8K], out: &mut Tile<'_>) {
        let (rows, columns) = (out.width(), out.rows());
        let blocks = a.len() / columns;
        assert_eq!(blocks * columns, a.len(), "whole columns");
        let (mut qs, mut d) = (vec![[0; q8_k::N]; blocks], vec![0.0; blocks]);
        for r in 0..rows {
            rescale::row::<F>(&w.data[(w.first + r) * w.row_bytes..][..w.row_bytes], &mut qs, &mut d);
            for c in 0..columns {
                out.row(c)[r] = rescale::dot(&qs, &d, &a[c * blocks..][..blocks]);
            }
        }
    }
}

/// How many slabs ahead of its use a piece of a row is asked for.
const AHEAD: usize = 1;

/// A cache line of outputs.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Outputs([f32; 16]);

/// Makes a module of functions compiled for one vector unit.
#[cfg(target_arch = "x86_64")]
macro_rules! level {
    ($name:ident: $simd:ty, $features:literal, tile $height:literal x $columns:literal) => {
        mod $name {
            use super::super::dense::{self, Stored};
            use super::super::simd::{Simd, Unit};
            use super::super::tile::{Kind, Rescaled};
            use super::*;

            const LANES: usize = <$simd as Unit>::LANES;
            /// Rows of a tile.
            pub(super) const ROWS: usize = $height * LANES;
            /// Rows of a tile of rescaled weights: their sums take no registers beside them.
            pub(super) const TALL: usize = 2 * ROWS;
            pub(super) const COLUMNS: usize = $columns;
            const _: () = assert!(COLUMNS <= 6, "the widths that `quantised` knows");

            /// A panel of one slab of `ROWS` rows.
            #[repr(C, align(64))]
            struct Panel([i32; tile::PANEL * ROWS]);

            /// A panel of one slab of `TALL` rows, rescaled.
            #[repr(C, align(64))]
            struct TallPanel([i32; tile::r::PANEL * TALL]);

            #[target_feature(enable = $features)]
            unsafe fn unpack<F: Unpack>(p: *const u8, stride: usize, blocks: usize, panel: *mut i32) {
                let entries = tile::panel_entries::<F::Kind>();
                for i in 0..blocks {
                    for v in 0..$height {
                        // SAFETY: the caller says that so many blocks of `ROWS` rows can be read, and a panel holds a
                        // slab's.
                        unsafe {
                            let p = p.add(v * LANES * stride + i * F::BYTES);
                            let first = panel.add(i * entries * ROWS + v * LANES);
                            F::unpack::<$simd>(p, stride, Out { first, rows: ROWS });
                        }
                    }
                }
            }

            /// Brings an unpacked slab to one scale: `ROWS` of the `TALL` rows of `panel`.
            #[target_feature(enable = $features)]
            unsafe fn one_scale<F: Unpack>(unpacked: *const i32, panel: *mut i32) {
                for v in 0..$height {
                    // SAFETY: the caller's panels hold a slab of `ROWS` and of `TALL` rows.
                    unsafe {
                        let first = panel.add(v * LANES);
                        let out = Out { first, rows: TALL };
                        rescale::rescale::<$simd, F>(unpacked.add(v * LANES), ROWS, out);
                    }
                }
            }

            /// Asks for `bytes` of each of `rows` rows: more streams than hardware follows by itself.
            #[target_feature(enable = $features)]
            unsafe fn ask(p: *const u8, stride: usize, rows: usize, bytes: usize) {
                for row in 0..rows {
                    for line in (0..bytes).step_by(64) {
                        // SAFETY: this function has the features.
                        unsafe { <$simd as Simd>::prefetch(p.wrapping_add(row * stride + line)) };
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn micro<K: Kind, const R: usize, const W: usize>(
                panel: *const i32,
                a: *const i32,
                blocks: usize,
                zero: u32,
                c: *mut f32,
            ) {
                // SAFETY: this function has the features; the rest is the caller's promise.
                unsafe { tile::micro::<$simd, K, R, W>(panel, a, blocks, zero, c) }
            }

            #[target_feature(enable = $features)]
            unsafe fn dense<S: Stored, const R: usize, const W: usize>(
                w: *const S,
                a: *const f32,
                k: usize,
            ) -> [[f32; R]; W] {
                // SAFETY: as above.
                unsafe { dense::micro::<$simd, S, R, W>(w, a, k) }
            }

            #[target_feature(enable = $features)]
            unsafe fn lines<F: Line>(
                w: *const u8,
                stride: usize,
                rows: usize,
                blocks: usize,
                a: *const i32,
                scratch: *mut i32,
                terms: *mut f32,
            ) -> [f32; LANES] {
                let pitch = blocks.next_multiple_of(line::PAD);
                // SAFETY: this function has the features; the rest is the caller's promise.
                unsafe {
                    for r in 0..rows {
                        F::terms::<$simd, 1>(
                            w.add(r * stride),
                            blocks,
                            a,
                            scratch,
                            terms.add(r * pitch),
                            pitch,
                        );
                    }
                    let mut sums = [0.0; LANES];
                    line::sums::<$simd>(terms, pitch, blocks, sums.as_mut_ptr());
                    sums
                }
            }

            /// One column at a time.
            fn streamed<F: Line>(w: Rows<'_>, a: &[i32], k: usize, out: &mut Tile<'_>) {
                let block = <F::Kind as Kind>::BLOCK;
                let blocks = k / block;
                let len = line::column_len(blocks, block, F::layout(LANES).sums);
                assert_eq!(blocks * F::BYTES, w.row_bytes, "{blocks} blocks");
                assert_eq!(a.len(), out.rows() * len, "packed activations");
                let mut scratch = vec![0i32; line::scratch_len(blocks, 1)];
                let mut terms = vec![0.0f32; LANES * blocks.next_multiple_of(line::PAD)];
                let n = out.width();
                for (column, a) in a.chunks_exact(len).enumerate() {
                    for r in (0..n).step_by(LANES) {
                        let rows = LANES.min(n - r);
                        // SAFETY: `multiply` asserted that rows `first .. first + n` lie in `data`; a column, the scratch and
                        // the terms are as long as `line` says. An `Isa` of this level exists only where its features were
                        // detected.
                        let sums = unsafe {
                            let w_r = w.data.as_ptr().add((w.first + r) * w.row_bytes);
                            let (a, scratch, terms) = (a.as_ptr(), scratch.as_mut_ptr(), terms.as_mut_ptr());
                            lines::<F>(w_r, w.row_bytes, rows, blocks, a, scratch, terms)
                        };
                        out.row(column)[r..r + rows].copy_from_slice(&sums[..rows]);
                    }
                }
            }

            fn product<F: Line>(w: Rows<'_>, a: Columns<'_>, k: usize, out: &mut Tile<'_>, finish: Finish<'_>) {
                match a {
                    Columns::Lines(a) => {
                        streamed::<F>(w, a, k, out);
                        finish_all(out, w.first, finish);
                    }
                    Columns::Packed { rescaled: true, .. } => {
                        quantised::<F, Rescaled, { 2 * $height }, TALL>(w, a, k, out, finish)
                    }
                    _ => quantised::<F, F::Kind, $height, ROWS>(w, a, k, out, finish),
                }
            }

            /// Many columns: `F` unpacked, and rescaled if `K` is [`Rescaled`]; `R` vectors of rows at a time, `N` rows.
            fn quantised<F: Unpack, K: Kind, const R: usize, const N: usize>(
                w: Rows<'_>,
                a: Columns<'_>,
                k: usize,
                out: &mut Tile<'_>,
                finish: Finish<'_>,
            ) {
                const { assert!(N == R * LANES && N == if K::RESCALED { TALL } else { ROWS }) };
                let Columns::Packed { data, width, .. } = a else { panic!("packed activations") };
                let m = out.rows();
                let stored = <F::Kind as Kind>::BLOCK;
                assert!(
                    width <= COLUMNS && k / stored * F::BYTES == w.row_bytes && k.is_multiple_of(K::BLOCK),
                    "groups of {width}, {k} weights in {}",
                    w.row_bytes
                );
                let (blocks, entries) = (k / K::BLOCK, tile::act_entries::<K>());
                assert_eq!(data.len(), m.div_ceil(width) * width * blocks * entries, "packed activations");
                if w.rows < N {
                    // Too few rows for one tile: blocks of zeros beside them, which is a matrix of `N` rows.
                    let mut padded = vec![0; N * w.row_bytes];
                    padded[..w.data.len()].copy_from_slice(w.data);
                    return quantised::<F, K, R, N>(Rows { data: &padded, rows: N, ..w }, a, k, out, finish);
                }
                let mut unpacked = std::mem::MaybeUninit::<Panel>::uninit();
                let unpacked = unpacked.as_mut_ptr().cast::<i32>();
                let mut rescaled = std::mem::MaybeUninit::<TallPanel>::uninit();
                let rescaled = rescaled.as_mut_ptr().cast::<i32>();
                let panel = if K::RESCALED { rescaled } else { unpacked };
                let mut c = vec![Outputs([0.0; 16]); (m * N).div_ceil(16)];
                let end = w.first + out.width();
                let mut done = w.first;
                while done < end {
                    // The last tile of a matrix begins where a whole one fits; what it has before `done` is known.
                    let start = done.min(w.rows - N);
                    c.fill(Outputs([0.0; 16]));
                    let c = c.as_mut_ptr().cast::<f32>();
                    for from in (0..k).step_by(tile::SLAB) {
                        let weights = (k - from).min(tile::SLAB);
                        let (first, n) = (from / K::BLOCK, weights / K::BLOCK);
                        let from = from / stored * F::BYTES;
                        let at = start * w.row_bytes + from;
                        // SAFETY: `start + N <= w.rows`, these weights end within `k`, and `multiply` asserted that
                        // `data` holds `rows` rows of `row_bytes = k / stored * BYTES`; a slab fills at most a panel, and
                        // is whole where it is rescaled, since `k` is whole blocks of 256 then.
                        // An `Isa` of this level exists only where its features were detected.
                        unsafe {
                            let at = w.data.as_ptr().add(at);
                            for row in (0..N).step_by(ROWS) {
                                unpack::<F>(at.add(row * w.row_bytes), w.row_bytes, weights / stored, unpacked);
                                if K::RESCALED {
                                    one_scale::<F>(unpacked, panel.add(row));
                                }
                            }
                        }
                        let slab = tile::SLAB / stored * F::BYTES;
                        let ahead = from + AHEAD * slab;
                        let (row, at) = match ahead < w.row_bytes {
                            true => (start, ahead),
                            false => (start + N, ahead - w.row_bytes),
                        };
                        if row < end {
                            let p = w.data.as_ptr().wrapping_add(row * w.row_bytes + at);
                            // SAFETY: the level's features were detected; a prefetch may look anywhere.
                            unsafe { ask(p, w.row_bytes, N, slab) };
                        }
                        for column in (0..m).step_by(width) {
                            let in_group = width.min(m - column);
                            let at = column * blocks * entries + first * entries * in_group;
                            // SAFETY: the group begins at `column * blocks * entries` and has room for `width`
                            // columns, asserted above; `c` holds `m * N` values; `unpack`, or
                            // `one_scale` for each part of its rows, filled the panel.
                            unsafe {
                                let (a, c) = (data.as_ptr().add(at), c.add(column * N));
                                match in_group {
                                    1 => micro::<K, R, 1>(panel, a, n, F::ZERO, c),
                                    2 => micro::<K, R, 2>(panel, a, n, F::ZERO, c),
                                    3 => micro::<K, R, 3>(panel, a, n, F::ZERO, c),
                                    4 => micro::<K, R, 4>(panel, a, n, F::ZERO, c),
                                    #[allow(unreachable_patterns, reason = "narrow units stop at 4")]
                                    5 => micro::<K, R, { if COLUMNS < 5 { 1 } else { 5 } }>(
                                        panel,
                                        a,
                                        n,
                                        F::ZERO,
                                        c,
                                    ),
                                    _ => micro::<K, R, { if COLUMNS < 6 { 1 } else { 6 } }>(
                                        panel,
                                        a,
                                        n,
                                        F::ZERO,
                                        c,
                                    ),
                                }
                            }
                        }
                    }
                    let (from, to) = (done - start, (end - start).min(N));
                    for column in 0..m {
                        // SAFETY: `c` holds `m * N` values and nobody writes them now.
                        let c = unsafe { &mut *c.add(column * N).cast::<[f32; N]>() };
                        // While they are at hand: lines of `out` lie far apart and are written once.
                        finish(column, done, &mut c[from..to]);
                        let out = &mut out.row(column)[done - w.first..][..to - from];
                        // A whole tile is copied without a call.
                        match <&mut [f32; N]>::try_from(&mut *out) {
                            Ok(out) => *out = *c,
                            Err(_) => out.copy_from_slice(&c[from..to]),
                        }
                    }
                    done = start + to;
                }
            }

            fn plain<S: Stored>(w: Rows<'_>, a: Columns<'_>, k: usize, out: &mut Tile<'_>, finish: Finish<'_>) {
                const R: usize = if ROWS == 32 { 4 } else { 2 };
                const W: usize = if ROWS == 32 { 6 } else { 4 };
                let Columns::F32(a) = a else { panic!("f32 activations") };
                let (m, n) = (out.rows(), out.width());
                assert_eq!(a.len(), m * k, "activations");
                let first = w.first;
                let w: &[S] = bytemuck::cast_slice(&w.data[w.first * w.row_bytes..][..n * w.row_bytes]);
                assert_eq!(w.len(), n * k, "weights");
                fn store<const R: usize, const W: usize>(
                    x: [[f32; R]; W],
                    c: usize,
                    r: usize,
                    out: &mut Tile<'_>,
                ) {
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
                        // lengths were asserted; the level's features were detected.
                        unsafe {
                            let (w, a) = (w.as_ptr().add(r * k), a.as_ptr().add(c * k));
                            match (tall, wide) {
                                (true, true) => store(dense::<S, R, W>(w, a, k), c, r, out),
                                (true, false) => store(dense::<S, R, 1>(w, a, k), c, r, out),
                                (false, true) => store(dense::<S, 1, W>(w, a, k), c, r, out),
                                (false, false) => store(dense::<S, 1, 1>(w, a, k), c, r, out),
                            }
                        }
                        r += if tall { R } else { 1 };
                    }
                    c += if wide { W } else { 1 };
                }
                finish_all(out, first, finish);
            }

            pub(super) fn multiply(
                format: Format,
                w: Rows<'_>,
                a: Columns<'_>,
                k: usize,
                out: &mut Tile<'_>,
                finish: Finish<'_>,
            ) {
                match format {
                    Format::F32 => plain::<formats::f32::BlockF32>(w, a, k, out, finish),
                    Format::F16 => plain::<formats::f16::BlockF16>(w, a, k, out, finish),
                    Format::BF16 => plain::<formats::bf16::BlockBf16>(w, a, k, out, finish),
                    _ => with_unpack!(format, F => product::<F>(w, a, k, out, finish)),
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use super::{
    avx2::{Avx2, AvxVnni},
    avx512::{Avx512, Avx512Vnni},
};
#[cfg(target_arch = "x86_64")]
level!(avx2: Avx2, "avx2,fma,f16c", tile 1 x 4);
#[cfg(target_arch = "x86_64")]
level!(avxvnni: AvxVnni, "avx2,fma,f16c,avxvnni", tile 1 x 6);
#[cfg(target_arch = "x86_64")]
level!(avx512: Avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl", tile 2 x 6);
#[cfg(target_arch = "x86_64")]
level!(avx512vnni: Avx512Vnni, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", tile 2 x 6);
