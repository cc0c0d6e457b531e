//! Tensor types that ggml has and no [`Format`](crate::Format) is for: their names, for messages.

use crate::Format;

/// A tensor of a file that cannot be decoded here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTensor {
    /// The name, unique in the file.
    pub name: String,
    /// ggml's name of its type, e.g. `IQ2_XXS`.
    pub type_name: &'static str,
    /// 1 to 4 sizes in GGUF's order.
    pub dims: Vec<u64>,
    /// The part of a split model that holds it, from 0.
    pub part: usize,
    /// Where its type lies in the header of that part.
    pub(super) type_at: u64,
}

/// How weights are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TensorType {
    Known(Format),
    /// Name, weights of a block, bytes of a block.
    Foreign(&'static str, u64, u64),
}

impl TensorType {
    /// The type with this number; `Err` with what it is called where the name alone is known.
    pub fn from_id(id: u32) -> Result<Self, Option<&'static str>> {
        if let Some(format) = Format::from_gguf_id(id) {
            return Ok(Self::Known(format));
        }
        match FOREIGN.iter().find(|row| row.0 == id) {
            Some(&(_, name, weights, bytes)) => Ok(Self::Foreign(name, weights, bytes)),
            None => Err(REMOVED.iter().find(|row| row.0 == id).map(|row| row.1)),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Known(format) => format.name(),
            Self::Foreign(name, ..) => name,
        }
    }

    pub fn block_weights(self) -> u64 {
        match self {
            Self::Known(format) => format.block_weights() as u64,
            Self::Foreign(_, weights, _) => weights,
        }
    }

    pub fn block_bytes(self) -> u64 {
        match self {
            Self::Known(format) => format.block_bytes() as u64,
            Self::Foreign(_, _, bytes) => bytes,
        }
    }
}

/// Number, name, weights and bytes of a block, as in `ggml.c`'s table of type traits.
const FOREIGN: [(u32, &str, u64, u64); 19] = [
    (9, "Q8_1", 32, 36),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// Types that ggml no longer has.
const REMOVED: [(u32, &str); 8] = [
    (4, "Q4_2, which ggml removed in 2023"),
    (5, "Q4_3, which ggml removed in 2023"),
    (31, "Q4_0_4_4, which ggml removed in 2024; Q4_0 replaces it"),
    (32, "Q4_0_4_8, which ggml removed in 2024; Q4_0 replaces it"),
    (33, "Q4_0_8_8, which ggml removed in 2024; Q4_0 replaces it"),
    (36, "IQ4_NL_4_4, which ggml removed in 2024; IQ4_NL replaces it"),
    (37, "IQ4_NL_4_8, which ggml removed in 2024; IQ4_NL replaces it"),
    (38, "IQ4_NL_8_8, which ggml removed in 2024; IQ4_NL replaces it"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_ggml_has_given_has_a_name() {
        let named = |id| match TensorType::from_id(id) {
            Ok(of) => of.block_bytes() > 0 && of.block_weights() > 0 && !of.name().is_empty(),
            Err(removed) => removed.is_some(),
        };
        assert_eq!((0..=41).filter(|id| !named(*id)).collect::<Vec<u32>>(), [0u32; 0]);
        assert_eq!(TensorType::from_id(42), Err(None));
        assert_eq!(TensorType::from_id(12), Ok(TensorType::Known(Format::Q4_K)));
    }
}
