//! The tensors of a BLOOM model, and tensor -> format for each preset: the mixtures that `llama-quantize`
//! chooses.
//!
//! Knows names and sizes only. Where the table comes from: `llama_tensor_get_type_impl` of llama.cpp's
//! `src/llama-quant.cpp`, in which a fused QKV counts as `attn_v`.

use crate::bloom::shape::Shape;
use crate::formats::Format;

/// What a tensor is for; layers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the GGUF tensor names")]
pub enum TensorRole {
    TokenEmbd,
    Output,
    AttnQkv(u64),
    AttnOutput(u64),
    FfnUp(u64),
    FfnDown(u64),
    /// A norm or a bias: one dimension, always F32.
    Vector,
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelTensor {
    /// Its GGUF name.
    pub name: String,
    /// What it is for.
    pub role: TensorRole,
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// Weights per row.
    pub cols: usize,
}

impl ModelTensor {
    /// GGUF's order: columns first, and nothing more for a vector.
    pub fn dims(&self) -> Vec<u64> {
        match self.role {
            TensorRole::Vector => vec![self.cols as u64],
            _ => vec![self.cols as u64, self.rows as u64],
        }
    }
}

/// Every tensor a BLOOM of this shape has, in the order they are written; `output`: with a separate
/// `output.weight`.
pub fn tensors(shape: &Shape, output: bool) -> Vec<ModelTensor> {
    let (e, ff) = (shape.n_embd, shape.n_ff);
    let matrix = |name: String, role, rows, cols| ModelTensor { name, role, rows, cols };
    let vector = |name: String, cols| ModelTensor { name, role: TensorRole::Vector, rows: 1, cols };
    let mut list = vec![matrix("token_embd.weight".into(), TensorRole::TokenEmbd, shape.n_vocab, e)];
    list.extend(["weight", "bias"].map(|p| vector(format!("token_embd_norm.{p}"), e)));
    for layer in 0..shape.n_layer {
        let i = layer as u64;
        list.extend(["weight", "bias"].map(|p| vector(format!("blk.{i}.attn_norm.{p}"), e)));
        list.push(matrix(format!("blk.{i}.attn_qkv.weight"), TensorRole::AttnQkv(i), 3 * e, e));
        list.push(vector(format!("blk.{i}.attn_qkv.bias"), 3 * e));
        list.push(matrix(format!("blk.{i}.attn_output.weight"), TensorRole::AttnOutput(i), e, e));
        list.push(vector(format!("blk.{i}.attn_output.bias"), e));
        list.extend(["weight", "bias"].map(|p| vector(format!("blk.{i}.ffn_norm.{p}"), e)));
        list.push(matrix(format!("blk.{i}.ffn_up.weight"), TensorRole::FfnUp(i), ff, e));
        list.push(vector(format!("blk.{i}.ffn_up.bias"), ff));
        list.push(matrix(format!("blk.{i}.ffn_down.weight"), TensorRole::FfnDown(i), e, ff));
        list.push(vector(format!("blk.{i}.ffn_down.bias"), e));
    }
    list.extend(["weight", "bias"].map(|p| vector(format!("output_norm.{p}"), e)));
    if output {
        list.push(matrix("output.weight".into(), TensorRole::Output, shape.n_vocab, e));
    }
    list
}

/// A type that can be asked for: a plain format or a mixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, missing_docs, reason = "the field's own spelling")]
pub enum Preset {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
}

impl Preset {
    /// Every preset, by bits: the most first, and of one number the mixtures first.
    pub const ALL: &[Preset] = &[
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q6_K,
        Self::Q5_K_M,
        Self::Q5_K_S,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_K_M,
        Self::Q4_K_S,
        Self::Q4_1,
        Self::Q4_0,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::Q3_K_L,
        Self::Q3_K_M,
        Self::Q3_K_S,
        Self::Q2_K,
    ];

    /// The name as GGUF tools print it, e.g. `Q4_K_M`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2_K => "Q2_K",
            Self::Q3_K_S => "Q3_K_S",
            Self::Q3_K_M => "Q3_K_M",
            Self::Q3_K_L => "Q3_K_L",
            Self::Q4_K_S => "Q4_K_S",
            Self::Q4_K_M => "Q4_K_M",
            Self::Q5_K_S => "Q5_K_S",
            Self::Q5_K_M => "Q5_K_M",
            Self::Q6_K => "Q6_K",
            Self::IQ4_NL => "IQ4_NL",
            Self::IQ4_XS => "IQ4_XS",
        }
    }

    /// The preset of this name in any case; `q3_k`, `q4_k`, `q5_k` mean `_m`.
    pub fn from_name(name: &str) -> Option<Self> {
        let medium = ["q3_k", "q4_k", "q5_k"].iter().any(|short| short.eq_ignore_ascii_case(name));
        let full = if medium { format!("{name}_m") } else { name.to_owned() };
        Self::ALL.iter().copied().find(|p| p.name().eq_ignore_ascii_case(&full))
    }

    /// The preset with this `general.file_type`.
    pub fn from_file_type(id: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|preset| u64::from(preset.file_type()) == id)
    }

    /// `general.file_type`.
    pub const fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 7,
            Self::Q5_0 => 8,
            Self::Q5_1 => 9,
            Self::Q2_K => 10,
            Self::Q3_K_S => 11,
            Self::Q3_K_M => 12,
            Self::Q3_K_L => 13,
            Self::Q4_K_S => 14,
            Self::Q4_K_M => 15,
            Self::Q5_K_S => 16,
            Self::Q5_K_M => 17,
            Self::Q6_K => 18,
            Self::IQ4_NL => 25,
            Self::IQ4_XS => 30,
            Self::BF16 => 32,
        }
    }

    /// The format of the tensors that the mixture does not name.
    pub const fn plain(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::F16 => Format::F16,
            Self::BF16 => Format::BF16,
            Self::Q4_0 => Format::Q4_0,
            Self::Q4_1 => Format::Q4_1,
            Self::Q5_0 => Format::Q5_0,
            Self::Q5_1 => Format::Q5_1,
            Self::Q8_0 => Format::Q8_0,
            Self::Q2_K => Format::Q2_K,
            Self::Q3_K_S | Self::Q3_K_M | Self::Q3_K_L => Format::Q3_K,
            Self::Q4_K_S | Self::Q4_K_M => Format::Q4_K,
            Self::Q5_K_S | Self::Q5_K_M => Format::Q5_K,
            Self::Q6_K => Format::Q6_K,
            Self::IQ4_NL => Format::IQ4_NL,
            Self::IQ4_XS => Format::IQ4_XS,
        }
    }

    /// Whether this is a format without blocks.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::from_name(name).ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(|p| p.name().to_lowercase()).collect();
            let typed = name.to_lowercase();
            let near: Vec<&str> = all
                .iter()
                .map(String::as_str)
                .filter(|p| !typed.is_empty() && p.starts_with(&typed))
                .collect();
            if near.is_empty() {
                format!("unknown type {name}; valid: {}", all.join(", "))
            } else {
                format!("unknown type {name}; did you mean {}?", near.join(", "))
            }
        })
    }
}

/// Options that change a preset's choice of formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresetOptions {
    /// No mixture: every matrix has the preset's plain format.
    pub pure: bool,
    /// The format of the output, which is the embedding where they are tied and
    /// [`embedding`](Self::embedding) is `None`.
    pub output: Option<Format>,
    /// The format of the embedding.
    pub embedding: Option<Format>,
    /// An importance matrix is at hand: it makes some of the mixtures' cautions unnecessary, others
    /// necessary.
    pub imatrix: bool,
}

/// The format of one tensor.
///
/// `n_layer`: layers of the model. `cols`: the row length. `tied`: the file will have no `output.weight`, so
/// that the embedding is the output too. Rows that hold no whole blocks of a format get the
/// nearest that fits.
pub fn format(
    preset: Preset,
    options: PresetOptions,
    role: TensorRole,
    n_layer: u64,
    cols: u64,
    tied: bool,
) -> Format {
    let named = match role {
        TensorRole::Vector => return Format::F32,
        TensorRole::Output => options.output,
        TensorRole::TokenEmbd => options.embedding.or(options.output.filter(|_| tied)),
        _ => None,
    };
    let chosen = || {
        if options.pure || preset.is_float() {
            preset.plain()
        } else {
            wanted(preset, role, n_layer, tied, options.imatrix)
        }
    };
    fit(named.unwrap_or_else(chosen), cols)
}

/// The mixture, for rows of any length.
fn wanted(preset: Preset, role: TensorRole, n: u64, tied: bool, imatrix: bool) -> Format {
    use Format::{Q3_K, Q4_K, Q5_K, Q6_K, Q8_0};
    use Preset as P;
    // Integer divisions: with 6 layers n / 8 is 0 and 7 * n / 8 is 5.
    let more_bits = |i: u64| i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    match (preset, role) {
        (P::Q8_0, _) => Q8_0,
        (_, TensorRole::Output) => Q6_K,
        (_, TensorRole::TokenEmbd) if tied => Q6_K,
        (P::Q2_K, TensorRole::AttnQkv(_) | TensorRole::FfnDown(_) | TensorRole::AttnOutput(_)) => Q3_K,
        (P::Q3_K_M, TensorRole::AttnQkv(i)) => {
            if i < 2 {
                Q5_K
            } else {
                Q4_K
            }
        }
        (P::Q3_K_M, TensorRole::FfnDown(i)) => {
            if i < n / 16 {
                Q5_K
            } else {
                Q4_K
            }
        }
        (P::Q3_K_M, TensorRole::AttnOutput(_)) => Q4_K,
        (P::Q3_K_L, TensorRole::AttnQkv(_) | TensorRole::FfnDown(_) | TensorRole::AttnOutput(_)) => Q5_K,
        (P::Q4_K_S, TensorRole::AttnQkv(i)) if i < 4 => Q5_K,
        (P::Q4_K_S, TensorRole::FfnDown(i)) if i < n / 8 => Q5_K,
        (P::Q4_K_M | P::Q5_K_M, TensorRole::AttnQkv(i) | TensorRole::FfnDown(i)) if more_bits(i) => Q6_K,
        (P::IQ4_NL | P::IQ4_XS, TensorRole::FfnDown(i)) if i < n / 8 && !imatrix => Q5_K,
        (P::Q4_0, TensorRole::FfnDown(i)) if i < n / 8 && imatrix => Format::Q4_1,
        (P::Q5_0, TensorRole::FfnDown(i)) if i < n / 8 && imatrix => Format::Q5_1,
        _ => preset.plain(),
    }
}

/// The format itself, or the nearest one whose blocks divide a row of `cols` weights.
pub fn fit(format: Format, cols: u64) -> Format {
    let fits = |f: Format| cols.is_multiple_of(f.block_weights() as u64);
    if fits(format) {
        return format;
    }
    let smaller = match format {
        Format::Q2_K | Format::Q3_K => Format::Q4_0,
        Format::Q4_K => Format::Q5_0,
        Format::Q5_K => Format::Q5_1,
        Format::Q6_K => Format::Q8_0,
        Format::IQ4_XS => Format::IQ4_NL,
        other => other,
    };
    if fits(smaller) { smaller } else { Format::F16 }
}

/// Bytes of the tensors of a model of `shape`, tied or with a head of its own; the file adds its header, a
/// few MiB of vocabulary.
pub fn tensor_bytes(shape: &Shape, preset: Preset, tied: bool) -> u64 {
    let bytes = |t: &ModelTensor| {
        let format =
            format(preset, PresetOptions::default(), t.role, shape.n_layer as u64, t.cols as u64, tied);
        // `fit` chose a format whose blocks divide the row.
        t.rows as u64 * (t.cols / format.block_weights()) as u64 * format.block_bytes() as u64
    };
    tensors(shape, !tied).iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_real_files() {
        // The tensors of Huozi 2.0 (tied) as converted.
        let shape = Shape::named("bloom-7b1").unwrap();
        for (preset, bytes) in [
            (Preset::F16, 14_141_259_776),
            (Preset::Q8_0, 7_515_570_176),
            (Preset::Q5_K_M, 5_220_139_008),
            (Preset::Q4_K_M, 4_670_685_184),
            (Preset::Q4_0, 4_246_798_336),
        ] {
            assert_eq!(tensor_bytes(&shape, preset, true), bytes, "{preset}");
        }
        let weights: usize = tensors(&shape, false).iter().map(|t| t.rows * t.cols).sum();
        assert_eq!(weights as u64, shape.weights());
    }
}
