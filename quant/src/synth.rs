//! Models with random weights: blocks of every format, and whole GGUF files of a shape with a synthetic vocabulary.
//!
//! In: a shape, a preset, a seed. Out: the same bytes every time, on any number of threads, in memory or in a file.
//! For measuring speed without a download: what such a model says means nothing.
//!
//! Weights are normal, with the spread that keeps activations of order one through any number of layers, and are
//! encoded by the formats' own encoders, so that scales and mins are what they are in real files. Only
//! [`PAGE_WEIGHTS`] of them are encoded per spread; a tensor is pages of these blocks in random order, which no kernel
//! can tell from others and which costs a copy instead of a search.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::prelude::*;

use crate::formats::Format;
use crate::gguf::{self, Layout, MetaValue, Reader, TensorSpec, Writer};
use crate::map::Bytes;
use crate::plan::{self, Preset, Role, Tensor, Wishes};
use crate::shape::Shape;

/// Weights that are encoded for each pair of format and spread.
pub const PAGE_WEIGHTS: usize = 1 << 18;
/// Weights that move together; a multiple of every block.
const UNIT_WEIGHTS: usize = 256;
/// Units filled with one seed: the pieces in which threads claim work and files are written.
const PIECE_UNITS: usize = 1 << 14;

/// SplitMix64: small, seeded by any number, good enough for weights that mean nothing.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of part `part` of what `seed` makes, unlike those of other parts.
    fn of(seed: u64, part: [u64; 2]) -> Self {
        let mut mix = Self(seed);
        for part in part {
            mix = Self(mix.bits() ^ part);
        }
        Self(mix.bits())
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.bits() as u128 * n as u128) >> 64) as u64
    }

    /// Nearly normal, of mean 0 and standard deviation 1: a sum of uniform numbers, without a function that rounds
    /// differently elsewhere.
    pub fn normal(&mut self) -> f32 {
        // Twelve uniform numbers of 16 bits have the variance 1.
        let sum: u64 = (0..3)
            .map(|_| {
                let bits = self.bits();
                (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum::<u64>()
            })
            .sum();
        (sum as f32 + 6.0) / 65536.0 - 6.0
    }
}

/// Encoded random weights, from which any amount of others is made.
pub struct Page {
    format: Format,
    blocks: Vec<u8>,
}

impl Page {
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
            self.fill_piece(Random::of(seed, [tensor, i as u64]), out);
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

/// The weights of the tensors of a model, each with the spread that a tensor of its kind has in a trained one.
pub struct Weights {
    kinds: Vec<Kind>,
    pages: HashMap<Kind, Page>,
    seed: u64,
}

impl Weights {
    /// For `tensors` of a model of this shape, each in a format. Equal seeds give equal weights.
    pub fn new<'a>(
        shape: &Shape,
        tensors: impl IntoIterator<Item = (&'a Tensor, Format)>,
        seed: u64,
    ) -> Self {
        let (mut kinds, mut pages) = (Vec::new(), HashMap::new());
        for (tensor, format) in tensors {
            let kind = Kind::of(shape, tensor, format);
            kinds.push(kind);
            pages.entry(kind).or_insert_with(|| {
                let (mean, deviation) = (f32::from_bits(kind.mean), f32::from_bits(kind.deviation));
                let seed = seed ^ u64::from(kind.mean) ^ u64::from(kind.deviation);
                Page::new(format, mean, deviation, seed)
            });
        }
        Self { kinds, pages, seed }
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
        self.page(tensor).fill_piece(Random::of(self.seed, [tensor as u64, piece]), out);
    }

    fn page(&self, tensor: usize) -> &Page {
        &self.pages[&self.kinds[tensor]]
    }
}

/// Why no model was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A vocabulary needs a token per byte and four special ones.
    #[error("a vocabulary of {n_vocab} tokens is too small: at least {MIN_VOCAB} are needed")]
    Vocabulary {
        /// Tokens asked for.
        n_vocab: usize,
    },
    /// A model that the container does not hold, or a file that cannot be written.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// Something with the file.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Not enough memory for the weights.
    #[error("no memory for a model of {bytes} bytes: {source}")]
    Memory {
        /// Bytes asked for.
        bytes: u64,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// `cancel` was set.
    #[error("interrupted")]
    Interrupted,
}

/// A random model: what it will be, before a byte of it exists.
#[derive(Clone, Debug)]
pub struct Model {
    /// Sizes.
    pub shape: Shape,
    /// Types of the tensors. The head is the embedding.
    pub preset: Preset,
    /// Equal seeds give equal models.
    pub seed: u64,
    /// `general.name`.
    pub name: String,
}

/// Called with the bytes written so far and all there will be.
pub type Progress<'a> = dyn Fn(u64, u64) + Sync + 'a;

impl Model {
    /// The model in anonymous memory, on page boundaries, with no vocabulary: text means nothing to it.
    ///
    /// # Errors
    /// No memory for it, or a shape no file holds.
    pub fn in_memory(&self) -> Result<Reader, Error> {
        let (layout, tensors) = self.layout(false)?;
        let bytes = layout.file_bytes();
        let len = usize::try_from(bytes)
            .map_err(|_| Error::Memory { bytes, source: io::ErrorKind::FileTooLarge.into() })?;
        let weights = self.weights(&layout, &tensors);
        let made = Bytes::anonymous(len, |whole| {
            whole[..layout.header().len()].copy_from_slice(layout.header());
            for (i, info) in layout.tensors().iter().enumerate() {
                // Fits: the end of every tensor is at most `len`.
                weights.fill(i, &mut whole[info.offset as usize..][..info.bytes as usize]);
            }
        });
        let made = made.map_err(|source| Error::Memory { bytes, source })?;
        Ok(Reader::from_shared(&self.name, made)?)
    }

    /// Writes the model with its vocabulary: to `PATH.partial` first, which gets its name when it is on the disk and is
    /// removed when anything fails. Holds a few MiB of it at a time.
    ///
    /// # Errors
    /// A vocabulary that is too small, the disk, `cancel`.
    pub fn write(&self, path: &Path, cancel: &AtomicBool, progress: &Progress<'_>) -> Result<(), Error> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let failed = |path: &Path, action| {
            let path = path.to_owned();
            move |source| Error::Io { path, action, source }
        };
        let file = File::create(&partial).map_err(failed(&partial, "create"))?;
        let written = self.write_into(file, cancel, progress).and_then(|()| {
            fs::rename(&partial, path).map_err(failed(path, "rename to"))?;
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // So that the name survives a power cut as the content does.
            File::open(folder).and_then(|f| f.sync_all()).map_err(failed(folder, "sync"))
        });
        if written.is_err() {
            // The error that led here is the one to tell.
            let _ = fs::remove_file(&partial);
        }
        written
    }

    fn write_into(&self, file: File, cancel: &AtomicBool, progress: &Progress<'_>) -> Result<(), Error> {
        let (layout, tensors) = self.layout(true)?;
        let total = layout.file_bytes();
        let weights = self.weights(&layout, &tensors);
        let writer = Writer::create(file, layout)?;
        let done = AtomicU64::new(0);
        for (i, info) in writer.layout().tensors().iter().enumerate() {
            let piece = weights.piece_bytes(i);
            (0..info.bytes.div_ceil(piece)).into_par_iter().try_for_each(|part| {
                if cancel.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                let offset = part * piece;
                let mut out = vec![0; (info.bytes - offset).min(piece) as usize];
                weights.fill_piece(i, part, &mut out);
                writer.write_at(i, offset, &out)?;
                let len = out.len() as u64;
                progress(done.fetch_add(len, Ordering::Relaxed) + len, total);
                Ok(())
            })?;
        }
        writer.finish()?;
        Ok(())
    }

    /// The header and the tensors it names, in one order.
    fn layout(&self, vocabulary: bool) -> Result<(Layout, Vec<Tensor>), Error> {
        let tensors = plan::tensors(&self.shape, false);
        let n_layer = self.shape.n_layer as u64;
        let spec = |t: &Tensor| TensorSpec {
            name: t.name.clone(),
            format: plan::format(self.preset, Wishes::default(), t.role, n_layer, t.cols as u64, true),
            dims: t.dims(),
        };
        let specs = tensors.iter().map(spec).collect();
        Ok((Layout::new(&self.meta(vocabulary)?, specs)?, tensors))
    }

    fn weights(&self, layout: &Layout, tensors: &[Tensor]) -> Weights {
        let formats = layout.tensors().iter().map(|info| info.format);
        Weights::new(&self.shape, tensors.iter().zip(formats), self.seed)
    }

    fn meta(&self, vocabulary: bool) -> Result<Vec<(String, MetaValue)>, Error> {
        use MetaValue::{Bool, F32, I32s, Str, Strings, U32};
        let s = &self.shape;
        // A `Shape` that is too large for these is refused by `Layout::new` for the sizes of its tensors.
        let n = |value: usize| U32(u32::try_from(value).unwrap_or(u32::MAX));
        let mut meta = vec![
            ("general.architecture", Str("bloom".into())),
            ("general.type", Str("model".into())),
            ("general.name", Str(self.name.clone())),
            ("general.description", Str("random weights, for measuring speed".into())),
            ("general.quantization_version", U32(2)),
            ("general.file_type", U32(self.preset.file_type())),
            ("bloom.context_length", n(s.n_ctx_train)),
            ("bloom.embedding_length", n(s.n_embd)),
            ("bloom.feed_forward_length", n(s.n_ff)),
            ("bloom.block_count", n(s.n_layer)),
            ("bloom.attention.head_count", n(s.n_head)),
            ("bloom.attention.head_count_kv", n(s.n_head)),
            ("bloom.attention.layer_norm_epsilon", F32(1e-5)),
        ];
        if vocabulary {
            let Vocabulary { tokens, types, merges } = Vocabulary::new(s.n_vocab)?;
            meta.extend([
                ("tokenizer.ggml.model", Str("gpt2".into())),
                ("tokenizer.ggml.pre", Str("bloom".into())),
                ("tokenizer.ggml.tokens", Strings(tokens)),
                ("tokenizer.ggml.token_type", I32s(types)),
                ("tokenizer.ggml.merges", Strings(merges)),
                ("tokenizer.ggml.unknown_token_id", U32(0)),
                ("tokenizer.ggml.bos_token_id", U32(1)),
                ("tokenizer.ggml.eos_token_id", U32(2)),
                ("tokenizer.ggml.padding_token_id", U32(3)),
                ("tokenizer.ggml.add_bos_token", Bool(false)),
            ]);
        } else {
            meta.push(("bloom.vocab_size", n(s.n_vocab)));
        }
        Ok(meta.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// Tensors that are made of the same page. Numbers as their bits, to be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    format: Format,
    mean: u32,
    deviation: u32,
}

impl Kind {
    /// The spread of a tensor's weights. A matrix with deviation 1 / sqrt(cols) gives outputs as large as its inputs;
    /// what is added to the residual stream is smaller by sqrt(2 layers), as in GPT-2, so that all of them together
    /// are as large as the embedding.
    fn of(shape: &Shape, tensor: &Tensor, format: Format) -> Self {
        let even = 1.0 / (tensor.cols as f32).sqrt();
        let (mean, deviation): (f32, f32) = match tensor.role {
            Role::TokenEmbd | Role::Output | Role::AttnQkv(_) | Role::FfnUp(_) => (0.0, even),
            Role::AttnOutput(_) | Role::FfnDown(_) => (0.0, even / (2.0 * shape.n_layer as f32).sqrt()),
            Role::Vector if tensor.name.ends_with("norm.weight") => (1.0, 0.1),
            Role::Vector => (0.0, 0.02),
        };
        Self { format, mean: mean.to_bits(), deviation: deviation.to_bits() }
    }
}

/// Tokens that a vocabulary has before its first merge: four special ones and one per byte.
pub const MIN_VOCAB: usize = 4 + 256;

/// Tokens and merges of a BPE vocabulary that is valid and means nothing: special tokens, bytes, then words over
/// the letters a to z, shorter ones first, each merged from the word without its last letter and that letter.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// By id, in the byte-level alphabet.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type` of each.
    pub types: Vec<i32>,
    /// `"a b"` in order of rank.
    pub merges: Vec<String>,
}

impl Vocabulary {
    /// A vocabulary of `n_vocab` tokens.
    ///
    /// # Errors
    /// Fewer than [`MIN_VOCAB`].
    pub fn new(n_vocab: usize) -> Result<Self, Error> {
        const UNKNOWN: i32 = 2;
        const CONTROL: i32 = 3;
        const NORMAL: i32 = 1;
        if n_vocab < MIN_VOCAB {
            return Err(Error::Vocabulary { n_vocab });
        }
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "<pad>"].map(String::from).into();
        let mut types = vec![UNKNOWN, CONTROL, CONTROL, CONTROL];
        tokens.extend((0..=255).map(|byte| printable(byte).to_string()));
        let letters = b'a'..=b'z';
        // The words of the length before, to be extended by every letter.
        let mut stems: std::collections::VecDeque<String> =
            letters.clone().map(|c| char::from(c).to_string()).collect();
        let mut merges = Vec::with_capacity(n_vocab - MIN_VOCAB);
        while tokens.len() < n_vocab {
            let Some(stem) = stems.pop_front() else { break };
            for c in letters.clone().map(char::from).take(n_vocab - tokens.len()) {
                let word = format!("{stem}{c}");
                merges.push(format!("{stem} {c}"));
                stems.push_back(word.clone());
                tokens.push(word);
            }
        }
        types.resize(tokens.len(), NORMAL);
        Ok(Self { tokens, types, merges })
    }
}

/// GPT-2's character for a byte: itself where it is visible Latin-1, else one from U+0100 on.
fn printable(byte: u8) -> char {
    let visible = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if visible(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !visible(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or('\u{100}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::How;
    use std::collections::HashSet;

    fn small(preset: Preset) -> Model {
        // Rows of 96 hold no whole K block: the fall-back formats are made too.
        let shape = Shape { n_vocab: 1000, n_embd: 96, n_layer: 3, n_head: 4, n_ff: 384, n_ctx_train: 64 };
        Model { shape, preset, seed: 5, name: "small".into() }
    }

    fn moments(x: &[f32]) -> (f64, f64) {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let square = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean, square.sqrt())
    }

    #[test]
    fn every_format_decodes_to_finite_weights_of_the_deviation_asked_for() {
        for &format in Format::ALL {
            let page = Page::new(format, 0.0, 0.5, 1);
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

    #[test]
    fn normal_numbers_are() {
        let mut random = Random::new(9);
        let (mean, deviation) = moments(&(0..100_000).map(|_| random.normal()).collect::<Vec<_>>());
        assert!(mean.abs() < 0.02 && (deviation - 1.0).abs() < 0.02, "{mean} {deviation}");
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn a_file_holds_what_memory_holds_on_any_number_of_threads() {
        for preset in [Preset::Q4_K_M, Preset::F16] {
            let model = small(preset);
            let memory = model.in_memory().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("m.gguf");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            let last = AtomicU64::new(0);
            let progress = |done: u64, total: u64| {
                assert!(done <= total);
                last.fetch_max(done, Ordering::Relaxed);
            };
            pool.install(|| model.write(&path, &AtomicBool::new(false), &progress)).unwrap();
            let file = Reader::open(&path, How::Map).unwrap();
            let data: u64 = file.tensors().iter().map(|t| t.bytes).sum();
            assert_eq!(last.into_inner(), data);
            assert_eq!(Shape::from_meta(file.meta()).unwrap(), model.shape);
            assert_eq!(Shape::from_meta(memory.meta()).unwrap(), model.shape);
            assert_eq!(file.tensors().len(), memory.tensors().len());
            for (a, b) in file.tensors().iter().zip(memory.tensors()) {
                assert_eq!((&a.name, a.format, &a.dims), (&b.name, b.format, &b.dims));
                assert!(*file.bytes(a) == *memory.bytes(b), "{}", a.name);
            }
            assert_eq!(data, plan::tensor_bytes(&model.shape, preset, true));
            let other = Model { seed: 6, ..model }.in_memory().unwrap();
            let tensor = &other.tensors()[0];
            assert!(*other.bytes(tensor) != *memory.bytes(&memory.tensors()[0]), "another seed");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        }
    }

    #[test]
    fn a_file_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let model = small(Preset::Q8_0);
        let error = model.write(&path, &AtomicBool::new(true), &|_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        let few = Model { shape: Shape { n_vocab: 259, ..model.shape }, ..model };
        let error = few.write(&path, &AtomicBool::new(false), &|_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Vocabulary { n_vocab: 259 }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_vocabulary_has_as_many_distinct_tokens_as_asked_for_and_its_merges_make_them() {
        let v = Vocabulary::new(250_880).unwrap();
        let known: HashSet<&str> = v.tokens.iter().map(String::as_str).collect();
        assert_eq!((known.len(), v.tokens.len(), v.types.len()), (250_880, 250_880, 250_880));
        assert_eq!(v.merges.len(), 250_880 - MIN_VOCAB);
        for (merge, token) in v.merges.iter().zip(&v.tokens[MIN_VOCAB..]) {
            let (a, b) = merge.split_once(' ').unwrap();
            assert!(known.contains(a) && known.contains(b) && format!("{a}{b}") == *token, "{merge}");
        }
        assert_eq!(
            (printable(b' '), printable(b'\n'), printable(b'a'), printable(0xad)),
            ('Ġ', 'Ċ', 'a', 'Ń')
        );
    }
}
