//! The modules of the workspace and what their names mean: from a path in the source to the file that defines
//! the item.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, UseTree, Visibility};

/// Sources by path from the root of the workspace.
pub type Sources = BTreeMap<PathBuf, String>;

pub type FileId = usize;
pub type ModuleId = usize;

/// A package of the workspace: its name in paths, and its folder with sources, like `quant/src`.
pub struct Package {
    pub name: &'static str,
    pub dir: &'static str,
}

/// A file of a package and the module that it holds.
pub struct SourceFile {
    pub path: PathBuf,
    pub package: usize,
    pub module: ModuleId,
    pub syntax: syn::File,
}

pub struct Module {
    /// `None`: the root of a crate.
    pub parent: Option<ModuleId>,
    pub root: ModuleId,
    pub file: FileId,
    pub package: usize,
    names: HashMap<String, Vec<Meaning>>,
    globs: Vec<Vec<String>>,
}

/// What a name of a module stands for.
enum Meaning {
    Module(ModuleId),
    /// An item that this file defines.
    Item(FileId),
    /// Another path, seen from the module of the `use`.
    Use(Vec<String>),
}

/// Where a path ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Module(ModuleId),
    Item(FileId),
}

/// A leaf of a `use`: the path, the name that it gets here, and whether it is given on.
pub struct UseLeaf {
    pub path: Vec<String>,
    /// `None`: everything (`*`).
    pub name: Option<String>,
    pub public: bool,
    pub line: usize,
}

pub struct Graph {
    pub packages: &'static [Package],
    pub files: Vec<SourceFile>,
    pub modules: Vec<Module>,
    /// Root of the library by the name of its package.
    libraries: HashMap<&'static str, ModuleId>,
    /// Files that define a `macro_rules!` of a name, by package: such a name is found by its place in the
    /// text.
    macros: HashMap<(usize, String), BTreeSet<FileId>>,
    /// Names of the items that the body of a `macro_rules!` makes, by package and macro.
    made: HashMap<(usize, String), Vec<String>>,
    /// Modules with such a macro where an item stands.
    invoked: Vec<(ModuleId, String)>,
    /// Macros whose body has `mod $name;`: what is named in their invocation may be a file.
    declaring: BTreeSet<(usize, String)>,
}

impl Graph {
    /// Parses every crate of `packages`: `lib.rs`, `main.rs` and `bin/*.rs`, and the modules below.
    pub fn new(packages: &'static [Package], sources: &Sources) -> Self {
        let mut graph = Self {
            packages,
            files: Vec::new(),
            modules: Vec::new(),
            libraries: HashMap::new(),
            macros: HashMap::new(),
            made: HashMap::new(),
            invoked: Vec::new(),
            declaring: BTreeSet::new(),
        };
        for (number, package) in packages.iter().enumerate() {
            let dir = Path::new(package.dir);
            for path in sources.keys().filter(|path| path.starts_with(dir)) {
                let below = path.strip_prefix(dir).expect("filtered");
                let parent = below.parent().and_then(Path::to_str);
                let library = below == Path::new("lib.rs");
                if library || below == Path::new("main.rs") || parent == Some("bin") {
                    let root = graph.file(number, None, path, sources);
                    if library {
                        graph.libraries.insert(package.name, root);
                    }
                }
            }
        }
        for (module, name) in std::mem::take(&mut graph.invoked) {
            let Module { file, package, .. } = graph.modules[module];
            for item in graph.made.get(&(package, name)).cloned().unwrap_or_default() {
                graph.name(module, item, Meaning::Item(file));
            }
        }
        graph
    }

    /// The module `path`, with all below.
    fn file(&mut self, package: usize, parent: Option<ModuleId>, path: &Path, sources: &Sources) -> ModuleId {
        let text = sources.get(path).unwrap_or_else(|| panic!("no source of {}", path.display()));
        let syntax = syn::parse_file(text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (file, module) = (self.files.len(), self.module(package, parent, self.files.len()));
        let items = syntax.items.clone();
        self.files.push(SourceFile { path: path.to_owned(), package, module, syntax });
        let stem = path.file_stem().expect("a name").to_str().expect("UTF-8");
        let folder = path.parent().expect("a folder");
        let folder = if parent.is_none() || stem == "mod" { folder.to_owned() } else { folder.join(stem) };
        self.items(module, file, &items, &folder, sources);
        module
    }

    fn module(&mut self, package: usize, parent: Option<ModuleId>, file: FileId) -> ModuleId {
        let id = self.modules.len();
        let root = parent.map_or(id, |parent| self.modules[parent].root);
        self.modules.push(Module { parent, root, file, package, names: HashMap::new(), globs: Vec::new() });
        id
    }

    fn items(&mut self, module: ModuleId, file: FileId, items: &[Item], folder: &Path, sources: &Sources) {
        let package = self.modules[module].package;
        for item in items {
            if item_attributes(item).is_some_and(for_tests) {
                continue;
            }
            match item {
                Item::Mod(inner) => {
                    let name = inner.ident.to_string();
                    let child = match &inner.content {
                        Some((_, items)) => {
                            let child = self.module(package, Some(module), file);
                            self.items(child, file, items, &folder.join(&name), sources);
                            child
                        }
                        None => {
                            let path = path_attribute(&inner.attrs).map_or_else(
                                || {
                                    let flat = folder.join(format!("{name}.rs"));
                                    if sources.contains_key(&flat) {
                                        flat
                                    } else {
                                        folder.join(&name).join("mod.rs")
                                    }
                                },
                                |path| folder.join(path),
                            );
                            self.file(package, Some(module), &path, sources)
                        }
                    };
                    self.name(module, name, Meaning::Module(child));
                }
                Item::Use(item) => {
                    for leaf in use_leaves(&item.tree, !matches!(item.vis, Visibility::Inherited)) {
                        match leaf.name {
                            Some(name) => self.name(module, name, Meaning::Use(leaf.path)),
                            None => self.modules[module].globs.push(leaf.path),
                        }
                    }
                }
                Item::Macro(item) => {
                    let names = item_names_in(item.mac.tokens.clone(), item.ident.is_some());
                    match &item.ident {
                        Some(name) => {
                            let key = (package, name.to_string());
                            if item.mac.tokens.to_string().contains("mod $") {
                                self.declaring.insert(key.clone());
                            }
                            self.macros.entry(key.clone()).or_default().insert(file);
                            self.made.entry(key).or_default().extend(names);
                            // `pub(crate) use name;` gives the macro a path.
                            self.name(module, name.to_string(), Meaning::Item(file));
                        }
                        None => {
                            names.into_iter().for_each(|name| self.name(module, name, Meaning::Item(file)));
                            let Some(name) = item.mac.path.segments.last() else { continue };
                            self.invoked.push((module, name.ident.to_string()));
                            if self.declaring.contains(&(package, name.ident.to_string())) {
                                for name in words(item.mac.tokens.clone()) {
                                    let path = folder.join(format!("{name}.rs"));
                                    if sources.contains_key(&path)
                                        && !self.modules[module].names.contains_key(&name)
                                    {
                                        let child = self.file(package, Some(module), &path, sources);
                                        self.name(module, name, Meaning::Module(child));
                                    }
                                }
                            }
                        }
                    }
                }
                item => {
                    if let Some(name) = item_name(item) {
                        self.name(module, name, Meaning::Item(file));
                    }
                }
            }
        }
    }

    fn name(&mut self, module: ModuleId, name: String, meaning: Meaning) {
        self.modules[module].names.entry(name).or_default().push(meaning);
    }

    /// What `path` in `module` leads to: several targets when a name has a meaning among types and one among
    /// values, none for what is not of this workspace.
    pub fn resolve(&self, module: ModuleId, path: &[String]) -> BTreeSet<Target> {
        self.walk(module, path, 0)
    }

    fn walk(&self, module: ModuleId, path: &[String], depth: usize) -> BTreeSet<Target> {
        let Some((first, rest)) = path.split_first() else { return BTreeSet::new() };
        if depth > 32 {
            return BTreeSet::new();
        }
        let here = &self.modules[module];
        let mut found: BTreeSet<Target> = match first.as_str() {
            "crate" | "$crate" => [Target::Module(here.root)].into(),
            "self" => [Target::Module(module)].into(),
            "super" => here.parent.map(Target::Module).into_iter().collect(),
            name => self.lookup(module, name, depth + 1),
        };
        if found.is_empty()
            && let Some(&root) = self.libraries.get(first.as_str())
        {
            found.insert(Target::Module(root));
        }
        for name in rest {
            found = found
                .into_iter()
                .flat_map(|target| match target {
                    Target::Item(file) => [Target::Item(file)].into(),
                    Target::Module(module) if name == "self" => [Target::Module(module)].into(),
                    Target::Module(module) if name == "super" => {
                        self.modules[module].parent.map(Target::Module).into_iter().collect()
                    }
                    Target::Module(module) => self.lookup(module, name, depth + 1),
                })
                .collect();
        }
        found
    }

    fn lookup(&self, module: ModuleId, name: &str, depth: usize) -> BTreeSet<Target> {
        let here = &self.modules[module];
        let mut found = BTreeSet::new();
        for meaning in here.names.get(name).into_iter().flatten() {
            match meaning {
                Meaning::Module(child) => drop(found.insert(Target::Module(*child))),
                Meaning::Item(file) => drop(found.insert(Target::Item(*file))),
                // `use name;` of a package would ask for itself.
                Meaning::Use(path) if path.len() == 1 && path[0] == name => {
                    found.extend(self.libraries.get(name).map(|&root| Target::Module(root)));
                }
                Meaning::Use(path) => found.extend(self.walk(module, path, depth)),
            }
        }
        if found.is_empty() && depth < 32 {
            for glob in &here.globs {
                for target in self.walk(module, glob, depth) {
                    if let Target::Module(other) = target
                        && other != module
                    {
                        found.extend(self.lookup(other, name, depth + 1));
                    }
                }
            }
        }
        found
    }

    /// Package and room of a file: a room is the first part of the path below the package's folder, without
    /// `.rs`.
    pub fn room(&self, file: FileId) -> (usize, String) {
        let file = &self.files[file];
        let below = file.path.strip_prefix(self.packages[file.package].dir).expect("a file of the package");
        let first: PathBuf = below.components().take(1).collect();
        (file.package, first.with_extension("").to_str().expect("UTF-8").to_owned())
    }

    /// The first module or item outside its own room that `path` in `module` goes through, as it is written:
    /// another room may give on what is not its own, the root of a crate is seen through. `room` tells the
    /// room of a file.
    pub fn first_outside(
        &self,
        module: ModuleId,
        path: &[String],
        room: &dyn Fn(FileId) -> (usize, String),
    ) -> BTreeSet<Target> {
        let mut found = BTreeSet::new();
        self.outside(&room(self.modules[module].file), room, (module, path), 0, &mut found);
        found
    }

    fn outside(
        &self,
        own: &(usize, String),
        room: &dyn Fn(FileId) -> (usize, String),
        (module, path): (ModuleId, &[String]),
        depth: usize,
        found: &mut BTreeSet<Target>,
    ) {
        let Some((first, rest)) = path.split_first() else { return };
        if depth > 32 {
            return;
        }
        let here = &self.modules[module];
        let step = |next: ModuleId, found: &mut BTreeSet<Target>| {
            let is_root = self.modules[next].parent.is_none();
            let foreign = self.modules[next].package != own.0;
            if foreign || !is_root && room(self.modules[next].file) != *own {
                found.insert(Target::Module(next));
            } else {
                self.outside(own, room, (next, rest), depth + 1, found);
            }
        };
        match first.as_str() {
            "crate" | "$crate" => return step(here.root, found),
            "self" => return step(module, found),
            "super" => return here.parent.map_or((), |parent| step(parent, found)),
            _ => {}
        }
        let mut known = false;
        for meaning in here.names.get(first).into_iter().flatten() {
            known = true;
            match meaning {
                Meaning::Module(child) => step(*child, found),
                Meaning::Item(file) if room(*file) != *own => drop(found.insert(Target::Item(*file))),
                Meaning::Item(_) => {}
                Meaning::Use(path) if path.len() == 1 && path[0] == *first => known = false,
                Meaning::Use(path) => {
                    let full: Vec<String> = path.iter().chain(rest).cloned().collect();
                    self.outside(own, room, (module, &full), depth + 1, found);
                }
            }
        }
        if !known && let Some(&root) = self.libraries.get(first.as_str()) {
            return step(root, found);
        }
        if !known {
            for glob in &here.globs {
                let full: Vec<String> = glob.iter().chain(path).cloned().collect();
                if !self.walk(module, &full, depth + 1).is_empty() {
                    self.outside(own, room, (module, &full), depth + 1, found);
                }
            }
        }
    }

    /// The files of `package` with a `macro_rules!` called `name`.
    pub fn macro_files(&self, package: usize, name: &str) -> impl Iterator<Item = FileId> {
        self.macros.get(&(package, name.to_owned())).into_iter().flatten().copied()
    }

    /// Whether `module` lies below `above`.
    pub fn is_below(&self, module: ModuleId, above: ModuleId) -> bool {
        let mut next = self.modules[module].parent;
        while let Some(parent) = next {
            if parent == above {
                return true;
            }
            next = self.modules[parent].parent;
        }
        false
    }
}

/// Whether the item exists in tests only: `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, ...))]`.
pub fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<TokenStream>().is_ok_and(|tokens| {
                    let text = tokens.to_string();
                    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "test")
                        && !text.contains("not")
                })
    })
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find(|a| a.path().is_ident("path")).and_then(|a| match &a.meta {
        syn::Meta::NameValue(syn::MetaNameValue {
            value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }),
            ..
        }) => Some(path.value()),
        _ => None,
    })
}

pub fn item_attributes(item: &Item) -> Option<&[Attribute]> {
    Some(match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::ExternCrate(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::ForeignMod(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::TraitAlias(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => return None,
    })
}

/// Every identifier in `tokens`.
fn words(tokens: TokenStream) -> Vec<String> {
    let of = |token| match token {
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Group(group) => words(group.stream()),
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(of).collect()
}

/// Names of items in the tokens of a macro, `deep` in its groups as well.
fn item_names_in(tokens: TokenStream, deep: bool) -> Vec<String> {
    let mut names = Vec::new();
    let mut keyword = false;
    for token in tokens {
        match token {
            // `macro_rules! name`
            TokenTree::Punct(punct) if punct.as_char() == '!' => {}
            TokenTree::Ident(ident) => {
                if keyword {
                    names.push(ident.to_string());
                }
                keyword = [
                    "fn",
                    "struct",
                    "enum",
                    "trait",
                    "const",
                    "static",
                    "type",
                    "union",
                    "mod",
                    "macro_rules",
                ]
                .iter()
                .any(|word| ident == word);
            }
            TokenTree::Group(group) if deep => {
                keyword = false;
                names.extend(item_names_in(group.stream(), true));
            }
            _ => keyword = false,
        }
    }
    names
}

fn item_name(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(i) => i.ident.to_string(),
        Item::Enum(i) => i.ident.to_string(),
        Item::Fn(i) => i.sig.ident.to_string(),
        Item::Static(i) => i.ident.to_string(),
        Item::Struct(i) => i.ident.to_string(),
        Item::Trait(i) => i.ident.to_string(),
        Item::TraitAlias(i) => i.ident.to_string(),
        Item::Type(i) => i.ident.to_string(),
        Item::Union(i) => i.ident.to_string(),
        _ => return None,
    })
}

/// Every path that a `use` names.
pub fn use_leaves(tree: &UseTree, public: bool) -> Vec<UseLeaf> {
    fn walk(tree: &UseTree, path: &mut Vec<String>, public: bool, leaves: &mut Vec<UseLeaf>) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                walk(&part.tree, path, public, leaves);
                path.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, path, public, leaves)),
            UseTree::Glob(glob) => leaves.push(UseLeaf {
                path: path.clone(),
                name: None,
                public,
                line: glob.star_token.spans[0].start().line,
            }),
            UseTree::Name(_) | UseTree::Rename(_) => {
                let (ident, name) = match tree {
                    UseTree::Rename(part) => (&part.ident, &part.rename),
                    UseTree::Name(part) => (&part.ident, &part.ident),
                    _ => unreachable!("matched above"),
                };
                let mut full = path.clone();
                let mut name = name.to_string();
                if ident == "self" {
                    if name == "self" {
                        name = full.last().cloned().unwrap_or(name);
                    }
                } else {
                    full.push(ident.to_string());
                }
                leaves.push(UseLeaf {
                    path: full,
                    name: Some(name),
                    public,
                    line: ident.span().start().line,
                });
            }
        }
    }
    let mut leaves = Vec::new();
    walk(tree, &mut Vec::new(), public, &mut leaves);
    leaves
}
