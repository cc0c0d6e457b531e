//! Two engines in turn on one file: whether the comparison is fair, and its result.
//!
//! In: rows of both sides as their processes printed them. Out: a ratio for each pair. Nothing here starts a
//! process.

use super::{median, range};

/// Instruction sets: the name in ggml, the name of the CPU feature in Rust.
const KNOWN: [(&str, &str); 8] = [
    ("AVX2", "avx2"),
    ("FMA", "fma"),
    ("F16C", "f16c"),
    ("AVX_VNNI", "avxvnni"),
    ("AVX512", "avx512f"),
    ("AVX512_VBMI", "avx512vbmi"),
    ("AVX512_VNNI", "avx512vnni"),
    ("AVX512_BF16", "avx512bf16"),
];

/// Instruction sets, by ggml's names, that Huozi's kernels may use: those of the CPU (`has`, by the names
/// that `is_x86_feature_detected!` takes) up to those that `isa` (`scalar`, `avx2`, `avx512...`) includes.
pub fn used(isa: &str, has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    // Huozi's AVX-512 kernels may use every extension of the CPU.
    let reaches = |ggml: &str| match ggml {
        _ if isa == "scalar" => false,
        name if name.starts_with("AVX512") => isa.starts_with("avx512"),
        "AVX_VNNI" => isa.contains("vnni") && !isa.starts_with("avx512"),
        _ => isa.starts_with("avx"),
    };
    KNOWN.iter().filter(|(ggml, cpu)| reaches(ggml) && has(cpu)).map(|(ggml, _)| *ggml).collect()
}

/// Whether this CPU has a feature, by the names that [`used`] asks for.
pub fn this_cpu_has(feature: &str) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        match feature {
            "avx2" => has!("avx2"),
            "fma" => has!("fma"),
            "f16c" => has!("f16c"),
            "avxvnni" => has!("avxvnni"),
            "avx512f" => has!("avx512f"),
            "avx512vbmi" => has!("avx512vbmi"),
            "avx512vnni" => has!("avx512vnni"),
            "avx512bf16" => has!("avx512bf16"),
            _ => false,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = feature;
        false
    }
}

/// Those of `used` that a peer with this system info was built without, in the same order.
///
/// `system_info`: what llama.cpp prints, `CPU : AVX2 = 1 | AVX512 = 0 | ...`, or the same as bare names; a
/// name is there when it stands alone as a word and is not followed by `= 0`.
pub fn lacking<'a>(used: &[&'a str], system_info: &str) -> Vec<&'a str> {
    let words: Vec<&str> = system_info
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '='))
        .filter(|word| !word.is_empty())
        .collect();
    let has = |name: &str| {
        words.iter().enumerate().any(|(i, word)| {
            *word == name && !(words.get(i + 1) == Some(&"=") && words.get(i + 2) == Some(&"0"))
        })
    };
    used.iter().copied().filter(|name| !has(name)).collect()
}

/// One row of a comparison: tokens per second of both sides, as many of each as there were pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    /// Huozi's.
    pub ours: Vec<f64>,
    /// The peer's without flash attention.
    pub off: Vec<f64>,
    /// The peer's with flash attention.
    pub on: Vec<f64>,
}

/// The result of a row of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the peer was better with flash attention.
    pub flash: bool,
    /// Huozi's median.
    pub ours: f64,
    /// The peer's median with its better setting.
    pub peer: f64,
    /// The peer's median with the other setting; NaN when that was not measured.
    pub peer_other: f64,
    /// Huozi's rate divided by the peer's, pair by pair.
    pub ratios: Vec<f64>,
    /// The median of the ratios.
    pub ratio: f64,
    /// The smallest and the largest.
    pub range: (f64, f64),
}

impl Pairs {
    /// The comparison with the peer's better setting: the one with the higher median.
    ///
    /// A setting that was dropped after fewer pairs cannot win: it was far slower.
    pub fn verdict(&self) -> Verdict {
        let flash = match self.on.len().cmp(&self.off.len()) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => median(&self.on) > median(&self.off),
        };
        let (peer, other) = if flash { (&self.on, &self.off) } else { (&self.off, &self.on) };
        let ratios: Vec<f64> = self.ours.iter().zip(peer).map(|(a, b)| a / b).collect();
        Verdict {
            flash,
            ours: median(&self.ours),
            peer: median(peer),
            peer_other: median(other),
            ratio: median(&ratios),
            range: range(&ratios),
            ratios,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: fn(&str) -> bool = |_| true;
    /// What an untuned build prints on the same machine.
    const PLAIN: &str = "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | \
                         LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1 | ";
    const TUNED: &str = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | AVX512 = 1 | \
                         AVX512_VBMI = 1 | AVX512_VNNI = 1 | AVX512_BF16 = 1 | ";

    #[test]
    fn a_peer_without_what_we_use_is_refused() {
        let zen4 = used("avx512vnni", |f| f != "avxvnni");
        assert_eq!(zen4, ["AVX2", "FMA", "F16C", "AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"]);
        assert_eq!(lacking(&zen4, PLAIN), ["AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"]);
        assert!(lacking(&zen4, TUNED).is_empty());
        // The adapter in `engine::ggml` gives bare names.
        let bare =
            "llama.cpp (llama-cpp-sys-2 1.0; AVX AVX2 F16C FMA AVX512 AVX512_VBMI AVX512_BF16), 2 threads";
        assert_eq!(lacking(&zen4, bare), ["AVX512_VNNI"]);
        // A name inside another, or switched off, is not there.
        assert_eq!(lacking(&["AVX512"], "AVX512_VNNI = 1"), ["AVX512"]);
        assert_eq!(lacking(&["AVX512"], "AVX512 = 0 | FMA = 1"), ["AVX512"]);
        assert_eq!(lacking(&["FMA"], ""), ["FMA"]);
    }

    #[test]
    fn what_we_do_not_use_is_not_asked_for() {
        assert!(used("scalar", ALL).is_empty());
        assert_eq!(used("avx2", ALL), ["AVX2", "FMA", "F16C"]);
        assert_eq!(used("avxvnni", ALL), ["AVX2", "FMA", "F16C", "AVX_VNNI"]);
        assert!(used("avx512", ALL).contains(&"AVX512_VNNI"));
        assert!(used("avx512", |_| false).is_empty());
        assert!(lacking(&used("avx2", ALL), PLAIN).is_empty());
    }

    #[test]
    fn the_better_setting_of_the_peer_counts_and_ratios_go_pair_by_pair() {
        let pairs =
            Pairs { ours: vec![10.0, 20.0, 30.0], off: vec![5.0, 10.0, 10.0], on: vec![4.0, 9.0, 11.0] };
        let v = pairs.verdict();
        assert_eq!((v.flash, v.ours, v.peer, v.peer_other), (false, 20.0, 10.0, 9.0));
        assert_eq!((v.ratios, v.ratio, v.range), (vec![2.0, 2.0, 3.0], 2.0, (2.0, 3.0)));
        let given_up = Pairs { ours: vec![10.0, 20.0], off: vec![99.0], on: vec![5.0, 5.0] }.verdict();
        assert_eq!((given_up.flash, given_up.ratios), (true, vec![2.0, 4.0]));
    }
}
