//! The output of a command: its format, its colours, and the width of the terminal.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use serde::Serialize;

use super::console::{Console, Reported, print};
pub(super) use super::width::{fitted, width};
use crate::log;
use crate::status::TargetMark;

/// The format of an output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A table for people
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// The flags that choose an output.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct OutputArgs {
    /// The format of the output
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    pub(super) format: Format,
    /// Print without colours, as with NO_COLOR and wherever the output is no terminal
    #[arg(long)]
    no_color: bool,
}

impl OutputArgs {
    /// Returns the paint of standard output.
    pub(super) fn paint(&self) -> Paint {
        let stdout = std::io::stdout();
        let is_allowed = log::allows_color(|name| std::env::var_os(name));
        if self.no_color || !is_allowed || !stdout.is_terminal() {
            Paint::Plain
        } else {
            Paint::Colored
        }
    }
}

/// The use of colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// No colours.
    Plain,
    /// Colours of a terminal.
    Colored,
}

/// The meaning of a colour. Colours only stress what words or shapes say too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// All is well.
    Good,
    /// A person should know.
    Warning,
    /// Something is wrong.
    Bad,
}

impl Paint {
    /// Returns a text in the colour of its meaning.
    pub(super) fn text(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Good => anstyle::AnsiColor::Green.on_default(),
            Tone::Warning => anstyle::AnsiColor::Yellow.on_default(),
            Tone::Bad => anstyle::AnsiColor::Red.on_default(),
        };
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Colored => format!("{style}{text}{style:#}"),
        }
    }
}

impl Paint {
    /// Returns a text in which the marks of targets are coloured. Their shapes say the same.
    pub(super) fn marks(self, text: &str) -> String {
        if self == Paint::Plain {
            return text.to_owned();
        }
        let mut painted = String::with_capacity(text.len());
        for char in text.chars() {
            let tone = match char {
                _ if char == TargetMark::Up.symbol() => Tone::Good,
                _ if char == TargetMark::Down.symbol() => Tone::Bad,
                _ if char == TargetMark::Flapping.symbol() => Tone::Warning,
                _ if char == TargetMark::Maintenance.symbol() => Tone::Warning,
                _ => {
                    painted.push(char);
                    continue;
                }
            };
            painted += &self.text(tone, char.encode_utf8(&mut [0; 4]));
        }
        painted
    }
}

/// Prints a document as JSON, or as YAML in that format.
pub(super) fn print_document(format: Format, document: &impl Serialize) -> Result<(), Reported> {
    let text = match format {
        Format::Yaml => serde_saphyr::to_string(document).context("can't write YAML"),
        Format::Table | Format::Wide | Format::Json => serde_json::to_string_pretty(document)
            .map(|text| text + "\n")
            .context("can't write JSON"),
    };
    print(&text.map_err(|error| Console::Stderr.fail(&error))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        assert_eq!(Paint::Plain.text(Tone::Bad, "down"), "down");
        let red = Paint::Colored.text(Tone::Bad, "down");
        assert!(red.starts_with('\u{1b}') && red.contains("down") && red.ends_with("\u{1b}[0m"));
        assert_eq!(Paint::Plain.marks("▼ down"), "▼ down");
        let marked = Paint::Colored.marks("▲ ▼ x");
        assert!(marked.contains("\u{1b}[32m▲\u{1b}[0m \u{1b}[31m▼\u{1b}[0m x"), "{marked:?}");
    }
}
