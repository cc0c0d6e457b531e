//! What must be said in every language. A language is a [`Words`] with every field filled in.

use crate::session::{HistoryLimit, Notice, Stats, Stop};
use crate::tui::failure::Failure;
use crate::tui::keys::Action;
use crate::tui::look::Theme;

/// All texts of the interface in one language; a function where a text holds something that varies.
pub struct Words {
    /// The name of the language.
    pub language: &'static str,
    /// What stands between a label and what follows it.
    pub colon: &'static str,
    /// What separates parts of a line.
    pub comma: &'static str,
    /// What separates parts of a list of names.
    pub list_comma: &'static str,
    /// The name of a set of colours.
    pub theme: fn(Theme) -> &'static str,
    /// What a key does, for the help.
    pub action: fn(Action) -> &'static str,
    /// Why something did not work.
    pub failure: fn(&Failure) -> String,
    /// A value is none of the few that are possible: those.
    pub one_of: fn(&str) -> String,

    // The conversation.
    /// Who asks.
    pub you: &'static str,
    /// Who answers.
    pub model: &'static str,
    /// An answer without text.
    pub no_answer: &'static str,
    /// Where an answer will stand.
    pub waiting: &'static str,
    /// So many rows of a long question are folded.
    pub folded: fn(usize) -> String,
    /// So many exchanges above the mark are not in the prompt.
    pub dropped_above: fn(usize) -> String,
    /// So many of the oldest exchanges were dropped from the prompt, for this limit.
    pub dropped: fn(usize, HistoryLimit) -> String,
    /// Why an answer ended, where a person should know.
    pub stop: fn(Stop) -> Option<&'static str>,
    /// What the session notes about an answer.
    pub notice: fn(&Notice) -> String,
    /// The title of an empty conversation.
    pub new_conversation: &'static str,
    /// In an export: before its date.
    pub exported: &'static str,
    /// How to begin: the keys that send a message and begin a new line.
    pub welcome: fn(&str, &str) -> String,
    /// Instruction set and threads.
    pub runs_on: fn(&str, usize) -> String,
    /// Memory that a model needs, in the greeting.
    pub memory: &'static str,
    /// What the demo model does.
    pub welcome_demo: &'static str,

    // Title, state and figures.
    /// Mark: nothing of the conversation is kept.
    pub mark_private: &'static str,
    /// Mark: the conversation could not be saved.
    pub mark_unsaved: &'static str,
    /// Mark: a copy of a conversation.
    pub mark_copy: &'static str,
    /// Mark: answers are shown as they are.
    pub mark_raw: &'static str,
    /// Mark: the last question is being edited.
    pub mark_editing: &'static str,
    /// The model reads the prompt.
    pub reading: &'static str,
    /// The model reads an opened conversation.
    pub rereading: &'static str,
    /// The model generates.
    pub generating: &'static str,
    /// The answer is being stopped.
    pub stopping: &'static str,
    /// How to stop.
    pub esc_stops: &'static str,
    /// Time that is left.
    pub left: &'static str,
    /// Tokens per second.
    pub tokens_per_second: &'static str,
    /// The same where there is little room.
    pub tokens_per_second_short: &'static str,
    /// How to follow the end again.
    pub latest: &'static str,
    /// Label of the context.
    pub context: &'static str,
    /// Label of the memory in use.
    pub memory_in_use: &'static str,
    /// Label of the speed of the prompt.
    pub prefill: &'static str,
    /// How to get help.
    pub f1_help: &'static str,
    /// The screen is too small.
    pub too_small: &'static str,

    // The choice of a model.
    /// Title.
    pub choose_model: &'static str,
    /// Models are being looked for.
    pub looking_for_models: &'static str,
    /// There are none.
    pub no_models: &'static str,
    /// Memory that a model needs.
    pub needs: &'static str,
    /// It has less than that.
    pub does_not_fit: &'static str,
    /// A file that is no model.
    pub not_usable: &'static str,
    /// The embedded model.
    pub demo: &'static str,
    /// What it is for.
    pub demo_does: &'static str,
    /// Its name while it is opened.
    pub demo_name: &'static str,
    /// Another file.
    pub another_file: &'static str,
    /// The keys; whether Esc leads back to an open model.
    pub chooser_keys: fn(bool) -> &'static str,
    /// Label of the memory available.
    pub memory_available: &'static str,
    /// A message that was begun before the model opened.
    pub message_waits: &'static str,
    /// A model is being opened.
    pub opening: &'static str,
    /// Step: it begins.
    pub step_start: &'static str,
    /// Step: the embedded model is converted.
    pub step_convert: &'static str,
    /// Step: the file is read.
    pub step_read: &'static str,
    /// Step: the vocabulary is built.
    pub step_build: &'static str,
    /// Nothing can be sent yet.
    pub not_open_yet: &'static str,

    // Help.
    /// Title.
    pub help: &'static str,
    /// Its keys.
    pub help_keys: &'static str,
    /// What stands below the table of keys.
    pub help_text: &'static str,

    // Settings.
    /// Title.
    pub settings: &'static str,
    /// Keys.
    pub settings_keys: &'static str,
    /// Keys while a value is typed.
    pub settings_keys_typing: &'static str,
    /// A text in brackets.
    pub in_brackets: fn(&str) -> String,
    /// Row and explanation: language of the interface.
    pub row_language: [&'static str; 2],
    /// Row and explanation: colours.
    pub row_colours: [&'static str; 2],
    /// Row and explanation: the key that sends.
    pub row_send_key: [&'static str; 2],
    /// Row and explanation: the mouse.
    pub row_mouse: [&'static str; 2],
    /// What separates sentences of a message.
    pub semicolon: &'static str,

    // Conversations.
    /// Title.
    pub conversations: &'static str,
    /// Keys.
    pub talks_keys: &'static str,
    /// Keys while a title is typed.
    pub talks_keys_renaming: &'static str,
    /// Keys while something is searched for.
    pub talks_keys_searching: &'static str,
    /// Keys after something was deleted.
    pub talks_keys_deleted: &'static str,
    /// Label of the search.
    pub search: &'static str,
    /// The search is not done.
    pub searching: &'static str,
    /// There are none.
    pub no_conversations: &'static str,
    /// Less than a minute ago.
    pub just_now: &'static str,
    /// So many minutes ago.
    pub minutes_ago: fn(i64) -> String,
    /// So many hours ago.
    pub hours_ago: fn(i64) -> String,
    /// The day before today.
    pub yesterday: &'static str,

    // The line that is asked for.
    /// Title and keys: a file to attach.
    pub attach: [&'static str; 2],
    /// Title and keys: a file to export to.
    pub export: [&'static str; 2],
    /// Title and keys: a model file.
    pub model_path: [&'static str; 2],
    /// Title and keys: whether a conversation is erased.
    pub forget: [&'static str; 2],
    /// What erasing means.
    pub forget_text: &'static str,
    /// No other name begins so.
    pub nothing_to_complete: &'static str,

    // Messages.
    /// Ctrl+C once more quits.
    pub again_quits: &'static str,
    /// The same, after the input was emptied.
    pub emptied: &'static str,
    /// How to leave without what could not be saved; the reason follows.
    pub quit_unsaved: &'static str,
    /// The conversation could not be saved; the reason follows.
    pub not_saved: &'static str,
    /// It is saved again.
    pub saved_again: &'static str,
    /// Its file was taken away.
    pub moved: &'static str,
    /// The draft could not be kept; the reason follows.
    pub draft_not_kept: &'static str,
    /// The draft of the last run is back; so many others wait.
    pub draft_back: fn(usize) -> String,
    /// What Enter and Esc do while the last question is edited; the key that sends.
    pub editing: fn(&str) -> String,
    /// The answer is in the clipboard.
    pub copied: &'static str,
    /// The conversation is saved under this name.
    pub saved_as: fn(&str) -> String,
    /// It is not saved, as was wanted.
    pub is_private: &'static str,
    /// What the last answer cost.
    pub stats: fn(&Stats) -> String,
    /// There is no answer that cost something.
    pub no_stats: &'static str,
    /// There is no exchange yet.
    pub nothing_said: &'static str,
    /// The last exchange was taken back, its question is in the input.
    pub undone: &'static str,
    /// The same; the question is in the history.
    pub undone_history: &'static str,
    /// Nothing was replaced or taken back that could be brought back.
    pub nothing_replaced: &'static str,
    /// It is back; whether the same key shows what it took the place of.
    pub brought_back: fn(bool) -> &'static str,
    /// How to bring back the answer that the new one took the place of.
    pub can_bring_back: &'static str,
    /// The conversation stays saved: the question was not answered with yes.
    pub still_saved: &'static str,
    /// So many further notes.
    pub and_more: fn(usize) -> String,
    /// Keys of the configuration file that mean nothing, and the file.
    pub unknown_keys: fn(&str, &str) -> String,
    /// Another conversation is being opened.
    pub opening_conversation: &'static str,
    /// An answer is on its way.
    pub model_is_busy: &'static str,
    /// No such command; its name.
    pub no_command: fn(&str) -> String,
    /// The engine is opened again.
    pub reopening: &'static str,
    /// A conversation was deleted.
    pub deleted: &'static str,
    /// A file was written; its path follows.
    pub written: &'static str,
    /// The encoding that an attached file was read in.
    pub read_as: fn(&str) -> String,
    /// A copy of a conversation that cannot be written.
    pub goes_on_in_copy: &'static str,
    /// The last answer is another model's.
    pub others_answer: &'static str,

    // On the terminal, after the screen was given back.
    /// The conversation is not saved; the reason follows.
    pub lost_conversation: &'static str,
    /// The draft is not kept; the reason follows.
    pub lost_draft: &'static str,
}
