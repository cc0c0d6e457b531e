//! Edges between files: the paths in code that is not a test's, also in macros and attributes.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Expr, Item, Macro, Pat, Path, Stmt, Token, Visibility};

use crate::graph::{FileId, Graph, ModuleId, Target, UseLeaf, for_tests, item_attributes, use_leaves};

/// From a file to another one: a line and the path there that makes the edge.
pub type Edges = BTreeMap<(FileId, FileId), (usize, String)>;

/// A package, and a room of it when it is that of the file.
pub type To = (usize, Option<String>);

/// What the paths of a workspace say.
#[derive(Default)]
pub struct Read {
    pub edges: Edges,
    /// From a file to a room, its own excepted, or to another package (`None`): see [`Graph::first_outside`].
    pub arrows: BTreeMap<(FileId, To), (usize, String)>,
    /// Paths into the workspace that lead nowhere.
    pub lost: Vec<String>,
}

/// Reads all code of `graph`.
pub fn read(graph: &Graph) -> Read {
    let mut read = Read::default();
    for (file, source) in graph.files.iter().enumerate() {
        let mut reader = Reader {
            graph,
            file,
            module: source.module,
            inner: Vec::new(),
            uses: Vec::new(),
            bound: BTreeSet::new(),
            read: &mut read,
        };
        for item in &source.syntax.items {
            reader.visit_item(item);
        }
    }
    read
}

struct Reader<'g> {
    graph: &'g Graph,
    file: FileId,
    module: ModuleId,
    /// Modules written out in the file, outermost first.
    inner: Vec<ModuleId>,
    /// The `use` lines of the blocks that are open.
    uses: Vec<Vec<UseLeaf>>,
    /// Names that patterns of the function bind: not those of items.
    bound: BTreeSet<String>,
    read: &'g mut Read,
}

impl Reader<'_> {
    fn here(&self) -> ModuleId {
        self.inner.last().copied().unwrap_or(self.module)
    }

    fn edge(&mut self, to: FileId, line: usize, path: &[String]) {
        if to != self.file {
            self.read.edges.entry((self.file, to)).or_insert_with(|| (line, path.join("::")));
        }
    }

    /// The path as written, or as a `use` of an open block spells it out.
    fn targets(&self, path: &[String]) -> BTreeSet<Target> {
        for uses in self.uses.iter().rev() {
            for leaf in uses {
                if leaf.name.as_ref() == Some(&path[0]) {
                    let full: Vec<String> = leaf.path.iter().chain(&path[1..]).cloned().collect();
                    return self.graph.resolve(self.here(), &full);
                }
            }
        }
        let found = self.graph.resolve(self.here(), path);
        if !found.is_empty() {
            return found;
        }
        let globs = self.uses.iter().flatten().filter(|leaf| leaf.name.is_none());
        globs
            .flat_map(|leaf| {
                let full: Vec<String> = leaf.path.iter().chain(path).cloned().collect();
                // What lies in an item (`use Level::*`) is no item of its own: the `use` made the edge.
                self.graph.resolve(self.here(), &full)
            })
            .collect()
    }

    fn path(&mut self, path: &[String], line: usize) {
        if path.is_empty() || path[0] == "Self" || path.len() == 1 && self.bound.contains(&path[0]) {
            return;
        }
        let targets = self.targets(path);
        self.check_found(&targets, path, line);
        for target in targets {
            if let Target::Item(file) = target {
                self.edge(file, line, path);
            }
        }
        self.arrow(path, line);
    }

    fn arrow(&mut self, path: &[String], line: usize) {
        let mut path = path.to_vec();
        // As a `use` of an open block spells it out; its globs name the room themselves.
        let spelled = self.uses.iter().rev().flatten().find(|leaf| leaf.name.as_ref() == Some(&path[0]));
        if let Some(leaf) = spelled {
            path.splice(0..1, leaf.path.iter().cloned());
        }
        for target in self.graph.first_outside(self.here(), &path, &|file| self.graph.room(file)) {
            let file = match target {
                Target::Module(module) => self.graph.modules[module].file,
                Target::Item(file) => file,
            };
            let (package, room) = self.graph.room(file);
            let own = package == self.graph.files[self.file].package;
            let to = (package, own.then_some(room));
            self.read.arrows.entry((self.file, to)).or_insert_with(|| (line, path.join("::")));
        }
    }

    /// A path that says itself that it stays in the workspace has to lead somewhere, or this reader is blind
    /// to it.
    fn check_found(&mut self, targets: &BTreeSet<Target>, path: &[String], line: usize) {
        let first = path[0].as_str();
        let own = ["crate", "self", "super"].contains(&first)
            || self.graph.packages.iter().any(|package| package.name == first);
        if own && path.len() > 1 && targets.is_empty() {
            let file = self.graph.files[self.file].path.display();
            self.read.lost.push(format!("{file}:{line}: {}", path.join("::")));
        }
    }

    fn use_leaf(&mut self, leaf: &UseLeaf) {
        let targets = self.graph.resolve(self.here(), &leaf.path);
        self.check_found(&targets, &leaf.path, leaf.line);
        for target in targets {
            // A module is not an item of its file: what is named through it makes the edges.
            let Target::Item(to) = target else { continue };
            let child = self.graph.is_below(self.graph.files[to].module, self.module);
            if !(leaf.public && child) {
                self.edge(to, leaf.line, &leaf.path);
            }
        }
        self.arrow(&leaf.path, leaf.line);
    }

    fn macro_name(&mut self, name: &str, line: usize) {
        let package = self.graph.modules[self.module].package;
        let files: Vec<FileId> = self.graph.macro_files(package, name).collect();
        if !files.contains(&self.file) {
            for file in files {
                self.edge(file, line, &[format!("{name}!")]);
            }
        }
    }

    /// Paths in tokens that are no expressions: of two names or more, or one that begins with a capital
    /// letter or is called.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut joined, mut field) = (0, false, false);
        while let Some(token) = tokens.next() {
            match &token {
                TokenTree::Ident(ident) => {
                    if !joined {
                        path.clear();
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    joined = false;
                    if is_joint_colon(&mut tokens) {
                        joined = true;
                        continue;
                    }
                    if let Some(TokenTree::Punct(p)) = tokens.peek()
                        && p.as_char() == '!'
                    {
                        let name = path.last().expect("pushed").clone();
                        self.macro_name(&name, line);
                    }
                    let called = matches!(tokens.peek(), Some(TokenTree::Group(g))
                        if g.delimiter() == Delimiter::Parenthesis);
                    let capital = path[0].starts_with(char::is_uppercase);
                    if !field && (path.len() > 1 || capital || called) {
                        let path = std::mem::take(&mut path);
                        self.path(&path, line);
                    }
                    path.clear();
                    field = false;
                }
                TokenTree::Group(group) => {
                    (joined, field) = (false, false);
                    path.clear();
                    self.tokens(group.stream());
                }
                TokenTree::Punct(punct) => {
                    // `$name` stands for anything, `.name` is a field or method.
                    field = matches!(punct.as_char(), '.' | '$');
                    joined = false;
                    if punct.as_char() == '$'
                        && matches!(tokens.peek(), Some(TokenTree::Ident(i)) if i == "crate")
                    {
                        field = false;
                    }
                }
                TokenTree::Literal(literal) => {
                    (joined, field) = (false, false);
                    self.literal(&literal.to_string(), literal.span().start().line);
                }
            }
        }
    }

    /// Names in the braces of a format string: `{LIMIT}`.
    fn literal(&mut self, text: &str, line: usize) {
        if !text.starts_with('"') {
            return;
        }
        for part in text.split('{').skip(1) {
            let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.starts_with(char::is_uppercase) {
                self.path(&[name], line);
            }
        }
    }
}

/// Takes `::` from `tokens` if that is what comes.
fn is_joint_colon(tokens: &mut std::iter::Peekable<proc_macro2::token_stream::IntoIter>) -> bool {
    let mut ahead = tokens.clone();
    let mut colon = || matches!(ahead.next(), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    let both = colon() && colon() && matches!(ahead.next(), Some(TokenTree::Ident(_)));
    if both {
        tokens.next();
        tokens.next();
    }
    both
}

/// Collects what patterns bind.
struct Bound<'b>(&'b mut BTreeSet<String>);

impl<'a> Visit<'a> for Bound<'_> {
    fn visit_pat(&mut self, pattern: &'a Pat) {
        if let Pat::Ident(ident) = pattern {
            let name = ident.ident.to_string();
            if name.starts_with(char::is_lowercase) {
                self.0.insert(name);
            }
        }
        visit::visit_pat(self, pattern);
    }
}

impl<'a> Visit<'a> for Reader<'_> {
    fn visit_item(&mut self, item: &'a Item) {
        if item_attributes(item).is_some_and(for_tests) {
            return;
        }
        let outer = self.bound.clone();
        if let Item::Fn(_) | Item::Impl(_) | Item::Trait(_) = item {
            Bound(&mut self.bound).visit_item(item);
        }
        visit::visit_item(self, item);
        self.bound = outer;
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        let Some((_, items)) = &item.content else { return };
        let name = item.ident.to_string();
        for target in self.graph.resolve(self.here(), &["self".into(), name]) {
            if let Target::Module(module) = target {
                self.inner.push(module);
                items.iter().for_each(|item| self.visit_item(item));
                self.inner.pop();
            }
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        for leaf in use_leaves(&item.tree, !matches!(item.vis, Visibility::Inherited)) {
            self.use_leaf(&leaf);
        }
    }

    fn visit_impl_item(&mut self, item: &'a syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Const(i) => &i.attrs,
            syn::ImplItem::Fn(i) => &i.attrs,
            _ => return visit::visit_impl_item(self, item),
        };
        if !for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_block(&mut self, block: &'a Block) {
        let uses = block.stmts.iter().filter_map(|statement| match statement {
            Stmt::Item(Item::Use(item)) => Some(use_leaves(&item.tree, false)),
            _ => None,
        });
        self.uses.push(uses.flatten().collect());
        visit::visit_block(self, block);
        self.uses.pop();
    }

    fn visit_path(&mut self, path: &'a Path) {
        let names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.path(&names, path.span().start().line);
        visit::visit_path(self, path);
    }

    // `pub(in path)` imports nothing.
    fn visit_visibility(&mut self, _: &'a Visibility) {}

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        let path = attribute.path();
        if ["doc", "cfg", "cfg_attr", "allow", "expect", "derive"].iter().any(|name| path.is_ident(name)) {
            return;
        }
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
            // serde names functions in strings: `with = "super::name"`.
            if path.is_ident("serde") {
                for token in list.tokens.clone() {
                    if let TokenTree::Literal(literal) = token
                        && let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string())
                        && let Ok(path) = text.parse::<Path>()
                    {
                        self.visit_path(&path);
                    }
                }
            }
        }
    }

    fn visit_macro(&mut self, invoked: &'a Macro) {
        let names: Vec<String> = invoked.path.segments.iter().map(|part| part.ident.to_string()).collect();
        let line = invoked.path.span().start().line;
        if names.len() == 1 {
            self.macro_name(&names[0], line);
        }
        self.path(&names, line);
        let parser = Punctuated::<Expr, Token![,]>::parse_terminated;
        match invoked.parse_body_with(parser) {
            Ok(expressions) => expressions.iter().for_each(|e| self.visit_expr(e)),
            Err(_) => self.tokens(invoked.tokens.clone()),
        }
    }

    fn visit_lit_str(&mut self, text: &'a syn::LitStr) {
        self.literal(&text.token().to_string(), text.span().start().line);
    }
}

/// The files of each circle: strongly connected parts of more than one file, within a package.
pub fn circles(graph: &Graph, edges: &Edges) -> Vec<Vec<FileId>> {
    let inside = |a: FileId, b: FileId| graph.files[a].package == graph.files[b].package;
    let mut out = vec![Vec::new(); graph.files.len()];
    for &(from, to) in edges.keys().filter(|(from, to)| inside(*from, *to)) {
        out[from].push(to);
    }
    // Tarjan's algorithm.
    struct State<'o> {
        out: &'o [Vec<FileId>],
        number: Vec<Option<usize>>,
        low: Vec<usize>,
        stack: Vec<FileId>,
        next: usize,
        found: Vec<Vec<FileId>>,
    }
    fn visit(state: &mut State<'_>, at: FileId) {
        (state.number[at], state.low[at]) = (Some(state.next), state.next);
        state.next += 1;
        state.stack.push(at);
        let out = state.out;
        for &to in &out[at] {
            match state.number[to] {
                None => {
                    visit(state, to);
                    state.low[at] = state.low[at].min(state.low[to]);
                }
                Some(number) if state.stack.contains(&to) => state.low[at] = state.low[at].min(number),
                Some(_) => {}
            }
        }
        if Some(state.low[at]) == state.number[at] {
            let start = state.stack.iter().position(|&file| file == at).expect("pushed above");
            let mut part = state.stack.split_off(start);
            part.sort_unstable();
            if part.len() > 1 {
                state.found.push(part);
            }
        }
    }
    let n = graph.files.len();
    let mut state =
        State { out: &out, number: vec![None; n], low: vec![0; n], stack: vec![], next: 0, found: vec![] };
    for file in 0..n {
        if state.number[file].is_none() {
            visit(&mut state, file);
        }
    }
    state.found
}
