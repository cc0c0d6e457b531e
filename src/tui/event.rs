//! What happens to the chat and what it asks for: messages in, effects out.

use super::worker::{DeskTask, ModelTask, Report};
use crossterm::event::{KeyEvent, MouseEvent};

/// What happened.
#[derive(Clone, Debug)]
pub enum Msg {
    /// A key.
    Key(KeyEvent),
    /// The mouse.
    Mouse(MouseEvent),
    /// A text was pasted.
    Paste(String),
    /// The screen has another size.
    Resize(u16, u16),
    /// Time went by.
    Tick,
    /// A thread has something to tell.
    Report(Report),
    /// The editor gave this text back, or says why not.
    Edited(Result<String, String>),
    /// The process is to end.
    Terminate,
    /// The process is to stop until it is continued.
    Suspend,
    /// It goes on.
    Continued,
}

/// What the program is to do outside its state.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Give work to the model.
    Work(ModelTask),
    /// Give work to the desk.
    Desk(DeskTask),
    /// Put a text into the clipboard of the terminal.
    Copy(String),
    /// Edit a text in `$VISUAL` or `$EDITOR`.
    Edit(String),
    /// Capture the mouse, or leave it to the terminal.
    Mouse(bool),
    /// Stop this process until it is continued.
    Suspend,
    /// Take the terminal again, after something else had it.
    Enter,
    /// Redraw the whole screen.
    Redraw,
    /// End.
    Quit,
}
