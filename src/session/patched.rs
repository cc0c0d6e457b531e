//! What a patch of settings changes about a conversation and about the engine that it is opened with.

use super::Settings;
use super::open::{SessionOptions, random_seed};
use crate::engine::KvType;
use crate::open::OpenOptions;
use crate::settings::Patch;
use huozi_token::HistoryRule;

impl Settings {
    /// The settings of a new conversation: what `patch` says, else the defaults; a context of `n_ctx_train`
    /// positions and a random seed, where it does not say.
    pub fn new(patch: Patch, n_ctx_train: usize, history: HistoryRule) -> Self {
        Self {
            sampling: patch.sampling(),
            max_new: patch.max_new(),
            n_ctx: patch.n_ctx.unwrap_or(n_ctx_train),
            system: patch.system,
            history,
            seed: patch.seed.unwrap_or_else(random_seed),
        }
    }

    /// The settings as a patch.
    pub fn patch(&self) -> Patch {
        Patch {
            max_new: Some(self.max_new),
            seed: Some(self.seed),
            system: self.system.clone(),
            n_ctx: Some(self.n_ctx),
            ..Patch::of_sampling(&self.sampling)
        }
    }

    /// Sets what `patch` says; the context is fixed when the model is opened.
    pub fn apply(&mut self, patch: &Patch) {
        patch.apply(&mut self.sampling);
        self.max_new = patch.max_new.unwrap_or(self.max_new);
        self.seed = patch.seed.unwrap_or(self.seed);
        if let Some(system) = &patch.system {
            self.system = Some(system.clone());
        }
    }
}

impl SessionOptions {
    /// The options as a patch; a KV type that was not chosen is `f16`.
    pub fn patch(&self) -> Patch {
        Patch {
            threads: self.threads,
            kv: self.kv.or(Some(KvType::F16)),
            engine: Some(self.engine),
            ..Patch::default()
        }
    }

    /// Sets what `patch` says.
    pub fn apply(&mut self, patch: &Patch) {
        self.threads = patch.threads.or(self.threads);
        self.kv = patch.kv.or(self.kv);
        self.engine = patch.engine.unwrap_or(self.engine);
        self.n_ctx = patch.n_ctx.or(self.n_ctx);
    }

    /// How the model is opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            engine: self.engine,
            threads: self.threads,
            kv: self.kv.unwrap_or(KvType::F16),
            check_memory: !self.no_memory_check,
            ..OpenOptions::default()
        }
    }
}
