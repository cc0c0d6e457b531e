//! How a line reads the blocks of each format. The layouts are drawn in `formats`.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on the promises of its callers"
)]

use super::super::unit::{Tiled, Unit};
use super::super::unpack;
use super::super::vector::Parts;
use super::pack::{Layout, Order};
use super::{Header, Line, Line32, Line256, terms32};

/// Eight bytes from `p`.
#[inline(always)]
unsafe fn u64_at(p: *const u8) -> u64 {
    unsafe { u64::from_le(p.cast::<u64>().read_unaligned()) }
}
/// Four bytes from `p`.
#[inline(always)]
unsafe fn u32_at(p: *const u8) -> u32 {
    unsafe { u32::from_le(p.cast::<u32>().read_unaligned()) }
}
/// Two bytes from `p`.
#[inline(always)]
unsafe fn u16_at(p: *const u8) -> u32 {
    unsafe { u32::from(u16::from_le(p.cast::<u16>().read_unaligned())) }
}

const fn bytes(x: u8) -> u64 {
    u64::from_le_bytes([x; 8])
}

/// `x - 32` in every byte below 64.
const fn minus_32(x: u64) -> u64 {
    // No byte borrows: each is at least 96 before, and the last step takes the helping bit back.
    ((x | bytes(0x80)) - bytes(32)) ^ bytes(0x80)
}

/// Two dwords, the first low.
fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Header of Q4_K and Q5_K.
#[inline(always)]
unsafe fn six_bit_header(p: *const u8) -> Header {
    unsafe {
        let (scales, mins, rest) = (u32_at(p.add(4)), u32_at(p.add(8)), u32_at(p.add(12)));
        let (six, four, top) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x3030_3030);
        Header {
            scales: [join(scales & six, rest & four | scales >> 2 & top), 0],
            corner: [join(mins & six, rest >> 4 & four | mins >> 2 & top), 0],
            d: u32_at(p),
        }
    }
}

impl Line256 for unpack::Q4K {
    const ORDER: Order = Order::Nibbles32;
    const SIGNED: bool = false;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe { six_bit_header(p) }
    }
    #[inline(always)]
    unsafe fn weights<V: Parts>(p: *const u8) -> [V::I; 16] {
        unsafe {
            let mut w = [V::splat(0); 16];
            for c in 0..32 / V::LANES {
                let qs = V::load(p.add(16 + c * 4 * V::LANES).cast());
                w[2 * c] = unpack::low::<V>(qs);
                w[2 * c + 1] = unpack::high::<V>(qs);
            }
            w
        }
    }
}

/// Which 32 bytes of many the first pair of parts of vector `c` holds.
#[inline(always)]
const fn pair<V: Parts>(c: usize) -> i32 {
    (c * V::LANES / 8) as i32
}

/// Vector `c` of the 32 bytes at `p` repeated without end.
#[inline(always)]
unsafe fn repeated<V: Parts>(p: *const u8, c: usize) -> V::I {
    unsafe {
        let p = p.add(c * 4 * V::LANES % 32);
        V::pairs32(p, p)
    }
}

/// Left turns by which the pairs of a vector are turned.
#[inline(always)]
unsafe fn turned<V: Parts>(x: V::I, first: i32, second: i32, mask: u8) -> V::I {
    unsafe { V::and(V::rol_each(x, V::two(first & 31, second & 31)), unpack::bytes::<V>(mask)) }
}

impl Line256 for unpack::Q5K {
    const ORDER: Order = Order::Nibbles32;
    const SIGNED: bool = false;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe { six_bit_header(p) }
    }
    #[inline(always)]
    unsafe fn weights<V: Parts>(p: *const u8) -> [V::I; 16] {
        unsafe {
            let mut w = [V::splat(0); 16];
            for c in 0..32 / V::LANES {
                let qs = V::load(p.add(48 + c * 4 * V::LANES).cast());
                // Bit s for the 32 weights s; pairs of parts hold neighbouring pairs of 32.
                let (s, fifth) = (2 * pair::<V>(c), repeated::<V>(p.add(16), c));
                w[2 * c] = V::or(unpack::low::<V>(qs), turned::<V>(fifth, 4 - s, 2 - s, 16));
                w[2 * c + 1] = V::or(unpack::high::<V>(qs), turned::<V>(fifth, 3 - s, 1 - s, 16));
            }
            w
        }
    }
}

impl Line256 for unpack::Q6K {
    const ORDER: Order = Order::Natural;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe {
            let scales = [u64_at(p.add(192)), u64_at(p.add(200))];
            Header { scales, corner: scales, d: u16_at(p.add(208)) }
        }
    }
    #[inline(always)]
    unsafe fn weights<V: Parts>(p: *const u8) -> [V::I; 16] {
        unsafe {
            let mut w = [V::splat(0); 16];
            let per = 16 / V::LANES; // vectors in 64 weights
            for h in 0..2 {
                for c in 0..per {
                    let qs = V::load(p.add(64 * h + c * 4 * V::LANES).cast());
                    let (s, top) = (2 * pair::<V>(c), repeated::<V>(p.add(128 + 32 * h), c));
                    let at = 2 * per * h + c;
                    w[at] = V::or(unpack::low::<V>(qs), turned::<V>(top, 4 - s, 2 - s, 48));
                    w[at + per] = V::or(unpack::high::<V>(qs), turned::<V>(top, -s, -2 - s, 48));
                }
            }
            w
        }
    }
}

/// The two-bit numbers of Q2_K and Q3_K, 64 bytes at `p`.
#[inline(always)]
unsafe fn two_bits<V: Parts>(p: *const u8) -> [V::I; 16] {
    unsafe {
        let mut w = [V::splat(0); 16];
        let per = 32 / V::LANES; // vectors in 128 weights
        for h in 0..2 {
            for c in 0..per {
                let (s, qs) = (2 * pair::<V>(c), repeated::<V>(p.add(32 * h), c));
                w[per * h + c] = turned::<V>(qs, -s, -s - 2, 3);
            }
        }
        w
    }
}

impl Line256 for unpack::Q3K {
    const ORDER: Order = Order::Natural;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe {
            let (low, top) = (u64_at(p.add(96)), u32_at(p.add(104)));
            let two =
                |n: u32| u64::from(top >> n) & 0x0303_0303 | (u64::from(top >> (n + 2)) & 0x0303_0303) << 32;
            let scale = |low: u64, n: u32| minus_32(low & bytes(15) | two(n) << 4);
            let scales = [scale(low, 0), scale(low >> 4, 4)];
            Header { scales, corner: scales, d: u16_at(p.add(108)) }
        }
    }
    #[inline(always)]
    unsafe fn weights<V: Parts>(p: *const u8) -> [V::I; 16] {
        unsafe {
            let mut w = two_bits::<V>(p.add(32));
            for (i, w) in w.iter_mut().enumerate().take(64 / V::LANES) {
                let (s, third) = (pair::<V>(i), repeated::<V>(p, i));
                *w = V::or(*w, turned::<V>(third, 2 - s, 1 - s, 4));
            }
            w
        }
    }
}

impl Line256 for unpack::Q2K {
    const ORDER: Order = Order::Natural;
    const SIGNED: bool = false;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe {
            let both = [u64_at(p), u64_at(p.add(8))];
            Header {
                scales: both.map(|x| x & bytes(15)),
                corner: both.map(|x| x >> 4 & bytes(15)),
                d: u32_at(p.add(80)),
            }
        }
    }
    #[inline(always)]
    unsafe fn weights<V: Parts>(p: *const u8) -> [V::I; 16] {
        unsafe { two_bits::<V>(p.add(16)) }
    }
}

impl Line256 for unpack::Iq4Xs {
    const ORDER: Order = Order::Nibbles16;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe {
            // Eight numbers of 4 and of 2 bits, spread to a byte each.
            let mut low = u64::from(u32_at(p.add(4)));
            low = (low | low << 16) & 0x0000_ffff_0000_ffff;
            low = (low | low << 8) & 0x00ff_00ff_00ff_00ff;
            low = (low | low << 4) & bytes(15);
            let mut high = u64::from(u16_at(p.add(2)));
            high = (high | high << 24) & 0x0000_00ff_0000_00ff;
            high = (high | high << 12) & 0x000f_000f_000f_000f;
            high = (high | high << 6) & bytes(3);
            let scales = [minus_32(low | high << 4), 0];
            Header { scales, corner: scales, d: u16_at(p) }
        }
    }
    #[inline(always)]
    unsafe fn weights<V: Parts>(p: *const u8) -> [V::I; 16] {
        unsafe {
            let mut w = [V::splat(0); 16];
            for c in 0..32 / V::LANES {
                let qs = V::load(p.add(8 + c * 4 * V::LANES).cast());
                w[2 * c] = V::lookup(&unpack::TABLE, unpack::low::<V>(qs));
                w[2 * c + 1] = V::lookup(&unpack::TABLE, unpack::high::<V>(qs));
            }
            w
        }
    }
}

/// 16 bytes of nibbles of one or two blocks: low ones first, then high ones; in vectors of one part either
/// (`h`).
#[inline(always)]
unsafe fn nibbles<V: Parts>(p: *const u8, q: *const u8, h: usize) -> V::I {
    const SHIFTS: [i32; 16] = [0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4];
    unsafe { unpack::low::<V>(V::shr_each(V::pairs16(p, q), V::load(SHIFTS.as_ptr().add(4 * h)))) }
}

/// Fifth bits of nibbles, 32 of each of one or two blocks.
#[inline(always)]
unsafe fn fifths<V: Parts>(p: *const u8, q: *const u8, h: usize) -> V::I {
    unsafe { V::sixteens(u32_at(p) >> (16 * h), u32_at(q) >> (16 * h)) }
}

macro_rules! line32 {
    ($($name:ident: |$v:ident, $p:ident, $q:ident, $h:ident| $weights:expr;)*) => {
        $(impl Line32 for unpack::$name {
            #[inline(always)]
            unsafe fn weights<$v: Parts>($p: *const u8, $q: *const u8, $h: usize) -> $v::I {
                unsafe { $weights }
            }
        }
        impl Line for unpack::$name {
            fn layout(lanes: usize) -> Layout {
                Layout { lanes, order: Order::Natural, block: 32, sums: 0 }
            }
            #[inline(always)]
            unsafe fn terms<U: Tiled + Unit<V = V>, V: Parts>(
                row: *const u8,
                blocks: usize,
                a: *const i32,
                scratch: *mut i32,
                out: *mut f32,
            ) {
                unsafe { terms32::<U, V, Self>(row, blocks, a, scratch, out) }
            }
        })*
    };
}
line32! {
    Q4_0: |V, p, q, h| nibbles::<V>(p.add(2), q.add(2), h);
    Q4_1: |V, p, q, h| nibbles::<V>(p.add(4), q.add(4), h);
    Q5_0: |V, p, q, h| V::or(nibbles::<V>(p.add(6), q.add(6), h), fifths::<V>(p.add(2), q.add(2), h));
    Q5_1: |V, p, q, h| V::or(nibbles::<V>(p.add(8), q.add(8), h), fifths::<V>(p.add(4), q.add(4), h));
    Q8_0: |V, p, q, h| V::xor(V::pairs32(p.add(2 + 16 * h), q.add(2 + 16 * h)), unpack::bytes::<V>(128));
    Iq4Nl: |V, p, q, h| V::lookup(&unpack::TABLE, nibbles::<V>(p.add(2), q.add(2), h));
}
