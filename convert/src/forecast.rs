//! What a conversion would do: every tensor with its format, the file, the memory to run the model, the time.
//! Writes nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use huozi_quant::Format;
use huozi_quant::encode::encode_rows;
use huozi_quant::kv::KvType;
use serde::Serialize;

use crate::error::Error;
use crate::model::SourceModel;
use crate::names::{Target, TensorRole};
use crate::output::{OutputPlan, device, free_bytes};
use crate::report::{OutputFile, Summary};
use crate::work::{Chunk, EncodeOptions, Workers, row_bytes};

/// The context for which memory is stated.
pub const CONTEXT: usize = 2048;
/// Tokens of a prompt taken at once, and rows of logits kept, by the runtime.
const STEP: (usize, usize) = (512, 16);

/// What a conversion would do.
pub type Forecast = Summary<OutputForecast>;

/// One file that would be written.
#[derive(Clone, Debug, Serialize)]
pub struct OutputForecast {
    /// The file.
    #[serde(flatten)]
    pub file: OutputFile,
    /// Bytes that are free on its disk; `None` when the system does not say.
    pub free_bytes: Option<u64>,
    /// Bytes of all files that would be written to that disk.
    pub disk_bytes: u64,
    /// Bytes of memory that running the model takes at a context of 2048 tokens.
    pub memory: Vec<KvMemory>,
    /// Every tensor, in the order of the file.
    pub tensors: Vec<TensorForecast>,
}

/// Memory with one type of keys and values.
#[derive(Clone, Debug, Serialize)]
pub struct KvMemory {
    /// `f32`, `f16` or `q8`.
    pub kv_type: &'static str,
    /// File, keys and values, activations.
    pub bytes: u64,
}

/// One tensor of a file that would be written.
#[derive(Clone, Debug, Serialize)]
pub struct TensorForecast {
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
    model: &SourceModel,
    work: &Workers<'_>,
    chunks: &[Chunk],
    plans: &[OutputPlan],
    options: EncodeOptions<'_>,
) -> Result<Forecast, Error> {
    let sources = work.checkpoint.tensors();
    let weights = model.weights();
    let shape = model.config.shape();
    let one = |plan: &OutputPlan| {
        let (bytes, list) = (plan.layout.file_bytes(), plan.layout.tensors());
        let memory = [("f32", KvType::F32), ("f16", KvType::F16), ("q8", KvType::Q8)];
        let memory = memory.map(|(kv_type, kv)| {
            let bytes = shape.forecast(bytes, CONTEXT, kv, STEP.0, STEP.1).total;
            KvMemory { kv_type, bytes }
        });
        let tensors = list.iter().zip(&model.tensors).map(|(t, (_, source))| TensorForecast {
            name: t.name.clone(),
            dims: t.dims.clone(),
            format: t.format.name(),
            bytes: t.bytes,
            source_type: sources[*source].dtype.name().to_owned(),
        });
        OutputForecast {
            file: OutputFile::new(&plan.path, plan.preset, bytes, list, weights),
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
        seconds: seconds(model, work, chunks, plans, options)?,
        outputs: plans.iter().map(one).collect(),
        notes: model.notes.clone(),
    })
}

/// Whether two files would be on one disk; one file always is, even if the system does not tell its disk.
fn same_disk(a: &OutputPlan, b: &OutputPlan) -> bool {
    a.path == b.path || device(&a.path).is_some_and(|disk| device(&b.path) == Some(disk))
}

/// Seconds of the whole conversion, from one chunk that is read and encoded in every format of the plans.
fn seconds(
    model: &SourceModel,
    work: &Workers<'_>,
    chunks: &[Chunk],
    plans: &[OutputPlan],
    options: EncodeOptions<'_>,
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
                    *new.insert(try_out(job, tensor, of[of.len() / 2], work, options)?)
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
    work: &Workers<'_>,
    options: EncodeOptions<'_>,
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
            let importance = options.imatrix.and_then(|m| m.of(target));
            encode_rows(work.isa, format, &weights, cols, importance, &mut blocks);
        }
    }
    Ok(started.elapsed().as_secs_f64() / weights.len() as f64)
}
