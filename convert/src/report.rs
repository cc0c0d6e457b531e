//! What a conversion did or would do, for people and programs.

use std::path::{Path, PathBuf};

use huozi_quant::Format;
use huozi_quant::gguf::TensorInfo;
use serde::{Serialize, Serializer};

use crate::journal::Loss;
use crate::output::Output;
use crate::plan::Preset;
use crate::work::Chunk;

/// How many of the worst tensors a report lists.
const WORST: usize = 5;

/// What a conversion did ([`Report`]) or would do ([`Forecast`](crate::Forecast)).
#[derive(Clone, Debug, Serialize)]
pub struct Summary<F> {
    /// `general.name`.
    pub name: String,
    /// Weights of the model, a duplicated output not counted.
    pub weights: u64,
    /// Bytes of source tensors to read.
    pub source_bytes: u64,
    /// Of a report: from the first byte read to the last rename. Of a forecast: an estimate from a piece of
    /// each format that is encoded now; without the time that the disk may need beyond that.
    pub seconds: f64,
    /// One per output, in the order of the options.
    pub outputs: Vec<F>,
    /// Notes for the person who converts.
    pub notes: Vec<String>,
}

/// What was written.
pub type Report = Summary<OutputReport>;

/// What a finished file and a planned one have in common.
#[derive(Clone, Debug, Serialize)]
pub struct OutputFile {
    /// Its final name.
    #[serde(serialize_with = "displayed")]
    pub path: PathBuf,
    /// The preset.
    #[serde(rename = "type")]
    pub preset: String,
    /// Its length.
    pub bytes: u64,
    /// Bits of tensor data per weight of the model.
    pub bits_per_weight: f64,
    /// How many tensors each format has, in the order of their GGUF ids.
    pub formats: Vec<FormatCount>,
}

impl OutputFile {
    /// A file of `bytes` that holds `tensors`; `weights`: those of the model.
    pub(crate) fn new(path: &Path, preset: Preset, bytes: u64, tensors: &[TensorInfo], weights: u64) -> Self {
        let formats = count(tensors);
        let data: u64 = formats.iter().map(|f| f.bytes).sum();
        Self {
            path: path.to_owned(),
            preset: preset.name().into(),
            bytes,
            bits_per_weight: data as f64 * 8.0 / weights as f64,
            formats,
        }
    }
}

/// One file written.
#[derive(Clone, Debug, Serialize)]
pub struct OutputReport {
    /// The file.
    #[serde(flatten)]
    pub file: OutputFile,
    /// The tensors with the largest errors, the worst first.
    pub worst: Vec<TensorLoss>,
    /// Whether the file was compared with the source; the errors are then of all weights, else of every 16th
    /// row.
    pub verified: bool,
    #[serde(skip)]
    tensors: Vec<TensorInfo>,
}

/// A format's share of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FormatCount {
    /// Its name.
    pub format: &'static str,
    /// Tensors.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A tensor and the error of its encoding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorLoss {
    /// Its name.
    pub tensor: String,
    /// Its format.
    pub format: &'static str,
    /// Root of the sum of squared errors over that of squared weights.
    pub relative_error: f64,
}

/// Writes a path as text: JSON cannot hold one that is not UTF-8.
pub(crate) fn displayed<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// How many tensors of each format there are.
fn count(tensors: &[TensorInfo]) -> Vec<FormatCount> {
    let one = |format: &Format| {
        let of = tensors.iter().filter(|t| t.format == *format);
        let (bytes, tensors) = (of.clone().map(|t| t.bytes).sum(), of.count());
        FormatCount { format: format.name(), tensors, bytes }
    };
    Format::ALL.iter().map(one).filter(|c| c.tensors > 0).collect()
}

/// The losses of a tensor's chunks, summed in their order.
pub(crate) fn per_tensor(chunks: &[Chunk], losses: &[Loss], tensors: usize) -> Vec<Loss> {
    let mut sums = vec![Loss::default(); tensors];
    chunks.iter().zip(losses).for_each(|(chunk, loss)| sums[chunk.target].add(*loss));
    sums
}

impl OutputReport {
    /// The report of `output`; `weights`: those of the model.
    pub(crate) fn new(output: &Output<'_>, chunks: &[Chunk], weights: u64) -> Self {
        let tensors = output.tensors().to_vec();
        let file = OutputFile::new(output.path(), output.preset(), output.file_bytes(), &tensors, weights);
        let mut written = Self { file, worst: Vec::new(), verified: false, tensors };
        written.set_losses(chunks, &output.losses(), false);
        written
    }

    /// Finds the tensors with the largest errors.
    pub(crate) fn set_losses(&mut self, chunks: &[Chunk], losses: &[Loss], verified: bool) {
        let sums = per_tensor(chunks, losses, self.tensors.len());
        let mut all: Vec<(f64, &TensorInfo)> = sums
            .into_iter()
            .map(Loss::relative)
            .zip(&self.tensors)
            .filter(|(error, _)| *error > 0.0)
            .collect();
        // Stable: among equals the first in the file.
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let worst = |(relative_error, t): &(f64, &TensorInfo)| TensorLoss {
            tensor: t.name.clone(),
            format: t.format.name(),
            relative_error: *relative_error,
        };
        self.worst = all.iter().take(WORST).map(worst).collect();
        self.verified = verified;
    }
}
