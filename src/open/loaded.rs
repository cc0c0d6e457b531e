//! A model whose header is read, and the engines that run it.

use super::error::Error;
use super::fingerprint;
#[cfg(feature = "demo")]
use super::folders;
use super::memory::{self, Memory, check_memory};
use super::options::{OpenOptions, OpenProgress, OpenStep, Room};
use super::source::{Source, locate};
#[cfg(feature = "demo")]
use crate::demo;
#[cfg(feature = "ggml")]
use crate::engine::ggml::{Ggml, GgmlOptions};
use crate::engine::{Engine, EngineKind, Native, NativeOptions, usable_threads};
use crate::model::Weights;
use crate::settings::{self, InvalidSetting, Patch};
use huozi_quant::Format;
use huozi_quant::bloom::extra;
use huozi_quant::bloom::plan::{Preset, tensor_bytes};
use huozi_quant::bloom::shape::{MemoryForecast, Shape};
use huozi_quant::gguf::split::PartName;
use huozi_quant::gguf::{Meta, Reader};
use huozi_quant::kernels::{Isa, IsaError};
use huozi_quant::map::How;
use huozi_token::usable::{self, Unusable};
use huozi_token::{ChatFormat, Tokenizer, VocabularyParts};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A model whose header is read: what it is, what it needs, and its engines.
#[derive(Debug)]
pub struct Loaded {
    /// How its engines are opened. May be changed between two engines.
    pub options: OpenOptions,
    path: PathBuf,
    reader: Reader,
    shape: Shape,
    /// The bytes lie in memory of this process already; there is no file behind them.
    in_memory: bool,
    #[cfg(feature = "demo")]
    demo: Option<demo::DemoModel>,
}

/// Opens a model as far as its header. The demo model is converted if it is not in the cache yet, random
/// weights are made; `progress` and `cancel` are for these two.
///
/// # Errors
/// The source gives no BLOOM model that this program can run; the options contradict each other; too little
/// memory for random weights.
#[cfg_attr(not(feature = "demo"), expect(unused_variables, reason = "only the demo model is converted here"))]
pub fn open(
    source: &Source,
    options: &OpenOptions,
    progress: &OpenProgress<'_>,
    cancel: &AtomicBool,
) -> Result<Loaded, Error> {
    options.check()?;
    match source {
        Source::File(path) => of_file(locate(path)?, options),
        #[cfg(feature = "demo")]
        Source::Demo => {
            let cache = folders::xdg("XDG_CACHE_HOME", ".cache").map(|base| base.join("huozi"));
            let watch = ConvertProgress { progress, done: std::sync::Mutex::new((0, 0)) };
            let model = demo::prepare(cache.as_deref(), &watch, cancel)?;
            let loaded = of_file(model.path.clone(), options)?;
            Ok(Loaded { demo: Some(model), ..loaded })
        }
        Source::Memory(reader) => of_memory(reader.clone(), options),
        Source::Random(model) => {
            if options.engine == EngineKind::Ggml {
                return Err(Error::NoFile);
            }
            if options.check_memory {
                let bytes = tensor_bytes(&model.shape, model.preset, true);
                let positions = options.expected_positions;
                let forecast = memory::forecast(&model.shape, bytes, options.engine, options.kv, positions);
                check_memory(&model.name, forecast, positions, Memory::now())?;
            }
            of_memory(model.in_memory()?, options)
        }
    }
}

fn of_file(path: PathBuf, options: &OpenOptions) -> Result<Loaded, Error> {
    // Mapped for now: nothing large is read before memory has been checked.
    let reader = Reader::open(&path, How::Map)?;
    of_reader(path, reader, false, options)
}

fn of_memory(reader: Reader, options: &OpenOptions) -> Result<Loaded, Error> {
    if options.engine == EngineKind::Ggml {
        return Err(Error::NoFile);
    }
    of_reader(reader.name().into(), reader, true, options)
}

fn of_reader(path: PathBuf, reader: Reader, in_memory: bool, options: &OpenOptions) -> Result<Loaded, Error> {
    let shape = Shape::from_file(&reader)?;
    Ok(Loaded {
        options: options.clone(),
        path,
        reader,
        shape,
        in_memory,
        #[cfg(feature = "demo")]
        demo: None,
    })
}

impl Loaded {
    /// The path of the file; the name of a model that has none.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mapped file, or the bytes in memory.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The metadata.
    pub fn meta(&self) -> Meta<'_> {
        self.reader.meta()
    }

    /// The sizes; `n_vocab` counts the rows of the embedding, as the engines do.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether there is a file, and not only bytes in memory.
    pub fn is_file(&self) -> bool {
        !self.in_memory
    }

    /// The demo model, where this is it: what its conversion did, and why it is not in the cache.
    #[cfg(feature = "demo")]
    pub fn demo(&self) -> Option<&demo::DemoModel> {
        self.demo.as_ref()
    }

    /// The name to show: that of the file, or what the file calls itself where its own name says little.
    pub fn name(&self) -> String {
        #[cfg(feature = "demo")]
        if self.demo.is_some() {
            return self.meta().str("general.name").ok().flatten().unwrap_or("demo").to_owned();
        }
        let part = PartName::of(&self.path).filter(|_| self.reader.parts().len() > 1);
        let name = part.as_ref().map_or_else(|| self.path.file_stem().unwrap_or_default(), PartName::model);
        name.to_string_lossy().into_owned()
    }

    /// The type that the file says it has, as `huozi-convert -t` spells it, e.g. `q4_k_m`; else the format
    /// that most bytes of the weights have, e.g. `q4_k`.
    pub fn type_name(&self) -> String {
        if let Ok(Some(id)) = self.meta().uint("general.file_type")
            && let Some(preset) = Preset::from_file_type(id)
        {
            return preset.name().to_lowercase();
        }
        let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
        for tensor in self.reader.tensors() {
            *bytes.entry(tensor.format.name()).or_default() += tensor.bytes;
        }
        bytes.into_iter().max_by_key(|&(_, n)| n).map_or(String::new(), |(name, _)| name.to_lowercase())
    }

    /// The tokenizer. Takes a moment for a large vocabulary.
    ///
    /// # Errors
    /// The file holds no vocabulary that works.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let failed = |source| Error::Vocabulary { path: self.path.clone(), source };
        Tokenizer::from_gguf(self.meta()).map_err(failed)
    }

    /// The chat format; [`ChatFormat::None`] of a model that only continues text.
    ///
    /// # Errors
    /// The file's template does not work.
    pub fn chat_format(&self, tokenizer: &Tokenizer) -> Result<ChatFormat, Error> {
        let failed = |source| Error::Chat { path: self.path.clone(), source };
        usable::chat_format(self.meta(), tokenizer).map(|(format, _)| format).map_err(failed)
    }

    /// Checks that the file runs: its tensors, its tokenizer and its chat format are opened as `huozi run`
    /// opens them. This is what `huozi verify` and `huozi doctor` go by.
    ///
    /// # Errors
    /// What makes the file unusable.
    pub fn check_usable(&self) -> Result<(), Error> {
        Weights::from_gguf(&self.reader)?;
        match usable::open(self.meta()) {
            Ok(_) => Ok(()),
            Err(Unusable::Vocabulary(source)) => Err(Error::Vocabulary { path: self.path.clone(), source }),
            Err(Unusable::Chat(source)) => Err(Error::Chat { path: self.path.clone(), source }),
        }
    }

    /// The settings that the file says about itself, and those of them that are not valid.
    pub fn settings(&self) -> (Patch, Vec<InvalidSetting>) {
        settings::from_model_file(self.meta())
    }

    /// What there is to know about the file before it is used, for a person: tensors that are not part of a
    /// BLOOM model and are left out, and what was assumed about the tokenizer.
    pub fn notes(&self) -> Vec<String> {
        let (names, _) = extra::of_file(&self.reader, self.shape.n_layer);
        let mut notes: Vec<String> = extra::note(&names).into_iter().collect();
        // One that cannot be used is refused where it is opened.
        notes.extend(VocabularyParts::from_gguf(self.meta()).map(|parts| parts.warnings).unwrap_or_default());
        notes
    }

    /// A fingerprint of the file, see [`fingerprint()`](super::fingerprint).
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn fingerprint(&self) -> Result<String, Error> {
        fingerprint::fingerprint(self.reader.parts().iter().map(|part| (part.path(), part.data_offset())))
            .map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// The class of machines on which its engine computes the same bits: of the native engine
    /// [`Isa::bits_class`]; llama.cpp says nothing of its own, so the architecture alone.
    ///
    /// # Errors
    /// `HUOZI_ISA` names an instruction set that cannot be used.
    pub fn bits_class(&self) -> Result<String, IsaError> {
        if self.options.engine != EngineKind::Native {
            return Ok(std::env::consts::ARCH.to_owned());
        }
        let float = |format| matches!(format, Format::F32 | Format::F16 | Format::BF16);
        let dense = self.reader.tensors().iter().any(|tensor| tensor.dims.len() > 1 && float(tensor.format));
        Ok(Isa::from_env()?.bits_class(dense))
    }

    /// The memory that the model needs with room for `positions`.
    pub fn forecast(&self, positions: usize) -> MemoryForecast {
        let OpenOptions { engine, kv, .. } = self.options;
        memory::forecast(&self.shape, self.reader.file_bytes(), engine, kv, positions)
    }

    /// Checks that the memory there is suffices for `positions`, unless [`OpenOptions::check_memory`] is off.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn check_memory(&self, positions: usize) -> Result<(), Error> {
        if self.options.check_memory {
            let name = self.path.display().to_string();
            check_memory(&name, self.still_needed(positions), positions, Memory::now())?;
        }
        Ok(())
    }

    /// The forecast without what is in memory already.
    fn still_needed(&self, positions: usize) -> MemoryForecast {
        let mut forecast = self.forecast(positions);
        if self.in_memory {
            forecast.total -= std::mem::take(&mut forecast.file);
        }
        forecast
    }

    /// The engine of [`Loaded::options`] with `room`, after the memory has been checked.
    ///
    /// # Errors
    /// Too little memory, tensors that a BLOOM model does not have, threads that the system refuses, a
    /// contradiction among the options, `cancel`.
    pub fn engine(
        &self,
        room: Room,
        progress: &OpenProgress<'_>,
        cancel: &AtomicBool,
    ) -> Result<Box<dyn Engine>, Error> {
        self.options.check()?;
        self.check_memory(room.engine_positions(self.options.engine))?;
        self.open_engine(room, progress, cancel)
    }

    /// The file mapped once more and brought in: what reads these bytes does not count as memory of an
    /// engine.
    ///
    /// # Errors
    /// The file cannot be opened any more, `cancel`.
    pub fn mapped_again(&self, progress: &OpenProgress<'_>, cancel: &AtomicBool) -> Result<Reader, Error> {
        if self.in_memory {
            return Ok(self.reader.clone());
        }
        let reader = Reader::open(&self.path, How::Map)?;
        self.page_in(&reader, progress, cancel)?;
        Ok(reader)
    }

    fn open_engine(
        &self,
        room: Room,
        progress: &OpenProgress<'_>,
        cancel: &AtomicBool,
    ) -> Result<Box<dyn Engine>, Error> {
        let OpenOptions { kv, engine, .. } = self.options;
        let threads = Some(usable_threads(self.options.threads));
        let kv_positions = room.engine_positions(engine);
        match engine {
            EngineKind::Native => {
                let reader = self.in_place(progress, cancel)?;
                if self.options.mlock {
                    let bytes = reader.file_bytes();
                    reader.lock().map_err(|source| Error::Lock { path: self.path.clone(), bytes, source })?;
                }
                let options = NativeOptions { threads, kv, kv_positions };
                Ok(Box::new(Native::open(&reader, &options)?))
            }
            #[cfg(feature = "ggml")]
            EngineKind::Ggml => {
                if self.options.mmap {
                    // The pages stay in the system's cache, where llama.cpp's own mapping finds them.
                    drop(self.mapped_again(progress, cancel)?);
                }
                let options = GgmlOptions {
                    threads,
                    kv,
                    kv_positions,
                    sequences: room.sequences,
                    shared: room.apart.is_none(),
                    flash_attention: self.options.flash_attention.unwrap_or_default(),
                    mmap: self.options.mmap,
                };
                Ok(Box::new(Ggml::open(&self.path, &options)?))
            }
            #[cfg(not(feature = "ggml"))]
            EngineKind::Ggml => Err(Error::NotBuilt),
        }
    }

    /// The weights where the engine is to use them: mapped and brought in, or read into memory of their own.
    fn in_place(&self, progress: &OpenProgress<'_>, cancel: &AtomicBool) -> Result<Reader, Error> {
        if self.in_memory {
            return Ok(self.reader.clone());
        }
        if self.options.mmap {
            self.page_in(&self.reader, progress, cancel)?;
            return Ok(self.reader.clone());
        }
        let bytes = self.reader.file_bytes();
        progress(OpenStep::Read, 0, bytes);
        let reader = Reader::open_watched(&self.path, How::Read, &mut |done| {
            progress(OpenStep::Read, done, bytes);
            flow(cancel)
        });
        // A reading that was stopped is an error of its own kind.
        self.go_on(cancel)?;
        Ok(reader?)
    }

    /// Brings a mapped file in. One that would push itself out of memory again is better read as it is
    /// needed.
    fn page_in(
        &self,
        reader: &Reader,
        progress: &OpenProgress<'_>,
        cancel: &AtomicBool,
    ) -> Result<(), Error> {
        let bytes = reader.file_bytes();
        if Memory::now().is_none_or(|memory| bytes <= memory.available) {
            progress(OpenStep::Read, 0, bytes);
            reader.page_in(&mut |done| {
                progress(OpenStep::Read, done, bytes);
                flow(cancel)
            });
        }
        self.go_on(cancel)
    }

    fn go_on(&self, cancel: &AtomicBool) -> Result<(), Error> {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled { path: self.path.clone() });
        }
        Ok(())
    }
}

/// Whether to go on.
fn flow(cancel: &AtomicBool) -> ControlFlow<()> {
    if cancel.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The engines of two models that are open at the same time, each with `room`: the memory is checked for both
/// together, unless the first one's options say that it is not.
///
/// # Errors
/// As [`Loaded::engine`].
pub fn engines(
    models: [&Loaded; 2],
    room: Room,
    progress: &OpenProgress<'_>,
    cancel: &AtomicBool,
) -> Result<[Box<dyn Engine>; 2], Error> {
    let [a, b] = models;
    a.options.check()?;
    b.options.check()?;
    if a.options.check_memory {
        let name = format!("{} with {}", a.path.display(), b.path.display());
        let positions = models.map(|model| room.engine_positions(model.options.engine));
        let forecast = memory::both([a.still_needed(positions[0]), b.still_needed(positions[1])]);
        check_memory(&name, forecast, positions[0].max(positions[1]), Memory::now())?;
    }
    Ok([a.open_engine(room, progress, cancel)?, b.open_engine(room, progress, cancel)?])
}

/// Gives the converter's progress on.
#[cfg(feature = "demo")]
struct ConvertProgress<'a> {
    progress: &'a OpenProgress<'a>,
    /// Bytes done, bytes of all.
    done: std::sync::Mutex<(u64, u64)>,
}

#[cfg(feature = "demo")]
impl demo::Progress for ConvertProgress<'_> {
    fn start(&self, total: u64) {
        if let Ok(mut done) = self.done.lock() {
            *done = (0, total);
        }
    }

    fn advance(&self, more: u64) {
        if let Ok(mut done) = self.done.lock() {
            done.0 += more;
            (self.progress)(OpenStep::Convert, done.0, done.1);
        }
    }
}
