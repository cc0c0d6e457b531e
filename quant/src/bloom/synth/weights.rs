//! Blocks of random weights in every format.
//!
//! In: formats, spreads, a seed. Out: the blocks of each tensor, whole or in pieces; the same bytes on any
//! number of threads.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::bloom::plan::{ModelTensor, TensorRole};
use crate::bloom::shape::Shape;
use crate::formats::Format;
use crate::random::Random;

/// Weights that are encoded for each pair of format and spread.
pub const PAGE_WEIGHTS: usize = 1 << 18;
/// Weights that move together; a multiple of every block.
const UNIT_WEIGHTS: usize = 256;
/// Units filled with one seed: the pieces in which threads claim work and files are written.
const PIECE_UNITS: usize = 1 << 14;

/// Encoded random weights, from which any amount of others is made.
pub struct RandomPage {
    format: Format,
    blocks: Vec<u8>,
}

impl RandomPage {
    /// Normal weights around `mean` with standard deviation `deviation`.
    pub fn new(format: Format, mean: f32, deviation: f32, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let x: Vec<f32> = (0..PAGE_WEIGHTS).map(|_| mean + deviation * random.normal()).collect();
        let mut blocks = vec![0; PAGE_WEIGHTS / format.block_weights() * format.block_bytes()];
        let unit = UNIT_WEIGHTS / format.block_weights() * format.block_bytes();
        let rows = x.par_chunks(UNIT_WEIGHTS).zip(blocks.par_chunks_mut(unit));
        rows.for_each(|(x, out)| format.encode(x, None, out));
        Self { format, blocks }
    }

    /// Bytes of one unit.
    fn unit(&self) -> usize {
        UNIT_WEIGHTS / self.format.block_weights() * self.format.block_bytes()
    }

    /// Fills `out` with blocks in an order that `seed` and `tensor` choose, on all threads.
    ///
    /// `out`: whole blocks.
    ///
    /// # Panics
    /// When `out` is no whole number of blocks.
    pub fn fill(&self, seed: u64, tensor: u64, out: &mut [u8]) {
        assert!(
            out.len().is_multiple_of(self.format.block_bytes()),
            "{} bytes in {}",
            out.len(),
            self.format
        );
        out.par_chunks_mut(self.piece()).enumerate().for_each(|(i, out)| {
            self.fill_piece(Random::of_part(seed, [tensor, i as u64]), out);
        });
    }

    /// Bytes that are filled with one seed.
    fn piece(&self) -> usize {
        PIECE_UNITS * self.unit()
    }

    fn fill_piece(&self, mut random: Random, out: &mut [u8]) {
        let unit = self.unit();
        let units = (self.blocks.len() / unit) as u64;
        for out in out.chunks_mut(unit) {
            let at = random.below(units) as usize * unit;
            out.copy_from_slice(&self.blocks[at..at + out.len()]);
        }
    }
}

/// The weights of the tensors of a model, each with the spread that a tensor of its role has in a trained
/// model.
pub struct RandomWeights {
    keys: Vec<PageKey>,
    pages: HashMap<PageKey, RandomPage>,
    seed: u64,
}

impl RandomWeights {
    /// For `tensors` of a model of this shape, each in a format. Equal seeds give equal weights.
    pub fn new<'a>(
        shape: &Shape,
        tensors: impl IntoIterator<Item = (&'a ModelTensor, Format)>,
        seed: u64,
    ) -> Self {
        let (mut keys, mut pages) = (Vec::new(), HashMap::new());
        for (tensor, format) in tensors {
            let key = PageKey::of(shape, tensor, format);
            keys.push(key);
            pages.entry(key).or_insert_with(|| {
                let (mean, deviation) = (f32::from_bits(key.mean), f32::from_bits(key.deviation));
                let seed = seed ^ u64::from(key.mean) ^ u64::from(key.deviation);
                RandomPage::new(format, mean, deviation, seed)
            });
        }
        Self { keys, pages, seed }
    }

    /// Fills `out` with the whole of tensor number `tensor`.
    ///
    /// # Panics
    /// When there is no such tensor, or `out` is no whole number of blocks.
    pub fn fill(&self, tensor: usize, out: &mut [u8]) {
        self.page(tensor).fill(self.seed, tensor as u64, out);
    }

    /// Bytes of each piece of tensor number `tensor` but the last.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn piece_bytes(&self, tensor: usize) -> u64 {
        self.page(tensor).piece() as u64
    }

    /// Fills `out` with piece number `piece` of tensor number `tensor`: whole blocks, at most
    /// [`piece_bytes`](Self::piece_bytes). The pieces in order are what [`fill`](Self::fill) gives.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn fill_piece(&self, tensor: usize, piece: u64, out: &mut [u8]) {
        self.page(tensor).fill_piece(Random::of_part(self.seed, [tensor as u64, piece]), out);
    }

    fn page(&self, tensor: usize) -> &RandomPage {
        &self.pages[&self.keys[tensor]]
    }
}

/// Tensors that are made of the same page. Numbers as their bits, to be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PageKey {
    format: Format,
    mean: u32,
    deviation: u32,
}

impl PageKey {
    /// The spread of a tensor's weights. A matrix with deviation 1 / sqrt(cols) gives outputs as large as its
    /// inputs; what is added to the residual stream is smaller by sqrt(2 layers), as in GPT-2, so that all of
    /// them together are as large as the embedding.
    fn of(shape: &Shape, tensor: &ModelTensor, format: Format) -> Self {
        let even = 1.0 / (tensor.cols as f32).sqrt();
        let (mean, deviation): (f32, f32) = match tensor.role {
            TensorRole::TokenEmbd | TensorRole::Output | TensorRole::AttnQkv(_) | TensorRole::FfnUp(_) => {
                (0.0, even)
            }
            TensorRole::AttnOutput(_) | TensorRole::FfnDown(_) => {
                (0.0, even / (2.0 * shape.n_layer as f32).sqrt())
            }
            TensorRole::Vector if tensor.name.ends_with("norm.weight") => (1.0, 0.1),
            TensorRole::Vector => (0.0, 0.02),
        };
        Self { format, mean: mean.to_bits(), deviation: deviation.to_bits() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn moments(x: &[f32]) -> (f64, f64) {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let square = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean, square.sqrt())
    }

    #[test]
    fn every_format_decodes_to_finite_weights_of_the_deviation_asked_for() {
        for &format in Format::ALL {
            let page = RandomPage::new(format, 0.0, 0.5, 1);
            let mut blocks = vec![0; 300 * UNIT_WEIGHTS / format.block_weights() * format.block_bytes()];
            page.fill(2, 3, &mut blocks);
            let mut x = vec![f32::NAN; 300 * UNIT_WEIGHTS];
            format.decode(&blocks, &mut x);
            assert!(x.iter().all(|x| x.is_finite() && x.abs() < 4.0), "{format}");
            let (mean, deviation) = moments(&x);
            assert!(mean.abs() < 0.01 && (deviation - 0.5).abs() < 0.05, "{format}: {mean} {deviation}");
            // Not one unit over and over.
            let unit = page.unit();
            assert!(blocks.chunks(unit).collect::<HashSet<_>>().len() > 200, "{format}");
        }
    }
}
