//! The rows of the table.

use super::value::SettingValue;
use crate::engine::{EngineKind, KvType};
use crate::lang::Lang;
use crate::sample::{PENALTY_RANGE, Sampling, SamplingRange, TEMPERATURE_RANGE, TOP_P_RANGE};

/// The largest number of threads: more than any machine has, fewer than the system refuses.
pub const MAX_THREADS: u64 = 1024;
/// The longest context, as in a model file.
const MAX_CTX: u64 = 1 << 24;
/// Maximum tokens per answer where nothing was set.
pub(super) const DEFAULT_MAX_NEW: u64 = 512;
const MAX_U32: u64 = u32::MAX as u64;

/// What a setting belongs to: the table of `config.toml` it stands in, and when it can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingGroup {
    /// How an answer is generated; `[sampling]` in `config.toml`. Can change between two answers.
    Sampling,
    /// The conversation. Can change between two answers.
    Conversation,
    /// How the engine is opened.
    Engine,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SettingKind {
    /// Whole numbers from the first to the second.
    Whole(u64, u64),
    /// Numbers within a range; never NaN or infinite.
    Number(SamplingRange),
    /// On or off.
    Switch,
    /// The name of a type of the KV cache.
    Kv,
    /// The name of an engine.
    Engine,
    /// Any text.
    Text,
}

/// The value of a setting that was set nowhere.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingDefault {
    /// This value.
    Value(SettingValue),
    /// No fixed value: it is described in English and Chinese.
    Described([&'static str; 2]),
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingRow {
    /// The setting.
    pub setting: Setting,
    /// The name, as every source takes it; flags write `-` for `_` and take both.
    pub name: &'static str,
    /// The name that leads in the Chinese interface.
    pub name_zh: &'static str,
    /// The short form of its flag, and what the help calls its value.
    pub flag: (Option<char>, &'static str),
    /// The name among the choices of a conversation file; `None` for what stands elsewhere in the file or
    /// nowhere.
    pub saved: Option<&'static str>,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// A name under which on means off, and its help.
    pub inverse: Option<(&'static str, [&'static str; 2])>,
    /// What it belongs to.
    pub group: SettingGroup,
    /// The values it takes.
    pub kind: SettingKind,
    /// The value where nothing was set.
    pub default: SettingDefault,
    /// The key in the metadata of a model file.
    pub model_key: Option<&'static str>,
    /// What it does, in English and Chinese.
    pub help: [&'static str; 2],
}

/// What every row that says nothing else has.
const PLAIN: SettingRow = SettingRow {
    setting: Setting::MaxNew,
    name: "",
    name_zh: "",
    flag: (None, ""),
    saved: None,
    aliases: &[],
    inverse: None,
    group: SettingGroup::Sampling,
    kind: SettingKind::Text,
    default: SettingDefault::Described(["", ""]),
    model_key: None,
    help: ["", ""],
};

macro_rules! table {
    ($($(#[$doc:meta])+ $setting:ident { $($field:ident: $value:expr,)+ })+) => {
        /// Something that can be set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Setting {
            $($(#[$doc])+ $setting,)+
        }

        impl Setting {
            /// All of them, in the order in which they are listed.
            pub const ALL: [Self; [$(stringify!($setting)),+].len()] = [$(Self::$setting),+];
        }

        /// The rows, in the order of [`Setting::ALL`].
        static ROWS: [SettingRow; Setting::ALL.len()] =
            [$(SettingRow { setting: Setting::$setting, $($field: $value,)+ ..PLAIN }),+];
    };
}

// The table, in the order in which settings are listed.
table! {
    /// Maximum tokens per answer.
    MaxNew {
        name: "max_new_tokens",
        name_zh: "词元上限",
        flag: (Some('n'), "N"),
        saved: Some("max_new"),
        aliases: &["max_new", "max_tokens", "predict", "n_predict"],
        kind: SettingKind::Whole(1, MAX_U32),
        default: SettingDefault::Value(SettingValue::Whole(DEFAULT_MAX_NEW)),
        help: ["Maximum tokens per answer", "单次回答词元上限"],
    }
    /// See [`Sampling::temperature`].
    Temperature {
        name: "temperature",
        name_zh: "温度",
        flag: (None, "X"),
        saved: Some("temperature"),
        aliases: &["temp"],
        kind: SettingKind::Number(TEMPERATURE_RANGE),
        default: SettingDefault::Value(SettingValue::Number(Sampling::DEFAULT.temperature)),
        model_key: Some("general.sampling.temp"),
        help: ["Randomness; 0 = greedy", "随机程度；0 为贪心"],
    }
    /// See [`Sampling::repetition_penalty`].
    Penalty {
        name: "repetition_penalty",
        name_zh: "重复惩罚",
        flag: (None, "X"),
        saved: Some("repetition_penalty"),
        aliases: &["repeat_penalty"],
        kind: SettingKind::Number(PENALTY_RANGE),
        default: SettingDefault::Value(SettingValue::Number(Sampling::DEFAULT.repetition_penalty)),
        model_key: Some("general.sampling.penalty_repeat"),
        help: ["Penalty on repeated tokens; 1 = off", "抑制重复；1 为关闭"],
    }
    /// See [`Sampling::top_k`].
    TopK {
        name: "top_k",
        name_zh: "候选数",
        flag: (None, "K"),
        saved: Some("top_k"),
        kind: SettingKind::Whole(0, MAX_U32),
        default: SettingDefault::Value(SettingValue::Whole(Sampling::DEFAULT.top_k as u64)),
        model_key: Some("general.sampling.top_k"),
        help: ["Keep the K likeliest tokens; 0 = off", "只保留前 K 个；0 为关闭"],
    }
    /// See [`Sampling::top_p`].
    TopP {
        name: "top_p",
        name_zh: "累计概率",
        flag: (None, "P"),
        saved: Some("top_p"),
        kind: SettingKind::Number(TOP_P_RANGE),
        default: SettingDefault::Value(SettingValue::Number(Sampling::DEFAULT.top_p)),
        model_key: Some("general.sampling.top_p"),
        help: ["Keep the likeliest up to P; 1 = off", "只保留累计概率 P；1 为关闭"],
    }
    /// See [`Sampling::do_sample`].
    DoSample {
        name: "do_sample",
        name_zh: "随机采样",
        flag: (None, "on|off"),
        saved: Some("do_sample"),
        inverse: Some(("greedy", ["Always take the most likely token", "总取最可能的词元"])),
        kind: SettingKind::Switch,
        default: SettingDefault::Value(SettingValue::Switch(Sampling::DEFAULT.do_sample)),
        help: ["Draw at random; off = greedy", "随机抽取；关为贪心"],
    }
    /// The system prompt.
    System {
        name: "system",
        name_zh: "系统提示",
        flag: (None, "TEXT"),
        group: SettingGroup::Conversation,
        default: SettingDefault::Described(["the model's own", "模型自带"]),
        help: ["System prompt", "对话开头给模型的说明"],
    }
    /// Seed of the draws.
    Seed {
        name: "seed",
        name_zh: "随机种子",
        flag: (Some('s'), "N"),
        saved: Some("seed"),
        kind: SettingKind::Whole(0, u64::MAX),
        default: SettingDefault::Described(["random, and shown", "随机并显示"]),
        help: ["The same seed gives the same text", "种子相同则文本相同"],
    }
    /// Threads that compute.
    Threads {
        name: "threads",
        name_zh: "线程数",
        flag: (Some('t'), "N"),
        saved: Some("threads"),
        group: SettingGroup::Engine,
        kind: SettingKind::Whole(1, MAX_THREADS),
        default: SettingDefault::Described(["fast physical cores", "快速物理核心数"]),
        help: ["Compute threads", "计算线程数"],
    }
    /// Type of the KV cache.
    Kv {
        name: "kv_type",
        name_zh: "缓存类型",
        flag: (None, "TYPE"),
        saved: Some("kv"),
        aliases: &["kv"],
        group: SettingGroup::Engine,
        kind: SettingKind::Kv,
        default: SettingDefault::Value(SettingValue::Kv(KvType::F16)),
        help: ["KV cache type: f32, f16, q8", "KV 缓存：f32 f16 q8"],
    }
    /// The engine.
    Engine {
        name: "engine",
        name_zh: "推理引擎",
        flag: (None, "ENGINE"),
        saved: Some("engine"),
        group: SettingGroup::Engine,
        kind: SettingKind::Engine,
        default: SettingDefault::Value(SettingValue::Engine(EngineKind::Native)),
        help: ["Inference engine: native or ggml (llama.cpp)", "native 或 ggml (llama.cpp)"],
    }
    /// Positions of prompt and answer together.
    CtxSize {
        name: "ctx_size",
        name_zh: "上下文长度",
        flag: (Some('c'), "N"),
        aliases: &["n_ctx", "context_length"],
        group: SettingGroup::Engine,
        kind: SettingKind::Whole(1, MAX_CTX),
        default: SettingDefault::Described(["as trained", "与训练时相同"]),
        help: ["Context in tokens, prompt and answer together", "上下文词元数（提示和回答合计）"],
    }
}

impl Setting {
    /// Its row.
    pub fn row(self) -> &'static SettingRow {
        &ROWS[self as usize]
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Its name, and the one under which on means off.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let row = self.row();
        [row.name].into_iter().chain(row.inverse.map(|(name, _)| name))
    }

    /// What it does.
    pub fn help(self, lang: Lang) -> &'static str {
        let [en, zh] = self.row().help;
        lang.of(en, zh)
    }

    /// The value where nothing was set, as a person reads it.
    pub fn default_text(self, lang: Lang) -> String {
        match &self.row().default {
            SettingDefault::Value(value) if self.row().model_key.is_some() => {
                let value = value.show(lang);
                lang.of(format!("the file's or {value}"), format!("模型文件的值，或 {value}"))
            }
            SettingDefault::Value(value) => value.show(lang),
            SettingDefault::Described([en, zh]) => lang.of(*en, *zh).to_owned(),
        }
    }
}

/// A setting by one of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingName {
    /// The setting.
    pub setting: Setting,
    /// Under this name on means off: `greedy`.
    pub inverse: bool,
}

impl SettingName {
    /// The setting that is called `name`; `-` and `_` are the same.
    pub fn find(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        ROWS.iter().find_map(|row| {
            let inverse = row.inverse.is_some_and(|(inverse, _)| inverse == name);
            let found = inverse || row.name == name || row.aliases.contains(&name.as_str());
            found.then_some(Self { setting: row.setting, inverse })
        })
    }

    /// The name: that of the row, or its inverse.
    pub fn name(self) -> &'static str {
        let row = self.setting.row();
        row.inverse.filter(|_| self.inverse).map_or(row.name, |(name, _)| name)
    }
}

impl SettingName {
    /// The name as a person reads it: in Chinese the Chinese one leads.
    pub fn shown(self, lang: Lang) -> String {
        match lang {
            Lang::Zh if !self.inverse => format!("{} {}", self.setting.row().name_zh, self.name()),
            _ => self.name().to_owned(),
        }
    }
}

impl From<Setting> for SettingName {
    fn from(setting: Setting) -> Self {
        Self { setting, inverse: false }
    }
}
