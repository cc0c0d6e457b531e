//! What a conversion would do: every tensor with its format, the file, the memory to run it, the time. Nothing is written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::time::Instant;

use huozi_quant::Format;
use huozi_quant::encode::encode_rows;
use huozi_quant::kv::KvType;
use serde::Serialize;

use crate::Error;
use crate::model::Model;
use crate::names::{Target, TensorRole};
use crate::output::{Plan, device, free_bytes};
use crate::report::{FormatCount, count, displayed};
use crate::work::{Chunk, How, Work, row_bytes};

/// The context that memory is told for.
pub const CONTEXT: usize = 2048;
/// Tokens of a prompt taken at once, and rows of logits kept, by the runtime.
const STEP: (usize, usize) = (512, 16);

/// What would be done.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// `general.name`.
    pub name: String,
    /// Weights of the model.
    pub weights: u64,
    /// Bytes of source tensors to be read.
    pub source_bytes: u64,
    /// How long it would take, from a piece of each format tried now; without the time the disk may need beyond that.
    pub seconds: f64,
    /// One per output.
    pub outputs: Vec<Planned>,
    /// What a person may want to know.
    pub notes: Vec<String>,
}

/// One file that would be written.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// Its name.
    #[serde(serialize_with = "displayed")]
    pub path: PathBuf,
    /// The preset.
    #[serde(rename = "type")]
    pub preset: String,
    /// Its length.
    pub bytes: u64,
    /// Bits of tensor data per weight of the model.
    pub bits_per_weight: f64,
    /// How many tensors each format has.
    pub formats: Vec<FormatCount>,
    /// Bytes that its disk has free; `None` when the system does not say.
    pub free_bytes: Option<u64>,
    /// Bytes of all files that would be written to that disk.
    pub disk_bytes: u64,
    /// Bytes of memory to run it at a context of 2048 tokens.
    pub memory: Vec<Memory>,
    /// Every tensor, in the order of the file.
    pub tensors: Vec<Planning>,
}

/// Memory with one type of keys and values.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// `f32`, `f16` or `q8`.
    pub kv_type: &'static str,
    /// File, keys and values, activations.
    pub bytes: u64,
}

/// One tensor of a file that would be written.
#[derive(Clone, Debug, Serialize)]
pub struct Planning {
    /// Its name.
    pub name: String,
    /// Columns first.
    pub dims: Vec<u64>,
    /// Its format.
    #[serde(rename = "type")]
    pub format: &'static str,
    /// Its bytes.
    pub bytes: u64,
    /// How the source stores it.
    pub source_type: String,
}

pub(crate) fn forecast(
    model: &Model,
    work: &Work<'_>,
    chunks: &[Chunk],
    plans: &[Plan],
    how: How<'_>,
) -> Result<Forecast, Error> {
    let sources = work.checkpoint.tensors();
    let weights = model.weights();
    let shape = model.config.shape();
    let one = |plan: &Plan| {
        let formats = count(plan.layout.tensors());
        let data: u64 = formats.iter().map(|f| f.bytes).sum();
        let memory = [("f32", KvType::F32), ("f16", KvType::F16), ("q8", KvType::Q8)];
        let memory = memory.map(|(kv_type, kv)| {
            let bytes = shape.forecast(plan.layout.file_bytes(), CONTEXT, kv, STEP.0, STEP.1).total;
            Memory { kv_type, bytes }
        });
        let tensors = plan.layout.tensors().iter().zip(&model.tensors).map(|(t, (_, source))| Planning {
            name: t.name.clone(),
            dims: t.dims.clone(),
            format: t.format.name(),
            bytes: t.bytes,
            source_type: sources[*source].dtype.name().to_owned(),
        });
        Planned {
            path: plan.path.clone(),
            preset: plan.preset.name().into(),
            bytes: plan.layout.file_bytes(),
            bits_per_weight: data as f64 * 8.0 / weights as f64,
            formats,
            free_bytes: free_bytes(&plan.path),
            disk_bytes: plans
                .iter()
                .filter(|other| same_disk(plan, other))
                .map(|p| p.layout.file_bytes())
                .sum(),
            memory: memory.to_vec(),
            tensors: tensors.collect(),
        }
    };
    Ok(Forecast {
        name: model.name.clone(),
        weights,
        source_bytes: model.tensors.iter().map(|(_, source)| sources[*source].bytes).sum(),
        seconds: seconds(model, work, chunks, plans, how)?,
        outputs: plans.iter().map(one).collect(),
        notes: model.notes.clone(),
    })
}

/// Whether two files would be on one disk; a file is with itself, whatever the system says.
fn same_disk(a: &Plan, b: &Plan) -> bool {
    a.path == b.path || device(&a.path).is_some_and(|disk| device(&b.path) == Some(disk))
}

/// Reads a chunk and encodes it in every format that is asked for, and takes the rest to be like it.
fn seconds(
    model: &Model,
    work: &Work<'_>,
    chunks: &[Chunk],
    plans: &[Plan],
    how: How<'_>,
) -> Result<f64, Error> {
    let mut per_weight: HashMap<Option<Format>, f64> = HashMap::new();
    let mut total = 0.0;
    for (i, tensor) in model.tensors.iter().enumerate().filter(|(_, (t, _))| t.role != TensorRole::Vector) {
        // `None` stands for reading.
        for job in plans.iter().map(|p| Some(p.layout.tensors()[i].format)).chain([None]) {
            let rate = match per_weight.entry(job) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let of: Vec<&Chunk> = chunks.iter().filter(|c| c.target == i).collect();
                    // In the middle: the first rows of an embedding are not like the others.
                    *new.insert(try_out(job, tensor, of[of.len() / 2], work, how)?)
                }
            };
            total += (tensor.0.rows * tensor.0.cols) as f64 * rate;
        }
    }
    Ok(total / work.pool.current_num_threads() as f64)
}

/// Seconds per weight of encoding a chunk in a format, or of reading it.
fn try_out(
    job: Option<Format>,
    (target, source): &(Target, usize),
    chunk: &Chunk,
    work: &Work<'_>,
    how: How<'_>,
) -> Result<f64, Error> {
    let (mut weights, mut other, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = || work.read(target, *source, &chunk.rows, &mut weights, &mut other);
    // The first time warms things up.
    read()?;
    let started = Instant::now();
    match job {
        None => read()?,
        Some(format) => {
            let cols = target.cols as usize;
            blocks.resize(row_bytes(format, target) * (weights.len() / cols), 0);
            let importance = how.imatrix.and_then(|m| m.of(target));
            encode_rows(work.isa, format, &weights, cols, importance, &mut blocks);
        }
    }
    Ok(started.elapsed().as_secs_f64() / weights.len() as f64)
}
