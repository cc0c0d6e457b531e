//! Every tensor's type, for every preset, on three shapes, against tables written out by hand from the rules.

use std::collections::BTreeMap;

use huozi_convert::config::Config;
use huozi_convert::names::{TensorRole, targets};
use huozi_convert::plan::{Preset, PresetOptions, format};
use huozi_quant::formats::Format;

const NONE: PresetOptions = PresetOptions { pure: false, output: None, embedding: None, imatrix: false };

fn config(n_embd: u64, n_layer: u64, n_head: u64, n_vocab: u64) -> Config {
    Config { n_vocab, n_embd, n_layer, n_head, n_ctx: 2048, eps: 1e-5, tied: None, name: None }
}

/// One line: preset, embedding when tied, embedding when not, output, then attn_qkv, ffn_down, attn_output,
/// ffn_up as
/// `TYPE` or `TYPE:layers,OTHER` ("OTHER" for the layers not listed; `a-b` is a range).
type Line = [&'static str; 8];

fn parse(cell: &str, n_layer: u64) -> Vec<Format> {
    let one = |name: &str| Format::from_name(name).unwrap_or_else(|| panic!("{name}"));
    let Some((special, rest)) = cell.split_once(" else ") else { return vec![one(cell); n_layer as usize] };
    let mut all = vec![one(rest); n_layer as usize];
    let (name, layers) = special.split_once(" in ").unwrap();
    for part in layers.split(' ') {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        all[a.parse().unwrap()..=b.parse().unwrap()].fill(one(name));
    }
    all
}

fn check(config: &Config, table: &[Line]) {
    let mut seen = Vec::new();
    for line in table {
        let [name, tied_embd, untied_embd, output, qkv, down, out, up] = *line;
        let preset = Preset::from_name(name).unwrap();
        seen.push(preset);
        let [qkv, down, out, up] = [qkv, down, out, up].map(|cell| parse(cell, config.n_layer));
        for tied in [true, false] {
            for target in targets(config, !tied) {
                let got = format(preset, NONE, target.role, config.n_layer, target.cols, tied);
                let expected = match target.role {
                    TensorRole::Vector => Format::F32,
                    TensorRole::TokenEmbd => parse(if tied { tied_embd } else { untied_embd }, 1)[0],
                    TensorRole::Output => parse(output, 1)[0],
                    TensorRole::AttnQkv(i) => qkv[i as usize],
                    TensorRole::FfnDown(i) => down[i as usize],
                    TensorRole::AttnOutput(i) => out[i as usize],
                    TensorRole::FfnUp(i) => up[i as usize],
                };
                assert_eq!(got, expected, "{name}, tied {tied}: {}", target.name);
            }
        }
    }
    for preset in Preset::ALL {
        assert!(seen.contains(preset), "{preset} is not in the table");
    }
}

#[test]
fn bloom_7b1() {
    // n = 30: n/16 = 1, n/8 = 3, 7n/8 = 26.
    const MORE: &str = "0-2 5 8 11 14 17 20 23 26-29";
    let q4_more = &*format!("Q6_K in {MORE} else Q4_K").leak();
    let q5_more = &*format!("Q6_K in {MORE} else Q5_K").leak();
    check(
        &config(4096, 30, 32, 250_880),
        &[
            ["F32", "F32", "F32", "F32", "F32", "F32", "F32", "F32"],
            ["F16", "F16", "F16", "F16", "F16", "F16", "F16", "F16"],
            ["BF16", "BF16", "BF16", "BF16", "BF16", "BF16", "BF16", "BF16"],
            ["Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0"],
            ["Q4_0", "Q6_K", "Q4_0", "Q6_K", "Q4_0", "Q4_0", "Q4_0", "Q4_0"],
            ["Q4_1", "Q6_K", "Q4_1", "Q6_K", "Q4_1", "Q4_1", "Q4_1", "Q4_1"],
            ["Q5_0", "Q6_K", "Q5_0", "Q6_K", "Q5_0", "Q5_0", "Q5_0", "Q5_0"],
            ["Q5_1", "Q6_K", "Q5_1", "Q6_K", "Q5_1", "Q5_1", "Q5_1", "Q5_1"],
            ["Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K"],
            ["Q2_K", "Q6_K", "Q2_K", "Q6_K", "Q3_K", "Q3_K", "Q3_K", "Q2_K"],
            ["Q3_K_S", "Q6_K", "Q3_K", "Q6_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K"],
            [
                "Q3_K_M",
                "Q6_K",
                "Q3_K",
                "Q6_K",
                "Q5_K in 0 1 else Q4_K",
                "Q5_K in 0 else Q4_K",
                "Q4_K",
                "Q3_K",
            ],
            ["Q3_K_L", "Q6_K", "Q3_K", "Q6_K", "Q5_K", "Q5_K", "Q5_K", "Q3_K"],
            [
                "Q4_K_S",
                "Q6_K",
                "Q4_K",
                "Q6_K",
                "Q5_K in 0-3 else Q4_K",
                "Q5_K in 0-2 else Q4_K",
                "Q4_K",
                "Q4_K",
            ],
            ["Q4_K_M", "Q6_K", "Q4_K", "Q6_K", q4_more, q4_more, "Q4_K", "Q4_K"],
            ["Q5_K_S", "Q6_K", "Q5_K", "Q6_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K"],
            ["Q5_K_M", "Q6_K", "Q5_K", "Q6_K", q5_more, q5_more, "Q5_K", "Q5_K"],
            ["IQ4_NL", "Q6_K", "IQ4_NL", "Q6_K", "IQ4_NL", "Q5_K in 0-2 else IQ4_NL", "IQ4_NL", "IQ4_NL"],
            ["IQ4_XS", "Q6_K", "IQ4_XS", "Q6_K", "IQ4_XS", "Q5_K in 0-2 else IQ4_XS", "IQ4_XS", "IQ4_XS"],
        ],
    );
}

#[test]
fn nano() {
    // n = 6: n/16 = 0, n/8 = 0, 7n/8 = 5; more bits in 2 (2 % 3) and 5.
    check(
        &config(256, 6, 4, 6144),
        &[
            ["F32", "F32", "F32", "F32", "F32", "F32", "F32", "F32"],
            ["F16", "F16", "F16", "F16", "F16", "F16", "F16", "F16"],
            ["BF16", "BF16", "BF16", "BF16", "BF16", "BF16", "BF16", "BF16"],
            ["Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0"],
            ["Q4_0", "Q6_K", "Q4_0", "Q6_K", "Q4_0", "Q4_0", "Q4_0", "Q4_0"],
            ["Q4_1", "Q6_K", "Q4_1", "Q6_K", "Q4_1", "Q4_1", "Q4_1", "Q4_1"],
            ["Q5_0", "Q6_K", "Q5_0", "Q6_K", "Q5_0", "Q5_0", "Q5_0", "Q5_0"],
            ["Q5_1", "Q6_K", "Q5_1", "Q6_K", "Q5_1", "Q5_1", "Q5_1", "Q5_1"],
            ["Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K"],
            ["Q2_K", "Q6_K", "Q2_K", "Q6_K", "Q3_K", "Q3_K", "Q3_K", "Q2_K"],
            ["Q3_K_S", "Q6_K", "Q3_K", "Q6_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K"],
            ["Q3_K_M", "Q6_K", "Q3_K", "Q6_K", "Q5_K in 0 1 else Q4_K", "Q4_K", "Q4_K", "Q3_K"],
            ["Q3_K_L", "Q6_K", "Q3_K", "Q6_K", "Q5_K", "Q5_K", "Q5_K", "Q3_K"],
            ["Q4_K_S", "Q6_K", "Q4_K", "Q6_K", "Q5_K in 0-3 else Q4_K", "Q4_K", "Q4_K", "Q4_K"],
            [
                "Q4_K_M",
                "Q6_K",
                "Q4_K",
                "Q6_K",
                "Q6_K in 2 5 else Q4_K",
                "Q6_K in 2 5 else Q4_K",
                "Q4_K",
                "Q4_K",
            ],
            ["Q5_K_S", "Q6_K", "Q5_K", "Q6_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K"],
            [
                "Q5_K_M",
                "Q6_K",
                "Q5_K",
                "Q6_K",
                "Q6_K in 2 5 else Q5_K",
                "Q6_K in 2 5 else Q5_K",
                "Q5_K",
                "Q5_K",
            ],
            ["IQ4_NL", "Q6_K", "IQ4_NL", "Q6_K", "IQ4_NL", "IQ4_NL", "IQ4_NL", "IQ4_NL"],
            ["IQ4_XS", "Q6_K", "IQ4_XS", "Q6_K", "IQ4_XS", "IQ4_XS", "IQ4_XS", "IQ4_XS"],
        ],
    );
}

#[test]
fn sixty_four_wide() {
    // Rows of 64 hold no block of 256; rows of ffn_down are 256 and do. n = 2: 7n/8 = 1, more bits in layer
    // 1.
    check(
        &config(64, 2, 4, 1024),
        &[
            ["F32", "F32", "F32", "F32", "F32", "F32", "F32", "F32"],
            ["F16", "F16", "F16", "F16", "F16", "F16", "F16", "F16"],
            ["BF16", "BF16", "BF16", "BF16", "BF16", "BF16", "BF16", "BF16"],
            ["Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0"],
            ["Q4_0", "Q8_0", "Q4_0", "Q8_0", "Q4_0", "Q4_0", "Q4_0", "Q4_0"],
            ["Q4_1", "Q8_0", "Q4_1", "Q8_0", "Q4_1", "Q4_1", "Q4_1", "Q4_1"],
            ["Q5_0", "Q8_0", "Q5_0", "Q8_0", "Q5_0", "Q5_0", "Q5_0", "Q5_0"],
            ["Q5_1", "Q8_0", "Q5_1", "Q8_0", "Q5_1", "Q5_1", "Q5_1", "Q5_1"],
            ["Q6_K", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q6_K", "Q8_0", "Q8_0"],
            ["Q2_K", "Q8_0", "Q4_0", "Q8_0", "Q4_0", "Q3_K", "Q4_0", "Q4_0"],
            ["Q3_K_S", "Q8_0", "Q4_0", "Q8_0", "Q4_0", "Q3_K", "Q4_0", "Q4_0"],
            ["Q3_K_M", "Q8_0", "Q4_0", "Q8_0", "Q5_1", "Q4_K", "Q5_0", "Q4_0"],
            ["Q3_K_L", "Q8_0", "Q4_0", "Q8_0", "Q5_1", "Q5_K", "Q5_1", "Q4_0"],
            ["Q4_K_S", "Q8_0", "Q5_0", "Q8_0", "Q5_1", "Q4_K", "Q5_0", "Q5_0"],
            ["Q4_K_M", "Q8_0", "Q5_0", "Q8_0", "Q8_0 in 1 else Q5_0", "Q6_K in 1 else Q4_K", "Q5_0", "Q5_0"],
            ["Q5_K_S", "Q8_0", "Q5_1", "Q8_0", "Q5_1", "Q5_K", "Q5_1", "Q5_1"],
            ["Q5_K_M", "Q8_0", "Q5_1", "Q8_0", "Q8_0 in 1 else Q5_1", "Q6_K in 1 else Q5_K", "Q5_1", "Q5_1"],
            ["IQ4_NL", "Q8_0", "IQ4_NL", "Q8_0", "IQ4_NL", "IQ4_NL", "IQ4_NL", "IQ4_NL"],
            ["IQ4_XS", "Q8_0", "IQ4_NL", "Q8_0", "IQ4_NL", "IQ4_XS", "IQ4_NL", "IQ4_NL"],
        ],
    );
}

#[test]
fn rows_that_hold_no_block_become_f16() {
    for preset in Preset::ALL.iter().filter(|p| !p.is_float()) {
        for role in [
            TensorRole::TokenEmbd,
            TensorRole::Output,
            TensorRole::AttnQkv(0),
            TensorRole::FfnDown(0),
            TensorRole::AttnOutput(0),
            TensorRole::FfnUp(0),
        ] {
            assert_eq!(format(*preset, NONE, role, 30, 48, true), Format::F16, "{preset} {role:?}");
        }
    }
    // Floats have no blocks to miss.
    assert_eq!(format(Preset::BF16, NONE, TensorRole::FfnUp(0), 30, 48, true), Format::BF16);
}

#[test]
fn pure_means_plain() {
    let pure = PresetOptions { pure: true, ..NONE };
    for preset in Preset::ALL {
        for tied in [true, false] {
            for target in targets(&config(4096, 30, 32, 250_880), !tied) {
                let expected = if target.role == TensorRole::Vector { Format::F32 } else { preset.plain() };
                let got = format(*preset, pure, target.role, 30, target.cols, tied);
                assert_eq!(got, expected, "{preset}, tied {tied}: {}", target.name);
            }
        }
    }
    // What does not fit still does not.
    assert_eq!(format(Preset::Q4_K_M, pure, TensorRole::TokenEmbd, 2, 64, true), Format::Q5_0);
}

#[test]
fn types_of_output_and_embedding() {
    use Format::{F16, F32, Q4_0, Q4_K, Q6_K, Q8_0};
    // Asked for: output, embedding; got: tied embedding, embedding of its own, output.
    let table = [
        (None, None, [Q6_K, Q4_K, Q6_K]),
        (Some(Q8_0), None, [Q8_0, Q4_K, Q8_0]),
        (None, Some(Q4_0), [Q4_0, Q4_0, Q6_K]),
        (Some(Q8_0), Some(F16), [F16, F16, Q8_0]),
        (Some(F32), None, [F32, Q4_K, F32]),
    ];
    for (output, embedding, expected) in table {
        let wishes = PresetOptions { output, embedding, ..NONE };
        let all = |wishes, preset, cols| {
            [(TensorRole::TokenEmbd, true), (TensorRole::TokenEmbd, false), (TensorRole::Output, false)]
                .map(|(role, tied)| format(preset, wishes, role, 30, cols, tied))
        };
        assert_eq!(all(wishes, Preset::Q4_K_M, 4096), expected, "{wishes:?}");
        // Nothing else changes.
        for role in [
            TensorRole::AttnQkv(7),
            TensorRole::FfnDown(0),
            TensorRole::AttnOutput(1),
            TensorRole::FfnUp(1),
            TensorRole::Vector,
        ] {
            let changed = format(Preset::Q4_K_M, wishes, role, 30, 4096, true);
            assert_eq!(changed, format(Preset::Q4_K_M, NONE, role, 30, 4096, true), "{role:?}");
        }
        // With --pure, and beside floats, they hold too.
        let pure = PresetOptions { pure: true, ..wishes };
        let or_plain = |plain: Format| {
            let own = embedding.unwrap_or(plain);
            [embedding.or(output).unwrap_or(plain), own, output.unwrap_or(plain)]
        };
        assert_eq!(all(pure, Preset::Q4_K_M, 4096), or_plain(Q4_K), "{pure:?}");
        assert_eq!(all(wishes, Preset::F16, 4096), or_plain(F16), "{wishes:?}");
    }
    let wishes = PresetOptions { output: Some(Q6_K), ..NONE };
    assert_eq!(format(Preset::F16, wishes, TensorRole::Output, 2, 64, false), Q8_0);
}

#[test]
fn names_and_file_types() {
    // general.file_type as other programs know it.
    let numbers: BTreeMap<&str, u32> = [
        ("f32", 0),
        ("f16", 1),
        ("q4_0", 2),
        ("q4_1", 3),
        ("q8_0", 7),
        ("q5_0", 8),
        ("q5_1", 9),
        ("q2_k", 10),
        ("q3_k_s", 11),
        ("q3_k_m", 12),
        ("q3_k_l", 13),
        ("q4_k_s", 14),
        ("q4_k_m", 15),
        ("q5_k_s", 16),
        ("q5_k_m", 17),
        ("q6_k", 18),
        ("iq4_nl", 25),
        ("iq4_xs", 30),
        ("bf16", 32),
        ("Q3_K", 12),
        ("q4_K", 15),
        ("Q5_k", 17),
        ("Iq4_Nl", 25),
    ]
    .into();
    for (name, number) in numbers {
        assert_eq!(Preset::from_name(name).unwrap().file_type(), number, "{name}");
    }
    for name in ["", "q4", "q4_k_x", "q6_k_m", "q2_k_m", "iq2_xs", "q4_k_m "] {
        let error = name.parse::<Preset>().unwrap_err();
        assert!(error.contains("q4_k_m"), "{error}");
    }
}
