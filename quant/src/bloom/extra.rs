//! Tensors that a BLOOM model does not have: which of them a program may leave out.
//!
//! What cannot change the output is left out with a note: heads beside the language model's (a value head of
//! PPO training, a classifier), buffers of masks and positions (BLOOM computes its own), leftovers of an
//! optimiser. A tensor inside the layers, or one that changes what goes into or comes out of them (an
//! adapter, a learned prompt, a bias of the head, another embedding), may not be.

use crate::gguf::{Error, Reader, shown};

/// Parts of names of buffers and of an optimiser's state.
const BUFFERS: [&str; 27] = [
    "alibi",
    "attention_mask",
    "attn_mask",
    "cache_position",
    "causal_mask",
    "cos_cached",
    "exp_avg",
    "exp_avg_sq",
    "freqs_cis",
    "grad",
    "inv_freq",
    "mask",
    "masked_bias",
    "max_exp_avg_sq",
    "momentum_buffer",
    "position_ids",
    "positions",
    "rope_factors_long",
    "rope_factors_short",
    "rope_freqs",
    "rot_embd",
    "attn_rot_embd",
    "rotary_pos_emb",
    "sin_cached",
    "slopes",
    "tril",
    "triu",
];

/// What the names of modules begin with that compute rotary positions, which BLOOM does not use.
const ROTARY: [&str; 3] = ["rotary", "rope_", "rot_pos"];

/// First parts of names that the language model's own tensors have, here or in other architectures.
const OWN: [&str; 20] = [
    "blk",
    "decoder",
    "embed_out",
    "embed_tokens",
    "encoder",
    "h",
    "layers",
    "lm_head",
    "ln_f",
    "norm",
    "output",
    "output_norm",
    "position_embd",
    "token_embd",
    "token_embd_norm",
    "token_types",
    "word_embeddings",
    "word_embeddings_layernorm",
    "wpe",
    "wte",
];

/// What occurs in the names of tensors that change the output wherever they are attached.
const ACTIVE: [&str; 16] = [
    "absmax", "adapter", "embd", "embed", "expert", "g_idx", "gate", "ia3", "lora", "norm", "prefix",
    "prompt", "quant", "qweight", "qzeros", "scales",
];

/// Words in the first parts of names of what stands beside the layers even where no wrapper tells it from
/// them: heads of other tasks, other models of the same training.
const BESIDE: [&str; 13] = [
    "classifier",
    "cls",
    "critic",
    "head",
    "ema",
    "optimizer",
    "pooler",
    "qa",
    "ref",
    "reward",
    "score",
    "summary",
    "value",
];

/// Whether the output of a BLOOM model is the same with and without a tensor of this name, which is none of
/// its own.
///
/// `name`: GGUF's, or Hugging Face's without what wraps the model; `in_trunk`: it stood inside the module
/// that has the embedding and the layers, which may use it.
pub fn is_harmless(name: &str, in_trunk: bool) -> bool {
    let bare = name.strip_suffix(".weight").unwrap_or(name);
    let parts: Vec<&str> = bare.split('.').collect();
    let last = parts.last().copied().unwrap_or_default();
    let rotary = |part: &&str| ROTARY.iter().any(|start| part.starts_with(start));
    // GPT-2's causal mask is a buffer `bias` of the attention itself.
    let module = parts.len().checked_sub(2).map_or("", |at| parts[at]);
    let causal = last == "bias" && ["attention", "attn", "self_attention", "self_attn"].contains(&module);
    if BUFFERS.contains(&last) || parts.iter().any(rotary) || (causal && bare == name) {
        return true;
    }
    let lower = name.to_lowercase();
    let beside = || parts[0].split('_').any(|word| BESIDE.contains(&word));
    (!in_trunk || beside()) && !OWN.contains(&parts[0]) && !ACTIVE.iter().any(|word| lower.contains(word))
}

/// Whether a BLOOM model of `n_layer` layers has a tensor of this GGUF name.
pub fn belongs(name: &str, n_layer: usize) -> bool {
    const LAYER: [&str; 6] = ["attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"];
    let Some((part, ending @ ("weight" | "bias"))) = name.rsplit_once('.') else { return false };
    match part.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((i, part)) => {
            // As printed, so that two names cannot mean one tensor.
            let layer = i.parse::<usize>().ok().filter(|n| n.to_string() == i);
            layer.is_some_and(|i| i < n_layer) && LAYER.contains(&part)
        }
        None if ending == "bias" => ["token_embd_norm", "output_norm"].contains(&part),
        None => ["token_embd", "token_embd_norm", "output_norm", "output"].contains(&part),
    }
}

/// The tensors of a file that are not part of its BLOOM model of `n_layer` layers: those that are left out,
/// and the first one that may change the output, if any.
pub fn of_file(file: &Reader, n_layer: usize) -> (Vec<&str>, Option<&str>) {
    let names = file.tensors().iter().map(|t| &t.name).chain(file.foreign().iter().map(|t| &t.name));
    let extra = names.map(String::as_str).filter(|name| !belongs(name, n_layer));
    let (harmless, others): (Vec<&str>, Vec<&str>) = extra.partition(|name| is_harmless(name, false));
    (harmless, others.first().copied())
}

/// The note on tensors that are left out; `None` for none.
pub fn note(names: &[&str]) -> Option<String> {
    /// Names that the note has.
    const SHOWN: usize = 6;
    let list: Vec<String> = names.iter().take(SHOWN).map(|name| shown(name)).collect();
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let (count, list) = (names.len(), list.join(", "));
    match count {
        0 => None,
        1 => Some(format!("1 tensor that BLOOM does not have is left out: {list}")),
        _ => Some(format!("{count} tensors that BLOOM does not have are left out: {list}{more}")),
    }
}

/// Refuses a file in which a tensor that the model needs, or that may change its output, has a type that
/// cannot be decoded.
///
/// # Errors
/// [`Rule::TensorType`](crate::gguf::Rule::TensorType).
pub(super) fn refuse_types(file: &Reader, n_layer: usize) -> Result<(), Error> {
    let needed = |name: &str| belongs(name, n_layer) || !is_harmless(name, false);
    match file.foreign().iter().find(|t| needed(&t.name)) {
        Some(tensor) => Err(file.refuse_type(tensor)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_change_the_output() {
        for name in [
            "v_head.summary.weight",
            "v_head.summary.bias",
            "value_head.2.bias",
            "score.weight",
            "classifier.weight",
            "qa_outputs.bias",
            "cls.output.weight",
            "critic.transformer.h.0.mlp.dense_h_to_4h.weight",
            "optimizer.state.0.exp_avg",
            "h.0.mlp.dense_4h_to_h.weight.exp_avg_sq",
            "h.0.self_attention.masked_bias",
            "h.0.self_attention.bias",
            "h.3.attn.bias",
            "h.0.self_attention.rotary_emb.inv_freq",
            "blk.0.attn_rot_embd.weight",
            "rope_freqs.weight",
            "rope_factors_long.weight",
            "alibi",
            "position_ids",
        ] {
            assert!(is_harmless(name, false), "{name}");
        }
        assert!(is_harmless("alibi", true) && !is_harmless("memory.weight", true));
        assert!(is_harmless("v_head.summary.weight", true) && is_harmless("ref_model.h.0.x", true));
    }

    #[test]
    fn what_may_change_it() {
        for name in [
            "lm_head.bias",
            "output.bias",
            "wpe.weight",
            "position_embd.weight",
            "token_types.weight",
            "h.0.mlp.gate.weight",
            "h.0.self_attention.query_key_value.lora_A.weight",
            "h.0.self_attention.dense.scale",
            "blk.0.attn_qkv.weight.lora_a",
            "blk.0.ffn_gate.weight",
            "blk.0.attn_q.bias",
            "prompt_encoder.default.embedding.weight",
            "prefix_encoder.weight",
            "model_adapter.down.weight",
            "layers.0.input_layernorm.weight",
        ] {
            assert!(!is_harmless(name, false), "{name}");
        }
    }

    #[test]
    fn tensors_past_the_last_layer_do_not_belong() {
        assert!(belongs("blk.1.attn_qkv.bias", 2) && belongs("output.weight", 2));
        for name in [
            "blk.2.attn_qkv.bias",
            "blk.01.attn_qkv.bias",
            "blk.x.attn_qkv.bias",
            "blk.0.attn_q.weight",
            "rope_freqs.weight",
            "output.bias",
            "output",
        ] {
            assert!(!belongs(name, 2), "{name}");
        }
    }
}
