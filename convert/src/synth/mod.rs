//! Random checkpoints of a real shape, to try the pipeline before downloading a model.
//!
//! In: a shape, a layout, a seed. Out: a folder as the Hugging Face hub has it: weights in F16 of a trained
//! model's scale, in shards with an index, configuration, a full-size tokenizer with Huozi's two markers. The
//! weights are those of [`huozi_quant::bloom::synth`]: the same for every layout, on any number of threads.
//! The text of such a model is meaningless.

mod folder;
mod safetensors;
mod text;
mod torch;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use huozi_quant::Format;
use huozi_quant::bloom::plan;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::bloom::synth::{MIN_VOCAB, RandomWeights};
use serde::Serialize;

use crate::config::Config;
use crate::error::Error;
use crate::names::hf_name;
use crate::progress::Progress;
use crate::report::displayed;
use folder::{NewFile, NewFolder};
use weights::{CheckpointTensor, WeightSink};

/// How the weights lie on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointLayout {
    /// `model*.safetensors`.
    Safetensors,
    /// `pytorch_model*.bin`: zip archives of a pickle and its storages.
    Bin,
}

/// A checkpoint before a byte of it exists.
#[derive(Clone, Debug)]
pub struct CheckpointRecipe {
    /// Sizes.
    pub shape: Shape,
    /// Kind of file.
    pub layout: CheckpointLayout,
    /// Equal seeds give equal weights.
    pub seed: u64,
    /// A shard ends before the tensor that would lead beyond this; one tensor may be larger.
    pub shard_bytes: u64,
}

/// The checkpoint that was written.
#[derive(Clone, Debug, Serialize)]
pub struct MadeCheckpoint {
    /// The folder.
    #[serde(serialize_with = "displayed")]
    pub path: PathBuf,
    /// Files with weights.
    pub shards: usize,
    /// Bytes of weights.
    pub bytes: u64,
}

impl CheckpointRecipe {
    /// In shards as large as the transformers library made them when models were stored in this layout.
    pub fn new(shape: Shape, layout: CheckpointLayout, seed: u64) -> Self {
        let shard_bytes = match layout {
            CheckpointLayout::Safetensors => 5_000_000_000,
            CheckpointLayout::Bin => 10_000_000_000,
        };
        Self { shape, layout, seed, shard_bytes }
    }

    /// Writes the checkpoint into `DIR.partial`, which becomes `dir` when everything is on the disk and is
    /// removed when anything fails. Holds a few MiB per thread.
    ///
    /// # Errors
    /// `dir` is there and not empty, sizes that no model has, a vocabulary that is too small, too little
    /// disk, `cancel`.
    pub fn write(
        &self,
        dir: &Path,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<MadeCheckpoint, Error> {
        let least = MIN_VOCAB + text::MARKERS.len();
        if self.shape.n_vocab < least {
            let n = self.shape.n_vocab;
            return Err(Error::Usage(format!(
                "a vocabulary of {n} is too small: at least {least} are needed"
            )));
        }
        // The converter must accept the checkpoint.
        Config::of(&self.shape).check().map_err(Error::Usage)?;
        let target = folder::target(dir)?;
        let plan = plan::tensors(&self.shape, false);
        let weights = RandomWeights::new(&self.shape, plan.iter().map(|t| (t, Format::F16)), self.seed);
        let tensors = plan.iter().enumerate().map(|(number, t)| CheckpointTensor {
            name: hf_name(&t.name).expect("every tensor of the plan has one"),
            shape: t.dims().into_iter().rev().collect(),
            bytes: 2 * t.rows as u64 * t.cols as u64,
            number,
        });
        let shards = shards(tensors.collect(), self.shard_bytes);
        let bytes = shards.iter().flatten().map(|t| t.bytes).sum();

        let folder = NewFolder::create(&target)?;
        folder.refuse_full_disk(bytes)?;
        for (name, content) in text::files(&self.shape)? {
            folder.create_file(name)?.write_all(&content)?.finish()?;
        }
        let sink = WeightSink { weights: &weights, progress, cancel };
        progress.start(bytes);
        let names = self.names(shards.len());
        let mut files = Vec::new();
        for (name, tensors) in names.iter().zip(&shards) {
            let file = folder.create_file(name)?;
            match self.layout {
                CheckpointLayout::Safetensors => safetensors::write(&file, tensors, &sink)?,
                CheckpointLayout::Bin => torch::write(&file, name, tensors, &sink)?,
            }
            files.push(file);
        }
        progress.sync(0);
        files.into_iter().try_for_each(NewFile::finish)?;
        if let [_, _, ..] = &shards[..] {
            let name = format!("{}.index.json", self.whole());
            folder.create_file(&name)?.write_all(&index(&names, &shards, bytes))?.finish()?;
        }
        folder.finish()?;
        Ok(MadeCheckpoint { path: dir.to_owned(), shards: shards.len(), bytes })
    }

    /// The name of a single file of weights.
    fn whole(&self) -> &'static str {
        match self.layout {
            CheckpointLayout::Safetensors => "model.safetensors",
            CheckpointLayout::Bin => "pytorch_model.bin",
        }
    }

    fn names(&self, n: usize) -> Vec<String> {
        match (n, self.whole().rsplit_once('.')) {
            (2.., Some((stem, end))) => (1..=n).map(|i| format!("{stem}-{i:05}-of-{n:05}.{end}")).collect(),
            _ => vec![self.whole().into()],
        }
    }
}

/// Tensors in order, as many to a shard as fit.
fn shards(tensors: Vec<CheckpointTensor>, most: u64) -> Vec<Vec<CheckpointTensor>> {
    let (mut shards, mut bytes) = (vec![Vec::new()], 0);
    for t in tensors {
        if bytes + t.bytes > most && bytes > 0 {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += t.bytes;
        shards.last_mut().expect("there is one from the start").push(t);
    }
    shards
}

/// `*.index.json`: which tensor is in which shard.
fn index(names: &[String], shards: &[Vec<CheckpointTensor>], bytes: u64) -> Vec<u8> {
    let of = |(name, shard): (&String, &Vec<CheckpointTensor>)| {
        shard.iter().map(|t| (t.name.clone(), name.clone().into())).collect::<Vec<_>>()
    };
    let map: serde_json::Map<_, _> = names.iter().zip(shards).flat_map(of).collect();
    text::pretty(&serde_json::json!({ "metadata": { "total_size": bytes }, "weight_map": map }))
}
