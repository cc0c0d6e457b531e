//! What a patch of settings changes about a conversation and about the engine that it is opened with.

use super::Settings;
use super::open::SessionOptions;
use crate::settings::Patch;

impl Settings {
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
            kv: self.kv.or(Some(crate::engine::KvType::F16)),
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
}
