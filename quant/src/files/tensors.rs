//! What the names and shapes of a checkpoint's tensors say about how it was saved.

use super::diagnosis::{FileKind, QuantMethod};
use super::text::shown;

/// Matrices of a BLOOM, by the ends of their names. One of them never has a single element.
const MATRICES: [&str; 6] = [
    "word_embeddings.weight",
    "query_key_value.weight",
    "dense.weight",
    "dense_h_to_4h.weight",
    "dense_4h_to_h.weight",
    "lm_head.weight",
];

/// Why the tensors of a checkpoint, names with shapes, are no weights that can be converted: an adapter that
/// was not merged, weights that were not gathered, weights that were quantised by another program.
pub fn diagnose<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u64])>) -> Option<FileKind> {
    let (mut adapter, mut empty, mut quantised) = (None, None, None);
    for (name, shape) in tensors {
        if adapter.is_none() && is_adapter(name) {
            adapter = Some(name);
        } else if empty.is_none() && is_ungathered(name, shape) {
            empty = Some((name, shape));
        } else if quantised.is_none() {
            quantised = method(name);
        }
    }
    if let Some(name) = adapter {
        return Some(FileKind::Unmerged { tensor: shown(name) });
    }
    if let Some((name, shape)) = empty {
        return Some(FileKind::Ungathered { tensor: shown(name), shape: shape.to_vec() });
    }
    quantised.map(|method| FileKind::Quantised { method })
}

fn is_adapter(name: &str) -> bool {
    let parts =
        ["lora_A", "lora_B", "lora_E", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"];
    let others = ["hada_w1_a", "hada_w2_a", "lokr_w1", "lokr_w2", "ia3_l", "prompt_embeddings", "base_layer"];
    name.split('.').any(|part| parts.contains(&part) || others.contains(&part))
}

fn is_ungathered(name: &str, shape: &[u64]) -> bool {
    let matrix = MATRICES.iter().any(|end| name.ends_with(end));
    // Nothing, or one placeholder instead of a matrix.
    matrix && shape.len() < 2 && shape.iter().product::<u64>() <= 1
}

/// The program whose quantisation has tensors of such names.
fn method(name: &str) -> Option<QuantMethod> {
    let (_, last) = name.rsplit_once('.').unwrap_or_default();
    let name = match last {
        "SCB" | "CB" | "absmax" | "quant_map" | "nested_absmax" | "nested_quant_map" => "bitsandbytes",
        "bitsandbytes__nf4" | "bitsandbytes__fp4" => "bitsandbytes",
        "qweight" | "qzeros" | "g_idx" => return Some(QuantMethod::GptqOrAwq),
        "weight_packed" | "weight_shape" => "compressed-tensors",
        "weight_scale" | "weight_scale_inv" | "input_scale" => return Some(QuantMethod::Fp8OrInt8),
        "codebooks" | "codes" => "AQLM",
        "W_q" => "HQQ",
        "_data" => "quanto",
        "trellis" => "EXL3",
        "Qidxs" => "QuIP#",
        "q_weight" | "q_scale" | "q_scale_max" => "EXL2",
        _ => return None,
    };
    Some(QuantMethod::Named(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tensors: &[(&str, &[u64])]) -> Option<FileKind> {
        diagnose(tensors.iter().copied())
    }

    #[test]
    fn plain_weights_have_no_diagnosis() {
        let odd = ["v_head.summary.weight", "h.0.self_attention.masked_bias", "model.lora.weight"];
        let odd = odd.map(|name| (name, &[0u64][..]));
        assert_eq!(of(&odd), None);
        assert_eq!(
            of(&[("transformer.word_embeddings.weight", &[8, 4]), ("h.0.dense.weight", &[1, 1])]),
            None
        );
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn adapters_empty_and_quantised_weights() {
        let unmerged =
            "base_model.model.transformer.h.0.self_attention.query_key_value.lora_A.default.weight";
        let embedding = ("base_model.model.transformer.word_embeddings.weight", &[8u64, 4][..]);
        assert!(matches!(of(&[embedding, (unmerged, &[2, 4])]), Some(FileKind::Unmerged { .. })));
        for shape in [&[0u64][..], &[1], &[]] {
            let found = of(&[("transformer.word_embeddings.weight", shape)]);
            assert!(matches!(found, Some(FileKind::Ungathered { .. })), "{shape:?}: {found:?}");
        }
        for (name, method) in [
            ("h.0.dense.SCB", QuantMethod::Named("bitsandbytes".into())),
            ("h.0.dense.qweight", QuantMethod::GptqOrAwq),
        ] {
            let found = of(&[("h.0.dense.weight", &[4, 4]), (name, &[4])]);
            assert_eq!(found, Some(FileKind::Quantised { method }));
        }
    }
}
