//! The integration tests of package `huozi-convert` in one binary, a module per subject.

#[path = "../source_support/mod.rs"]
mod source_support;

mod convert;
mod convert_cli;
mod convert_outcomes;
mod convert_support;
mod imatrix;
mod kept_out;
mod make_checkpoint;
mod outputs;
mod plan;
mod resume;
mod source_fixtures;
mod source_hostile;
mod source_layouts;
mod source_pickles;
mod split;
mod templates;
mod vocab;
