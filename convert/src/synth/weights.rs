//! The tensors of a random checkpoint and the writing of their weights.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use huozi_quant::bloom::synth::RandomWeights;
use rayon::prelude::*;

use super::folder::NewFile;
use crate::error::Error;
use crate::progress::Progress;

/// One tensor of the checkpoint.
pub(super) struct CheckpointTensor {
    /// Hugging Face's name.
    pub name: String,
    /// Row-major.
    pub shape: Vec<u64>,
    pub bytes: u64,
    /// Number of its weights.
    pub number: usize,
}

/// The random weights, the progress to report and the cancel flag.
pub(super) struct WeightSink<'a> {
    pub weights: &'a RandomWeights,
    pub progress: &'a dyn Progress,
    pub cancel: &'a AtomicBool,
}

impl WeightSink<'_> {
    /// Writes a tensor's weights from byte `at` of `file`, on all threads; gives back their CRC-32.
    pub fn put(&self, file: &NewFile, at: u64, tensor: &CheckpointTensor) -> Result<u32, Error> {
        let piece_bytes = self.weights.piece_bytes(tensor.number);
        let pieces = (0..tensor.bytes.div_ceil(piece_bytes)).into_par_iter();
        let sum = pieces.map(|piece| {
            if self.cancel.load(Relaxed) {
                return Err(Error::Interrupted);
            }
            let from = piece * piece_bytes;
            let mut out = vec![0; (tensor.bytes - from).min(piece_bytes) as usize];
            self.weights.fill_piece(tensor.number, piece, &mut out);
            file.write_at(at + from, &out)?;
            self.progress.advance(out.len() as u64);
            let mut sum = crc32fast::Hasher::new();
            sum.update(&out);
            Ok(sum)
        });
        let sum = sum.try_reduce(crc32fast::Hasher::new, |mut a, b| {
            a.combine(&b);
            Ok(a)
        });
        sum.map(crc32fast::Hasher::finalize)
    }
}
