//! What `huozi bench` measures: a model file, or random weights of a shape.

use super::super::args;
use super::super::load::Watch;
use super::super::settings::Config;
use super::super::signal::Signals;
use crate::bench::{self, BenchTest, Floors, ModelCost};
use crate::engine::{EngineError, KvType};
use crate::open::{Loaded, OpenOptions, Source};
use anyhow::Result;
use huozi_quant::bloom::plan::Preset;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::bloom::synth::{self, RandomModel};
use huozi_quant::kernels::Isa;
use std::sync::atomic::AtomicBool;

/// The type that was typed: the configured one is meant for conversations.
pub fn kv(args: &args::BenchCommand) -> KvType {
    args.kv_type.unwrap_or(KvType::F16)
}

/// The options but for the number of threads, which varies between the rows.
pub fn options(args: &args::BenchCommand) -> OpenOptions {
    OpenOptions {
        engine: args.engine.unwrap_or_default(),
        threads: None,
        kv: kv(args),
        flash_attention: args.flash_attn,
        mmap: !args.no_mmap,
        mlock: args.mlock,
        check_memory: !args.no_memory_check,
        expected_positions: 0,
    }
}

/// The model of random weights that was asked for.
pub fn random_model(args: &args::BenchCommand, (name, shape): &(String, Shape)) -> RandomModel {
    let name = format!("{name} {} of random weights", args.r#type);
    RandomModel { shape: *shape, preset: args.r#type, seed: args.seed, name }
}

/// What is measured.
pub struct BenchSubject {
    /// The model.
    pub model: Loaded,
    /// What a step of it costs.
    pub cost: ModelCost,
    /// `general.name`, or the name of the file.
    pub name: String,
    /// Its type, e.g. `Q4_K_M`.
    pub preset: String,
}

impl BenchSubject {
    /// Opens the model as far as its header; makes random weights if there is memory for them and for
    /// `tests`.
    ///
    /// # Errors
    /// See [`crate::open::open`].
    pub fn open(
        args: &args::BenchCommand,
        config: &Config,
        tests: &[BenchTest],
        cancel: &AtomicBool,
    ) -> Result<Self> {
        let source = match &args.shape {
            None => Source::File(config.model(args.model.as_deref())?),
            Some(shape) => Source::Random(random_model(args, shape)),
        };
        let expected_positions = tests.iter().map(|t| t.kv_positions(1)).max().unwrap_or(0);
        let options = OpenOptions { expected_positions, ..options(args) };
        let model = crate::open::open(&source, &options, &crate::open::silent, cancel)?;
        let meta = model.meta();
        let name = match &args.shape {
            Some((name, _)) => name.clone(),
            None => model.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        // llama.cpp has mixtures that are no preset of Huozi's.
        let preset = meta.uint("general.file_type")?.and_then(Preset::from_file_type);
        let preset = preset.map_or("?", Preset::name).to_owned();
        Ok(Self { cost: ModelCost::of(model.reader()), name, preset, model })
    }

    /// The floors over the model's bytes, through a mapping of their own where there is a file, so that the
    /// pages they touch do not count as memory of the engine.
    ///
    /// # Errors
    /// The file cannot be opened any more, the system refuses threads, `cancel`.
    pub fn floors(
        &self,
        args: &args::BenchCommand,
        threads: usize,
        isa: Isa,
        cancel: &AtomicBool,
    ) -> Result<Floors> {
        let watch = Watch::new(args.quiet);
        // Mapped, also where the engine is to read it: memory is checked only then.
        let reader = self.model.mapped_again(&|step, done, total| watch.set(step, done, total), cancel)?;
        drop(watch);
        // The floors need one piece of memory: of a split model the largest part.
        let largest = reader.parts().iter().max_by_key(|part| part.file_bytes());
        let bytes = largest.map_or(&[][..], |part| part.as_bytes());
        Ok(Floors::measure(bytes, threads, isa, cancel)?)
    }
}

/// The interruption instead of the error that it caused.
pub(super) fn checked<T>(result: Result<T>, signals: &Signals) -> Result<T> {
    if let Err(error) = &result {
        let cancelled = error.chain().any(|cause| {
            matches!(cause.downcast_ref(), Some(bench::Error::Engine(EngineError::Cancelled)))
                || matches!(cause.downcast_ref(), Some(synth::Error::Interrupted))
                || matches!(cause.downcast_ref(), Some(crate::open::Error::Cancelled { .. }))
        });
        if cancelled {
            signals.check()?;
        }
    }
    result
}
