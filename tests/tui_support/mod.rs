//! A chat without terminal and model: what its tests, its benchmark and the pictures of its screens share.
#![allow(dead_code)] // every user takes a part of it

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use huozi::session::open::{About, SessionOptions};
use huozi::session::store::{self, Entry};
use huozi::session::{Event, KvType, Settings, Stats, Stop, Turn};
use huozi::tui::app::{App, Start};
use huozi::tui::event::{Effect, Msg};
use huozi::tui::failure::Failure;
use huozi::tui::interface::Surroundings;
use huozi::tui::look::Lang;
use huozi::tui::view;
use huozi::tui::worker::{AskKind, Chosen, DeskTask, ModelEntry, ModelTask, Report, Talk};
use huozi_token::HistoryRule;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use std::time::{Duration, Instant, SystemTime};

/// The state and a clock of its own.
pub struct World {
    pub app: App,
    pub now: Instant,
    pub effects: Vec<Effect>,
}

pub fn chosen() -> Chosen {
    let settings = Settings {
        sampling: Default::default(),
        max_new: 512,
        n_ctx: 2048,
        system: None,
        history: HistoryRule::TwoThirds,
        seed: 20240,
    };
    Chosen {
        settings,
        options: SessionOptions { threads: Some(4), kv: Some(KvType::F16), ..SessionOptions::default() },
    }
}

pub fn about() -> About {
    About {
        name: "huozi-7b-rlhf".into(),
        kind: "q4_k".into(),
        runs_on: "avx2, 4 threads".into(),
        threads: 4,
        kv: KvType::F16,
        fingerprint: "0123456789abcdef".into(),
        n_ctx_train: 2048,
        forecast_bytes: 5_800_000_000,
    }
}

pub fn turn(question: &str, answer: &str) -> Turn {
    let ids = Some(answer.bytes().map(u32::from).collect());
    Turn { question: question.into(), answer: answer.into(), ids, attempt: 0, stop: Stop::EndToken(0) }
}

pub fn stats() -> Stats {
    Stats {
        prompt_tokens: 120,
        reused_tokens: 30,
        prompt_seconds: 2.0,
        generated_tokens: 89,
        generate_seconds: 20.0,
        context_used: 238,
        context: 2048,
        seed: 20240,
        attempt: 0,
    }
}

impl World {
    /// At the choice of a model.
    pub fn new(size: (u16, u16), lang: Lang) -> Self {
        let around = Surroundings { lang, ..Surroundings::default() };
        Self::started(Start { around, ..Start::default() }, size)
    }

    /// Started like this.
    pub fn started(start: Start, size: (u16, u16)) -> Self {
        let now = Instant::now();
        let (app, effects) = App::new(start, size, now);
        Self { app, now, effects }
    }

    /// In the chat, with this conversation.
    pub fn chat(size: (u16, u16), lang: Lang, turns: Vec<Turn>) -> Self {
        Self::new(size, lang).in_chat(turns)
    }

    /// The model is open, and this conversation.
    pub fn in_chat(mut self, turns: Vec<Turn>) -> Self {
        self.ready();
        self.talk(turns);
        self
    }

    pub fn ready(&mut self) {
        self.report(Report::Loading(huozi::session::open::Step::Build, 1, 1));
        let (fresh, chosen) = (Box::new(chosen()), Box::new(chosen()));
        self.report(Report::Ready { about: Box::new(about()), fresh, chosen });
    }

    pub fn talk(&mut self, turns: Vec<Turn>) {
        let name = (!turns.is_empty()).then(|| "chat-1".to_owned());
        self.report(Report::Talk(Box::new(Talk { name, turns, opened: true, ..Talk::default() })));
        self.report(Report::Warmed { filled: 0, dropped: 0 });
    }

    pub fn report(&mut self, report: Report) {
        self.send(Msg::Report(report));
    }

    /// Conversations that hold what is searched for.
    pub fn listed(&mut self, entries: Vec<Entry>) {
        let asked = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Desk(DeskTask::List(text)) => Some(text.clone()),
            _ => None,
        });
        self.report(Report::Talks(asked.unwrap_or_default(), entries));
    }

    pub fn event(&mut self, event: Event) {
        self.report(Report::Event(event));
    }

    /// Gives a message, after the layout that a frame would have made. Drafts that are to be kept are among
    /// [`World::effects`] only: they come with whatever happens when it is time.
    pub fn send(&mut self, msg: Msg) -> Vec<Effect> {
        self.app.prepare();
        let mut effects = self.app.update(msg, self.now);
        self.effects.extend(effects.iter().cloned());
        effects.retain(|effect| !matches!(effect, Effect::Desk(DeskTask::Draft(_))));
        effects
    }

    pub fn key(&mut self, code: KeyCode) -> Vec<Effect> {
        self.send(Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    pub fn alt(&mut self, c: char) -> Vec<Effect> {
        self.send(Msg::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::ALT)))
    }

    pub fn ctrl(&mut self, c: char) -> Vec<Effect> {
        self.send(Msg::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)))
    }

    pub fn write(&mut self, text: &str) {
        text.chars().for_each(|c| drop(self.key(KeyCode::Char(c))));
    }

    pub fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.send(Msg::Tick);
    }

    pub fn resize(&mut self, size: (u16, u16)) {
        self.send(Msg::Resize(size.0, size.1));
    }

    /// A frame, and where the cursor stands.
    pub fn frame(&mut self) -> (Buffer, Option<Position>) {
        self.app.prepare();
        let (width, height) = self.app.size();
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        let cursor = view::render(&self.app, self.now, &mut buffer);
        (buffer, cursor)
    }

    /// A frame as text; the cell of the cursor is named below it.
    pub fn screen(&mut self) -> String {
        let (buffer, cursor) = self.frame();
        let at = cursor.map_or("none".into(), |p| format!("{},{}", p.x, p.y));
        format!("{}\ncursor {at}", text(&buffer))
    }
}

/// The conversation is now this, and the answer has ended.
pub fn answered(world: &mut World, turns: Vec<Turn>, error: Option<Failure>) {
    let talk = Talk { name: Some("chat-1".into()), turns, ..Talk::default() };
    world.report(Report::Talk(Box::new(talk)));
    world.report(Report::Answered(error));
}

pub fn command(world: &mut World, text: &str) -> Vec<Effect> {
    world.write(text);
    world.key(KeyCode::Enter)
}

/// What is asked, and how.
pub fn asked(effects: &[Effect]) -> Option<(AskKind, String)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Work(ModelTask::Ask { ask, question, .. }) => Some((*ask, question.clone())),
        _ => None,
    })
}

/// The text of a buffer, a line for each row; the second cell of a wide character is left out.
pub fn text(buffer: &Buffer) -> String {
    let area = buffer.area();
    let row = |y: u16| {
        let mut line = String::new();
        let mut x = 0;
        while x < area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += (huozi::tui::text::width(symbol).max(1)) as u16;
        }
        line.trim_end().to_owned()
    };
    (0..area.height).map(row).collect::<Vec<_>>().join("\n")
}

/// A conversation with Chinese text and every kind of block.
pub fn conversation() -> Vec<Turn> {
    let poem = "静夜思\n\n床前明月光，疑是地上霜。\n举头望明月，低头思故乡。";
    let table = "下面是一个**对比**：\n\n| 诗人 | 代表作 | 年代 |\n|---|---|---:|\n| 李白 | 静夜思 | 726 |\n| 杜甫 | 春望 | 757 |\n\n\
                 1. 李白的诗*飘逸*。\n2. 杜甫的诗沉郁，`fn main()` 与诗无关。\n\n\
                 ```rust\nfn main() {\n    println!(\"你好，世界\");\n}\n```";
    vec![turn("写一首关于月的诗。", poem), turn("比较李白和杜甫，并给出一个 Rust 的例子。", table)]
}

/// A conversation cannot be written.
pub fn disk_full() -> Failure {
    let source = std::io::ErrorKind::StorageFull.into();
    store::Error::Io { path: "/a.jsonl".into(), action: "write", source }.into()
}

/// Conversations of a list.
pub fn entries() -> Vec<Entry> {
    let entry = |name: &str, title: &str, modified: SystemTime| Entry {
        name: name.into(),
        title: title.into(),
        modified,
        bytes: 1000,
    };
    // Of another year than this one, and the same day from UTC-10 to UTC+13.
    let noon = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400 + 37_800);
    vec![
        entry("chat-1", "写一首关于月的诗。", SystemTime::now() - Duration::from_secs(2 * 3600 + 1)),
        entry("chat-2", "Explain the borrow checker", noon(20395)),
        entry("chat-3", "去年的对话：一个很长很长很长很长很长很长很长很长很长的标题", noon(19782)),
    ]
}

/// Models of a list.
pub fn models() -> Vec<ModelEntry> {
    let model =
        |path: &str, bytes: u64, needs: Result<u64, Failure>| ModelEntry { path: path.into(), bytes, needs };
    vec![
        model("/home/li/.local/share/huozi/huozi-7b-rlhf-q4_k_m.gguf", 4_670_000_000, Ok(5_800_000_000)),
        model("/data/huozi-7b-sft-q8_0.gguf", 7_510_000_000, Ok(8_600_000_000)),
        model("./broken.gguf", 12_000, Err("not a GGUF file: begins with \"<htm\"".into())),
    ]
}
