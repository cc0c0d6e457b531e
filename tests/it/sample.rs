//! Sampling is Hugging Face's, and a draw depends on its seed and position only.

use std::sync::Arc;

use huozi::sample::{SampleError, Sampler, Sampling, SettingError, uniform};
use proptest::prelude::*;
use serde_json::Value;

fn all(n: usize) -> Arc<[bool]> {
    vec![false; n].into()
}

const PLAIN: Sampling =
    Sampling { do_sample: true, temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 };

fn floats(v: &Value) -> Vec<f32> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn ids(v: &Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

#[test]
fn sets_and_probabilities_are_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sampling.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 54);
    // One sampler for all: nothing may stay behind from case to case.
    let mut sampler = Sampler::new(all(300));
    for (i, case) in cases.iter().enumerate() {
        let number = |name: &str| case[name].as_f64().unwrap() as f32;
        let settings = Sampling {
            do_sample: true,
            temperature: number("temperature"),
            top_k: case["top_k"].as_u64().unwrap() as u32,
            top_p: number("top_p"),
            repetition_penalty: number("repetition_penalty"),
        };
        let (logits, seen) = (floats(&case["logits"]), ids(&case["history"]));
        let got = sampler.candidates(&logits, &seen, &settings).unwrap();
        let (got_ids, got_probs): (Vec<u32>, Vec<f32>) = got.into_iter().unzip();
        assert_eq!(got_ids, ids(&case["ids"]), "case {i}: {settings:?}");
        for (got, want) in got_probs.iter().zip(floats(&case["probs"])) {
            assert!((got - want).abs() <= 1e-5, "case {i}: {got} is not {want}");
        }
        let greedy = case["greedy"].as_u64().unwrap() as u32;
        for off in [
            Sampling { do_sample: false, ..settings },
            Sampling { temperature: 0.0, ..settings },
            Sampling { temperature: 1e-45, ..settings },
            Sampling { top_k: 1, temperature: 1.0, ..settings },
        ] {
            let got = sampler.sample(&logits, &seen, &off, 1, 2).unwrap();
            // With top_k 1 all that tie for the first place stay.
            let ties = off.top_k == 1 && sampler.candidates(&logits, &seen, &off).unwrap().len() > 1;
            assert!(got == greedy || ties, "case {i}: {off:?}");
        }
        for position in 0..20 {
            let drawn = sampler.sample(&logits, &seen, &settings, 7, position).unwrap();
            assert!(got_ids.contains(&drawn), "case {i}");
        }
    }
}

/// The order of operations written down plainly: full sorts, f64, no scratch.
fn plainly(logits: &[f32], never: &[bool], seen: &[u32], s: &Sampling) -> Vec<u32> {
    let mut l: Vec<(f32, u32)> = logits.iter().zip(0..).map(|(&x, i)| (x, i)).collect();
    for (x, id) in &mut l {
        if never[*id as usize] || x.is_nan() {
            *x = f32::NEG_INFINITY;
        }
        if seen.contains(id) {
            *x = if *x < 0.0 { *x * s.repetition_penalty } else { *x / s.repetition_penalty };
        }
        *x /= s.temperature;
    }
    l.retain(|(x, _)| *x > f32::NEG_INFINITY);
    l.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    if s.top_k > 0 && (s.top_k as usize) < l.len() {
        let least = l[s.top_k as usize - 1].0;
        l.retain(|(x, _)| *x >= least);
    }
    let max = f64::from(l[0].0);
    let weights: Vec<f64> = l.iter().map(|(x, _)| (f64::from(*x) - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut below = 0.0;
    let mut keep = l.len();
    if s.top_p < 1.0 {
        while keep > 1 {
            below += weights[keep - 1];
            if (below / total) as f32 > (1.0 - f64::from(s.top_p)) as f32 {
                break;
            }
            keep -= 1;
        }
    }
    let mut ids: Vec<u32> = l[..keep].iter().map(|&(_, id)| id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn large_rows_agree_with_the_plain_way() {
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    let value = prop_oneof![
        6 => (-80i32..80).prop_map(|x| x as f32 / 8.0), // many ties
        3 => -20f32..20.0,
        1 => prop::sample::select(vec![f32::NAN, f32::NEG_INFINITY, 0.0, -0.0]),
    ];
    proptest!(config, |(
        logits in prop::collection::vec(value, 1..6000),
        never in prop::collection::vec(prop::bool::weighted(0.1), 6000),
        seen in prop::collection::vec(0u32..6100, 0..50),
        top_k in prop_oneof![Just(0u32), 1u32..100, 1u32..5000],
        top_p in prop_oneof![Just(1.0f32), Just(0.0), 0.0f32..1.0, 0.999f32..1.0],
        temperature in prop_oneof![Just(1.0f32), 0.05f32..=5.0],
        repetition_penalty in prop_oneof![Just(1.0f32), 0.5f32..2.0],
    )| {
        let mut logits = logits;
        logits[0] = 1.0;
        let mut never = never;
        never[0] = false;
        let settings = Sampling { do_sample: true, temperature, top_k, top_p, repetition_penalty };
        let want = plainly(&logits, &never[..logits.len()], &seen, &settings);
        let mut sampler = Sampler::new(never.into());
        let got = sampler.candidates(&logits, &seen, &settings).unwrap();
        prop_assert!(got.windows(2).all(|w| w[0].1 >= w[1].1));
        prop_assert!((got.iter().map(|c| f64::from(c.1)).sum::<f64>() - 1.0).abs() < 1e-3);
        let mut got: Vec<u32> = got.into_iter().map(|c| c.0).collect();
        got.sort_unstable();
        prop_assert_eq!(got, want);
    });
}

#[test]
fn ids_that_must_never_be_chosen_never_are_and_do_not_count() {
    let mut never = vec![false; 6];
    never[1] = true;
    // Two more logits than the vocabulary has tokens: rows of padding.
    let logits = [1.0, 9.0, 3.0, 2.0, 0.0, -1.0, 50.0, 60.0];
    let mut sampler = Sampler::new(never.into());
    let top = |k| Sampling { top_k: k, ..PLAIN };
    let ids = |c: Vec<(u32, f32)>| c.into_iter().map(|c| c.0).collect::<Vec<_>>();
    assert_eq!(ids(sampler.candidates(&logits, &[1, 6, 7], &top(2)).unwrap()), [2, 3]);
    assert_eq!(ids(sampler.candidates(&logits, &[], &top(0)).unwrap()), [2, 3, 0, 4, 5]);
    assert_eq!(sampler.sample(&logits, &[], &Sampling { do_sample: false, ..PLAIN }, 0, 0), Ok(2));
    for position in 0..1000 {
        let id = sampler.sample(&logits, &[], &Sampling { temperature: 5.0, ..PLAIN }, 3, position);
        assert!(matches!(id, Ok(0 | 2 | 3 | 4 | 5)));
    }
}

#[test]
fn broken_logits_give_an_error_or_a_number_and_never_a_panic() {
    let mut sampler = Sampler::new(all(4));
    let nothing = Err(SampleError::Nothing { n_vocab: 4 });
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for settings in [
        PLAIN,
        Sampling::default(),
        Sampling { do_sample: false, ..PLAIN },
        Sampling { top_p: 0.0, top_k: u32::MAX, ..PLAIN },
        Sampling { temperature: 5.0, repetition_penalty: 5.0, ..PLAIN },
        Sampling { temperature: f32::MIN_POSITIVE, repetition_penalty: 0.01, ..PLAIN },
    ] {
        let mut sample = |l: &[f32]| sampler.sample(l, &[0, 0, 3, 9, u32::MAX], &settings, 5, 6);
        assert_eq!(sample(&[nan; 4]), nothing, "{settings:?}");
        assert_eq!(sample(&[-inf, nan, -inf, nan]), nothing, "{settings:?}");
        assert_eq!(sample(&[]), Err(SampleError::Nothing { n_vocab: 0 }));
        assert_eq!(sample(&[nan, nan, -3.0, nan]), Ok(2), "{settings:?}");
        assert_eq!(sample(&[nan, f32::MIN, nan, -inf]), Ok(1), "{settings:?}");
        assert!(sample(&[inf, inf, -inf, nan]).unwrap() < 2, "{settings:?}");
        assert!(sample(&[f32::MAX, f32::MIN, 0.0, 1e-45]).is_ok(), "{settings:?}");
    }
    assert_eq!(sampler.sample(&[0.0, inf, 1.0, f32::MIN], &[], &PLAIN, 5, 6), Ok(1));
}

#[test]
fn settings_are_checked() {
    let check = |s: Sampling| s.check().map_err(|e: SettingError| e.name);
    assert_eq!(check(Sampling::default()), Ok(()));
    assert_eq!(check(Sampling { temperature: 0.0, top_p: 0.0, repetition_penalty: 0.01, ..PLAIN }), Ok(()));
    assert_eq!(check(Sampling { temperature: 5.0, top_p: 1.0, repetition_penalty: 5.0, ..PLAIN }), Ok(()));
    for t in [-0.1, 5.01, f32::NAN, f32::INFINITY] {
        assert_eq!(check(Sampling { temperature: t, ..PLAIN }), Err("temperature"));
    }
    for p in [-0.1, 1.1, f32::NAN] {
        assert_eq!(check(Sampling { top_p: p, ..PLAIN }), Err("top_p"));
    }
    for r in [0.0, 0.009, 5.01, -1.0, f32::NAN, f32::INFINITY] {
        let s = Sampling { repetition_penalty: r, ..PLAIN };
        assert_eq!(check(s), Err("repetition_penalty"));
        let refused = Sampler::new(all(1)).sample(&[1.0], &[], &s, 0, 0);
        assert!(matches!(refused, Err(SampleError::Setting(_))));
    }
    let huozi = Sampling::default();
    assert_eq!((huozi.temperature, huozi.top_k, huozi.top_p), (0.5, 50, 0.95));
    assert!(huozi.do_sample && huozi.repetition_penalty == 1.03);
    let json = serde_json::to_string(&huozi).unwrap();
    assert_eq!(serde_json::from_str::<Sampling>(&json).unwrap(), huozi);
    let part: Sampling = serde_json::from_str(r#"{"top_k": 7, "unknown": 1}"#).unwrap();
    assert_eq!(part, Sampling { top_k: 7, ..huozi });
}

/// Chi-square over seeds at one position, and over positions with one seed.
#[test]
fn draws_follow_the_probabilities() {
    let logits: Vec<f32> = (0..12).map(|i| (i as f32 * 1.7).sin() * 2.0).collect();
    let settings = Sampling { temperature: 0.8, top_p: 0.97, ..PLAIN };
    let mut sampler = Sampler::new(all(12));
    let want = sampler.candidates(&logits, &[], &settings).unwrap();
    assert!(want.len() > 5 && want.len() < 12);
    const N: u64 = 100_000;
    for by_seed in [false, true] {
        let mut counts = [0u32; 12];
        for i in 0..N {
            let (seed, position) = if by_seed { (i, 100) } else { (42, i) };
            counts[sampler.sample(&logits, &[], &settings, seed, position).unwrap() as usize] += 1;
        }
        let chi: f64 = want
            .iter()
            .map(|&(id, p)| {
                let e = f64::from(p) * N as f64;
                (f64::from(counts[id as usize]) - e).powi(2) / e
            })
            .sum();
        // 99.99 % of fair draws with up to 11 degrees of freedom are below 38.
        assert!(chi < 38.0, "{chi} {counts:?} {want:?}");
        assert_eq!(counts.iter().sum::<u32>(), N as u32);
        let kept: u32 = want.iter().map(|c| counts[c.0 as usize]).sum();
        assert_eq!(kept, N as u32);
    }
}

#[test]
fn a_draw_depends_on_seed_and_position_only() {
    let logits: Vec<f32> = (0..500).map(|i| (i as f32 * 0.37).cos()).collect();
    let mut one = Sampler::new(all(500));
    let forward: Vec<u32> = (0..200).map(|p| one.sample(&logits, &[], &PLAIN, 9, p).unwrap()).collect();
    let mut other = Sampler::new(all(500));
    for p in (0..200).rev() {
        // What was sampled in between, with other settings, leaves no trace.
        other.sample(&[1.0, 2.0], &[0, 1], &Sampling::default(), p, p).unwrap();
        let again = other.sample(&logits, &[], &PLAIN, 9, p).unwrap();
        assert_eq!(again, forward[p as usize]);
    }
    let different =
        (0..200).filter(|&p| one.sample(&logits, &[], &PLAIN, 10, p).unwrap() != forward[p as usize]);
    assert!(different.count() > 150);
    let distinct: std::collections::HashSet<u32> = forward.into_iter().collect();
    assert!(distinct.len() > 120);
    // High halves count too, and the interval is half open.
    assert!(uniform(1, 0) != uniform(1 << 32, 0) && uniform(1, 1) != uniform(1, 1 << 32));
    assert!((0..10_000).all(|p| (0.0..1.0).contains(&uniform(p, 1))));
    // Saved conversations must draw the same with any later version.
    assert_eq!(uniform(0, 0), (0x6627_e8d5_e169_c58d_u64 >> 11) as f64 / (1u64 << 53) as f64);
}

#[test]
fn a_row_of_blooms_size_takes_a_moment() {
    let n = 250_880;
    let logits: Vec<f32> = (0..n as u64).map(|p| (uniform(1, p) * 20.0 - 10.0) as f32).collect();
    let seen: Vec<u32> = (0..2048).map(|i| i * 97).collect();
    let mut sampler = Sampler::new(all(n));
    for (name, s) in [
        ("default", Sampling::default()),
        ("greedy", Sampling { do_sample: false, ..PLAIN }),
        ("top_p alone", Sampling { top_k: 0, ..Sampling::default() }),
        ("nothing", PLAIN),
    ] {
        let start = std::time::Instant::now();
        for p in 0..20 {
            sampler.sample(&logits, &seen, &s, 1, p).unwrap();
        }
        let each = start.elapsed().as_secs_f64() * 1e3 / 20.0;
        eprintln!("{name}: {each:.2} ms");
        assert!(each < 200.0, "{name}: {each} ms");
    }
}
