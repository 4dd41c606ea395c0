//! The terminal: taken over while the demo runs, given back whatever happens.

use std::io::{self, IsTerminal, Stdout, stdout};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::Picture;
use super::screen::draw;

/// A terminal in its alternate screen. Dropping it restores the user's own screen; so does a panic.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Whether there is a terminal to draw on.
    pub fn is_available() -> bool {
        stdout().is_terminal() && io::stdin().is_terminal()
    }

    /// Takes the terminal over. ratatui's own panic hook restores it before the message of a panic is printed.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            terminal: ratatui::try_init()?,
        })
    }

    /// Draws one picture.
    pub fn draw(&mut self, picture: &Picture) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame, picture))?;
        Ok(())
    }

    /// Whether the user wants to quit: `q`, Esc or Ctrl-C. Waits for at most `limit`.
    pub fn wants_to_quit(limit: Duration) -> io::Result<bool> {
        if !event::poll(limit)? {
            return Ok(false);
        }
        let Event::Key(key) = event::read()? else {
            return Ok(false);
        };
        let control_c = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
        let quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) || control_c;
        Ok(quit && key.kind == KeyEventKind::Press)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
