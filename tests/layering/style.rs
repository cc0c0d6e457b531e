//! What every file keeps to: lengths, arguments, names of public types, one place where an engine is opened.

use std::collections::BTreeMap;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Item, Visibility};

use crate::graph::{Graph, Sources, for_tests, item_attributes};

/// Most arguments of a function, `self` included.
const MOST_ARGUMENTS: usize = 7;
/// Most lines of a file.
const MOST_LINES: usize = 600;
/// Most characters of a line.
const MOST_COLUMNS: usize = 110;

/// Whether the file is there and over [`MOST_LINES`].
pub fn is_long(sources: &Sources, file: &str) -> bool {
    sources.get(Path::new(file)).is_some_and(|text| text.lines().count() > MOST_LINES)
}

/// Files over [`MOST_LINES`], but for `tables`.
pub fn long_files(sources: &Sources, tables: &[&str]) -> Vec<String> {
    let lines = |text: &str| text.lines().count();
    let long = sources.iter().filter(|(_, text)| lines(text) > MOST_LINES);
    long.filter(|(path, _)| !tables.iter().any(|table| Path::new(table) == path.as_path()))
        .map(|(path, text)| format!("{}: {} lines", path.display(), lines(text)))
        .collect()
}

/// Lines over [`MOST_COLUMNS`].
pub fn wide_lines(sources: &Sources) -> Vec<String> {
    let wide = |path: &Path, text: &str| -> Vec<String> {
        let lines = text.lines().enumerate().filter(|(_, line)| line.chars().count() > MOST_COLUMNS);
        lines
            .map(|(i, line)| format!("{}:{}: {} columns", path.display(), i + 1, line.chars().count()))
            .collect()
    };
    sources.iter().flat_map(|(path, text)| wide(path, text)).collect()
}

/// Functions over [`MOST_ARGUMENTS`], and attributes that would allow them.
pub fn many_arguments(sources: &Sources) -> Vec<String> {
    struct Reader<'r>(&'r Path, &'r mut Vec<String>);
    impl<'a> Visit<'a> for Reader<'_> {
        fn visit_signature(&mut self, signature: &'a syn::Signature) {
            let n = signature.inputs.len();
            if n > MOST_ARGUMENTS {
                let (path, name) = (self.0.display(), &signature.ident);
                self.1.push(format!("{path}:{}: `{name}` takes {n} arguments", name.span().start().line));
            }
            visit::visit_signature(self, signature);
        }
    }
    let lint = ["too_many", "arguments"].join("_");
    let mut found = Vec::new();
    for (path, text) in sources {
        for (i, _) in text.lines().enumerate().filter(|(_, line)| line.contains(&lint)) {
            found.push(format!("{}:{}: names the lint `{lint}`", path.display(), i + 1));
        }
        let syntax = syn::parse_file(text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Reader(path, &mut found).visit_file(&syntax);
    }
    found
}

/// Public types of a package that share a name, but for `Error`.
pub fn shared_names(graph: &Graph) -> Vec<String> {
    fn public(items: &[Item], types: &mut Vec<(String, usize)>) {
        for item in items {
            let (vis, name) = match item {
                _ if item_attributes(item).is_some_and(for_tests) => continue,
                Item::Enum(i) => (&i.vis, &i.ident),
                Item::Struct(i) => (&i.vis, &i.ident),
                Item::Trait(i) => (&i.vis, &i.ident),
                Item::Type(i) => (&i.vis, &i.ident),
                Item::Union(i) => (&i.vis, &i.ident),
                Item::Mod(i) => {
                    let inner = i.content.as_ref().map_or(&[][..], |(_, items)| items);
                    public(inner, types);
                    continue;
                }
                _ => continue,
            };
            if matches!(vis, Visibility::Public(_)) {
                types.push((name.to_string(), name.span().start().line));
            }
        }
    }
    let mut all: BTreeMap<(usize, String), Vec<String>> = BTreeMap::new();
    for file in &graph.files {
        let mut types = Vec::new();
        public(&file.syntax.items, &mut types);
        for (name, line) in types {
            let place = format!("{}:{line}", file.path.display());
            let places = all.entry((file.package, name)).or_default();
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    let shared = all.iter().filter(|((_, name), places)| name != "Error" && places.len() > 1);
    shared.map(|((_, name), places)| format!("public type `{name}`: {}", places.join(", "))).collect()
}

/// Where `TYPE::FUNCTION(` is called outside tests.
pub fn calls(graph: &Graph, of: &str, function: &str) -> Vec<String> {
    struct Reader<'r> {
        of: &'r str,
        function: &'r str,
        path: &'r Path,
        found: Vec<String>,
    }
    impl<'a> Visit<'a> for Reader<'_> {
        fn visit_item(&mut self, item: &'a Item) {
            if !item_attributes(item).is_some_and(for_tests) {
                visit::visit_item(self, item);
            }
        }
        fn visit_path(&mut self, path: &'a syn::Path) {
            let mut names = path.segments.iter().rev();
            if names.next().is_some_and(|last| last.ident == self.function)
                && let Some(owner) = names.next()
                && owner.ident == self.of
            {
                self.found.push(format!("{}:{}", self.path.display(), owner.ident.span().start().line));
            }
            visit::visit_path(self, path);
        }
    }
    let mut found = Vec::new();
    for file in &graph.files {
        let mut reader = Reader { of, function, path: &file.path, found: Vec::new() };
        reader.visit_file(&file.syntax);
        found.append(&mut reader.found);
    }
    found
}
