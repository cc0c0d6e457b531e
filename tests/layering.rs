//! Who may import whom: the arrows of the picture in `src/lib.rs`, read from the paths in the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Room, and what it may name.
type Arrows = &'static [(&'static str, &'static [&'static str])];

const QUANT: Arrows = &[
    ("attention", &["elementwise", "formats", "kernels", "kv"]),
    ("bloom", &["formats", "gguf", "kv", "map", "random"]),
    ("buffer", &[]),
    ("elementwise", &["formats", "kernels"]),
    ("encode", &["formats", "kernels"]),
    ("floor", &["kernels", "team"]),
    ("formats", &[]),
    ("gguf", &["formats", "map"]),
    ("hub", &[]),
    ("imatrix", &["formats", "gguf"]),
    ("kernels", &["formats", "tile"]),
    ("kv", &[]),
    ("map", &[]),
    ("matmul", &["buffer", "formats", "kernels", "map", "team"]),
    ("random", &[]),
    ("team", &["tile"]),
    ("tile", &[]),
];

/// `quant`, `token` and `convert` stand for the other packages.
const ROOT: Arrows = &[
    ("bench", &["engine", "quant"]),
    ("bin", &["cli", "tui"]),
    (
        "cli",
        &[
            "bench", "demo", "engine", "eval", "model", "open", "quant", "sample", "schedule", "session",
            "token", "tui",
        ],
    ),
    ("demo", &["convert"]),
    ("engine", &["model", "quant"]),
    ("eval", &["engine"]),
    ("lang", &[]),
    ("main", &["cli"]),
    ("model", &["quant"]),
    ("open", &["demo", "engine", "model", "quant", "token"]),
    ("sample", &[]),
    ("schedule", &["engine", "sample"]),
    ("session", &["engine", "open", "quant", "sample", "schedule", "token"]),
    ("settings", &["engine", "lang", "quant", "sample"]),
    ("tui", &["lang", "session"]),
];

/// Every `.rs` file below `dir` with its room, the first part of its path without `.rs`; paths in its code that leave
/// the room through `super::` begin with `crate::`.
fn files(dir: &Path, room: Option<&str>, depth: usize, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let room = room.unwrap_or(&stem);
        if path.is_dir() {
            files(&path, Some(room), depth + 1, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            // `mod.rs` is the module of its folder.
            let depth = depth + usize::from(stem != "mod");
            found.push((room.to_owned(), from_root(&code(&fs::read_to_string(&path).unwrap()), depth)));
        }
    }
}

/// Source without comments and without the tests at its end.
fn code(text: &str) -> String {
    let own = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    own.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// `code` of a module `depth` below the root, `super::` as often as it takes to the root written as `crate::`.
fn from_root(code: &str, depth: usize) -> String {
    // `main.rs` is a crate of its own that sees this one by its name.
    code.replace(&"super::".repeat(depth), "crate::").replace("huozi::", "crate::")
}

/// Rooms named by paths that begin with `crate::`, also in braces: `crate::{a, b::C}`.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let first_name =
        |s: &str| s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut rooms = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            rooms.insert(first_name(rest));
            continue;
        };
        rooms.insert(first_name(list));
        let mut depth = 0;
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => drop(rooms.insert(first_name(&list[i + 1..]))),
                _ => {}
            }
        }
    }
    rooms.remove("");
    rooms
}

/// Rooms named by `code`, also through a name that the root gives on: `pub use formats::Format` in `root`.
fn named(code: &str, rooms: &BTreeSet<String>, root: &str) -> BTreeSet<String> {
    let behind = |name: String| {
        let given_on = || {
            let line =
                root.lines().find(|l| l.starts_with("pub use ") && l.ends_with(&format!("::{name};")))?;
            Some(line.strip_prefix("pub use ")?.split("::").next()?.to_owned())
        };
        if rooms.contains(&name) { Some(name) } else { given_on().filter(|room| rooms.contains(room)) }
    };
    let mut named: BTreeSet<String> = crate_paths(code).into_iter().filter_map(behind).collect();
    for (package, room) in [("huozi_quant", "quant"), ("huozi_token", "token"), ("huozi_convert", "convert")]
    {
        if code.contains(package) {
            named.insert(room.to_owned());
        }
    }
    named
}

fn check(dir: &str, arrows: Arrows) {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), None, 0, &mut found);
    let rooms: BTreeSet<String> = found.iter().map(|(room, _)| room.clone()).filter(|r| r != "lib").collect();
    let allowed: BTreeMap<&str, &[&str]> = arrows.iter().copied().collect();
    for room in &rooms {
        assert!(allowed.contains_key(room.as_str()), "{dir}: room `{room}` is not in the picture");
    }
    for (room, _) in arrows {
        assert!(rooms.contains(*room), "{dir}: room `{room}` is in the picture, not in the house");
    }
    let root = found.iter().find(|(room, _)| room == "lib").map_or("", |(_, code)| code);
    let mut used = BTreeSet::new();
    for (room, code) in found.iter().filter(|(room, _)| room != "lib") {
        for other in named(code, &rooms, root) {
            let allowed = other == *room || allowed[room.as_str()].contains(&other.as_str());
            assert!(allowed, "{dir}: `{room}` must not import `{other}`");
            used.insert((room.clone(), other));
        }
    }
    let unused: Vec<_> = arrows
        .iter()
        .flat_map(|&(room, others)| others.iter().map(move |&other| (room.to_owned(), other.to_owned())))
        .filter(|arrow| !used.contains(arrow))
        .collect();
    assert!(unused.is_empty(), "{dir}: arrows in the picture that nobody uses: {unused:?}");
}

#[test]
fn quant_keeps_its_arrows() {
    check("quant/src", QUANT);
}

#[test]
fn the_root_keeps_its_arrows() {
    check("src", ROOT);
}

#[test]
fn the_reader_of_paths_sees_what_it_should() {
    let rooms = |text: &str| Vec::from_iter(crate_paths(text));
    assert_eq!(rooms("use crate::engine::{Engine, Info};"), ["engine"]);
    assert_eq!(rooms("use crate::{token, engine::{A, B}, sample::C};"), ["engine", "sample", "token"]);
    assert_eq!(rooms("use crate::{a::B, c};\nfn f(x: crate::d::E) {}"), ["a", "c", "d"]);
    let below = |text: &str, depth| Vec::from_iter(crate_paths(&from_root(text, depth)));
    assert_eq!(below("use super::engine;\nuse super::{a, b::C};", 1), ["a", "b", "engine"]);
    assert_eq!(below("use super::sibling::X;\nuse super::super::engine::Y;", 2), ["engine"]);
    assert_eq!(below("use super::super::sibling::X;", 3), [""; 0]);
    assert_eq!(below("fn main() { huozi::cli::main() }", 1), ["cli"]);
    let rooms: BTreeSet<String> = ["tui".to_owned()].into();
    assert_eq!(named("use crate::App;", &rooms, "pub use tui::App;").len(), 1);
    assert_eq!(named("use crate::tui::App;", &rooms, "").len(), 1);
    assert_eq!(
        named(&code("// crate::tui\nfn f() {}\n#[cfg(test)]\nmod tests { use crate::tui; }"), &rooms, "")
            .len(),
        0
    );
}
