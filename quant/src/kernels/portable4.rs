//! Four lanes and a product of signed bytes, in portable code: the reference of a unit for NEON with its dot
//! product.
//!
//! It is slow, and taken only where `HUOZI_ISA` names it.

use super::peak::{self, Peak};
use super::portable::{self, Portable};
use super::unit::{Tiled, Unit};

/// The unit.
#[derive(Clone, Copy)]
pub(crate) struct Portable4;

impl Unit for Portable4 {
    type V = Portable<4>;
    const INT8: Peak = peak::INT8;
    const F32: Peak = peak::F32;
}

/// The products of four signed bytes per lane.
#[inline(always)]
fn dot(acc: [i32; 4], w: [i32; 4], a: [i32; 4]) -> [i32; 4] {
    portable::dot4(acc, w, a, |w| i32::from(w as i8))
}

impl Tiled for Portable4 {
    const HEIGHT: usize = 2;
    const COLUMNS: usize = 4;
    const WIDE_SIGNED: bool = true;

    #[inline(always)]
    unsafe fn dot4(acc: [i32; 4], w: [i32; 4], a: [i32; 4]) -> [i32; 4] {
        dot(acc, w, a)
    }
    #[inline(always)]
    unsafe fn dot4_wide(acc: [i32; 4], w: [i32; 4], a: [i32; 4]) -> [i32; 4] {
        dot(acc, w.map(|w| w ^ 0x8080_8080_u32 as i32), a)
    }
    #[inline(always)]
    unsafe fn dot2(acc: [i32; 4], w: [i32; 4], a: [i32; 4]) -> [i32; 4] {
        portable::dot2(acc, w, a)
    }
}
