//! Why a model does not open.

use super::memory::NotEnoughMemory;
#[cfg(feature = "demo")]
use crate::demo;
#[cfg(feature = "ggml")]
use crate::engine::ggml;
use crate::model;
use huozi_quant::bloom::synth;
use huozi_quant::files::{Diagnosis, hub};
use huozi_quant::gguf;
use huozi_token::ChatError;
use std::io;
use std::path::PathBuf;

/// Why a model does not open: the file, the cause, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened, is no GGUF file, or describes no BLOOM model.
    #[error(transparent)]
    File(#[from] gguf::Error),
    /// The path is that of something else than a GGUF file.
    #[error(transparent)]
    Unusable(#[from] Diagnosis),
    /// The name is not in the Hugging Face cache.
    #[error(transparent)]
    Hub(#[from] hub::Error),
    /// The snapshot in the Hugging Face cache holds more than one GGUF file.
    #[error(
        "{name}: the Hugging Face cache has {} GGUF files of it; give the path of one: {}",
        files.len(),
        list(files)
    )]
    SeveralFiles {
        /// The name of the model.
        name: String,
        /// The files, sorted.
        files: Vec<PathBuf>,
    },
    /// Too little memory.
    #[error(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// Its vocabulary does not work.
    #[error("{}: {source}", path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: huozi_token::Error,
    },
    /// It has no chat format.
    #[error("{}: {}", path.display(), ChatError::NoFormat)]
    NoChat {
        /// The file.
        path: PathBuf,
    },
    /// Its chat format does not work.
    #[error(
        "{}: {source}; `huozi-convert FILE.gguf -t TYPE -o NEW.gguf --chat-template FILE` gives the model \
         another template, and `huozi run --raw` needs none", path.display()
    )]
    Chat {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ChatError,
    },
    /// The native engine does not accept the file, or the system refuses what the engine needs.
    #[error(transparent)]
    Engine(#[from] model::Error),
    /// llama.cpp does not accept the file or an option.
    #[cfg(feature = "ggml")]
    #[error(transparent)]
    Ggml(#[from] ggml::Error),
    /// This build has no llama.cpp.
    #[error(
        "this build has no llama.cpp; `env $(.ci/ggml-env) cargo build --release --features ggml` \
         makes one that has (cmake and libclang are needed, see README.md)"
    )]
    NotBuilt,
    /// llama.cpp opens files only.
    #[error(
        "--engine ggml needs a model file; `huozi bench --shape NAME --write FILE` writes one with random \
         weights, -m FILE opens it"
    )]
    NoFile,
    /// `mlock` with llama.cpp.
    #[error("--mlock needs --engine native: llama.cpp does not report whether it could lock the weights")]
    MlockWithGgml,
    /// A choice of flash attention with the native engine.
    #[error("--flash-attn needs --engine ggml: it selects how llama.cpp computes attention")]
    FlashAttentionWithNative,
    /// The weights cannot be locked in memory.
    #[error(
        "{}: --mlock: cannot lock {} MiB in memory: {source}; `ulimit -l` shows how much is allowed",
        path.display(),
        bytes.div_ceil(1 << 20)
    )]
    Lock {
        /// The file.
        path: PathBuf,
        /// Bytes to lock.
        bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// Random weights cannot be made.
    #[error(transparent)]
    Random(#[from] synth::Error),
    /// The file cannot be read any more.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The cancel flag was set.
    #[error("{}: stopped while it was opened", path.display())]
    Cancelled {
        /// The file.
        path: PathBuf,
    },
    /// The built-in demo model cannot be converted.
    #[cfg(feature = "demo")]
    #[error(transparent)]
    Demo(#[from] demo::Error),
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
