//! The demo's screen: a timeline that scrolls, and below it, on a terminal, one live line.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Lines from several tasks, whole and in order.
pub struct Screen {
    terminal: bool,
    /// What the live line shows now.
    live: Mutex<String>,
}

#[derive(Clone, Copy)]
pub enum Mark {
    Good,
    Bad,
}

impl Screen {
    pub fn new() -> Screen {
        Screen { terminal: stdout().is_terminal(), live: Mutex::default() }
    }

    /// Whether somebody watches the live line.
    pub fn is_live(&self) -> bool {
        self.terminal
    }

    /// Prints a line above the live one.
    pub fn say(&self, line: &str) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        self.draw(&format!("{line}\n"), &live);
    }

    /// Prints what happens now, as the heading of the lines that follow.
    pub fn heading(&self, line: &str) {
        self.say(&format!("\n{}", self.styled("1", line)));
    }

    /// Prints when something happened, counted from the last heading.
    pub fn at(&self, when: Duration, what: &str) {
        self.say(&format!("  {:>6.2} s  {what}", when.as_secs_f64()));
    }

    /// Prints a line of the summary.
    pub fn mark(&self, mark: Mark, line: &str) {
        let mark = match mark {
            Mark::Good => self.styled("32", "✓"),
            Mark::Bad => self.styled("31", "✗"),
        };
        self.say(&format!("  {mark} {line}"));
    }

    /// Replaces the live line; an empty one takes it away.
    pub fn live(&self, line: String) {
        if self.terminal {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            *live = line;
            self.draw("", &live);
        }
    }

    fn draw(&self, above: &str, live: &str) {
        let mut out = stdout().lock();
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        // Nobody reads it any more when this fails, and the exit status says the same.
        let _ = write!(out, "{clear}{above}{live}").and_then(|()| out.flush());
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.terminal { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
