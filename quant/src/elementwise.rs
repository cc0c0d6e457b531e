//! What a transformer does to single values and rows: LayerNorm, GELU, exponentials.

use crate::formats::lanes;
use crate::kernels::multiversion;

/// `e^x` to about 1 unit in the last place for `x` in -87.3..=88.7; below, 0 or a subnormal is given as the
/// smallest normal's neighbourhood (clamped at `x = -87.3`, 1.2e-38); above, clamped at 88.7. NaN stays NaN.
///
/// `e^x = 2^n e^r`, `n = round(x / ln 2)`, `|r| <= ln 2 / 2`; ln 2 in two parts so that `r` is exact, `e^r`
/// by its Taylor polynomial of degree 7 (remainder below 2^-31 of the value). No table, no branch: loops over
/// it vectorise.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HI: f32 = 0.693_359_4; // 355 / 512: n * LN2_HI is exact for |n| < 2^15
    const LN2_LO: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.7);
    let shifted = clamped * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HI) - n * LN2_LO;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    // 2^n in two factors: n = 128 has no float of its own.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let scale = |n: i32| f32::from_bits(((n.wrapping_add(127)) as u32) << 23);
    p * scale(half) * scale(n.wrapping_sub(half))
}

/// BLOOM's GELU: `x / 2 (1 + tanh(0.79788456 x (1 + 0.044715 x^2)))`, the constant rounded as in the
/// original.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6; // the f32 nearest to 0.79788456
    let u = SQRT_2_OVER_PI * x * (1.0 + 0.044715 * x * x);
    // 1 + tanh(u) = 2 / (1 + e^(-2u))
    // Below -100 the true value is 0 in f32, but `exp` is clamped, so the numerator has to be too.
    x.max(-100.0) / (1.0 + exp(-2.0 * u))
}

#[inline(always)]
fn bias_gelu_body(y: &mut [f32], bias: &[f32]) {
    for (y, b) in y.iter_mut().zip(bias) {
        *y = gelu(*y + *b);
    }
}

#[inline(always)]
fn layer_norm_body(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
    let n = x.len();
    let (y, weight, bias) = (&mut y[..n], &weight[..n], &bias[..n]);
    let mean = lanes::sum(n, |i| x[i]) / n as f32;
    let variance = lanes::sum(n, |i| {
        let d = x[i] - mean;
        d * d
    }) / n as f32;
    let scale = 1.0 / (variance + eps).sqrt();
    for i in 0..n {
        y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
    }
}

#[inline(always)]
fn exp_minus_body(x: &mut [f32], max: f32) -> f32 {
    for x in x.iter_mut() {
        *x = exp(*x - max);
    }
    lanes::sum(x.len(), |i| x[i])
}

multiversion! {
    /// `y = gelu(y + bias)`; `y`, `bias`: (n).
    pub fn bias_gelu(y: &mut [f32], bias: &[f32]) = bias_gelu_body;
}

multiversion! {
    /// LayerNorm: `y = (x - mean) / sqrt(variance + eps) * weight + bias`; all slices (n).
    ///
    /// # Panics
    /// When `y`, `weight` or `bias` is shorter than `x`.
    pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) = layer_norm_body;
}

multiversion! {
    /// `x = e^(x - max)`; gives the sum, taken in 16 lanes from the first element on.
    pub fn exp_minus(x: &mut [f32], max: f32) -> f32 = exp_minus_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    #[test]
    fn exp_is_within_two_units_of_the_last_place() {
        let mut worst = 0.0f64;
        let mut x = -87.0f32;
        while x < 88.0 {
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
            x += 0.001_37;
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 1.3e-38 && exp(f32::NEG_INFINITY) < 1.3e-38);
        assert!(exp(f32::INFINITY).is_finite() && exp(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_is_the_tanh_form() {
        for i in -2000..2000 {
            let x = i as f32 * 0.01;
            let f = f64::from(x);
            let exact = 0.5 * f * (1.0 + (0.79788456 * f * (1.0 + 0.044715 * f * f)).tanh());
            assert!((f64::from(gelu(x)) - exact).abs() <= 3e-6 * exact.abs().max(1e-3), "{x}: {}", gelu(x));
        }
        assert_eq!(gelu(1e30), 1e30);
        assert!(gelu(-1e30).abs() < 1e-30 && gelu(f32::NAN).is_nan());
    }

    #[test]
    fn layer_norm_has_mean_of_bias_and_deviation_of_weight_on_every_isa() {
        let x: Vec<f32> = (0..103).map(|i| ((i * 37) % 101) as f32 * 0.1 - 3.0).collect();
        let (w, b) = (vec![2.0; 103], vec![0.5; 103]);
        let mut scalar = vec![0.0; 103];
        layer_norm(Isa::SCALAR, &x, &w, &b, 0.0, &mut scalar);
        let mean = scalar.iter().sum::<f32>() / 103.0;
        let deviation = (scalar.iter().map(|y| (y - mean) * (y - mean)).sum::<f32>() / 103.0).sqrt();
        assert!((mean - 0.5).abs() < 1e-5 && (deviation - 2.0).abs() < 1e-5, "{mean} {deviation}");
        for isa in Isa::all() {
            let mut y = vec![0.0; 103];
            layer_norm(isa, &x, &w, &b, 0.0, &mut y);
            assert_eq!(y, scalar, "{isa}");
            let (mut p, mut q) = (x.clone(), x.clone());
            assert_eq!(exp_minus(isa, &mut p, 7.0), exp_minus(Isa::SCALAR, &mut q, 7.0), "{isa}");
            assert_eq!(p, q, "{isa}");
        }
    }
}
