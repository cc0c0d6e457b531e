//! Each format as a tile reads it: blocks of some rows into a panel. The layouts are drawn in `formats`.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on the promises of its callers"
)]
#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use super::layout::{self, Kind, b, k};
use super::prefetch::Stream;
use super::vector::Vector;
use crate::formats::iq4_nl;

/// `$body` with `$f` as the type of unpack that stands for a format of integers.
macro_rules! with_unpack {
    ($format:expr, $f:ident => $body:expr) => {
        with_unpack!(@ $format, $f, $body;
            Q4_0 Q4_0, Q4_1 Q4_1, Q5_0 Q5_0, Q5_1 Q5_1, Q8_0 Q8_0, IQ4_NL Iq4Nl,
            Q2_K Q2K, Q3_K Q3K, Q4_K Q4K, Q5_K Q5K, Q6_K Q6K, IQ4_XS Iq4Xs)
    };
    (@ $format:expr, $f:ident, $body:expr; $($name:ident $unpack:ident),*) => {
        match $format {
            $($crate::Format::$name => {
                type $f = unpack::$unpack;
                $body
            })*
            $crate::Format::F32 | $crate::Format::F16 | $crate::Format::BF16 => {
                unreachable!("floats are not unpacked")
            }
        }
    };
}
pub(crate) use with_unpack;

/// A format whose rows a tile can take.
pub(crate) trait Unpack {
    /// The family of its micro-kernel.
    type Kind: Kind;
    /// Bytes of a block.
    const BYTES: usize;
    /// Bits of a stored byte that may be set.
    const BITS: u32;
    /// Stored bytes are `q + (1 << ZERO)`; of no meaning with mins.
    const ZERO: u32;

    /// One block of each of `LANES` rows into its part of a panel.
    ///
    /// `p`: the block of the first row; row `i` lies `i * stride` bytes on. `out`: the panel of this block.
    ///
    /// # Safety
    /// The CPU has what `V` needs, every row's block can be read, the panel has room, and `out.ahead` points
    /// to a stream that nothing else uses meanwhile.
    unsafe fn unpack<V: Vector>(p: *const u8, stride: usize, out: Out);
}

/// Where the lanes of one vector of rows go in a panel.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    /// Entry 0.
    pub first: *mut i32,
    /// Rows to an entry.
    pub rows: usize,
    /// What to ask for while they are unpacked.
    pub ahead: *mut Stream,
}

impl Out {
    /// [`Vector::columns`].
    #[inline(always)]
    unsafe fn columns<V: Vector>(self, p: *const u8, stride: usize) -> [V::I; 4] {
        unsafe {
            (*self.ahead).tick();
            V::columns(p, stride)
        }
    }
    #[inline(always)]
    pub(crate) unsafe fn set<V: Vector>(self, entry: usize, x: V::I) {
        unsafe { V::store(self.first.add(entry * self.rows), x) }
    }
    #[inline(always)]
    pub(crate) unsafe fn fset<V: Vector>(self, entry: usize, x: V::F) {
        unsafe { V::fstore(self.first.add(entry * self.rows).cast(), x) }
    }
}

/// `x` in every byte.
#[inline(always)]
pub(crate) unsafe fn bytes<V: Vector>(x: u8) -> V::I {
    unsafe { V::splat(i32::from_le_bytes([x; 4])) }
}

/// The low nibble of each byte.
#[inline(always)]
pub(crate) unsafe fn low<V: Vector>(x: V::I) -> V::I {
    unsafe { V::and(x, bytes::<V>(15)) }
}

/// The high nibble of each byte.
#[inline(always)]
pub(crate) unsafe fn high<V: Vector>(x: V::I) -> V::I {
    unsafe { V::and(V::shr(x, 4), bytes::<V>(15)) }
}

/// Bits `from..` of each byte, those that `mask` keeps, moved to bit `to`.
#[inline(always)]
unsafe fn bits<V: Vector>(x: V::I, from: u32, to: u32, mask: u8) -> V::I {
    unsafe {
        let moved = if from >= to { V::shr(x, from - to) } else { V::shl(x, to - from) };
        V::and(moved, bytes::<V>(mask << to))
    }
}

/// Byte `j` of each lane.
#[inline(always)]
unsafe fn byte<V: Vector>(x: V::I, j: u32) -> V::I {
    unsafe { V::and(V::shr(x, 8 * j), V::splat(255)) }
}

/// `(byte 0, byte 2)` and `(byte 1, byte 3)` of each lane as pairs of i16.
#[inline(always)]
unsafe fn pairs<V: Vector>(x: V::I) -> [V::I; 2] {
    unsafe {
        let even = V::splat(0x00ff_00ff);
        [V::and(x, even), V::and(V::shr(x, 8), even)]
    }
}

/// The first 16 bytes of Q4_K and Q5_K: d, dmin, eight scales, eight mins.
#[inline(always)]
unsafe fn six_bit_header<V: Vector>(p: *const u8, stride: usize, out: Out) {
    unsafe {
        let [d, scales, mins, rest] = out.columns::<V>(p, stride);
        out.fset::<V>(k::D, V::halves(d));
        out.fset::<V>(k::DMIN, V::halves(V::shr(d, 16)));
        let six = bytes::<V>(63);
        let scales = [V::and(scales, six), V::or(low::<V>(rest), bits::<V>(scales, 6, 4, 3))];
        let mins = [V::and(mins, six), V::or(high::<V>(rest), bits::<V>(mins, 6, 4, 3))];
        for half in 0..2 {
            for j in 0..4 {
                out.set::<V>(k::SCALES + 4 * half + j, byte::<V>(scales[half], j as u32));
            }
            let [even, odd] = pairs::<V>(mins[half]);
            out.set::<V>(k::MINS + 2 * half, even);
            out.set::<V>(k::MINS + 2 * half + 1, odd);
        }
    }
}

pub(crate) struct Q4K;
impl Unpack for Q4K {
    type Kind = layout::Sub32Mins;
    const BYTES: usize = 144;
    const BITS: u32 = 4;
    const ZERO: u32 = 0;

    #[inline(always)]
    unsafe fn unpack<V: Vector>(p: *const u8, stride: usize, out: Out) {
        unsafe {
            six_bit_header::<V>(p, stride, out);
            for g in 0..8 {
                let qs = out.columns::<V>(p.add(16 + 16 * g), stride);
                for (t, qs) in qs.into_iter().enumerate() {
                    let at = 16 * (g / 2) + 4 * (g % 2) + t;
                    out.set::<V>(at, low::<V>(qs));
                    out.set::<V>(at + 8, high::<V>(qs));
                }
            }
        }
    }
}

pub(crate) struct Q5K;
impl Unpack for Q5K {
    type Kind = layout::Sub32Mins;
    const BYTES: usize = 176;
    const BITS: u32 = 5;
    const ZERO: u32 = 0;

    #[inline(always)]
    unsafe fn unpack<V: Vector>(p: *const u8, stride: usize, out: Out) {
        unsafe {
            six_bit_header::<V>(p, stride, out);
            for half in 0..2 {
                let fifth = out.columns::<V>(p.add(16 + 16 * half), stride);
                for j in 0..4 {
                    let qs = out.columns::<V>(p.add(48 + 32 * j + 16 * half), stride);
                    for t in 0..4 {
                        let at = 16 * j + 4 * half + t;
                        let bit = |s: usize| bits::<V>(fifth[t], s as u32, 4, 1);
                        out.set::<V>(at, V::or(low::<V>(qs[t]), bit(2 * j)));
                        out.set::<V>(at + 8, V::or(high::<V>(qs[t]), bit(2 * j + 1)));
                    }
                }
            }
        }
    }
}

pub(crate) struct Q6K;
impl Unpack for Q6K {
    type Kind = layout::Sub16;
    const BYTES: usize = 210;
    const BITS: u32 = 6;
    const ZERO: u32 = 5;

    #[inline(always)]
    unsafe fn unpack<V: Vector>(p: *const u8, stride: usize, out: Out) {
        unsafe {
            for h in 0..2 {
                for part in 0..2 {
                    let top = out.columns::<V>(p.add(128 + 32 * h + 16 * part), stride);
                    for j in 0..2 {
                        let qs = out.columns::<V>(p.add(64 * h + 32 * j + 16 * part), stride);
                        for t in 0..4 {
                            let at = 32 * h + 8 * j + 4 * part + t;
                            let two = |j: usize| bits::<V>(top[t], 2 * j as u32, 4, 3);
                            out.set::<V>(at, V::or(low::<V>(qs[t]), two(j)));
                            out.set::<V>(at + 16, V::or(high::<V>(qs[t]), two(j + 2)));
                        }
                    }
                }
            }
            let scales = out.columns::<V>(p.add(192), stride);
            for (q, &scales) in scales.iter().enumerate() {
                for j in 0..4 {
                    let signed = V::sra(V::shl(scales, 24 - 8 * j as u32), 24);
                    out.set::<V>(k::SCALES + 4 * q + j, signed);
                }
            }
            out.fset::<V>(k::D, V::halves(V::column_u16(p.add(208), stride)));
        }
    }
}

pub(crate) struct Q3K;
impl Unpack for Q3K {
    type Kind = layout::Sub16;
    const BYTES: usize = 110;
    const BITS: u32 = 3;
    const ZERO: u32 = 2;

    #[inline(always)]
    unsafe fn unpack<V: Vector>(p: *const u8, stride: usize, out: Out) {
        unsafe {
            for part in 0..2 {
                let third = out.columns::<V>(p.add(16 * part), stride);
                for h in 0..2 {
                    let qs = out.columns::<V>(p.add(32 + 32 * h + 16 * part), stride);
                    for j in 0..4 {
                        for t in 0..4 {
                            let two = bits::<V>(qs[t], 2 * j as u32, 0, 3);
                            let one = bits::<V>(third[t], (4 * h + j) as u32, 2, 1);
                            out.set::<V>(32 * h + 8 * j + 4 * part + t, V::or(two, one));
                        }
                    }
                }
            }
            // Bytes 94..110: the scales begin at 96, d ends the block.
            let x = out.columns::<V>(p.add(94), stride);
            let dword = |i: usize| V::or(V::shr(x[i], 16), V::shl(x[i + 1], 16));
            let (a, b, top) = (dword(0), dword(1), dword(2));
            let lows = [low::<V>(a), low::<V>(b), high::<V>(a), high::<V>(b)];
            for q in 0..4 {
                let scales = V::or(lows[q], bits::<V>(top, 2 * q as u32, 4, 3));
                for j in 0..4 {
                    let scale = V::sub(byte::<V>(scales, j as u32), V::splat(32));
                    out.set::<V>(k::SCALES + 4 * q + j, scale);
                }
            }
            out.fset::<V>(k::D, V::halves(V::shr(x[3], 16)));
        }
    }
}

pub(crate) struct Q2K;
impl Unpack for Q2K {
    type Kind = layout::Sub16Mins;
    const BYTES: usize = 84;
    const BITS: u32 = 2;
    const ZERO: u32 = 0;

    #[inline(always)]
    unsafe fn unpack<V: Vector>(p: *const u8, stride: usize, out: Out) {
        unsafe {
            let header = out.columns::<V>(p, stride);
            for (q, &both) in header.iter().enumerate() {
                let scales = low::<V>(both);
                for j in 0..4 {
                    out.set::<V>(k::SCALES + 4 * q + j, byte::<V>(scales, j as u32));
                }
                let [even, odd] = pairs::<V>(high::<V>(both));
                out.set::<V>(k::MINS + 2 * q, even);
                out.set::<V>(k::MINS + 2 * q + 1, odd);
            }
            for h in 0..2 {
                for part in 0..2 {
                    let qs = out.columns::<V>(p.add(16 + 32 * h + 16 * part), stride);
                    for j in 0..4 {
                        for t in 0..4 {
                            let at = 32 * h + 8 * j + 4 * part + t;
                            out.set::<V>(at, bits::<V>(qs[t], 2 * j as u32, 0, 3));
                        }
                    }
                }
            }
            let d = V::column_u32(p.add(80), stride);
            out.fset::<V>(k::D, V::halves(d));
            out.fset::<V>(k::DMIN, V::halves(V::shr(d, 16)));
        }
    }
}

/// IQ4_NL's table plus 128.
pub(crate) const TABLE: [u8; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = (iq4_nl::TABLE[i] as i16 + 128) as u8;
        i += 1;
    }
    table
};

pub(crate) struct Iq4Xs;
impl Unpack for Iq4Xs {
    type Kind = layout::Sub32Wide;
    const BYTES: usize = 136;
    const BITS: u32 = 8;
    const ZERO: u32 = 7;

    #[inline(always)]
    unsafe fn unpack<V: Vector>(p: *const u8, stride: usize, out: Out) {
        unsafe {
            let [d, lows, ..] = out.columns::<V>(p, stride);
            out.fset::<V>(k::D, V::halves(d));
            for s in 0..8u32 {
                let low = V::and(V::shr(lows, 4 * s), V::splat(15));
                let high = V::and(V::shr(d, 16 + 2 * s), V::splat(3));
                let scale = V::sub(V::or(low, V::shl(high, 4)), V::splat(32));
                out.set::<V>(k::SCALES + s as usize, scale);
            }
            for s in 0..8 {
                let qs = out.columns::<V>(p.add(8 + 16 * s), stride);
                for (t, qs) in qs.into_iter().enumerate() {
                    out.set::<V>(8 * s + t, V::lookup(&TABLE, low::<V>(qs)));
                    out.set::<V>(8 * s + 4 + t, V::lookup(&TABLE, high::<V>(qs)));
                }
            }
        }
    }
}

/// 16 bytes of nibbles: the low ones in entries 0..4, the high ones in entries 4..8.
#[inline(always)]
unsafe fn nibbles<V: Vector>(p: *const u8, stride: usize, out: Out) -> [V::I; 8] {
    unsafe {
        let mut all = [V::splat(0); 8];
        for (t, qs) in out.columns::<V>(p, stride).into_iter().enumerate() {
            all[t] = low::<V>(qs);
            all[4 + t] = high::<V>(qs);
        }
        all
    }
}

/// `q` with bits `4 t .. 4 t + 4` of `fifth` as bit 4 of its bytes.
#[inline(always)]
unsafe fn with_fifth<V: Vector>(q: V::I, fifth: V::I, t: usize) -> V::I {
    unsafe {
        let four = V::and(V::shr(fifth, 4 * t as u32), V::splat(15));
        // Bit j of `four` times 2^(7 j + 4) lands on bit 8 j + 4; the other products fall between.
        let spread = V::and(V::mul(four, V::splat(0x0204_0810)), bytes::<V>(16));
        V::or(q, spread)
    }
}

macro_rules! small {
    (
        $name:ident: $kind:ident, $bytes:literal, $bits:literal, $zero:literal,
        |$v:ident, $p:ident, $stride:ident, $out:ident| $unpack:block
    ) => {
        pub(crate) struct $name;
        impl Unpack for $name {
            type Kind = layout::$kind;
            const BYTES: usize = $bytes;
            const BITS: u32 = $bits;
            const ZERO: u32 = $zero;

            #[inline(always)]
            unsafe fn unpack<$v: Vector>($p: *const u8, $stride: usize, $out: Out) {
                unsafe { $unpack }
            }
        }
    };
}

small!(Q4_0: Block32, 18, 4, 3, |V, p, stride, out| {
    out.fset::<V>(b::D, V::halves(V::column_u16(p, stride)));
    for (t, q) in nibbles::<V>(p.add(2), stride, out).into_iter().enumerate() {
        out.set::<V>(t, q);
    }
});
small!(Q4_1: Block32Min, 20, 4, 0, |V, p, stride, out| {
    let dm = V::column_u32(p, stride);
    out.fset::<V>(b::D, V::halves(dm));
    out.fset::<V>(b::M, V::halves(V::shr(dm, 16)));
    for (t, q) in nibbles::<V>(p.add(4), stride, out).into_iter().enumerate() {
        out.set::<V>(t, q);
    }
});
small!(Q5_0: Block32, 22, 5, 4, |V, p, stride, out| {
    out.fset::<V>(b::D, V::halves(V::column_u16(p, stride)));
    let fifth = V::column_u32(p.add(2), stride);
    for (t, q) in nibbles::<V>(p.add(6), stride, out).into_iter().enumerate() {
        out.set::<V>(t, with_fifth::<V>(q, fifth, t));
    }
});
small!(Q5_1: Block32Min, 24, 5, 0, |V, p, stride, out| {
    let [dm, fifth, ..] = out.columns::<V>(p, stride);
    out.fset::<V>(b::D, V::halves(dm));
    out.fset::<V>(b::M, V::halves(V::shr(dm, 16)));
    for (t, q) in nibbles::<V>(p.add(8), stride, out).into_iter().enumerate() {
        out.set::<V>(t, with_fifth::<V>(q, fifth, t));
    }
});
small!(Q8_0: Block32Wide, 34, 8, 7, |V, p, stride, out| {
    out.fset::<V>(b::D, V::halves(V::column_u16(p, stride)));
    for g in 0..2 {
        for (t, qs) in out.columns::<V>(p.add(2 + 16 * g), stride).into_iter().enumerate() {
            out.set::<V>(4 * g + t, V::xor(qs, bytes::<V>(128)));
        }
    }
});
small!(Iq4Nl: Block32Wide, 18, 8, 7, |V, p, stride, out| {
    out.fset::<V>(b::D, V::halves(V::column_u16(p, stride)));
    for (t, q) in nibbles::<V>(p.add(2), stride, out).into_iter().enumerate() {
        out.set::<V>(t, V::lookup(&TABLE, q));
    }
});
