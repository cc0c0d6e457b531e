//! The terminal chat: what `huozi-tui` shows.
//!
//! A message changes the state, the state is shown: [`event::Msg`] -> [`update::update`] -> [`view::render`], one way.
//! [`worker`] has the two threads behind it. Terminal, clock and signals are the binary's affair; the clock comes in as
//! an argument. A pane is one file.

pub mod app;
mod ask;
mod chooser;
mod commands;
pub mod event;
mod export;
pub mod failure;
mod help;
pub mod input;
pub mod keys;
pub mod look;
pub mod markdown;
mod panels;
mod reports;
pub(crate) mod settings;
mod status;
mod talks;
pub mod text;
pub mod transcript;
pub mod update;
pub mod view;
pub mod worker;
