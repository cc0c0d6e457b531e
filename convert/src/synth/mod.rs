//! Random checkpoints of a real shape, so that the whole line can be tried before a model is downloaded.
//!
//! In: a shape, a layout, a seed. Out: a folder as the Hugging Face hub has it: weights in F16 of a trained model's
//! scale, in shards with an index, configuration, a full-size tokenizer with Huozi's two markers. The weights are those
//! of [`huozi_quant::bloom::synth`]: the same for every layout, on any number of threads. What such a model says means nothing.

mod safetensors;
mod text;
mod torch;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use huozi_quant::Format;
use huozi_quant::bloom::plan;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::bloom::synth::{MIN_VOCAB, RandomWeights};
use rayon::prelude::*;
use serde::Serialize;

use crate::Error;
use crate::config::Config;
use crate::names::hf_name;
use crate::pipeline::Progress;
use crate::report::displayed;

/// How the weights lie on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `model*.safetensors`.
    Safetensors,
    /// `pytorch_model*.bin`: zip archives of a pickle and its storages.
    Bin,
}

/// A checkpoint before a byte of it exists.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Sizes.
    pub shape: Shape,
    /// Kind of file.
    pub layout: Layout,
    /// Equal seeds give equal weights.
    pub seed: u64,
    /// A shard ends before the tensor that would lead beyond this; one tensor may be larger.
    pub shard_bytes: u64,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Made {
    /// The folder.
    #[serde(serialize_with = "displayed")]
    pub path: PathBuf,
    /// Files with weights.
    pub shards: usize,
    /// Bytes of weights.
    pub bytes: u64,
}

/// One tensor of the checkpoint.
struct Tensor {
    /// Hugging Face's name.
    name: String,
    /// Row-major.
    shape: Vec<u64>,
    bytes: u64,
    /// Number of its weights.
    number: usize,
}

impl Recipe {
    /// In shards as large as the transformers library made them when models were stored in this layout.
    pub fn new(shape: Shape, layout: Layout, seed: u64) -> Self {
        let shard_bytes = match layout {
            Layout::Safetensors => 5_000_000_000,
            Layout::Bin => 10_000_000_000,
        };
        Self { shape, layout, seed, shard_bytes }
    }

    /// Writes the checkpoint into `DIR.partial`, which becomes `dir` when everything is on the disk and is removed when
    /// anything fails. Holds a few MiB per thread.
    ///
    /// # Errors
    /// `dir` is there and not empty, sizes that no model has, a vocabulary that is too small, too little disk, `cancel`.
    pub fn write(&self, dir: &Path, progress: &dyn Progress, cancel: &AtomicBool) -> Result<Made, Error> {
        let least = MIN_VOCAB + text::MARKERS.len();
        if self.shape.n_vocab < least {
            let n = self.shape.n_vocab;
            return Err(Error::Usage(format!(
                "a vocabulary of {n} is too small: at least {least} are needed"
            )));
        }
        // What is made here has to go through the converter.
        Config::of(&self.shape).check().map_err(Error::Usage)?;
        refuse_full(dir)?;
        let plan = plan::tensors(&self.shape, false);
        let weights = RandomWeights::new(&self.shape, plan.iter().map(|t| (t, Format::F16)), self.seed);
        let tensors = plan.iter().enumerate().map(|(number, t)| Tensor {
            name: hf_name(&t.name).expect("every tensor of the plan has one"),
            shape: t.dims().into_iter().rev().collect(),
            bytes: 2 * t.rows as u64 * t.cols as u64,
            number,
        });
        let shards = shards(tensors.collect(), self.shard_bytes);
        let bytes = shards.iter().flatten().map(|t| t.bytes).sum();

        let folder = Folder::create(dir)?;
        folder.refuse_full_disk(bytes)?;
        for (name, content) in text::files(&self.shape)? {
            folder.create_file(name)?.write_all(&content)?.finish()?;
        }
        let sink = Sink { weights: &weights, progress, cancel };
        progress.start(bytes);
        let names = self.names(shards.len());
        let mut files = Vec::new();
        for (name, tensors) in names.iter().zip(&shards) {
            let file = folder.create_file(name)?;
            match self.layout {
                Layout::Safetensors => safetensors::write(&file, tensors, &sink)?,
                Layout::Bin => torch::write(&file, name, tensors, &sink)?,
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
        Ok(Made { path: dir.to_owned(), shards: shards.len(), bytes })
    }

    /// The name of a single file of weights.
    fn whole(&self) -> &'static str {
        match self.layout {
            Layout::Safetensors => "model.safetensors",
            Layout::Bin => "pytorch_model.bin",
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
fn shards(tensors: Vec<Tensor>, most: u64) -> Vec<Vec<Tensor>> {
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
fn index(names: &[String], shards: &[Vec<Tensor>], bytes: u64) -> Vec<u8> {
    let of = |(name, shard): (&String, &Vec<Tensor>)| {
        shard.iter().map(|t| (t.name.clone(), name.clone().into())).collect::<Vec<_>>()
    };
    let map: serde_json::Map<_, _> = names.iter().zip(shards).flat_map(of).collect();
    text::pretty(&serde_json::json!({ "metadata": { "total_size": bytes }, "weight_map": map }))
}

/// Where random weights come from, and who is told.
struct Sink<'a> {
    weights: &'a RandomWeights,
    progress: &'a dyn Progress,
    cancel: &'a AtomicBool,
}

impl Sink<'_> {
    /// Writes a tensor's weights from byte `at` of `file`, on all threads; gives back their CRC-32.
    fn put(&self, file: &NewFile, at: u64, tensor: &Tensor) -> Result<u32, Error> {
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

/// A folder that does not exist yet, or an empty one: what is in another is not ours to mix with.
fn refuse_full(dir: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(dir, "look at")(e)),
        Ok(meta) if !meta.is_dir() => Err(Error::Usage(format!("{} is no directory", dir.display()))),
        Ok(_) => match fs::read_dir(dir).map_err(Error::io(dir, "list"))?.next() {
            None => Ok(()),
            Some(_) => Err(Error::Usage(format!("{} is not empty; name a new directory", dir.display()))),
        },
    }
}

/// `DIR.partial`: removed with all it holds unless it got its name.
struct Folder {
    partial: PathBuf,
    dir: PathBuf,
    keep: bool,
}

impl Folder {
    fn create(dir: &Path) -> Result<Self, Error> {
        let no_name = || Error::Usage(format!("{} is no name of a directory", dir.display()));
        let mut name = dir.file_name().ok_or_else(no_name)?.to_owned();
        name.push(".partial");
        // Without the slash that a shell likes to put behind it.
        let partial = dir.with_file_name(name);
        match fs::create_dir(&partial) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let what = "is there, of a run that goes on or was killed; remove it if none goes on";
                Err(Error::Usage(format!("{} {what}", partial.display())))
            }
            made => {
                made.map_err(Error::io(&partial, "create"))?;
                Ok(Self { partial, dir: dir.to_owned(), keep: false })
            }
        }
    }

    fn refuse_full_disk(&self, needed: u64) -> Result<(), Error> {
        // Where the system does not say, the disk will.
        let Ok(stat) = rustix::fs::statvfs(&self.partial) else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed > free {
            return Err(Error::DiskFull { path: self.dir.clone(), needed, free });
        }
        Ok(())
    }

    fn create_file(&self, name: &str) -> Result<NewFile, Error> {
        let path = self.partial.join(name);
        let file = File::create_new(&path).map_err(Error::io(&path, "create"))?;
        Ok(NewFile { path, file })
    }

    /// Gives the folder its name and makes that last.
    fn finish(mut self) -> Result<(), Error> {
        let sync = |dir: &Path| File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir, "sync"));
        sync(&self.partial)?;
        // Replaces an empty folder and nothing else.
        fs::rename(&self.partial, &self.dir).map_err(Error::io(&self.dir, "rename to"))?;
        self.keep = true;
        sync(self.dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // The error that led here is the one to tell; the name says what is left.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// A file on its way.
struct NewFile {
    path: PathBuf,
    file: File,
}

impl NewFile {
    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, at).map_err(Error::io(&self.path, "write"))
    }

    fn write_all(self, bytes: &[u8]) -> Result<Self, Error> {
        self.write_at(0, bytes)?;
        Ok(self)
    }

    fn finish(self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io(&self.path, "sync"))
    }
}
