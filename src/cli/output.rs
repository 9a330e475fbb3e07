//! The output of a command: its format, its colours, and the width of the terminal.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use serde::Serialize;

use super::console::{Console, Reported, print_exactly};
pub(super) use super::paint::{Paint, Tone};
pub(super) use super::width::{fitted, width};
use crate::log;
use crate::status::text::is_hidden;

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

/// Prints a document as JSON, or as YAML in that format.
pub(super) fn print_document(format: Format, document: &impl Serialize) -> Result<(), Reported> {
    let text = match format {
        Format::Yaml => to_yaml(document),
        Format::Table | Format::Wide | Format::Json => to_json(document, Escapes::Json),
    };
    print_exactly(&text.map_err(|error| Console::Stderr.fail(&error))?)
}

/// Returns a document as YAML. Its writer has no escapes, so a document with characters that can't
/// be seen is in the notation of JSON, which is YAML too.
fn to_yaml(document: &impl Serialize) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(document).context("can't write YAML")?;
    match text.contains(|char| char != '\n' && is_hidden(char)) {
        true => to_json(document, Escapes::Yaml),
        false => Ok(text),
    }
}

fn to_json(document: &impl Serialize, escapes: Escapes) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(document).context("can't write JSON")?;
    Ok(escape_strings(&text, escapes) + "\n")
}

/// The language whose escapes a string in double quotes has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    Json,
    Yaml,
}

/// Escapes what can't be seen in the strings of a JSON document. Outside of strings there is no
/// such character but line breaks.
pub(super) fn escape_strings(json: &str, escapes: Escapes) -> String {
    let mut escaped = String::with_capacity(json.len());
    for char in json.chars() {
        match (u32::from(char), escapes) {
            _ if char == '\n' || !is_hidden(char) => escaped.push(char),
            (code @ 0x1_0000.., Escapes::Yaml) => escaped += &format!("\\U{code:08x}"),
            _ => {
                let units = char.encode_utf16(&mut [0; 2]).to_vec();
                units.iter().for_each(|unit| escaped += &format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_show_each_character_and_read_the_same() {
        let hostile = "a\u{9b}31m\u{202e}\u{200b}\u{7f}\n\u{e0041}中文";
        let document = serde_json::json!({"reason": hostile, hostile: [1]});
        let json = to_json(&document, Escapes::Json).expect("JSON");
        let yaml = to_yaml(&document).expect("YAML");
        for text in [&json, &yaml] {
            assert!(!text.contains(|char| char != '\n' && is_hidden(char)), "{text:?}");
        }
        let of_json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let of_yaml: serde_json::Value = serde_saphyr::from_str(&yaml).expect("YAML");
        assert_eq!((&of_json, &of_yaml), (&document, &document));
        let plain = serde_json::json!({"reason": "größe"});
        assert_eq!(to_yaml(&plain).expect("YAML"), "reason: größe\n");
    }
}
