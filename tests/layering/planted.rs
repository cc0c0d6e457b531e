//! Faults in sources made up here: each has to be found.

use std::path::PathBuf;

use crate::edges::{circles, read};
use crate::graph::{Graph, Package, Sources};
use crate::style;
use crate::{Arrows, broken_arrows};

const TWO: &[Package] =
    &[Package { name: "below", dir: "below/src" }, Package { name: "above", dir: "above/src" }];

fn sources(files: &[(&str, &str)]) -> Sources {
    files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect()
}

/// The edges among `files` as `FROM -> TO`, without folder and `.rs`.
fn seen(files: &[(&str, &str)]) -> Vec<String> {
    let graph = Graph::new(TWO, &sources(files));
    let read = read(&graph);
    assert!(read.lost.is_empty(), "{:?}", read.lost);
    let name =
        |file: usize| graph.files[file].path.with_extension("").display().to_string().replace("/src/", "/");
    let mut seen: Vec<_> =
        read.edges.keys().map(|&(from, to)| format!("{} -> {}", name(from), name(to))).collect();
    seen.sort();
    seen
}

/// Edges that `text` in `above/src/user.rs` makes, to `a.rs`, `b/mod.rs`, `b/c.rs` and the package below.
fn of_user(text: &str) -> Vec<String> {
    let all = seen(&[
        ("below/src/lib.rs", "pub mod base;\npub use base::Given;"),
        ("below/src/base.rs", "pub struct Given;\npub const LIMIT: usize = 1;"),
        ("above/src/lib.rs", "mod a;\nmod b;\nmod user;\npub use a::Thing;"),
        ("above/src/a.rs", "pub struct Thing;\npub fn act() {}\nmacro_rules! textual { () => {} }"),
        ("above/src/b/mod.rs", "mod c;\npub use c::Deep;\npub struct Own;"),
        ("above/src/b/c.rs", "pub struct Deep;\npub enum Level { One }\npub fn wide() {}"),
        ("above/src/user.rs", text),
    ]);
    let own = all.iter().filter_map(|edge| edge.strip_prefix("above/user -> "));
    own.map(|to| to.trim_start_matches("above/").to_owned()).collect()
}

#[test]
fn a_path_leads_to_the_file_that_defines_the_item() {
    assert_eq!(of_user("use crate::a::Thing;"), ["a"]);
    assert_eq!(of_user("use crate::{a::Thing, b::{Own, Deep as D}};"), ["a", "b/c", "b/mod"]);
    assert_eq!(of_user("use super::b::Deep;"), ["b/c"], "through `pub use`");
    assert_eq!(of_user("fn f(x: crate::Thing) {}"), ["a"], "through the root's `pub use`");
    assert_eq!(of_user("use crate::b;\nfn f() -> b::Deep { todo!() }"), ["b/c"], "through a module");
    assert_eq!(of_user("use crate::b;"), [""; 0], "a module is no item");
    assert_eq!(of_user("use crate::b::*;\nstruct X(Deep);"), ["b/c"], "through a glob");
    assert_eq!(of_user("use below::Given;"), ["below/base"], "another package");
    assert_eq!(of_user("use below as other;\nfn f(x: other::base::Given) {}"), ["below/base"]);
    assert_eq!(of_user("fn f() { use super::a::act; act(); }"), ["a"], "a `use` in a block");
    assert_eq!(of_user("mod inner { use super::super::a::Thing; }"), ["a"], "a module in the file");
    assert_eq!(
        of_user("impl Trait for crate::a::Thing {}\nimpl crate::b::Own { fn f(self) {} }"),
        ["a", "b/mod"]
    );
}

#[test]
fn paths_in_macros_and_attributes_count() {
    assert_eq!(of_user("fn f() { println!(\"{}\", crate::a::act()); }"), ["a"]);
    assert_eq!(of_user("fn f() { assert!(matches!(x(), crate::b::Deep)); }"), ["b/c"]);
    assert_eq!(of_user("strange! { 1 => crate::a::act; x }"), ["a"]);
    assert_eq!(of_user("macro_rules! m { () => { $crate::a::act() } }"), ["a"]);
    assert_eq!(of_user("fn f() { textual!(); }"), ["a"], "a macro of another file");
    assert_eq!(of_user("#[arg(value_parser = crate::a::act)]\nstruct X;"), ["a"]);
    assert_eq!(
        of_user("struct X { #[serde(with = \"crate::a\", default = \"crate::b::Own\")] x: u8 }"),
        ["b/mod"]
    );
    assert_eq!(of_user("use below::base::*;\nfn f() { println!(\"{LIMIT}\"); }"), ["below/base"]);
}

#[test]
fn tests_comments_and_local_names_do_not_count() {
    assert_eq!(of_user("// crate::a::Thing\n/// [`crate::a::Thing`]\nstruct X;"), [""; 0]);
    assert_eq!(of_user("#[cfg(test)]\nmod tests { use crate::a::Thing; }"), [""; 0]);
    assert_eq!(of_user("#[cfg(all(test, unix))]\nuse crate::a::Thing;"), [""; 0]);
    assert_eq!(of_user("#[cfg(not(test))]\nuse crate::a::Thing;"), ["a"]);
    assert_eq!(of_user("use crate::a::*;\nfn f(act: u8) -> u8 { act }"), [""; 0], "an argument");
    assert_eq!(of_user("use std::fs;\nfn f() { fs::read(\"a\"); }"), [""; 0]);
}

#[test]
fn modules_that_a_macro_declares_are_found() {
    let text = [
        ("above/src/lib.rs", "macro_rules! all { ($($m:ident)*) => { $( pub mod $m; )* } }\nall! { a b }"),
        ("above/src/a.rs", "use crate::b::B;"),
        ("above/src/b.rs", "pub struct B;"),
    ];
    assert_eq!(seen(&text), ["above/a -> above/b"]);
}

#[test]
fn items_that_a_macro_makes_are_found() {
    let text = [
        ("above/src/lib.rs", "mod a;\nmod b;"),
        ("above/src/a.rs", "use super::b::{Made, made};\nfn f(x: Made) { made() }"),
        (
            "above/src/b.rs",
            "macro_rules! m { ($f:item) => { pub enum Made {} $f } }\nm! { pub fn made() {} }",
        ),
    ];
    assert_eq!(seen(&text), ["above/a -> above/b"]);
    let text = [
        ("above/src/lib.rs", "mod a;\nmod b;"),
        ("above/src/a.rs", "fn f() { crate::b::inner!(); }"),
        ("above/src/b.rs", "macro_rules! m { () => { macro_rules! inner { () => {} } } }\nm! {}"),
    ];
    assert_eq!(seen(&text), ["above/a -> above/b"]);
}

fn circles_of(files: &[(&str, &str)]) -> Vec<usize> {
    let graph = Graph::new(TWO, &sources(files));
    circles(&graph, &read(&graph).edges).iter().map(Vec::len).collect()
}

#[test]
fn a_circle_of_files_is_found() {
    let three = |last: &'static str| {
        [
            ("above/src/lib.rs", "mod a;\nmod b;\nmod c;"),
            ("above/src/a.rs", "use crate::b::B;\npub struct A;"),
            ("above/src/b.rs", "pub struct B(super::c::C);"),
            ("above/src/c.rs", last),
        ]
    };
    assert_eq!(circles_of(&three("pub struct C;")), [0; 0]);
    assert_eq!(circles_of(&three("pub struct C(crate::a::A);")), [3]);
}

#[test]
fn a_parent_gives_its_children_on_and_does_not_use_what_uses_it() {
    let parent = |parent: &'static str, child: &'static str| {
        circles_of(&[
            ("above/src/lib.rs", "mod p;"),
            ("above/src/p/mod.rs", parent),
            ("above/src/p/child.rs", child),
        ])
    };
    let uses = "use super::Shared;\npub struct Child(Shared);";
    assert_eq!(parent("mod child;\npub use child::Child;\npub struct Shared;", uses), [0; 0]);
    assert_eq!(parent("mod child;\npub(crate) use child::Child;\npub struct Shared;", uses), [0; 0]);
    assert_eq!(parent("mod child;\npub struct Shared;\nfn f(x: child::Child) {}", uses), [2]);
    assert_eq!(parent("mod child;\nuse child::Child;\npub struct Shared;", uses), [2]);
    assert_eq!(parent("mod child;\npub use child::Child;\npub struct Shared;\nfn f(x: Child) {}", uses), [2]);
    assert_eq!(parent("mod child;\nfn f(x: child::Child) {}", "pub struct Child;"), [0; 0]);
}

#[test]
fn a_forbidden_arrow_is_found() {
    let broken = |a: &'static str, b: &'static str, arrows: Arrows| {
        let graph = Graph::new(
            TWO,
            &sources(&[
                ("below/src/lib.rs", "pub struct Given;"),
                ("above/src/lib.rs", "mod a;\nmod b;\npub use a::A;"),
                ("above/src/a.rs", a),
                ("above/src/b.rs", b),
            ]),
        );
        broken_arrows(&graph, &read(&graph), &[("above", arrows)])
    };
    const DOWN: Arrows = &[("a", &[]), ("b", &["a", "below"])];
    let (a, b) = ("pub struct A;", "use crate::A;\nuse below::Given;\npub struct B(A);");
    assert_eq!(broken(a, b, DOWN), [""; 0]);
    let up = broken("pub struct A(super::b::B);", b, DOWN);
    assert_eq!(up, ["`a` must not import `b`: above/src/a.rs:1: super::b::B"]);
    let package = broken("pub struct A(below::Given);", b, DOWN);
    assert_eq!(package, ["`a` must not import `below`: above/src/a.rs:1: below::Given"]);
    assert_eq!(broken(a, "use crate::A;", DOWN), ["above/src: nothing uses the arrow `b` -> `below`"]);
    assert_eq!(broken(a, "", &[("a", &[])]), ["above/src: room `b` is not in the picture"]);
    let given_on = ("pub struct A;\npub use below::Given;", "use crate::a::Given;\nuse crate::A;");
    const FACADE: Arrows = &[("a", &["below"]), ("b", &["a"])];
    assert_eq!(broken(given_on.0, given_on.1, FACADE), [""; 0], "a room may give on what it may import");
    const ROUND: Arrows = &[("a", &["b"]), ("b", &["a"])];
    let round = broken("pub struct A(super::b::B);", "use crate::A;\npub struct B;", ROUND);
    assert_eq!(round, ["above/src: the arrows go in a circle: [\"a\", \"b\"]"]);
    let gone = broken(a, "", &[("a", &[]), ("b", &[]), ("c", &[])]);
    assert_eq!(gone, ["above/src: room `c` is in the picture, not in the source"]);
}

#[test]
fn what_breaks_the_style_is_found() {
    let one = |text: &str| sources(&[("above/src/lib.rs", text)]);
    assert_eq!(style::long_files(&one(&"\n".repeat(601)), &[]), ["above/src/lib.rs: 601 lines"]);
    assert_eq!(style::long_files(&one(&"\n".repeat(601)), &["above/src/lib.rs"]), [""; 0]);
    assert_eq!(style::long_files(&one(&"\n".repeat(600)), &[]), [""; 0]);
    assert_eq!(
        style::wide_lines(&one(&format!("\n// {}", "活".repeat(108)))),
        ["above/src/lib.rs:2: 111 columns"]
    );
    assert_eq!(style::wide_lines(&one(&format!("// {}", "活".repeat(107)))), [""; 0]);
    let takes =
        |n: usize| style::many_arguments(&one(&format!("trait T {{ fn f(self{}); }}", ", _: u8".repeat(n))));
    assert_eq!(takes(7), ["above/src/lib.rs:1: `f` takes 8 arguments"]);
    assert_eq!(takes(6), [""; 0]);
    let lint = ["too_many", "arguments"].join("_");
    assert_eq!(style::many_arguments(&one(&format!("#[allow(clippy::{lint})]\nfn f() {{}}"))).len(), 1);
}

#[test]
fn shared_names_and_second_call_sites_are_found() {
    let graph = |a: &str, b: &str| {
        let files = [("above/src/lib.rs", "mod a;\nmod b;"), ("above/src/a.rs", a), ("above/src/b.rs", b)];
        Graph::new(TWO, &sources(&files))
    };
    let names = |a, b| style::shared_names(&graph(a, b));
    assert_eq!(
        names("pub struct X;", "\npub enum X {}"),
        ["public type `X`: above/src/a.rs:1, above/src/b.rs:2"]
    );
    assert_eq!(names("pub struct X;", "pub(crate) struct X;"), [""; 0]);
    assert_eq!(names("pub enum Error {}", "pub struct Error;"), [""; 0]);
    let calls = |a, b| style::calls(&graph(a, b), "Native", "open").len();
    assert_eq!(calls("fn f() { Native::open(x) }", "fn f() { native::Native::open(y)?; }"), 2);
    assert_eq!(calls("fn f() { x.open() }", "#[cfg(test)]\nmod tests { fn f() { Native::open(x) } }"), 0);
}
