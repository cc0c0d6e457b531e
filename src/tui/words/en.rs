//! English.

use super::form::Words;
use crate::session::{Notice, Stop, dropped_note};
use crate::tui::failure::Failure;
use crate::tui::keys::Action;
use crate::tui::look::Theme;

/// The words.
pub(super) static WORDS: Words = Words {
    language: "English",
    colon: ": ",
    comma: ", ",
    list_comma: ", ",
    theme,
    action,
    failure,
    one_of: |values| format!("expected one of: {values}"),

    you: "You",
    model: "Huozi",
    no_answer: "(no answer)",
    waiting: "…",
    folded: |rows| format!("… {rows} more rows (Alt+O)"),
    dropped_above: |n| match n {
        1 => "the exchange above is no longer in the prompt".into(),
        n => format!("the {n} exchanges above are no longer in the prompt"),
    },
    dropped: dropped_note,
    stop,
    notice: Notice::to_string,
    new_conversation: "New conversation",
    exported: "exported",
    welcome: |sends, breaks| {
        format!(
            "Type a message and press {sends}. {breaks} begins a new line, F2 shows the settings, \
             F3 the conversations, F1 all keys."
        )
    },
    runs_on: |isa, threads| match threads {
        1 => format!("{isa}, 1 thread"),
        n => format!("{isa}, {n} threads"),
    },
    memory: "memory",
    welcome_demo: "\n\nThe demo model writes poems: 写一首关于月的诗。",

    mark_private: "not saved",
    mark_unsaved: "save failed",
    mark_copy: "copy",
    mark_raw: "raw",
    mark_editing: "editing",
    reading: "reading prompt",
    rereading: "re-reading",
    generating: "generating",
    stopping: "stopping…",
    esc_stops: "Esc stops",
    left: "left:",
    tokens_per_second: "t/s",
    tokens_per_second_short: "t/s",
    latest: " Ctrl+End: latest ",
    context: "context ",
    memory_in_use: "mem ",
    prefill: "prefill",
    f1_help: "F1 help",
    too_small: "too small",

    choose_model: "Choose a model",
    looking_for_models: "looking for models…",
    no_models: "No GGUF file was found: huozi-convert makes one from a checkpoint. The demo model needs \
                none.",
    needs: "needs",
    does_not_fit: ", does not fit",
    not_usable: "not usable",
    demo: "Demo: a small built-in model",
    demo_does: "classical Chinese poems",
    demo_name: "the built-in demo model",
    another_file: "Another file…",
    chooser_keys: |back| match back {
        true => "Enter opens, Esc goes back, F1 help, Alt+L 中文",
        false => "Enter opens, Esc quits, F1 help, Alt+L 中文",
    },
    memory_available: "memory available: ",
    message_waits: "your unsent message is kept",
    opening: "Opening",
    step_start: "starting",
    step_convert: "first use: converting the built-in model",
    step_read: "reading the file",
    step_build: "building the vocabulary",
    not_open_yet: "the model is not open yet",

    help: "Help",
    help_keys: "Up Down scroll, Esc closes",
    help_text: "The terminal cursor stands where the text goes, so that an input method shows its candidates \
                there. Shift and the mouse select text as the terminal does. Commands for terminals without \
                these keys, the same in huozi chat (// begins a message with a slash):",

    settings: "Settings: this conversation, the interface",
    settings_keys: "Left Right change, Enter or text sets, Del resets, Esc closes",
    settings_keys_typing: "Enter sets, Esc cancels",
    in_brackets: |text| format!("({text})"),
    row_language: ["language", "Interface language"],
    row_colours: ["colours", "Interface colours"],
    row_send_key: ["send_key", "Key that sends a message"],
    row_mouse: ["mouse", "On: wheel scrolls; off: terminal selects"],
    semicolon: "; ",

    conversations: "Conversations",
    talks_keys: "Enter open, Ctrl+R rename, Del delete, Esc close",
    talks_keys_renaming: "Enter renames, Esc cancels",
    talks_keys_searching: "Enter open, Ctrl+R rename, Del delete, Esc clears the search",
    talks_keys_deleted: "Ctrl+Z brings back what was deleted",
    search: "Search: ",
    searching: "searching…",
    no_conversations: "none",
    just_now: "just now",
    minutes_ago: |n| format!("{n} min ago"),
    hours_ago: |n| format!("{n} h ago"),
    yesterday: "yesterday",

    attach: ["Text file to put into the message", "Enter attaches, Tab completes, Esc closes"],
    export: ["Export to a Markdown file", "Enter writes, Tab completes, Esc closes"],
    model_path: ["Path of a GGUF file", "Enter opens, Tab completes, Esc closes"],
    forget: ["Do not save this conversation?", "Enter: erase, Esc: keep"],
    forget_text: "Its file is erased for good.",
    nothing_to_complete: "no other name begins like this",

    again_quits: "Ctrl+C again to quit",
    emptied: "input cleared, Ctrl+_ restores it; Ctrl+C again to quit",
    quit_unsaved: "not saved; repeat to quit anyway: ",
    not_saved: "not saved: ",
    saved_again: "the conversation is saved again",
    moved: "another program removed or changed the conversation's file: it is kept in a new one",
    draft_not_kept: "your unsent message could not be saved: ",
    draft_back: |others| match others {
        0 => "your unsent message of the last run is in the input".into(),
        n => format!("your unsent message of the last run is in the input; {n} more at the next start"),
    },
    editing: |sends| format!("{sends} asks again, Esc cancels"),
    copied: "copied, if the terminal allows it (OSC 52)",
    saved_as: |name| format!("saved as {name}, with every answer; /save TITLE names it"),
    is_private: "this conversation is not saved; /private saves it again",
    stats: |stats| {
        format!(
            "prompt {} tokens (+{} kept), {:.1} t/s; answer {} tokens, {:.1} t/s; context {}/{}; seed {}",
            stats.prompt_tokens,
            stats.reused_tokens,
            stats.prompt_rate(),
            stats.generated_tokens,
            stats.generate_rate(),
            stats.context_used,
            stats.context,
            stats.seed
        )
    },
    no_stats: "there is no answer yet in this run",
    nothing_said: "there is no exchange yet",
    undone: "exchange removed (Alt+Z brings it back); its question is in the input",
    undone_history: "exchange removed (Alt+Z brings it back); Up brings its question back",
    nothing_replaced: "there is no earlier answer to bring back",
    brought_back: |again| match again {
        true => "brought back; Alt+Z again shows the other one",
        false => "brought back",
    },
    can_bring_back: "Alt+Z brings back the answer before",
    still_saved: "the conversation is kept and saved",
    and_more: |n| format!("{n} more"),
    unknown_keys: |keys, path| format!("{path}: unknown keys are ignored: {keys}"),
    opening_conversation: "opening the conversation…",
    model_is_busy: "the model is generating; Esc stops it",
    no_command: |name| format!("/{name}: unknown command; /help, or // to send it"),
    reopening: "reopening the engine…",
    deleted: "deleted; Ctrl+Z in the list brings it back",
    written: "written: ",
    read_as: |encoding| format!("not UTF-8; read as {encoding}"),
    goes_on_in_copy: "this conversation is open in another huozi, or read-only: it goes on in a copy",
    others_answer: "the last answer is another model's; this one goes on (Ctrl+N: a new conversation)",

    lost_conversation: "the conversation is not saved: ",
    lost_draft: "your unsent message is not saved: ",
};

fn theme(theme: Theme) -> &'static str {
    match theme {
        Theme::Dark => "dark",
        Theme::Light => "light",
        Theme::Plain => "monochrome",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Send => "send",
        Action::Newline => "new line",
        Action::Stop => "stop the answer; leave editing",
        Action::Retry => "another answer to the last question",
        Action::Undo => "remove the last exchange",
        Action::EditLast => "edit the last question",
        Action::BringBack => "bring back the answer before",
        Action::Copy => "copy the last answer",
        Action::Attach => "put a text file into the message",
        Action::New => "new conversation",
        Action::Talks => "conversations: open, rename, search, delete",
        Action::Export => "export to Markdown",
        Action::Private => "do not save this conversation",
        Action::Settings => "settings",
        Action::Models => "choose another model",
        Action::Raw => "Markdown or plain text",
        Action::Unfold => "unfold or fold long questions",
        Action::Language => "中文",
        Action::PageUp => "a page up",
        Action::PageDown => "a page down",
        Action::RowUp => "a row up",
        Action::RowDown => "a row down",
        Action::Top => "to the beginning",
        Action::End => "to the end",
        Action::Editor => "write in $EDITOR",
        Action::InputUndo => "undo in the message",
        Action::InputRedo => "redo in the message",
        Action::Yank => "put back what Ctrl+U, Ctrl+K, Ctrl+W erased",
        Action::Redraw => "redraw",
        Action::Suspend => "suspend",
        Action::Interrupt => "stop; twice: quit",
        Action::EndOfInput => "quit, if the input is empty",
        Action::Quit => "quit",
        Action::Help => "this page",
    }
}

fn stop(stop: Stop) -> Option<&'static str> {
    match stop {
        Stop::EndToken(_) | Stop::Hook => None,
        Stop::MaxTokens => Some("stopped: max_new_tokens reached"),
        Stop::ContextFull => Some("stopped: the context is full"),
        Stop::Cancelled => Some("stopped"),
        Stop::BrokenLogits => Some("the model computes no numbers: its weights are broken"),
    }
}

fn failure(failure: &Failure) -> String {
    match failure {
        Failure::Session(error) => error.to_string(),
        Failure::Open(error) => error.to_string(),
        Failure::Store(error) => error.to_string(),
        Failure::Unusable(found) => found.why().unwrap_or_default(),
        Failure::File { path, error } => format!("{}: {error}", path.display()),
        Failure::NotAFile(path) => format!("{}: not a file", path.display()),
        Failure::TooLong { path, most_kib } => {
            format!("{}: larger than {most_kib} KiB, too long for a message", path.display())
        }
        Failure::NotText { path, encoding: None, at, line } => format!(
            "{}: not text: neither UTF-8 (line {line}, byte {at}) nor UTF-16 nor GB18030",
            path.display()
        ),
        Failure::NotText { path, encoding: Some(encoding), at, line } => {
            format!("{}: line {line} (byte {at}) is not {encoding}, as the rest of it is", path.display())
        }
        Failure::Panic(what) => format!("internal error: {what}"),
        Failure::NoModel => "no model is open".into(),
        Failure::NoPlaceForConversations => {
            "neither XDG_DATA_HOME nor HOME is set: conversations cannot be saved".into()
        }
        Failure::NoPlaceForPrefs => "this choice is not kept: neither XDG_STATE_HOME nor HOME is set".into(),
        Failure::NothingInTrash => "there is no deleted conversation to bring back".into(),
        Failure::LastOpenElsewhere => {
            "the last conversation is open in another huozi; this is a new one".into()
        }
        Failure::LastNotOpened(why) => {
            format!("the last conversation cannot be opened, this is a new one: {}", self::failure(why))
        }
        Failure::LeavesUnsaved(why) => {
            format!("this conversation is not saved; repeat to leave it anyway: {}", self::failure(why))
        }
        Failure::StoppedBeforeAnswer => {
            "stopped before the answer began: the question and its answer are unchanged".into()
        }
        Failure::DiskSlow => "the disk did not answer in time: some data may not be written".into(),
        Failure::System(what) => what.clone(),
    }
}
