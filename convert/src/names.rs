//! Hugging Face tensor names -> GGUF names, expected shapes, and the one transform BLOOM needs.
//!
//! In: the names and shapes a checkpoint has. Out: for each tensor the GGUF file will hold, where it comes
//! from. Knows nothing about formats or bytes.

use std::collections::HashMap;

pub use huozi_quant::bloom::plan::TensorRole;
use huozi_quant::bloom::{extra, plan};

use crate::config::Config;
use crate::source::shown;

/// How the checkpoint spells its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `transformer.h.0.mlp.dense_h_to_4h.weight`, prefix optional.
    HuggingFace,
    /// `blk.0.ffn_up.weight`, already in GGUF's row order.
    Gguf,
}

/// How many heads of which width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads.
    pub n_head: u64,
    /// Rows of each in each of Q, K and V.
    pub head_dim: u64,
}

impl Heads {
    /// The row of the Hugging Face matrix that row `row` of the stacked matrix holds: `row = jE + hd + i`
    /// comes from `3hd + jd + i` (head h, j = 0 q, 1 k, 2 v, d = head_dim).
    pub fn source_row(self, row: u64) -> u64 {
        let Self { n_head, head_dim: d } = self;
        let (j, in_part) = (row / (n_head * d), row % (n_head * d));
        let (h, i) = (in_part / d, in_part % d);
        3 * h * d + j * d + i
    }
}

/// One tensor of the GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its GGUF name.
    pub name: String,
    /// What it is for.
    pub role: TensorRole,
    /// Rows; 1 for a vector.
    pub rows: u64,
    /// Weights per row.
    pub cols: u64,
    /// Rows (of a vector: elements) of Q, K and V, interleaved per head in the Hugging Face file, stacked in
    /// GGUF.
    pub qkv: Option<Heads>,
}

impl Target {
    /// The shape in row-major order, as Hugging Face writes it.
    pub fn shape(&self) -> Vec<u64> {
        match self.role {
            TensorRole::Vector => vec![self.cols],
            _ => vec![self.rows, self.cols],
        }
    }

    /// GGUF's order: columns first.
    pub fn dims(&self) -> Vec<u64> {
        let mut dims = self.shape();
        dims.reverse();
        dims
    }
}

/// Every tensor a BLOOM of this shape has, in the order they are written; `output`: with a separate
/// `output.weight`.
pub fn targets(config: &Config, output: bool) -> Vec<Target> {
    let heads = Heads { n_head: config.n_head, head_dim: config.head_dim() };
    let target = |t: plan::ModelTensor| {
        let qkv = matches!(t.role, TensorRole::AttnQkv(_)) || t.name.ends_with(".attn_qkv.bias");
        let (rows, cols) = (t.rows as u64, t.cols as u64);
        Target { name: t.name, role: t.role, rows, cols, qkv: qkv.then_some(heads) }
    };
    plan::tensors(&config.shape(), output).into_iter().map(target).collect()
}

/// Parts of a name that wrap the whole model: of DataParallel, DeepSpeed, PEFT, TRL, trainers of one's own.
const AROUND: [&str; 13] = [
    "actor",
    "actor_model",
    "backbone",
    "base_model",
    "bloom",
    "language_model",
    "llm",
    "model",
    "module",
    "net",
    "policy",
    "pretrained_model",
    "transformer",
];

/// Parts that wrap single modules, wherever they stand: of FSDP, `torch.compile`, activation checkpointing.
const WITHIN: [&str; 4] =
    ["_checkpoint_wrapped_module", "_forward_module", "_fsdp_wrapped_module", "_orig_mod"];

/// A Hugging Face name without what wraps the model.
struct Unwrapped {
    name: String,
    /// What wraps the model: `base_model.transformer.`, with the last dot; empty for nothing.
    around: String,
}

impl Unwrapped {
    fn new(name: &str) -> Self {
        let mut parts: Vec<&str> = name.split('.').filter(|part| !WITHIN.contains(part)).collect();
        // The last part is never a wrapper.
        let wraps = parts[..parts.len().saturating_sub(1)].iter().take_while(|part| AROUND.contains(part));
        let count = wraps.count();
        let name = parts.split_off(count).join(".");
        Self { name, around: parts.iter().map(|part| format!("{part}.")).collect() }
    }
}

/// What a Hugging Face name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HfName {
    /// The tensor of this GGUF name.
    Tensor(String),
    /// A tensor that BLOOM does not have and that cannot change its output: a value head, a mask.
    Harmless,
    /// Another tensor that no BLOOM has.
    Unknown,
}

/// What wraps the module of a checkpoint that has the embedding and the layers: `transformer.` of a
/// BloomForCausalLM, nothing of a BloomModel.
pub struct Trunk(Option<String>);

impl Trunk {
    /// Found by the embedding among the `names` of a checkpoint.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = names.into_iter().map(Unwrapped::new);
        Self(names.find(|unwrapped| unwrapped.name == "word_embeddings.weight").map(|found| found.around))
    }

    fn has(&self, around: &str) -> bool {
        self.0.as_deref().is_some_and(|trunk| around.starts_with(trunk))
    }
}

/// Translates a Hugging Face name, with or without what wraps the model (`transformer.`, `module.`, ...).
pub fn gguf_name(name: &str, trunk: &Trunk) -> HfName {
    let Unwrapped { name, around } = Unwrapped::new(name);
    let in_trunk = trunk.has(&around);
    match translated(&name) {
        Some(tensor) => HfName::Tensor(tensor),
        None if extra::is_harmless(&name, in_trunk) => HfName::Harmless,
        None => HfName::Unknown,
    }
}

fn translated(name: &str) -> Option<String> {
    if name == "lm_head.weight" {
        return Some("output.weight".into());
    }
    if let Some(rest) = name.strip_prefix("h.") {
        let (layer, rest) = rest.split_once('.')?;
        // As printed: no sign, no leading zero; so that two names cannot mean one tensor.
        let i: u64 = layer.parse().ok().filter(|i: &u64| i.to_string() == layer)?;
        let (module, part) = rest.rsplit_once('.')?;
        let (_, module) = IN_LAYERS.into_iter().find(|(theirs, _)| *theirs == module)?;
        return matches!(part, "weight" | "bias").then(|| format!("blk.{i}.{module}.{part}"));
    }
    let (_, known) = OUTSIDE.into_iter().find(|(theirs, _)| *theirs == name)?;
    Some(known.into())
}

/// The Hugging Face name of the tensor that a GGUF file calls `name`; `None` for one that no BLOOM has.
pub fn hf_name(name: &str) -> Option<String> {
    if name == "output.weight" {
        return Some("lm_head.weight".into());
    }
    if let Some((theirs, _)) = OUTSIDE.into_iter().find(|(_, ours)| *ours == name) {
        return Some(format!("transformer.{theirs}"));
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, part) = rest.split_once('.')?;
    let (theirs, _) = IN_LAYERS.into_iter().find(|(_, ours)| *ours == module)?;
    Some(format!("transformer.h.{layer}.{theirs}.{part}"))
}

/// Modules of a layer: Hugging Face's names and GGUF's.
const IN_LAYERS: [(&str, &str); 6] = [
    ("input_layernorm", "attn_norm"),
    ("self_attention.query_key_value", "attn_qkv"),
    ("self_attention.dense", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.dense_h_to_4h", "ffn_up"),
    ("mlp.dense_4h_to_h", "ffn_down"),
];

/// Tensors outside the layers: Hugging Face's names and GGUF's.
const OUTSIDE: [(&str, &str); 5] = [
    ("word_embeddings.weight", "token_embd.weight"),
    ("word_embeddings_layernorm.weight", "token_embd_norm.weight"),
    ("word_embeddings_layernorm.bias", "token_embd_norm.bias"),
    ("ln_f.weight", "output_norm.weight"),
    ("ln_f.bias", "output_norm.bias"),
];

/// Where every target comes from.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Each target with the index of its source tensor, in writing order. `output.weight` is the last, if the
    /// source has one.
    pub tensors: Vec<(Target, usize)>,
    /// Names of tensors left out: they cannot change the output.
    pub ignored: Vec<String>,
    /// Indices of source tensors that BLOOM does not have and that may change the output.
    pub doubtful: Vec<usize>,
}

/// A tensor of a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct FoundTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape, row-major.
    pub shape: &'a [u64],
    /// The file that holds it, for messages.
    pub file: &'a str,
}

/// Matches a checkpoint's tensors with what the configuration demands.
///
/// # Errors
/// Missing tensors, one tensor stored twice, or a shape that is not the configuration's: says so of all of a
/// kind, and of the tensors that BLOOM does not have.
pub fn assign<'a>(
    config: &Config,
    spelling: Spelling,
    sources: impl IntoIterator<Item = FoundTensor<'a>>,
) -> Result<Assignment, String> {
    let sources: Vec<FoundTensor<'a>> = sources.into_iter().collect();
    let trunk = Trunk::of(sources.iter().map(|source| source.name));
    let mut found: HashMap<String, (usize, FoundTensor<'a>)> = HashMap::new();
    let (mut ignored, mut doubtful, mut doubled) = (Vec::new(), Vec::new(), Vec::new());
    for (index, &source) in sources.iter().enumerate() {
        let name = source.name;
        let target = match spelling {
            Spelling::Gguf if extra::belongs(name, usize::MAX) => HfName::Tensor(name.to_owned()),
            Spelling::Gguf if extra::is_harmless(name, false) => HfName::Harmless,
            Spelling::Gguf => HfName::Unknown,
            Spelling::HuggingFace => gguf_name(name, &trunk),
        };
        let target = match target {
            HfName::Tensor(target) => target,
            HfName::Harmless => {
                ignored.push(name.to_owned());
                continue;
            }
            HfName::Unknown => {
                doubtful.push(index);
                continue;
            }
        };
        if let Some((_, first)) = found.insert(target, (index, source)) {
            let (a, b) = (shown(first.name), shown(name));
            doubled.push(format!("{a} and {b} ({} and {})", shown(first.file), shown(source.file)));
        }
    }
    let (mut tensors, mut missing, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for target in targets(config, found.contains_key("output.weight")) {
        match found.remove(&target.name) {
            None => {
                let theirs = (spelling == Spelling::HuggingFace).then(|| hf_name(&target.name)).flatten();
                missing.push(theirs.unwrap_or(target.name));
            }
            Some((_, source)) if source.shape != target.shape() => {
                let FoundTensor { name, shape, file } = source;
                let expected = target.shape();
                wrong.push(format!("{} is {shape:?}, expected {expected:?} ({})", shown(name), shown(file)));
            }
            Some((index, _)) => tensors.push((target, index)),
        }
    }
    // What is left belongs to no layer of this model.
    doubtful.extend(found.into_values().map(|(index, _)| index));
    doubtful.sort_unstable();
    let doubts = || refusal(doubtful.iter().map(|&index| sources[index]));
    for (list, what) in [
        (doubled, "tensors stored twice"),
        (missing, "tensors missing"),
        (wrong, "tensors of the wrong shape"),
    ] {
        if !list.is_empty() {
            let before = if doubtful.is_empty() { String::new() } else { format!("{}; ", doubts()) };
            return Err(format!("{before}{what}: {}", some_of(&list)));
        }
    }
    Ok(Assignment { tensors, ignored, doubtful })
}

/// Why tensors are refused that BLOOM does not have and that may change its output.
pub(crate) fn refusal<'a>(tensors: impl Iterator<Item = FoundTensor<'a>>) -> String {
    let names: Vec<String> = tensors.map(|t| format!("{} ({})", shown(t.name), shown(t.file))).collect();
    let any = |part: &str| names.iter().any(|name| name.to_lowercase().contains(part));
    let remedy = if any("lora") {
        "a LoRA adapter has to be merged into the model first (merge_and_unload of peft)"
    } else if any("rwtran") {
        "DeepSpeed-Chat gives the prefix rwtranrsformer to a reward model, which rates texts and writes \
         none: give the checkpoint of the actor"
    } else {
        "--skip-tensor REGEX leaves out what does not"
    };
    let what = "tensors that no BLOOM of this configuration has and that may change its output";
    format!("{what}: {} ({remedy})", some_of(&names))
}

/// The first names of a list, and how many more there are.
pub(crate) fn some_of(list: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = list[..list.len().min(SHOWN)].join(", ");
    if list.len() > SHOWN {
        text.push_str(&format!(" and {} more", list.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            n_vocab: 100,
            n_embd: 8,
            n_layer: 2,
            n_head: 2,
            n_ctx: 64,
            eps: 1e-5,
            tied: None,
            name: None,
        }
    }

    /// Names of a checkpoint written out by hand, with their shapes.
    fn checkpoint(prefix: &str) -> Vec<(String, Vec<u64>)> {
        let mut list = vec![
            ("word_embeddings.weight".to_owned(), vec![100, 8]),
            ("word_embeddings_layernorm.weight".into(), vec![8]),
            ("word_embeddings_layernorm.bias".into(), vec![8]),
            ("ln_f.weight".into(), vec![8]),
            ("ln_f.bias".into(), vec![8]),
        ];
        for i in [1, 0] {
            for (name, shape) in [
                ("input_layernorm.weight", vec![8]),
                ("input_layernorm.bias", vec![8]),
                ("self_attention.query_key_value.weight", vec![24, 8]),
                ("self_attention.query_key_value.bias", vec![24]),
                ("self_attention.dense.weight", vec![8, 8]),
                ("self_attention.dense.bias", vec![8]),
                ("post_attention_layernorm.weight", vec![8]),
                ("post_attention_layernorm.bias", vec![8]),
                ("mlp.dense_h_to_4h.weight", vec![32, 8]),
                ("mlp.dense_h_to_4h.bias", vec![32]),
                ("mlp.dense_4h_to_h.weight", vec![8, 32]),
                ("mlp.dense_4h_to_h.bias", vec![8]),
            ] {
                list.push((format!("h.{i}.{name}"), shape));
            }
        }
        list.into_iter().map(|(n, s)| (format!("{prefix}{n}"), s)).collect()
    }

    fn run(list: &[(String, Vec<u64>)]) -> Result<Assignment, String> {
        let sources = list.iter().map(|(name, shape)| FoundTensor { name, shape, file: "m.bin" });
        assign(&config(), Spelling::HuggingFace, sources)
    }

    #[test]
    fn complete_with_and_without_prefix() {
        for prefix in ["", "transformer."] {
            let mut list = checkpoint(prefix);
            list.push((format!("{prefix}h.1.self_attention.masked_bias"), vec![1]));
            let done = run(&list).unwrap();
            assert_eq!(done.tensors.len(), 5 + 2 * 12);
            assert_eq!(done.ignored, [format!("{prefix}h.1.self_attention.masked_bias")]);
            let of = |name: &str| {
                let (t, i) = done.tensors.iter().find(|(t, _)| t.name == name).unwrap();
                (t.clone(), list[*i].0.strip_prefix(prefix).unwrap())
            };
            assert_eq!(of("blk.1.attn_qkv.bias").1, "h.1.self_attention.query_key_value.bias");
            assert_eq!(of("blk.0.attn_output.weight").1, "h.0.self_attention.dense.weight");
            assert_eq!(of("blk.0.ffn_norm.bias").1, "h.0.post_attention_layernorm.bias");
            assert_eq!(of("blk.0.attn_norm.weight").1, "h.0.input_layernorm.weight");
            assert_eq!(of("blk.1.ffn_up.weight").1, "h.1.mlp.dense_h_to_4h.weight");
            let (down, from) = of("blk.1.ffn_down.weight");
            assert_eq!((from, down.dims(), down.qkv), ("h.1.mlp.dense_4h_to_h.weight", vec![32, 8], None));
            let (qkv, _) = of("blk.0.attn_qkv.weight");
            assert_eq!(
                (qkv.dims(), qkv.qkv, qkv.role),
                (vec![8, 24], Some(Heads { n_head: 2, head_dim: 4 }), TensorRole::AttnQkv(0))
            );
            assert_eq!(of("token_embd.weight").1, "word_embeddings.weight");
            assert_eq!(of("token_embd_norm.bias").1, "word_embeddings_layernorm.bias");
            assert_eq!(of("output_norm.weight").1, "ln_f.weight");
            // Layers are written in order, in any order of the shards.
            assert!(done.tensors[3].0.name.starts_with("blk.0."));
        }
    }

    #[test]
    fn what_the_layers_may_use_is_never_harmless() {
        for prefix in ["", "transformer.", "module.model.", "base_model.model.transformer."] {
            let mut list = checkpoint(prefix);
            for (name, harmless) in [("memory.weight", false), ("v_head.weight", true)] {
                list.push((format!("{prefix}{name}"), vec![8]));
                let done = run(&list).unwrap();
                let expected = if harmless { (0, 1) } else { (1, 0) };
                assert_eq!((done.doubtful.len(), done.ignored.len()), expected, "{prefix}{name}");
                list.pop();
            }
        }
        // Outside the module that has the layers.
        let mut list = checkpoint("module.transformer.");
        list.push(("module.memory.weight".into(), vec![8]));
        assert_eq!(run(&list).unwrap().ignored, ["module.memory.weight"]);
    }

    #[test]
    fn names_go_there_and_back() {
        let trunk = Trunk::of(["transformer.word_embeddings.weight"]);
        let gguf_name = |name: &str| gguf_name(name, &trunk);
        for target in targets(&config(), true) {
            let theirs = hf_name(&target.name).unwrap();
            for around in ["", "module.", "base_model.model.", "module._orig_mod.", "actor.model."] {
                let theirs = format!("{around}{theirs}");
                assert_eq!(gguf_name(&theirs), HfName::Tensor(target.name.clone()), "{theirs}");
            }
        }
        let within = "_fsdp_wrapped_module.transformer.h.7._checkpoint_wrapped_module.mlp.dense_h_to_4h.bias";
        assert_eq!(gguf_name(within), HfName::Tensor("blk.7.ffn_up.bias".into()));
        assert_eq!(gguf_name("ref_model.transformer.h.0.mlp.dense_h_to_4h.bias"), HfName::Harmless);
        assert_eq!(gguf_name("transformer.memory.weight"), HfName::Unknown);
        assert_eq!(hf_name("blk.0.attn_q.weight"), None);
    }

    #[test]
    fn head_is_kept_last() {
        let mut list = checkpoint("transformer.");
        list.insert(0, ("lm_head.weight".into(), vec![100, 8]));
        let done = run(&list).unwrap();
        let (target, index) = done.tensors.last().unwrap();
        assert_eq!((target.name.as_str(), target.role, *index), ("output.weight", TensorRole::Output, 0));
    }

    #[test]
    fn refusals_list_the_names() {
        let with = |name: &str, shape: &[u64]| {
            let mut list = checkpoint("");
            list.push((name.into(), shape.to_vec()));
            (run(&list), list)
        };
        for name in [
            "h.2.input_layernorm.weight",
            "h.00.input_layernorm.weight",
            "wpe.weight",
            "lm_head.bias",
            "h.0.mlp.adapter.down.weight",
        ] {
            let (done, list) = with(name, &[8]);
            let done = done.unwrap();
            assert_eq!((done.doubtful, done.ignored.len()), (vec![list.len() - 1], 0), "{name}");
            let found = FoundTensor { name, shape: &[8], file: "m.bin" };
            let error = refusal([found].into_iter());
            assert!(error.contains(name) && error.contains("no BLOOM") && error.contains("--skip-tensor"));
        }
        for name in ["h.0.self_attention.rotary.inv_freq", "v_head.summary.weight", "score.weight"] {
            let done = with(name, &[8]).0.unwrap();
            assert_eq!((done.doubtful.len(), &done.ignored[..]), (0, &[name.to_owned()][..]), "{name}");
        }
        let with = |name: &str, shape: &[u64]| with(name, shape).0.unwrap_err();
        let error = with("transformer.ln_f.bias", &[8]);
        assert!(error.contains("ln_f.bias and transformer.ln_f.bias"), "{error}");
        let mut list = checkpoint("");
        list.retain(|(n, _)| n != "h.1.mlp.dense_h_to_4h.bias");
        let error = run(&list).unwrap_err();
        assert!(error.contains("missing") && error.contains("h.1.mlp.dense_h_to_4h.bias"), "{error}");
        let mut list = checkpoint("");
        list.iter_mut().find(|(n, _)| n == "h.0.mlp.dense_4h_to_h.weight").unwrap().1 = vec![32, 8];
        let error = run(&list).unwrap_err();
        assert!(error.contains("weight is [32, 8], expected [8, 32] (m.bin)"), "{error}");
        // A name may hold anything; what no BLOOM has is told together with what is missing.
        let name = format!("h.0.\u{1b}[2J{}", "x".repeat(1 << 20));
        let mut list = checkpoint("");
        list[0].0 = name;
        let error = run(&list).unwrap_err();
        assert!(!error.contains('\u{1b}') && error.len() < 400, "{}", error.len());
        assert!(
            error.contains("no BLOOM") && error.contains("transformer.word_embeddings.weight"),
            "{error}"
        );
    }

    #[test]
    fn qkv_rows_by_hand() {
        // Two heads of width 2: q0 q0 k0 k0 v0 v0 q1 q1 k1 k1 v1 v1 -> q0 q0 q1 q1 k0 k0 k1 k1 v0 v0 v1 v1.
        let from: Vec<u64> = (0..12).map(|row| Heads { n_head: 2, head_dim: 2 }.source_row(row)).collect();
        assert_eq!(from, [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
    }
}
