//! Tensors of types that ggml has and that are not decoded here.

use crate::gguf_malformed::{F32, Raw, refused, tensor};
use huozi_quant::gguf::Rule;

#[test]
fn tensors_of_other_types_are_listed_apart() {
    let mut raw = Raw::good().with_tensors(vec![
        tensor("odd", &[256], 16, 0),
        tensor("even", &[8], F32, 96),
        tensor("mask", &[5], 24, 128),
    ]);
    let reader = raw.open().unwrap();
    assert_eq!(reader.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["even"]);
    let foreign: Vec<_> = reader.foreign().iter().map(|t| (t.name.as_str(), t.type_name)).collect();
    assert_eq!(foreign, [("odd", "IQ2_XXS"), ("mask", "I8")]);
    let error = reader.refuse_type(&reader.foreign()[0]);
    assert_eq!(error.rule(), Some(Rule::TensorType));
    for word in ["tensor \"odd\"", "IQ2_XXS", "Q4_K", "at byte "] {
        assert!(error.to_string().contains(word), "{word:?} not in: {error}");
    }
    assert!(reader.tensor("even").is_some() && reader.tensor("odd").is_none());
    // Their places are checked as those of all others.
    raw.tensors[0] = tensor("odd", &[512], 16, 0);
    refused(&raw, Rule::Overlap, &["\"odd\"", "\"even\""]);
    raw.tensors[0] = tensor("odd", &[255], 16, 0);
    refused(&raw, Rule::Block, &["IQ2_XXS"]);
    raw.tensors[0] = tensor("mask", &[256], 16, 0);
    refused(&raw, Rule::TensorTwice, &["mask"]);
}
