//! How each type of the KV cache stores its values.

use crate::formats::F16;
use crate::formats::lanes::Widen;
use crate::kernels::vector::Vector;
use crate::kv::KvType;

/// A value in the KV cache. What a stored row means is `value * scale`, the scale being 1 where there is
/// none.
pub trait KvValue: bytemuck::Pod + Send + Sync {
    /// The type by name.
    const TYPE: KvType;
    /// Whether each row has a scale.
    const SCALED: bool;

    /// The stored number, without the scale.
    fn widen(self) -> f32;

    /// The scale for a row: 1 for unscaled types; NaN when a value of the row is not finite, so that this row
    /// alone becomes NaN.
    fn scale(row: &[f32]) -> f32;

    /// `x / scale`, rounded to nearest, ties to even; `scale` as [`Self::scale`] gave it.
    ///
    /// # Safety
    /// The CPU has the features of `V`.
    #[doc(hidden)]
    unsafe fn encode<V: Vector>(x: &[f32], scale: f32, to: &mut [Self]);

    /// Widens `V::LANES` stored numbers.
    ///
    /// # Safety
    /// They can be read at `from`, and the CPU has the features of `V`.
    #[doc(hidden)]
    unsafe fn load<V: Vector>(from: *const Self) -> V::F;
}

impl KvValue for f32 {
    const TYPE: KvType = KvType::F32;
    const SCALED: bool = false;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn scale(_: &[f32]) -> f32 {
        1.0
    }
    #[inline(always)]
    unsafe fn encode<V: Vector>(x: &[f32], _: f32, to: &mut [Self]) {
        to.copy_from_slice(x);
    }
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V::F {
        // SAFETY: the caller's duty.
        unsafe { V::fload(from) }
    }
}

impl KvValue for F16 {
    const TYPE: KvType = KvType::F16;
    const SCALED: bool = false;
    #[inline(always)]
    fn widen(self) -> f32 {
        Widen::widen(self)
    }
    #[inline(always)]
    fn scale(_: &[f32]) -> f32 {
        1.0
    }
    #[inline(always)]
    unsafe fn encode<V: Vector>(x: &[f32], _: f32, to: &mut [Self]) {
        assert_eq!(x.len(), to.len());
        let whole = x.len() - x.len() % V::LANES;
        for i in (0..whole).step_by(V::LANES) {
            // SAFETY: `i + LANES <= whole`, which is within both slices; the caller vouches for the features.
            unsafe { V::fstore_f16(to.as_mut_ptr().add(i).cast(), V::fload(x.as_ptr().add(i))) }
        }
        for (to, &x) in to[whole..].iter_mut().zip(&x[whole..]) {
            *to = F16::from_f32(x);
        }
    }
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V::F {
        // SAFETY: the caller's duty.
        unsafe { V::fload_f16(from.cast()) }
    }
}

impl KvValue for i8 {
    const TYPE: KvType = KvType::Q8;
    const SCALED: bool = true;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn scale(row: &[f32]) -> f32 {
        let max = row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        // `max` passes over a NaN; a product with 0 does not, nor over an infinity.
        let finite = row.iter().fold(0.0f32, |sum, x| sum + x * 0.0);
        max / 127.0 + finite
    }
    #[inline(always)]
    unsafe fn encode<V: Vector>(x: &[f32], scale: f32, to: &mut [Self]) {
        let inverse = 1.0 / scale;
        // Of a row too small for the inverse to be finite, or not finite itself, only the scale is kept.
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        // Adding 1.5 * 2^23 rounds |y| <= 127.5 to the nearest integer, ties to even, and leaves it in the
        // low bits.
        const ROUND: f32 = 12_582_912.0;
        for (to, &x) in to.iter_mut().zip(x) {
            *to = (x * inverse + ROUND).to_bits() as i8;
        }
    }
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V::F {
        // SAFETY: the caller's duty.
        unsafe { V::fload_i8(from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::portable::Portable;

    fn q8(x: &[f32]) -> (Vec<i8>, f32) {
        let scale = i8::scale(x);
        let mut to = vec![99i8; x.len()];
        // SAFETY: portable code needs no feature.
        unsafe { i8::encode::<Portable<4>>(x, scale, &mut to) };
        (to, scale)
    }

    #[test]
    fn q8_keeps_half_a_step_and_the_extremes() {
        let x: Vec<f32> = (-300..=300).map(|i| i as f32 * 0.0123).collect();
        let (q, scale) = q8(&x);
        assert_eq!((q[0], q[300], q[600]), (-127, 0, 127));
        for (q, x) in q.iter().zip(&x) {
            assert!((f32::from(*q) * scale - x).abs() <= 0.5001 * scale, "{q} {x}");
        }
        // Ties to even: 2.5 and 3.5 steps.
        assert_eq!(q8(&[127.0, 2.5, 3.5, -2.5]).0, [127, 2, 4, -2]);
    }

    #[test]
    fn q8_of_rows_that_have_no_step() {
        assert_eq!(q8(&[0.0, -0.0]), (vec![0, 0], 0.0));
        let (q, scale) = q8(&[1e-44, 0.0]);
        assert!(f32::from(q[0]) * scale <= 1e-43, "{q:?} {scale}");
        let (q, scale) = q8(&[f32::MAX, -f32::MAX]);
        assert!(q == [127, -127] && scale.is_finite());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (q, scale) = q8(&[1.0, bad, 2.0]);
            assert!(scale.is_nan(), "{bad}: {scale}");
            assert!(q.iter().all(|q| (f32::from(*q) * scale).is_nan()));
        }
    }
}
