//! The one list of formats: name, GGUF id, block size, bytes and module of each.
//!
//! A format turns a block of `f32` weights into bytes and back, and multiplies a row of blocks with a row of
//! activations. It knows nothing about files, threads or instruction sets.

/// What a format's dot product takes as its other operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Plain `f32`.
    F32,
    /// [`q8_a::BlockQ8A`]: 32 int8, an f32 scale, the sum of the int8.
    Q8A,
    /// [`q8_k::BlockQ8K`]: 256 int8, an f32 scale, sums per 16.
    Q8K,
}

macro_rules! formats {
    ($(
        $variant:ident $name:literal id $id:literal, $weights:literal weights in $bytes:literal bytes,
        x $act:ident, $module:ident :: $block:ident;
    )*) => {
        /// A weight format that GGUF files hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, reason = "the field's own spelling")]
        pub enum Format {
            $( #[doc = concat!($name, ", see [`mod@", stringify!($module), "`].")] $variant, )*
        }

        $( const _: () = assert!(size_of::<$module::$block>() == $bytes); )*
        $( const _: () = assert!(align_of::<$module::$block>() == 1); )*

        impl Format {
            /// Every format, in the order of their GGUF ids.
            pub const ALL: &[Format] = &[$( Format::$variant, )*];

            /// The name as GGUF tools print it, e.g. `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self { $( Format::$variant => $name, )* }
            }

            /// The tensor type number in a GGUF file (`ggml_type`).
            pub const fn gguf_id(self) -> u32 {
                match self { $( Format::$variant => $id, )* }
            }

            /// The format with this tensor type number.
            pub const fn from_gguf_id(id: u32) -> Option<Self> {
                match id { $( $id => Some(Format::$variant), )* _ => None }
            }

            /// Weights in one block.
            pub const fn block_weights(self) -> usize {
                match self { $( Format::$variant => $weights, )* }
            }

            /// Bytes of one block.
            pub const fn block_bytes(self) -> usize {
                match self { $( Format::$variant => $bytes, )* }
            }

            /// What a dot product with this format takes as its other operand.
            pub const fn activation(self) -> Activation {
                match self { $( Format::$variant => Activation::$act, )* }
            }

            /// Decodes whole blocks.
            ///
            /// `blocks`: bytes of consecutive blocks; `out`: their weights in order.
            ///
            /// # Panics
            /// When `blocks` is not `out.len() / block_weights` whole blocks.
            pub fn decode(self, blocks: &[u8], out: &mut [f32]) {
                match self { $( Format::$variant => {
                    let blocks: &[$module::$block] = bytemuck::cast_slice(blocks);
                    assert_eq!(blocks.len() * $weights, out.len(), "{} blocks against weights", $name);
                    $module::decode(blocks, out);
                } )* }
            }

            /// Encodes one row by the scalar reference encoder of the format.
            ///
            /// `x`: one row, a multiple of `block_weights`. `importance`: one non-negative weight per column,
            /// the expected square of that column's activation, or `None`. `out`: `x.len() / block_weights`
            /// blocks. Gives the same bytes on every ISA. Weights should be finite: of a block with one that
            /// is not, the formats with 32 weights make NaN (so that it is seen), the K formats make 0 of a
            /// NaN and clamp an infinity.
            ///
            /// # Panics
            /// When a length does not fit.
            pub fn encode(self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
                if let Some(w) = importance { assert_eq!(w.len(), x.len(), "importance per column"); }
                match self { $( Format::$variant => {
                    let out: &mut [$module::$block] = bytemuck::cast_slice_mut(out);
                    assert_eq!(out.len() * $weights, x.len(), "{} blocks against weights", $name);
                    $module::encode(x, importance, out);
                } )* }
            }
        }
    };
}

formats! {
    F32 "F32" id 0, 1 weights in 4 bytes, x F32, f32::BlockF32;
    F16 "F16" id 1, 1 weights in 2 bytes, x F32, f16::BlockF16;
    Q4_0 "Q4_0" id 2, 32 weights in 18 bytes, x Q8A, q4_0::BlockQ4_0;
    Q4_1 "Q4_1" id 3, 32 weights in 20 bytes, x Q8A, q4_1::BlockQ4_1;
    Q5_0 "Q5_0" id 6, 32 weights in 22 bytes, x Q8A, q5_0::BlockQ5_0;
    Q5_1 "Q5_1" id 7, 32 weights in 24 bytes, x Q8A, q5_1::BlockQ5_1;
    Q8_0 "Q8_0" id 8, 32 weights in 34 bytes, x Q8A, q8_0::BlockQ8_0;
    Q2_K "Q2_K" id 10, 256 weights in 84 bytes, x Q8K, q2_k::BlockQ2K;
    Q3_K "Q3_K" id 11, 256 weights in 110 bytes, x Q8K, q3_k::BlockQ3K;
    Q4_K "Q4_K" id 12, 256 weights in 144 bytes, x Q8K, q4_k::BlockQ4K;
    Q5_K "Q5_K" id 13, 256 weights in 176 bytes, x Q8K, q5_k::BlockQ5K;
    Q6_K "Q6_K" id 14, 256 weights in 210 bytes, x Q8K, q6_k::BlockQ6K;
    IQ4_NL "IQ4_NL" id 20, 32 weights in 18 bytes, x Q8A, iq4_nl::BlockIq4Nl;
    IQ4_XS "IQ4_XS" id 23, 256 weights in 136 bytes, x Q8K, iq4_xs::BlockIq4Xs;
    BF16 "BF16" id 30, 1 weights in 2 bytes, x F32, bf16::BlockBf16;
}

mod batch;
pub mod bf16;
pub mod f16;
mod f16_bits;
pub mod f32;
pub mod iq4_nl;
pub mod iq4_xs;
mod k;
pub mod lanes;
mod pick;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod q8_a;
pub mod q8_k;
mod search;
mod search_k;

#[cfg(test)]
mod plain_tests;

pub use f16_bits::F16;

impl Format {
    /// The format with this name, in any case (`q4_k`, `Q4_K`, `iq4_nl`).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|f| f.name().eq_ignore_ascii_case(name))
    }

    /// The names of all formats, for messages: `F32, F16, Q4_0, ...`.
    pub fn names() -> String {
        Self::ALL.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
    }

    /// Whether the wide arithmetic may bring its weights to one scale for 256: where the noise of a byte with
    /// one scale adds less than a tenth to the KL divergence that the format has by itself. Measured on a
    /// small trained model (nano, 18,761 positions): Q6_K 8 %, Q5_K 7 %, the rest less; Q5_0 12 %, Q5_1 15 %
    /// and Q8_0 threefold, which stay out.
    pub const fn rescales(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::BF16 | Self::Q8_0 | Self::Q5_0 | Self::Q5_1)
    }

    /// Bytes of a row of `cols` weights; `None` when `cols` is not a whole number of blocks or the product
    /// overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_weights()) {
            return None;
        }
        (cols / self.block_weights()).checked_mul(self.block_bytes())
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
