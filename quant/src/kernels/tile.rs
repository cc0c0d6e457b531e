//! The integer product of one tile of rows with columns of int8 activations, one row of weights per lane.
//!
//! A micro-kernel multiplies each vector of a panel of weights (`layout`) with one dword of activations,
//! broadcast: no shuffle, no horizontal sum; a unit with another product of bytes brings its own
//! (`Tiled::dots`). Sums inside a block are exact integers; `f32` sums over blocks run in the order of the
//! blocks and multiply and add are rounded apart, so an output has the bits of the scalar `formats::*::dot`,
//! whatever runs beside it.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on the promises of its callers"
)]
#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use super::layout::{Block, Kind, act, b, k, r};
use super::prefetch::Stream;
use super::unit::{Tiled, Unit, biased, padded};
use super::vector::Vector;

/// `c += panel x a` for one group of columns.
///
/// `R`: vectors of rows, `N = R * LANES` rows. `W`: columns. `panel`: `blocks` blocks. `a`: as many blocks of
/// the group. `zero`: what is subtracted from every stored byte is `1 << zero` (nothing with mins). `c`:
/// `[W][N]`. `ahead`: what to ask for while it works.
///
/// # Safety
/// The CPU has what `V` needs; the pointers reach as far as said.
#[inline(always)]
pub(crate) unsafe fn micro<U: Tiled + Unit<V = V>, V: Vector, K: Kind, const R: usize, const W: usize>(
    panel: *const i32,
    a: *const i32,
    blocks: usize,
    zero: u32,
    ahead: &mut Stream,
    c: *mut f32,
) {
    // SAFETY: the caller's promises; every offset below stays inside the entries of `layout`.
    unsafe {
        if K::RESCALED {
            for i in 0..blocks {
                let (panel, a) = (
                    panel.add(i * r::PANEL * R * V::LANES),
                    a.add(i * Block::Rescaled.len(W, padded::<U>(W))),
                );
                rescaled_block::<U, V, K, R, W>(panel, a, ahead, c);
            }
        } else if K::BLOCK == 256 {
            for i in 0..blocks {
                let (panel, a) =
                    (panel.add(i * k::PANEL * R * V::LANES), a.add(i * Block::Super.len(W, padded::<U>(W))));
                super_block::<U, V, K, R, W>(panel, a, zero, ahead, c);
            }
        } else {
            small_blocks::<U, V, K, R, W>(panel, a, blocks, zero, ahead, c);
        }
    }
}

#[inline(always)]
unsafe fn super_block<U: Tiled + Unit<V = V>, V: Vector, K: Kind, const R: usize, const W: usize>(
    panel: *const i32,
    a: *const i32,
    zero: u32,
    ahead: &mut Stream,
    c: *mut f32,
) {
    unsafe {
        let rows = R * V::LANES;
        let dwords = K::SUB / 4;
        let behind = a.add(64 * padded::<U>(W));
        let mut total = [[V::splat(0); R]; W];
        for s in 0..256 / K::SUB {
            if s % (32 / K::SUB) == 0 {
                ahead.tick();
            }
            let mut acc = [[V::splat(0); R]; W];
            // Bytes are stored with something added: the sum starts where that cancels out.
            if !K::MINS && biased::<U, K>() {
                for j in 0..W {
                    let at = |s: usize| V::splat(*behind.add((act::NEGATED + s) * W + j));
                    let negated = if K::SUB == 16 { at(s) } else { V::add(at(2 * s), at(2 * s + 1)) };
                    acc[j] = [V::shl(negated, zero); R];
                }
            }
            U::dots::<K, R, W>(
                &mut acc,
                panel.add(s * dwords * rows),
                a.add(s * dwords * padded::<U>(W)),
                dwords,
            );
            for r in 0..R {
                let scale = V::load(panel.add((k::SCALES + s) * rows + r * V::LANES));
                for j in 0..W {
                    total[j][r] = V::add(total[j][r], V::mul(acc[j][r], scale));
                }
            }
        }
        let mut min = [[V::splat(0); R]; W];
        if K::MINS {
            let (pairs, first) = if K::SUB == 16 { (8, act::PAIRS16) } else { (4, act::PAIRS32) };
            for p in 0..pairs {
                for r in 0..R {
                    let mins = V::load(panel.add((k::MINS + p) * rows + r * V::LANES));
                    for j in 0..W {
                        min[j][r] = U::dot2(min[j][r], mins, V::splat(*behind.add((first + p) * W + j)));
                    }
                }
            }
        }
        for r in 0..R {
            let d = V::fload(panel.add(k::D * rows + r * V::LANES).cast());
            // Kinds without minima leave their place in the panel unwritten.
            let dmin = match K::MINS {
                true => V::fload(panel.add(k::DMIN * rows + r * V::LANES).cast()),
                false => V::fsplat(0.0),
            };
            for j in 0..W {
                let mut x = V::fmul(d, V::from_i32(total[j][r]));
                if K::MINS {
                    x = V::fsub(x, V::fmul(dmin, V::from_i32(min[j][r])));
                }
                let a = V::fsplat(*behind.add(act::D * W + j).cast());
                let c = c.add(j * rows + r * V::LANES);
                V::fstore(c, V::fadd(V::fload(c), V::fmul(a, x)));
            }
        }
    }
}

#[inline(always)]
unsafe fn rescaled_block<U: Tiled + Unit<V = V>, V: Vector, K: Kind, const R: usize, const W: usize>(
    panel: *const i32,
    a: *const i32,
    ahead: &mut Stream,
    c: *mut f32,
) {
    unsafe {
        let rows = R * V::LANES;
        let behind = a.add(64 * padded::<U>(W));
        let mut acc = [[V::splat(0); R]; W];
        if biased::<U, K>() {
            for j in 0..W {
                acc[j] = [V::shl(V::splat(*behind.add(act::NEGATED * W + j)), 7); R];
            }
        }
        for s in 0..8 {
            ahead.tick();
            U::dots::<K, R, W>(&mut acc, panel.add(s * 8 * rows), a.add(s * 8 * padded::<U>(W)), 8);
        }
        for r in 0..R {
            let d = V::fload(panel.add(r::D * rows + r * V::LANES).cast());
            for j in 0..W {
                let x = V::fmul(d, V::from_i32(acc[j][r]));
                let a = V::fsplat(*behind.add(act::D * W + j).cast());
                let c = c.add(j * rows + r * V::LANES);
                V::fstore(c, V::fadd(V::fload(c), V::fmul(a, x)));
            }
        }
    }
}

#[inline(always)]
unsafe fn small_blocks<U: Tiled + Unit<V = V>, V: Vector, K: Kind, const R: usize, const W: usize>(
    panel: *const i32,
    a: *const i32,
    blocks: usize,
    zero: u32,
    ahead: &mut Stream,
    c: *mut f32,
) {
    unsafe {
        let rows = R * V::LANES;
        let mut sum = [[V::fsplat(0.0); R]; W];
        for j in 0..W {
            for r in 0..R {
                sum[j][r] = V::fload(c.add(j * rows + r * V::LANES));
            }
        }
        for i in 0..blocks {
            ahead.tick();
            let (panel, a) = (panel.add(i * b::PANEL * rows), a.add(i * Block::Small.len(W, padded::<U>(W))));
            let behind = a.add(8 * padded::<U>(W));
            let negated = |j: usize| V::splat(*behind.add(act::NEGATED * W + j));
            let mut acc = [[V::splat(0); R]; W];
            if !K::MINS && biased::<U, K>() {
                for j in 0..W {
                    acc[j] = [V::shl(negated(j), zero); R];
                }
            }
            U::dots::<K, R, W>(&mut acc, panel, a, 8);
            for r in 0..R {
                let d = V::fload(panel.add(b::D * rows + r * V::LANES).cast());
                let m = match K::MINS {
                    true => V::fload(panel.add(b::M * rows + r * V::LANES).cast()),
                    false => V::fsplat(0.0),
                };
                for j in 0..W {
                    let mut x = V::fmul(d, V::from_i32(acc[j][r]));
                    if K::MINS {
                        x = V::fsub(x, V::fmul(m, V::from_i32(negated(j))));
                    }
                    let a = V::fsplat(*behind.add(act::D * W + j).cast());
                    sum[j][r] = V::fadd(sum[j][r], V::fmul(a, x));
                }
            }
        }
        for j in 0..W {
            for r in 0..R {
                V::fstore(c.add(j * rows + r * V::LANES), sum[j][r]);
            }
        }
    }
}
