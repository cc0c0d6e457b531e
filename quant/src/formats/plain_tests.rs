//! Tests of the formats with one table for all: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, IQ4_XS.

use super::iq4_nl::TABLE;
use super::*;
use crate::random::Random;

/// The distributions of the rows below.
trait Draw {
    fn laplace(&mut self) -> f64;
    fn row(&mut self, n: usize, scale: f64, draw: impl FnMut(&mut Self) -> f64) -> Vec<f32>;
}

impl Draw for Random {
    fn laplace(&mut self) -> f64 {
        let u = self.open_unit() - 0.5;
        -u.signum() * (1.0 - 2.0 * u.abs()).ln()
    }

    fn row(&mut self, n: usize, scale: f64, mut draw: impl FnMut(&mut Self) -> f64) -> Vec<f32> {
        (0..n).map(|_| (scale * draw(self)) as f32).collect()
    }
}

const PLAIN: [Format; 7] =
    [Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0, Format::IQ4_NL, Format::IQ4_XS];

fn encode(f: Format, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut b = vec![0xa5; f.row_bytes(x.len()).unwrap()];
    f.encode(x, importance, &mut b);
    b
}

fn decode(f: Format, b: &[u8]) -> Vec<f32> {
    let mut y = vec![7.0; b.len() / f.block_bytes() * f.block_weights()];
    f.decode(b, &mut y);
    y
}

fn round_trip(f: Format, x: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    decode(f, &encode(f, x, importance))
}

/// Runs the dot product of a plain format on bytes; activations are quantised here and given back decoded
/// too.
fn dot(f: Format, w: &[u8], x: &[f32]) -> (f32, Vec<f32>) {
    use bytemuck::{Zeroable, cast_slice};
    let mut back = vec![0.0; x.len()];
    if f.activation() == Activation::Q8K {
        let mut a = vec![q8_k::BlockQ8K::zeroed(); x.len() / 256];
        q8_k::quantize(x, &mut a);
        q8_k::decode(&a, &mut back);
        return (iq4_xs::dot(cast_slice(w), &a), back);
    }
    let mut a = vec![q8_a::BlockQ8A::zeroed(); x.len() / 32];
    q8_a::quantize(x, &mut a);
    q8_a::decode(&a, &mut back);
    let r = match f {
        Format::Q4_0 => q4_0::dot(cast_slice(w), &a),
        Format::Q4_1 => q4_1::dot(cast_slice(w), &a),
        Format::Q5_0 => q5_0::dot(cast_slice(w), &a),
        Format::Q5_1 => q5_1::dot(cast_slice(w), &a),
        Format::Q8_0 => q8_0::dot(cast_slice(w), &a),
        Format::IQ4_NL => iq4_nl::dot(cast_slice(w), &a),
        _ => unreachable!(),
    };
    (r, back)
}

fn hex(s: &str) -> Vec<u8> {
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn decoding_gives_the_bits_of_the_reference() {
    let mut seen = std::collections::HashMap::new();
    for line in include_str!("../../tests/fixtures/block-goldens.txt").lines() {
        let [name, block, expected] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let f = Format::from_name(name).unwrap();
        let got: Vec<u8> = decode(f, &hex(block)).iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(got, hex(expected), "{name}");
        *seen.entry(f).or_insert(0) += 1;
    }
    for f in PLAIN {
        assert!(seen[&f] >= 2, "{f}");
    }
}

/// Everything a weight of sub-block `sub` (of 32) can be, from the block's stored scales.
fn levels(f: Format, block: &[u8], sub: usize) -> Vec<f32> {
    let half = |at: usize| half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let (d, m) = (half(0), half(2));
    let table = || TABLE.iter().map(|&t| f32::from(t));
    match f {
        Format::Q4_0 => (-8..8).map(|q| q as f32 * d).collect(),
        Format::Q4_1 => (0..16).map(|q| q as f32 * d + m).collect(),
        Format::Q5_0 => (-16..16).map(|q| q as f32 * d).collect(),
        Format::Q5_1 => (0..32).map(|q| q as f32 * d + m).collect(),
        Format::Q8_0 => (-127..128).map(|q| q as f32 * d).collect(),
        Format::IQ4_NL => table().map(|t| d * t).collect(),
        Format::IQ4_XS => {
            let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * sub) & 3;
            let low = block[4 + sub / 2] >> (4 * (sub % 2)) & 15;
            let dl = d * (i32::from(low) + 16 * i32::from(high) - 32) as f32;
            table().map(|t| dl * t).collect()
        }
        _ => unreachable!(),
    }
}

#[test]
fn every_weight_gets_the_nearest_level_so_half_a_step_inside_the_range() {
    let mut r = Random::new(1);
    for f in PLAIN {
        for case in 0..60 {
            let scale = 10f64.powi(case % 9 - 5);
            let mut x = r.row(512, scale, if case % 2 == 0 { Random::gauss } else { Random::student4 });
            if case % 5 == 0 {
                x.iter_mut().for_each(|v| *v += (3.0 * scale) as f32);
            }
            let importance = r.row(512, 1.0, Random::open_unit);
            let bytes = encode(f, &x, (case % 3 == 0).then_some(&importance));
            let y = decode(f, &bytes);
            for (i, (&x, &y)) in x.iter().zip(&y).enumerate() {
                let block = &bytes[i / f.block_weights() * f.block_bytes()..][..f.block_bytes()];
                let levels = levels(f, block, i % f.block_weights() / 32);
                let nearest = levels.iter().map(|l| (x - l).abs()).fold(f32::INFINITY, f32::min);
                let slack = 1e-5 * levels.iter().fold(0.0f32, |a, l| a.max(l.abs()));
                assert!(
                    (x - y).abs() <= nearest + slack,
                    "{f} case {case}: {x} became {y}, {nearest} was possible"
                );
            }
        }
    }
}

#[test]
fn dot_products_agree_with_f64_on_random_and_extreme_blocks() {
    let mut r = Random::new(2);
    for f in PLAIN {
        let n = f.block_weights();
        for case in 0..400 {
            let blocks = [0, 1, 2, 3, 17][case % 5];
            let mut w: Vec<u8> = (0..blocks * f.block_bytes()).map(|_| r.bits() as u8).collect();
            for b in w.chunks_mut(f.block_bytes()) {
                match case / 5 % 4 {
                    0 => b.fill(0),
                    1 => b.fill(0xff),
                    2 => b.fill(0x80),
                    _ => {}
                }
                let scale = [0.01f32, -2.5, 3e-7, 0.0][case / 20 % 4];
                let halves = if matches!(f, Format::Q4_1 | Format::Q5_1) { 2 } else { 1 };
                for k in 0..halves {
                    let h = half::f16::from_f32(scale * (1.0 - 4.0 * k as f32));
                    b[2 * k..2 * k + 2].copy_from_slice(&h.to_le_bytes());
                }
            }
            let x = match case / 80 % 3 {
                0 => vec![1e3; blocks * n],
                1 => vec![-1e-3; blocks * n],
                _ => r.row(blocks * n, 4.0, Random::gauss),
            };
            let (got, a) = dot(f, &w, &x);
            let w = decode(f, &w);
            let terms = || w.iter().zip(&a).map(|(&w, &a)| f64::from(w) * f64::from(a));
            let (sum, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            // One rounding or two a block, and those of the running sum.
            let bound = size * 4e-7 * (blocks + 1) as f64;
            assert!((f64::from(got) - sum).abs() <= bound, "{f} case {case}: {got}, f64 says {sum}");
        }
        assert_eq!(dot(f, &[], &[]).0.to_bits(), 0, "{f}: nothing is +0");
    }
}

#[test]
fn activations_that_are_not_finite_give_nan_not_a_clean_number() {
    for f in PLAIN {
        let w = encode(f, &vec![1.0; 256], None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![0.5; 256];
            x[77] = bad;
            assert!(dot(f, &w, &x).0.is_nan(), "{f} with {bad}");
        }
    }
}

/// Rows of the embedded model's matrices, one in 24.
fn real_rows() -> Vec<Vec<f32>> {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../src/demo/model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&bytes[8..header]).unwrap();
    let list = |s: &str| -> Vec<usize> {
        let inside = &s[s.find('[').unwrap() + 1..s.find(']').unwrap()];
        inside.split(',').map(|n| n.trim().parse().unwrap()).collect()
    };
    let mut rows = Vec::new();
    for tensor in text.split("\"transformer.").skip(1) {
        let shape = list(&tensor[tensor.find("\"shape\"").unwrap()..]);
        let at = list(&tensor[tensor.find("\"data_offsets\"").unwrap()..]);
        if let [_, cols] = shape[..] {
            let data = &bytes[header + at[0]..header + at[1]];
            for row in data.chunks_exact(2 * cols).step_by(24) {
                rows.push(decode(Format::F16, row));
            }
        }
    }
    assert!(rows.len() > 300);
    rows
}

/// Relative root mean square error in percent, the squares weighted by `weight(x, column)`.
fn rmse(f: Format, rows: &[Vec<f32>], importance: Option<&[f32]>, weight: impl Fn(f64, usize) -> f64) -> f64 {
    let (mut e, mut s) = (0.0, 0.0);
    for x in rows {
        let y = round_trip(f, x, importance.map(|p| &p[..x.len()]));
        for (i, (&x, &y)) in x.iter().zip(&y).enumerate() {
            let (x, y) = (f64::from(x), f64::from(y));
            e += weight(x, i) * (x - y) * (x - y);
            s += weight(x, i) * x * x;
        }
    }
    100.0 * (e / s).sqrt()
}

/// Measured with this encoder, per format and data: plain error, error weighted by x^2, error weighted by
/// importance when that is given. All below ggml's on the same data: 8.62 7.85 4.28 3.79 0.538 7.63 7.69 for
/// the plain error on Gaussian rows.
const MEASURED: [(Format, [[f64; 3]; 4]); 7] = [
    (
        Format::Q4_0,
        [
            [8.0914, 4.4590, 7.5649],
            [10.3885, 3.8161, 10.0462],
            [11.3093, 2.9409, 10.8867],
            [8.6470, 4.2801, 8.0566],
        ],
    ),
    (
        Format::Q4_1,
        [
            [6.8925, 3.8243, 6.1982],
            [8.3498, 3.1198, 7.7040],
            [8.4826, 2.2368, 7.6483],
            [7.1470, 3.4839, 6.4681],
        ],
    ),
    (
        Format::Q5_0,
        [
            [3.9748, 2.1094, 3.7437],
            [5.1726, 1.7775, 4.9929],
            [5.6058, 1.3917, 5.2709],
            [4.2375, 2.1098, 4.0659],
        ],
    ),
    (
        Format::Q5_1,
        [
            [3.3533, 1.8487, 3.0240],
            [4.0634, 1.5106, 3.7270],
            [4.1073, 1.0696, 3.7447],
            [3.4777, 1.7180, 3.1352],
        ],
    ),
    (
        Format::Q8_0,
        [
            [0.4639, 0.2445, 0.4218],
            [0.6034, 0.2038, 0.5669],
            [0.6588, 0.1605, 0.6053],
            [0.4965, 0.2456, 0.4533],
        ],
    ),
    (
        Format::IQ4_NL,
        [
            [7.3280, 4.8630, 6.7527],
            [8.5548, 3.8428, 8.1018],
            [9.1644, 2.7558, 8.5204],
            [7.5330, 4.0607, 6.9885],
        ],
    ),
    (
        Format::IQ4_XS,
        [
            [7.3628, 4.9253, 6.7913],
            [8.5966, 3.9201, 8.1421],
            [9.2324, 2.8287, 8.5841],
            [7.5797, 4.1279, 7.0315],
        ],
    ),
];

#[test]
fn errors_stay_where_they_were_measured() {
    let mut r = Random::new(3);
    let mut rows =
        |draw: fn(&mut Random) -> f64| (0..32).map(|_| r.row(1024, 0.02, draw)).collect::<Vec<_>>();
    let data = [rows(Random::gauss), rows(Draw::laplace), rows(Random::student4), real_rows()];
    let importance: Vec<f32> = (0..1024).map(|_| r.gauss().exp() as f32).collect();
    let mut other = Vec::new();
    for (f, measured) in MEASURED {
        for ((rows, measured), name) in data.iter().zip(measured).zip(["gauss", "laplace", "student", "real"])
        {
            let got = [
                rmse(f, rows, None, |_, _| 1.0),
                rmse(f, rows, None, |x, _| x * x),
                rmse(f, rows, Some(&importance), |_, i| f64::from(importance[i])),
            ];
            eprintln!("{f:7} {name:8} {got:.4?}");
            for (got, measured) in got.iter().zip(measured) {
                if *got > measured * 1.002 + 5e-5 || *got < measured * 0.98 {
                    other.push(format!("{f} {name}: {got}, was {measured}"));
                }
            }
        }
    }
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn q4_0_is_within_two_per_cent_of_trying_every_f16_scale() {
    let mut r = Random::new(4);
    let (mut ours, mut best) = (0.0, 0.0);
    for _ in 0..100 {
        let x = r.row(32, 1.0, Random::gauss);
        let y = round_trip(Format::Q4_0, &x, None);
        let error = |y: &dyn Fn(f32) -> f32| x.iter().map(|&x| f64::from(x - y(x)).powi(2)).sum::<f64>();
        ours += x.iter().zip(&y).map(|(&x, &y)| f64::from(x - y).powi(2)).sum::<f64>();
        let top = x.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        let (from, to) = (F16::from_f32(top / 10.0).to_bits(), F16::from_f32(top / 4.0).to_bits());
        best += (from..to)
            .flat_map(|b| [b, b | 0x8000])
            .map(|b| {
                let d = half::f16::from_bits(b).to_f32();
                error(&|x| (x / d).round().clamp(-8.0, 7.0) * d)
            })
            .fold(f64::INFINITY, f64::min);
    }
    let ratio = (ours / best).sqrt();
    eprintln!("Q4_0 error over the best possible: {ratio:.4}");
    assert!((0.999..1.02).contains(&ratio), "{ratio}");
}

#[test]
fn encoders_take_any_value() {
    let mut r = Random::new(5);
    for f in PLAIN {
        assert!(round_trip(f, &[0.0; 256], None).iter().all(|&v| v == 0.0), "{f}: zeros");
        assert!(round_trip(f, &[-0.0; 256], Some(&[0.0; 256])).iter().all(|&v| v == 0.0), "{f}: -0");
        for tiny in [1e-45f32, 1e-40, 1e-30, 1e-9] {
            let y = round_trip(f, &vec![tiny; 256], None);
            assert!(y.iter().all(|&v| (v - tiny).abs() <= 6e-8), "{f}: {tiny}");
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = r.row(512, 1.0, Random::gauss);
            let clean = round_trip(f, &x, None);
            x[300] = bad;
            let y = round_trip(f, &x, None);
            let block = 300 / f.block_weights();
            for (i, v) in y.iter().enumerate() {
                assert_eq!(v.is_nan(), i / f.block_weights() == block, "{f}: weight {i} with {bad} at 300");
            }
            assert_eq!(clean.len(), y.len());
        }
        for huge in [1e5f32, 1e9, 1e20, f32::MAX] {
            let x: Vec<f32> = (0..256).map(|i| if i % 3 == 0 { huge } else { -huge }).collect();
            let y = round_trip(f, &x, None);
            assert!(y.iter().all(|v| v.is_finite()), "{f}: {huge}");
            assert!(x.iter().zip(&y).all(|(x, y)| x * y >= 0.0), "{f}: {huge} changes sign");
        }
        // Any bits at all, in weights and importance.
        for _ in 0..200 {
            let mut any = || (0..256).map(|_| f32::from_bits(r.bits() as u32)).collect::<Vec<_>>();
            let (x, p) = (any(), any());
            encode(f, &x, None);
            let tame: Vec<f32> = x.iter().map(|v| if v.is_finite() { *v } else { 1.0 }).collect();
            assert!(round_trip(f, &tame, Some(&p)).iter().all(|v| v.is_finite()), "{f}");
        }
        assert!(encode(f, &[], None).is_empty());
    }
}

#[test]
fn a_flat_block_is_kept_by_the_formats_with_a_minimum() {
    for f in [Format::Q4_1, Format::Q5_1] {
        for v in [3.5f32, -0.125, 60000.0] {
            assert!(round_trip(f, &[v; 32], None).iter().all(|&y| y == v), "{f}: {v}");
        }
    }
}

#[test]
fn important_columns_get_smaller_errors() {
    let mut r = Random::new(6);
    for f in PLAIN {
        let rows: Vec<_> = (0..16).map(|_| r.row(512, 0.02, Random::gauss)).collect();
        let importance: Vec<f32> = (0..512).map(|i| if i % 4 == 0 { 30.0 } else { 1.0 }).collect();
        let on = |p: Option<&[f32]>| rmse(f, &rows, p, |_, i| f64::from(importance[i]));
        let (with, without) = (on(Some(&importance)), on(None));
        assert!(with < 0.97 * without, "{f}: {with} against {without}");
        // Only ratios count, as far as f32 reaches.
        let scaled = |s: f32| importance.iter().map(|p| p * s).collect::<Vec<_>>();
        for x in &rows {
            let a = encode(f, x, Some(&importance));
            assert!(
                a == encode(f, x, Some(&scaled(1024.0))) && a == encode(f, x, Some(&scaled(2f32.powi(-100))))
            );
            assert!(encode(f, x, Some(&[0.0; 512])).len() == a.len());
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod isa {
    use super::*;

    fn avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    fn avx512() -> bool {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        avx2() && has && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni")
    }

    macro_rules! same {
        (
            $features:literal, $has:ident, $test:ident,
            $($module:ident $block:ident $act:ident $activation:ident;)*
        ) => {
            #[test]
            fn $test() {
                if !$has() {
                    eprintln!("{} is not on this machine: not run", $features);
                    return;
                }
                let mut r = Random::new(7);
                $({
                    #[target_feature(enable = $features)]
                    fn encode(x: &[f32], p: Option<&[f32]>, out: &mut [$module::$block]) {
                        $module::encode(x, p, out);
                    }
                    #[target_feature(enable = $features)]
                    fn dot(x: &[f32], w: &[$module::$block], a: &mut [$act::$activation]) -> f32 {
                        $act::quantize(x, a);
                        $module::dot(w, a)
                    }
                    for case in 0..20 {
                        let draw = if case % 2 == 0 { Random::gauss } else { Random::student4 };
                        let x = r.row(1024, 0.1, draw);
                        let p = r.row(1024, 1.0, Random::open_unit);
                        let p = (case % 3 == 0).then_some(&p[..]);
                        let n = 1024 / $act::N;
                        let zero: $module::$block = bytemuck::Zeroable::zeroed();
                        let (mut plain, mut wide) = (vec![zero; n], vec![zero; n]);
                        $module::encode(&x, p, &mut plain);
                        // SAFETY: the features are asked for at the head of this test.
                        unsafe { encode(&x, p, &mut wide) };
                        assert!(plain == wide, "{}: other bytes with {}", stringify!($module), $features);
                        let zero: $act::$activation = bytemuck::Zeroable::zeroed();
                        let (mut a, mut b) = (vec![zero; n], vec![zero; n]);
                        $act::quantize(&x, &mut a);
                        let narrow = $module::dot(&plain, &a);
                        // SAFETY: as above.
                        let broad = unsafe { dot(&x, &wide, &mut b) };
                        assert!(a == b && narrow.to_bits() == broad.to_bits(), "{}", stringify!($module));
                    }
                })*
            }
        };
    }
    same! { "avx2,fma", avx2, avx2_gives_the_same_bits,
        q4_0 BlockQ4_0 q8_a BlockQ8A; q4_1 BlockQ4_1 q8_a BlockQ8A;
        q5_0 BlockQ5_0 q8_a BlockQ8A; q5_1 BlockQ5_1 q8_a BlockQ8A;
        q8_0 BlockQ8_0 q8_a BlockQ8A; iq4_nl BlockIq4Nl q8_a BlockQ8A; iq4_xs BlockIq4Xs q8_k BlockQ8K;
    }
    same! { "avx512f,avx512bw,avx512vl,avx512vnni,fma", avx512, avx512_gives_the_same_bits,
        q4_0 BlockQ4_0 q8_a BlockQ8A; q4_1 BlockQ4_1 q8_a BlockQ8A;
        q5_0 BlockQ5_0 q8_a BlockQ8A; q5_1 BlockQ5_1 q8_a BlockQ8A;
        q8_0 BlockQ8_0 q8_a BlockQ8A; iq4_nl BlockIq4Nl q8_a BlockQ8A; iq4_xs BlockIq4Xs q8_k BlockQ8K;
    }
}

#[test]
fn activation_blocks_hold_what_their_pages_say() {
    use bytemuck::Zeroable;
    let mut r = Random::new(8);
    for case in 0..300 {
        let x = r.row(512, 10f64.powi(case % 80 - 42), Random::gauss);
        let (mut a, mut k) = (vec![q8_a::BlockQ8A::zeroed(); 16], vec![q8_k::BlockQ8K::zeroed(); 2]);
        q8_a::quantize(&x, &mut a);
        q8_k::quantize(&x, &mut k);
        let check = |x: &[f32], d: f32, qs: &[i8]| {
            let amax = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert_eq!(d, amax / 127.0);
            for (&x, &q) in x.iter().zip(qs) {
                let expected = if d == 0.0 { 0.0 } else { (x / d).round_ties_even().clamp(-127.0, 127.0) };
                assert_eq!(f32::from(q), expected, "{x} / {d}");
            }
        };
        for (b, x) in a.iter().zip(x.chunks(32)) {
            check(x, b.d, &b.qs);
            assert_eq!(b.sum, b.qs.iter().map(|&q| i32::from(q)).sum::<i32>());
        }
        for (b, x) in k.iter().zip(x.chunks(256)) {
            check(x, b.d, &b.qs);
            for (s, q) in b.bsums.iter().zip(b.qs.chunks(16)) {
                assert_eq!(i32::from(*s), q.iter().map(|&q| i32::from(q)).sum::<i32>());
            }
        }
    }
    // Ties go to even: 127 sets d = 1.
    let mut x = [0.0; 32];
    x[..6].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]);
    let mut a = [q8_a::BlockQ8A::zeroed()];
    q8_a::quantize(&x, &mut a);
    assert_eq!(a[0].qs[..6], [127, 0, 2, 2, 0, -2]);
    // The largest saturate the sums of Q8_K.
    let mut k = [q8_k::BlockQ8K::zeroed()];
    q8_k::quantize(&[-f32::MAX; 256], &mut k);
    assert_eq!(k[0].bsums, [-127 * 16; 16]);
}

#[test]
fn halves_of_every_bit_pattern() {
    for bits in 0..=u16::MAX {
        let reference = half::f16::from_bits(bits).to_f32();
        let got = F16::from_bits(bits).to_f32();
        assert!(got.to_bits() == reference.to_bits() || got.is_nan() && reference.is_nan(), "{bits:#06x}");
        assert_eq!(decode(Format::F16, &bits.to_le_bytes())[0].is_nan(), reference.is_nan());
        if !reference.is_nan() {
            assert_eq!(F16::from_f32(reference).to_bits(), bits);
            assert_eq!(encode(Format::F16, &[reference], None), bits.to_le_bytes());
        }
        let wide = f32::from_bits(u32::from(bits) << 16);
        assert_eq!(decode(Format::BF16, &bits.to_le_bytes())[0].to_bits(), wide.to_bits());
        if !wide.is_nan() {
            assert_eq!(encode(Format::BF16, &[wide], None), bits.to_le_bytes());
        }
    }
    // To nearest, ties to even; past the largest, infinity.
    let f16 = |x: f32| F16::from_f32(x).to_bits();
    assert_eq!([f16(1.0 + 1.0 / 2048.0), f16(1.0 + 3.0 / 2048.0)], [0x3c00, 0x3c02]);
    assert_eq!([f16(65519.0), f16(65520.0), f16(-65520.0)], [0x7bff, 0x7c00, 0xfc00]);
    assert_eq!([f16(2f32.powi(-25)), f16(2f32.powi(-25) * 1.01)], [0, 1]);
    let bf16 = |x: u32| encode(Format::BF16, &[f32::from_bits(x)], None);
    assert_eq!([bf16(0x3f80_8000), bf16(0x3f81_8000)], [vec![0x80, 0x3f], vec![0x82, 0x3f]]);
}

#[test]
fn narrowing_is_that_of_the_half_crate() {
    let mut r = Random::new(10);
    for i in 0..1 << 21 {
        // Any bits, then magnitudes around and inside what F16 holds.
        let any = r.bits() as u32;
        let bits =
            if i % 2 == 0 { any } else { (any & 0x83ff_ffff) | (0x3000_0000 + (any >> 4 & 0x1c00_0000)) };
        let x = f32::from_bits(bits);
        assert_eq!(F16::from_f32(x).to_bits(), half::f16::from_f32_const(x).to_bits(), "F16 of {bits:#010x}");
        let bf16 = bf16::BlockBf16::from_f32(x).0;
        assert_eq!(bf16, half::bf16::from_f32(x).to_le_bytes(), "BF16 of {bits:#010x}");
    }
}

#[test]
fn plain_floats_pass_unchanged_and_multiply() {
    let mut r = Random::new(9);
    for n in [0, 1, 15, 16, 17, 100] {
        let (x, a) = (r.row(n, 1.0, Random::gauss), r.row(n, 1.0, Random::gauss));
        assert_eq!(round_trip(Format::F32, &x, None), x);
        let dot = |f: Format| {
            let w = encode(f, &x, None);
            let got = match f {
                Format::F32 => f32::dot(bytemuck::cast_slice(&w), &a),
                Format::F16 => f16::dot(bytemuck::cast_slice(&w), &a),
                _ => bf16::dot(bytemuck::cast_slice(&w), &a),
            };
            let exact: f64 = decode(f, &w).iter().zip(&a).map(|(&w, &a)| f64::from(w) * f64::from(a)).sum();
            assert!((f64::from(got) - exact).abs() < 1e-5, "{f}, {n}: {got} {exact}");
        };
        [Format::F32, Format::F16, Format::BF16].into_iter().for_each(dot);
    }
}
