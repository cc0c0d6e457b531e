//! Tests that hold for each of Q2_K to Q6_K.

#![allow(clippy::print_stdout, reason = "tests say what they measured and what they skipped")]

use super::*;
use crate::formats::q8_k::BlockQ8K;
use crate::formats::{F16, Format, q2_k, q3_k, q4_k, q5_k, q6_k};
use crate::random::Random;

const FORMATS: [Format; 5] = [Format::Q2_K, Format::Q3_K, Format::Q4_K, Format::Q5_K, Format::Q6_K];

/// Heavy tails: normal over the root of a small chi-square. No library function, so the same bits on every
/// machine.
fn heavy(r: &mut Random) -> f32 {
    let chi: f32 = (0..4).map(|_| r.normal().powi(2)).sum();
    r.normal() / (chi / 4.0 + 1e-3).sqrt()
}

fn decode(f: Format, blocks: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; blocks.len() / f.block_bytes() * N];
    f.decode(blocks, &mut out);
    out
}

fn encode(f: Format, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0xaa; f.row_bytes(x.len()).unwrap()];
    f.encode(x, importance, &mut out);
    out
}

fn dot(f: Format, w: &[u8], a: &[BlockQ8K]) -> f32 {
    match f {
        Format::Q2_K => q2_k::dot(bytemuck::cast_slice(w), a),
        Format::Q3_K => q3_k::dot(bytemuck::cast_slice(w), a),
        Format::Q4_K => q4_k::dot(bytemuck::cast_slice(w), a),
        Format::Q5_K => q5_k::dot(bytemuck::cast_slice(w), a),
        Format::Q6_K => q6_k::dot(bytemuck::cast_slice(w), a),
        _ => unreachable!(),
    }
}

/// Where `d` and, with mins, `dmin` lie in a block.
fn halves(f: Format) -> &'static [usize] {
    match f {
        Format::Q2_K => &[80, 82],
        Format::Q3_K => &[108],
        Format::Q4_K | Format::Q5_K => &[0, 2],
        _ => &[208],
    }
}

fn activations(blocks: usize, mut value: impl FnMut(usize) -> i8, d: f32) -> Vec<BlockQ8K> {
    (0..blocks)
        .map(|k| {
            let qs: [i8; N] = std::array::from_fn(|i| value(N * k + i));
            let bsums = std::array::from_fn(|s| qs[16 * s..16 * s + 16].iter().map(|&q| i16::from(q)).sum());
            BlockQ8K { d, qs, bsums }
        })
        .collect()
}

#[test]
fn decodes_bit_for_bit_like_the_reference() {
    let golden = include_bytes!("../../tests/fixtures/k_golden.bin");
    let mut rest = &golden[..];
    for f in FORMATS {
        let (blocks, after) = rest.split_at(3 * f.block_bytes());
        let (floats, after) = after.split_at(3 * N * 4);
        rest = after;
        for (i, (got, expected)) in decode(f, blocks).iter().zip(floats.as_chunks::<4>().0).enumerate() {
            let expected = f32::from_le_bytes(*expected);
            let same = got.to_bits() == expected.to_bits();
            assert!(same, "{f} weight {i}: {got:e}, expected {expected:e}");
        }
    }
    assert!(rest.is_empty());
}

/// `dot` against f64 over the decoded weights; the bound is a few roundings of the sum of magnitudes.
fn check_dot(f: Format, w: &[u8], a: &[BlockQ8K], what: &str) {
    let weights = decode(f, w);
    let (mut sum, mut magnitude) = (0.0f64, 0.0f64);
    for (i, &w) in weights.iter().enumerate() {
        let b = &a[i / N];
        let term = f64::from(w) * f64::from(b.d) * f64::from(b.qs[i % N]);
        sum += term;
        magnitude += term.abs();
    }
    let got = dot(f, w, a);
    // Mins of a block cancel against its scales, so the terms of a weight are larger than the weight.
    let slack: f64 = match halves(f) {
        [_, m] => w
            .chunks(f.block_bytes())
            .zip(a)
            .map(|(b, a)| {
                let dmin = bytemuck::pod_read_unaligned::<F16>(&b[*m..m + 2]).to_f32();
                f64::from(dmin.abs()) * 63.0 * 127.0 * 256.0 * f64::from(a.d)
            })
            .sum(),
        _ => 0.0,
    };
    let bound = 4e-7 * (magnitude + slack) + 1e-30;
    assert!((f64::from(got) - sum).abs() <= bound, "{f} {what}: {got:e}, expected {sum:e} +- {bound:e}");
}

#[test]
fn dot_agrees_with_f64_on_random_blocks() {
    let mut r = Random::new(1);
    for f in FORMATS {
        for blocks in [0, 1, 2, 3, 16] {
            for _ in 0..20 {
                let mut w: Vec<u8> = (0..blocks * f.block_bytes()).map(|_| r.bits() as u8).collect();
                for block in w.chunks_mut(f.block_bytes()) {
                    for &h in halves(f) {
                        let d = bytemuck::cast::<_, [u8; 2]>(F16::from_f32(r.normal() * 0.01));
                        block[h..h + 2].copy_from_slice(&d);
                    }
                }
                // One block more than there are weights: it must not count.
                let a = activations(blocks + 1, |_| (r.bits() % 255) as i8, 0.037);
                check_dot(f, &w, &a, "random");
                if blocks == 0 {
                    assert_eq!(dot(f, &w, &a).to_bits(), 0.0f32.to_bits());
                }
            }
        }
    }
}

#[test]
fn dot_agrees_with_f64_on_extreme_blocks() {
    for f in FORMATS {
        for byte in [0x00, 0xff, 0x80, 0x7f, 0x3f, 0xf0, 0x0f] {
            // Largest finite, one, smallest normal, smallest subnormal, zero.
            for d in [65504.0, 1.0, 6.103_515_6e-5, 5.960_464_5e-8, 0.0] {
                for q in [127, -127, -128, 0, 1] {
                    let mut w = vec![byte; 2 * f.block_bytes()];
                    for block in w.chunks_mut(f.block_bytes()) {
                        for &h in halves(f) {
                            let d = bytemuck::cast::<_, [u8; 2]>(F16::from_f32(d));
                            block[h..h + 2].copy_from_slice(&d);
                        }
                    }
                    check_dot(f, &w, &activations(2, |_| q, 1.0), &format!("bytes {byte:#x} d {d:e} q {q}"));
                    check_dot(f, &w, &activations(2, |i| if i % 3 == 0 { q } else { 0 }, 1e-3), "some");
                }
            }
        }
    }
}

/// Largest error of a weight as a part of the largest weight of its super-block: a step of the coarsest
/// sub-block.
fn worst(f: Format) -> f32 {
    match f {
        Format::Q2_K => 0.40,
        Format::Q3_K => 0.21,
        Format::Q4_K => 0.08,
        Format::Q5_K => 0.037,
        _ => 0.022,
    }
}

#[test]
fn a_round_trip_stays_within_a_step() {
    let mut r = Random::new(2);
    for f in FORMATS {
        let mut seen = 0.0f32;
        for case in 0..200 {
            let scale = [1e-3, 0.02, 1.0, 900.0][case % 4];
            let x: Vec<f32> = (0..N)
                .map(|i| match case % 5 {
                    0 => heavy(&mut r),
                    1 => r.normal(),
                    2 => r.unit() + 0.5,
                    3 => -r.unit() - 0.2,
                    _ => r.normal() * ((i / 16) as f32),
                } * scale)
                .collect();
            let top = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (x, y) in x.iter().zip(decode(f, &encode(f, &x, None))) {
                seen = seen.max((x - y).abs() / top);
            }
        }
        println!("{f}: largest error {seen:.4} of the block's largest weight");
        assert!(seen <= worst(f), "{f}: {seen}");
    }
}

/// Rows of a trained matrix of the embedded model, 256 columns.
fn trained() -> Vec<f32> {
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../src/demo/model.safetensors")).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&file[8..8 + header]).unwrap();
    let entry = &text[text.find("h.2.mlp.dense_h_to_4h.weight").unwrap()..];
    let offsets = &entry[entry.find("data_offsets").unwrap()..];
    let mut numbers = offsets[offsets.find('[').unwrap() + 1..offsets.find(']').unwrap()].split(',');
    let mut number = || 8 + header + numbers.next().unwrap().trim().parse::<usize>().unwrap();
    let bytes = &file[number()..number()];
    bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
}

/// Error over magnitude, both weighted.
fn relative_error(f: Format, x: &[f32], importance: Option<&[f32]>) -> f64 {
    let y = decode(f, &encode(f, x, importance));
    let (mut error, mut power) = (0.0, 0.0);
    for (i, (&x, y)) in x.iter().zip(y).enumerate() {
        let w = importance.map_or(1.0, |w| f64::from(w[i]));
        error += w * f64::from(x - y).powi(2);
        power += w * f64::from(x).powi(2);
    }
    (error / power).sqrt()
}

#[test]
fn encoders_are_as_good_as_measured() {
    let mut r = Random::new(3);
    let normal: Vec<f32> = (0..N * 256).map(|_| r.normal() * 0.02).collect();
    let heavy: Vec<f32> = (0..N * 256).map(|_| heavy(&mut r) * 0.02).collect();
    let importance: Vec<f32> = (0..N * 256).map(|_| r.normal().exp()).collect();
    let positive: Vec<f32> = (0..N * 256).map(|_| 1.0 + r.unit()).collect();
    let trained = trained();
    assert_eq!(trained.len(), 1024 * 256);
    let measured = FORMATS.map(|f| {
        [
            relative_error(f, &normal, None),
            relative_error(f, &heavy, None),
            relative_error(f, &trained, None),
            relative_error(f, &normal, Some(&importance)),
            relative_error(f, &positive, None),
        ]
    });
    println!("{measured:.5?}");
    for (f, (got, limits)) in FORMATS.into_iter().zip(measured.iter().zip(LIMITS)) {
        for (got, limit) in got.iter().zip(limits) {
            assert!(*got <= limit * 1.002 + 5e-6, "{f}: {got}, was {limit}");
            assert!(*got >= limit * 0.98, "{f}: {got}, was {limit}: set the new figure");
        }
    }
}

/// Measured: normal, heavy-tailed, trained rows, normal rows with importance (weighted), uniform rows in
/// 1..2.
const LIMITS: [[f64; 5]; 5] = [
    [0.27684, 0.31734, 0.28166, 0.23292, 0.09460],
    [0.14517, 0.17818, 0.14776, 0.13146, 0.07784],
    [0.06965, 0.08418, 0.07100, 0.06327, 0.02219],
    [0.03427, 0.04122, 0.03485, 0.03134, 0.01096],
    [0.01701, 0.02171, 0.01739, 0.01566, 0.00974],
];

#[test]
fn importance_moves_the_error_to_columns_that_matter_less() {
    let mut r = Random::new(4);
    let x: Vec<f32> = (0..N * 64).map(|_| r.normal()).collect();
    let importance: Vec<f32> = (0..x.len()).map(|i| if i % 4 == 0 { 100.0 } else { 1.0 }).collect();
    let important = |y: &[f32]| -> f64 {
        x.iter().zip(y).step_by(4).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt()
    };
    for f in FORMATS {
        let without = important(&decode(f, &encode(f, &x, None)));
        let with = important(&decode(f, &encode(f, &x, Some(&importance))));
        println!("{f}: {:.3}", with / without);
        assert!(with < 0.9 * without, "{f}: {with} against {without}");
        // Only proportions count, and nothing in the numbers can make them useless.
        let scaled: Vec<f32> = importance.iter().map(|w| w * 1024.0).collect();
        assert_eq!(encode(f, &x, Some(&importance)), encode(f, &x, Some(&scaled)));
        for odd in [0.0, f32::NAN, f32::INFINITY, -1.0, 1e-42, f32::MAX] {
            let y = decode(f, &encode(f, &x, Some(&vec![odd; x.len()])));
            assert!(important(&y) < 3.0 * without, "{f} importance {odd}");
        }
    }
}

#[test]
fn any_float_encodes_to_finite_weights() {
    let mut r = Random::new(5);
    for f in FORMATS {
        for odd in
            [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX, -f32::MAX, 1e-45, -1e-40, 1e-8, 1e6, 1e10]
        {
            let all = vec![odd; 2 * N];
            let mut one: Vec<f32> = (0..2 * N).map(|_| r.normal()).collect();
            one[37] = odd;
            for x in [all, one] {
                for importance in [None, Some(&vec![0.5; 2 * N][..])] {
                    let y = decode(f, &encode(f, &x, importance));
                    assert!(y.iter().all(|y| y.is_finite()), "{f} with {odd}");
                    // A NaN is a zero to its super-block, and the other one knows nothing of it.
                    let bytes = encode(f, &x, importance);
                    let zeroed: Vec<f32> = x.iter().map(|&v| if v.is_nan() { 0.0 } else { v }).collect();
                    assert!(bytes == encode(f, &zeroed, importance), "{f} with {odd}");
                    let alone = encode(f, &x[N..], importance.map(|w| &w[N..]));
                    assert!(bytes[f.block_bytes()..] == alone, "{f} with {odd}");
                }
            }
        }
        // Beyond what a block holds: the largest it holds, near enough.
        let y = decode(f, &encode(f, &[-1e30; N], None));
        assert!(y.iter().all(|&y| y < -9e5), "{f}: {y:?}");
        // Nothing but zeros or too small to hold: zeros.
        for tiny in [0.0, -0.0, 1e-45, 1e-38, 2e-8] {
            assert!(decode(f, &encode(f, &[tiny; N], None)).iter().all(|&y| y == 0.0), "{f} {tiny:e}");
        }
        // d is subnormal here: coarse, but the weights are still there.
        let x: Vec<f32> = (0..N).map(|_| r.normal() * 3e-6).collect();
        let e = relative_error(f, &x, None);
        assert!(e < 0.45, "{f}: {e}");
        assert!(decode(f, &encode(f, &[], None)).is_empty());
    }
}

#[test]
fn equal_weights_are_exact_or_nearly() {
    for f in FORMATS {
        for value in [1.0f32, -1.0, 0.37, -0.0213] {
            for (i, y) in decode(f, &encode(f, &[value; N], None)).into_iter().enumerate() {
                assert!((y - value).abs() <= value.abs() * 1e-3, "{f} {value} at {i}: {y}");
            }
        }
    }
}

fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// FNV-1a of the encoded rows below, without and with importance. The same on every machine; a change of an
/// encoder on purpose changes these.
const FINGERPRINTS: [[u64; 2]; 5] = [
    [0x1c50_cb6b_9f58_c247, 0xc6ee_8829_59ca_ddf4],
    [0xa3bb_da29_c3f2_b511, 0x9de5_b617_9938_974a],
    [0xdd9c_56b9_d184_a3fc, 0xa3db_4a71_01c2_7064],
    [0x95f9_d865_e730_a0fd, 0xd8b8_5e6e_4f5b_3902],
    [0xb121_16e9_3829_3c15, 0x7b81_f603_df62_a44d],
];

#[test]
fn encoders_write_the_same_bytes_on_every_machine() {
    let mut r = Random::new(6);
    // Sub-blocks of zeros among them: there every candidate ties.
    let scale = |i: usize| if i / 32 % 5 == 3 { 0.0 } else { (1 + i / N) as f32 };
    let x: Vec<f32> = (0..N * 32).map(|i| r.normal() * scale(i)).collect();
    let importance: Vec<f32> = (0..x.len()).map(|_| r.unit()).collect();
    let got = FORMATS.map(|f| [None, Some(&importance[..])].map(|w| fingerprint(&encode(f, &x, w))));
    assert_eq!(got, FINGERPRINTS, "{got:#018x?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn encoders_and_dots_give_the_same_bits_with_wider_vectors() {
    macro_rules! wide {
        ($module:ident, $block:ident, $features:literal) => {{
            #[target_feature(enable = $features)]
            fn encode(x: &[f32], w: Option<&[f32]>, out: &mut [$module::$block]) {
                $module::encode(x, w, out);
            }
            #[target_feature(enable = $features)]
            fn dot(w: &[$module::$block], a: &[BlockQ8K]) -> f32 {
                $module::dot(w, a)
            }
            let mut r = Random::new(7);
            let x: Vec<f32> = (0..N * 32).map(|_| heavy(&mut r)).collect();
            let importance: Vec<f32> = (0..x.len()).map(|_| r.unit()).collect();
            let a = activations(32, |_| (r.bits() % 255) as i8, 0.01);
            for w in [None, Some(&importance[..])] {
                let mut plain = vec![bytemuck::Zeroable::zeroed(); 32];
                let mut wide = plain.clone();
                $module::encode(&x, w, &mut plain);
                // SAFETY: the features were detected by the caller of this macro.
                unsafe { encode(&x, w, &mut wide) };
                assert_eq!(plain, wide);
                // SAFETY: as above.
                let product = unsafe { dot(&plain, &a) };
                assert_eq!($module::dot(&plain, &a).to_bits(), product.to_bits());
            }
        }};
    }
    macro_rules! all {
        ($features:literal) => {
            wide!(q2_k, BlockQ2K, $features);
            wide!(q3_k, BlockQ3K, $features);
            wide!(q4_k, BlockQ4K, $features);
            wide!(q5_k, BlockQ5K, $features);
            wide!(q6_k, BlockQ6K, $features);
        };
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        all!("avx2,fma");
    } else {
        println!("skipped: no AVX2");
    }
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
    {
        all!("avx512f,avx512bw,avx512vl,fma");
    } else {
        println!("skipped: no AVX-512");
    }
}
