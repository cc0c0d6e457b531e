//! Who may import whom: the arrows of the picture in `src/lib.rs`, read from the paths in the source of every
//! package, and no circle of files in any of them. What every file keeps to (lengths, names) is checked here,
//! too.

#[path = "layering/edges.rs"]
mod edges;
#[path = "layering/graph.rs"]
mod graph;
#[path = "layering/planted.rs"]
mod planted;
#[path = "layering/style.rs"]
mod style;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use edges::{Edges, Read, circles, read};
use graph::{FileId, Graph, Package, Sources};

/// Room, and the rooms and packages whose items it may name.
type Arrows = &'static [(&'static str, &'static [&'static str])];

const PACKAGES: &[Package] = &[
    Package { name: "huozi_quant", dir: "quant/src" },
    Package { name: "huozi_token", dir: "token/src" },
    Package { name: "huozi_convert", dir: "convert/src" },
    Package { name: "huozi", dir: "src" },
];

/// A room is the first part of a file's path below `src/`, without `.rs`; a package is named by itself.
const ARROWS: &[(&str, Arrows)] = &[
    (
        "huozi_quant",
        &[
            ("attention", &["elementwise", "formats", "kernels", "kv"]),
            ("bloom", &["formats", "gguf", "kv", "map", "message", "output", "random"]),
            ("buffer", &[]),
            ("elementwise", &["formats", "kernels"]),
            ("encode", &["formats", "kernels"]),
            ("files", &["gguf", "map", "message"]),
            ("floor", &["kernels", "team"]),
            ("formats", &[]),
            ("gguf", &["formats", "map", "message"]),
            ("imatrix", &["formats", "gguf"]),
            ("kernels", &["formats", "tile"]),
            ("kv", &[]),
            ("map", &[]),
            ("message", &[]),
            ("matmul", &["buffer", "formats", "kernels", "map", "team"]),
            ("output", &[]),
            ("random", &[]),
            ("team", &["tile"]),
            ("tile", &[]),
        ],
    ),
    (
        "huozi_token",
        &[
            ("added", &["error", "vocabulary"]),
            ("bpe", &["error", "vocabulary"]),
            ("chat", &["huozi_quant", "markers", "tokenizer"]),
            ("decode_stream", &[]),
            ("error", &["huozi_quant"]),
            ("history", &["chat", "tokenizer"]),
            ("markers", &[]),
            ("parts", &["error", "huozi_quant"]),
            ("text_stream", &["decode_stream", "vocabulary"]),
            ("tokenizer", &["added", "bpe", "error", "huozi_quant", "parts", "vocabulary"]),
            ("usable", &["chat", "error", "huozi_quant", "tokenizer"]),
            ("vocabulary", &["error", "markers", "parts"]),
        ],
    ),
    (
        "huozi_convert",
        &[
            ("chat", &["error", "huozi_token", "source", "template", "vocab"]),
            ("config", &["error", "huozi_quant", "source"]),
            ("error", &["huozi_quant", "source"]),
            ("forecast", &["error", "huozi_quant", "model", "names", "output", "report", "work"]),
            ("imatrix", &["error", "huozi_quant", "names", "source"]),
            ("journal", &["huozi_quant"]),
            (
                "main",
                &[
                    "huozi_quant",
                    "make_checkpoint",
                    "options",
                    "pipeline",
                    "plan",
                    "print",
                    "scripts",
                    "signals",
                ],
            ),
            ("make_checkpoint", &["error", "huozi_quant", "print", "signals", "synth"]),
            ("meta", &["chat", "config", "huozi_quant", "huozi_token", "plan", "template", "vocab"]),
            (
                "model",
                &[
                    "chat",
                    "config",
                    "error",
                    "huozi_quant",
                    "imatrix",
                    "meta",
                    "names",
                    "options",
                    "plan",
                    "reference",
                    "source",
                    "template",
                    "usable",
                    "vocab",
                    "work",
                ],
            ),
            ("names", &["config", "huozi_quant", "source"]),
            ("options", &["plan"]),
            ("output", &["error", "huozi_quant", "journal", "partial", "plan", "progress", "source"]),
            ("partial", &["error", "journal", "source"]),
            (
                "pipeline",
                &[
                    "error",
                    "forecast",
                    "huozi_quant",
                    "journal",
                    "model",
                    "options",
                    "output",
                    "partial",
                    "plan",
                    "progress",
                    "report",
                    "source",
                    "verify",
                    "work",
                ],
            ),
            ("plan", &["huozi_quant", "names"]),
            ("print", &["forecast", "huozi_quant", "progress", "report", "source"]),
            ("progress", &[]),
            ("reference", &["vocab"]),
            ("report", &["huozi_quant", "journal", "output", "plan", "work"]),
            ("scripts", &["make_checkpoint", "print"]),
            ("signals", &["error"]),
            ("source", &["huozi_quant"]),
            (
                "synth",
                &["config", "error", "huozi_quant", "huozi_token", "names", "progress", "report", "vocab"],
            ),
            ("usable", &["error", "huozi_quant", "huozi_token", "reference"]),
            ("template", &["error", "options", "source"]),
            ("verify", &["error", "huozi_quant", "journal", "names", "progress", "report", "source", "work"]),
            ("vocab", &["error", "huozi_token", "source"]),
            (
                "work",
                &["error", "huozi_quant", "imatrix", "journal", "names", "output", "progress", "source"],
            ),
        ],
    ),
    (
        "huozi",
        &[
            (
                "cli",
                &[
                    "batch",
                    "bench",
                    "commands",
                    "complete",
                    "demo",
                    "engine",
                    "eval",
                    "huozi_quant",
                    "huozi_token",
                    "kv_file",
                    "lang",
                    "model",
                    "open",
                    "sample",
                    "schedule",
                    "session",
                    "settings",
                    "text_file",
                    "tui",
                ],
            ),
            ("batch", &["complete", "huozi_quant", "huozi_token", "open", "sample", "schedule", "text_file"]),
            ("bench", &["engine", "huozi_quant", "sample", "schedule"]),
            ("complete", &["huozi_token", "sample", "schedule"]),
            ("bin", &["cli", "tui"]),
            ("commands", &["lang"]),
            ("demo", &["huozi_convert"]),
            ("engine", &["huozi_quant", "model"]),
            ("eval", &["engine", "sample"]),
            ("kv_file", &["huozi_quant", "schedule"]),
            ("main", &["cli"]),
            ("model", &["huozi_quant"]),
            ("sample", &[]),
            ("schedule", &["engine", "sample"]),
            ("lang", &[]),
            ("open", &["demo", "engine", "huozi_quant", "huozi_token", "model", "settings"]),
            (
                "session",
                &[
                    "engine",
                    "huozi_quant",
                    "huozi_token",
                    "kv_file",
                    "open",
                    "sample",
                    "schedule",
                    "settings",
                ],
            ),
            ("settings", &["engine", "huozi_quant", "lang", "sample"]),
            ("text_file", &[]),
            ("tui", &["commands", "lang", "session", "settings", "text_file"]),
        ],
    ),
];

/// Files that are tables of test cases: as long as there are cases.
const TABLES: &[&str] = &[];

/// Folders with `.rs` files of the project.
const FOLDERS: &[&str] = &[
    "src",
    "quant/src",
    "token/src",
    "convert/src",
    "tests",
    "quant/tests",
    "token/tests",
    "convert/tests",
    "benches",
    "quant/benches",
    "examples",
    "fuzz/fuzz_targets",
];

fn sources() -> &'static Sources {
    fn read(root: &Path, folder: &Path, sources: &mut Sources) {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
        for entry in entries {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                read(root, &path, sources);
            } else if path.extension().is_some_and(|e| e == "rs") {
                sources.insert(path, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    static SOURCES: OnceLock<Sources> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let mut sources = Sources::new();
        for folder in FOLDERS {
            read(Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(folder), &mut sources);
        }
        sources
    })
}

fn place(graph: &Graph, from: FileId, (line, path): &(usize, String)) -> String {
    format!("{}:{line}: {path}", graph.files[from].path.display())
}

/// What breaks `arrows`: imports that no arrow allows, rooms that are missing in them, arrows and rooms that
/// are not there.
fn broken_arrows(graph: &Graph, read: &Read, arrows: &[(&str, Arrows)]) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, package) in graph.packages.iter().enumerate() {
        let picture = arrows.iter().find(|(name, _)| *name == package.name);
        let allowed: BTreeMap<&str, &[&str]> =
            picture.map_or(&[][..], |(_, arrows)| arrows).iter().copied().collect();
        let files = (0..graph.files.len()).filter(|&file| graph.files[file].package == number);
        let rooms: BTreeSet<String> =
            files.map(|file| graph.room(file).1).filter(|room| room != "lib").collect();
        for room in rooms.iter().filter(|room| !allowed.contains_key(room.as_str())) {
            broken.push(format!("{}: room `{room}` is not in the picture", package.dir));
        }
        for room in allowed.keys().filter(|room| !rooms.contains(**room)) {
            broken.push(format!("{}: room `{room}` is in the picture, not in the source", package.dir));
        }
        let mut used = BTreeSet::new();
        for ((from, (to, room)), what) in &read.arrows {
            let own = graph.room(*from);
            if own.0 != number || own.1 == "lib" {
                continue;
            }
            let other = room.clone().unwrap_or_else(|| graph.packages[*to].name.to_owned());
            let fine = allowed.get(own.1.as_str()).is_some_and(|others| others.contains(&other.as_str()));
            if used.insert((own.1.clone(), other.clone())) && !fine {
                broken.push(format!("`{}` must not import `{other}`: {}", own.1, place(graph, *from, what)));
            }
        }
        for (room, others) in &allowed {
            for other in others.iter().filter(|other| !used.contains(&(room.to_string(), other.to_string())))
            {
                broken.push(format!("{}: nothing uses the arrow `{room}` -> `{other}`", package.dir));
            }
        }
        // A room from which all that it may import can be taken away first, and so on: what stays is a
        // circle.
        let mut left = allowed.clone();
        while let Some(room) =
            left.keys().find(|room| left[*room].iter().all(|to| !left.contains_key(to))).copied()
        {
            left.remove(room);
        }
        if !left.is_empty() {
            broken.push(format!("{}: the arrows go in a circle: {:?}", package.dir, left.keys()));
        }
    }
    broken
}

/// Each circle with the edges in it.
fn broken_circles(graph: &Graph, edges: &Edges) -> Vec<String> {
    let describe = |files: Vec<FileId>| {
        let names: Vec<_> = files.iter().map(|&file| graph.files[file].path.display().to_string()).collect();
        let within = edges.iter().filter(|((from, to), _)| files.contains(from) && files.contains(to));
        let lines = within.map(|(&(from, to), what)| {
            format!("\n    {} -> {}", place(graph, from, what), graph.files[to].path.display())
        });
        format!("circle of {} files: {}{}", names.len(), names.join(", "), lines.collect::<String>())
    };
    circles(graph, edges).into_iter().map(describe).collect()
}

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}: {}\n  {}", found.len(), found.join("\n  "));
}

fn workspace() -> &'static (Graph, Read) {
    // Spans are not `Sync`: each thread reads for itself.
    thread_local! {
        static READ: &'static (Graph, Read) = {
            let graph = Graph::new(PACKAGES, sources());
            let read = read(&graph);
            Box::leak(Box::new((graph, read)))
        };
    }
    READ.with(|read| *read)
}

#[test]
fn every_path_into_the_workspace_is_found() {
    none("paths that lead nowhere", &workspace().1.lost);
}

#[test]
fn rooms_keep_their_arrows() {
    let (graph, read) = workspace();
    none("arrows", &broken_arrows(graph, read, ARROWS));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let (graph, read) = workspace();
    none("circles", &broken_circles(graph, &read.edges));
}

#[test]
fn no_file_is_too_long() {
    none("long files", &style::long_files(sources(), TABLES));
    for table in TABLES {
        assert!(style::is_long(sources(), table), "{table} need not be named");
    }
}

#[test]
fn no_line_is_too_wide() {
    none("wide lines", &style::wide_lines(sources()));
}

#[test]
fn no_function_takes_over_seven_arguments() {
    none("functions", &style::many_arguments(sources()));
}

#[test]
fn public_types_of_a_package_have_names_of_their_own() {
    none("names", &style::shared_names(&workspace().0));
}

#[test]
fn an_engine_is_opened_in_one_place() {
    for engine in ["Native", "Ggml"] {
        let calls = style::calls(&workspace().0, engine, "open");
        assert_eq!(calls.len(), 1, "{engine}::open: {calls:?}");
    }
}
