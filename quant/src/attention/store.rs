//! Storing rows of keys and values in a block.

use super::head::{HeadBlockMut, Rows, at_least};
use super::value::KvValue;
use crate::formats::lanes::LANES;
use crate::kernels::unit::{Features, Job, Unit};
use crate::kernels::vector::Vector;
use crate::kernels::{Isa, with_vectors};
use crate::kv::BLOCK;
use std::marker::PhantomData;

/// The work of [`store`] with the vectors `V`.
struct Store<'a, 'b, T, V> {
    head: HeadBlockMut<'a, T>,
    rows: Rows<'b>,
    vectors: PhantomData<V>,
}

/// Stores `rows` in a block. With its last position the block is full and gets its bound, which is a function
/// of what is stored in it, however it came there.
///
/// # Panics
/// When a slice is too short.
pub fn store<T: KvValue>(isa: Isa, head: HeadBlockMut<'_, T>, rows: Rows<'_>) {
    with_vectors!(isa, U => {
        let job = Store::<T, <U as Unit>::V> { head, rows, vectors: PhantomData };
        // SAFETY: this CPU has every `Isa` that there is, and with it the features of the unit whose vectors
        // it has.
        unsafe { U::run(job) }
    });
}

impl<T: KvValue, V: Vector> Job for Store<'_, '_, T, V> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        let Self { head, rows, .. } = self;
        let Rows { head_dim: d, offset, n, k, v, stride } = rows;
        assert!(head.keys.len() == BLOCK * d && head.values.len() == BLOCK * d && offset + n <= BLOCK);
        let mut piece = [T::zeroed(); BLOCK];
        for i in 0..n {
            let (k, v, at) = (&k[i * stride..][..d], &v[i * stride..][..d], offset + i);
            let (k_scale, v_scale) = (T::scale(k), T::scale(v));
            if T::SCALED {
                head.key_scales[at] = k_scale;
                head.value_scales[at] = v_scale;
            }
            for (k, keys) in k.chunks(BLOCK).zip(head.keys.chunks_mut(BLOCK * BLOCK)) {
                let piece = &mut piece[..k.len()];
                // SAFETY: the caller vouches for the features.
                unsafe { T::encode::<V>(k, k_scale, piece) };
                for (key, &x) in keys.chunks_exact_mut(BLOCK).zip(&*piece) {
                    key[at] = x;
                }
            }
            // SAFETY: the caller vouches for the features.
            unsafe { T::encode::<V>(v, v_scale, &mut head.values[at * d..][..d]) };
        }
        if n > 0 && offset + n == BLOCK {
            *head.bound = longest(head.keys, head.key_scales, head.values, head.value_scales);
        }
    }
}

/// The bound of a full block, see [`HeadBlock::bound`](super::HeadBlock::bound).
#[inline(always)]
fn longest<T: KvValue>(keys: &[T], key_scales: &[f32], values: &[T], value_scales: &[f32]) -> f32 {
    let mut squares = [0.0f32; BLOCK];
    for row in keys.as_chunks::<BLOCK>().0 {
        for j in 0..BLOCK {
            squares[j] += row[j].widen() * row[j].widen();
        }
    }
    // 0 as long as all is finite, then NaN.
    let mut odd = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for x in chunks {
        for l in 0..LANES {
            odd[l] += x[l].widen() * 0.0;
        }
    }
    let odd = odd.iter().sum::<f32>()
        + rest.iter().map(|x| x.widen() * 0.0).sum::<f32>()
        + value_scales.iter().map(|x| x * 0.0).sum::<f32>();
    let n = keys.len() / BLOCK;
    let mut max = 0.0f32;
    for j in 0..BLOCK {
        let scale = if T::SCALED { key_scales[j] } else { 1.0 };
        let length = at_least(squares[j], n) * scale;
        // Not `f32::max`, which passes over NaN.
        max = if length <= max { max } else { length };
        if !(max + odd).is_finite() {
            return f32::INFINITY;
        }
    }
    max
}
