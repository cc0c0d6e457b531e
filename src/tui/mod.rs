//! The terminal chat: what `huozi-tui` shows.
//!
//! A message changes the state, the state is shown: [`event::Msg`] -> [`app::App::update`] ->
//! [`view::render`], one way. What is to be done outside of the state is an [`event::Effect`]. [`worker`] has
//! the two threads behind it, [`terminal`] the terminal, signals and the loop. The clock comes in as an
//! argument.
//!
//! The state is made of parts with private fields ([`composer`], [`talk`], [`models`], [`panels`] and
//! others). A pane is one file: it takes keys and says what happened, as a value; [`app`] does what follows.
//! Texts stand in [`words`], a file per language. Files import each other in one direction only.

pub mod app;
mod ask;
pub mod chooser;
mod commands;
pub mod composer;
pub mod event;
mod export;
pub mod failure;
mod help;
pub mod input;
pub mod interface;
pub mod keys;
mod leaving;
pub mod live;
pub mod loading;
pub mod look;
pub mod markdown;
pub mod messages;
pub mod models;
pub mod panels;
pub mod prefs;
pub(crate) mod settings;
mod status;
pub mod talk;
mod talks;
pub mod terminal;
pub mod text;
pub mod transcript;
pub mod view;
mod widgets;
pub mod words;
pub mod worker;
