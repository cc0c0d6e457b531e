//! Models with random weights: blocks of every format, and whole GGUF files of a shape with a synthetic
//! vocabulary.
//!
//! In: a shape, a preset, a seed. Out: the same bytes every time, on any number of threads, in memory or in a
//! file. For measuring speed without a download; the text of such a model is meaningless.
//!
//! Weights are normal, with the spread that keeps activations of order one through any number of layers, and
//! are encoded by the formats' own encoders, so that scales and mins are what they are in real files. Only
//! [`PAGE_WEIGHTS`] of them are encoded per spread; a tensor is pages of these blocks in random order, which
//! no kernel can tell from others and which costs a copy instead of a search.

mod vocabulary;
mod weights;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::prelude::*;

use crate::bloom::plan::{self, ModelTensor, Preset, PresetOptions};
use crate::bloom::shape::Shape;
use crate::gguf::{self, Layout, MetaValue, Reader, TensorSpec, Writer};
use crate::map::Bytes;
use crate::output;

pub use vocabulary::{MIN_VOCAB, SyntheticVocabulary};
pub use weights::{PAGE_WEIGHTS, RandomPage, RandomWeights};

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
    /// The path is no place for an output.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// The file is there already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The name that the file has until it is complete is taken.
    #[error(
        "{} exists already: another run writes it, or one was killed and left it; if none runs, remove it",
        path.display()
    )]
    Leftover {
        /// The name.
        path: PathBuf,
    },
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
pub struct RandomModel {
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

impl RandomModel {
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

    /// Writes the model with its vocabulary to a new file: to `PATH.partial` first, renamed when it is on the
    /// disk and removed when anything fails. A symbolic link is followed to its target. Holds a few MiB of
    /// the model at a time.
    ///
    /// # Errors
    /// A vocabulary that is too small, a file that is there already, what is no regular file, the disk,
    /// `cancel`.
    pub fn write(&self, path: &Path, cancel: &AtomicBool, progress: &Progress<'_>) -> Result<(), Error> {
        let target = output::file(path)?;
        let path = &target.path;
        if target.metadata.is_some() {
            return Err(Error::Exists { path: path.clone() });
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let failed = |path: &Path, action| {
            let path = path.to_owned();
            move |source| Error::Io { path, action, source }
        };
        // Never what another run writes, and nothing that a link leads to.
        let file = File::create_new(&partial).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Leftover { path: partial.clone() },
            _ => failed(&partial, "create")(error),
        })?;
        let written = self.write_into(file, cancel, progress).and_then(|()| {
            // Something may have come to the name meanwhile.
            let now = output::file(path)?;
            if now.metadata.is_some() || now.path != *path {
                return Err(Error::Exists { path: path.clone() });
            }
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
    fn layout(&self, vocabulary: bool) -> Result<(Layout, Vec<ModelTensor>), Error> {
        let tensors = plan::tensors(&self.shape, false);
        let n_layer = self.shape.n_layer as u64;
        let spec = |t: &ModelTensor| TensorSpec {
            name: t.name.clone(),
            format: plan::format(self.preset, PresetOptions::default(), t.role, n_layer, t.cols as u64, true),
            dims: t.dims(),
        };
        let specs = tensors.iter().map(spec).collect();
        Ok((Layout::new(&self.meta(vocabulary)?, specs)?, tensors))
    }

    fn weights(&self, layout: &Layout, tensors: &[ModelTensor]) -> RandomWeights {
        let formats = layout.tensors().iter().map(|info| info.format);
        RandomWeights::new(&self.shape, tensors.iter().zip(formats), self.seed)
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
            let vocabulary =
                SyntheticVocabulary::new(s.n_vocab).ok_or(Error::Vocabulary { n_vocab: s.n_vocab })?;
            let SyntheticVocabulary { tokens, types, merges } = vocabulary;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::How;

    fn small(preset: Preset) -> RandomModel {
        // Rows of 96 hold no whole K block: the fall-back formats are made too.
        let shape = Shape { n_vocab: 1000, n_embd: 96, n_layer: 3, n_head: 4, n_ff: 384, n_ctx_train: 64 };
        RandomModel { shape, preset, seed: 5, name: "small".into() }
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
            let other = RandomModel { seed: 6, ..model }.in_memory().unwrap();
            let tensor = &other.tensors()[0];
            assert!(*other.bytes(tensor) != *memory.bytes(&memory.tensors()[0]), "another seed");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        }
    }

    #[test]
    fn what_comes_to_the_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, partial) = (folder.path().join("m.gguf"), folder.path().join("m.gguf.partial"));
        let model = small(Preset::Q8_0);
        let other = |_: u64, _: u64| fs::write(&path, "other").unwrap();
        let error = model.write(&path, &AtomicBool::new(false), &other).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"other");
        assert!(!partial.exists());
        fs::remove_file(&path).unwrap();
        fs::write(&partial, "of a run that was killed").unwrap();
        let error = model.write(&path, &AtomicBool::new(false), &|_, _| {}).unwrap_err().to_string();
        assert!(error.contains("m.gguf.partial exists") && error.contains("remove it"), "{error}");
        assert!(partial.exists() && !path.exists());
    }

    #[test]
    fn a_file_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let model = small(Preset::Q8_0);
        let error = model.write(&path, &AtomicBool::new(true), &|_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        let few = RandomModel { shape: Shape { n_vocab: 259, ..model.shape }, ..model };
        let error = few.write(&path, &AtomicBool::new(false), &|_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Vocabulary { n_vocab: 259 }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
