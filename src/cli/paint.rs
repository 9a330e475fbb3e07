//! The colours of a text for people, and their meaning. Pure.

use crate::status::TargetMark;

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

impl Tone {
    fn style(self) -> anstyle::Style {
        match self {
            Tone::Good => anstyle::AnsiColor::Green.on_default(),
            Tone::Warning => anstyle::AnsiColor::Yellow.on_default(),
            Tone::Bad => anstyle::AnsiColor::Red.on_default(),
        }
    }
}

impl Paint {
    /// Returns the sequence with which a text begins, if this type writes it.
    pub(super) fn sequence_at_start(text: &str) -> Option<&str> {
        [Tone::Good, Tone::Warning, Tone::Bad].into_iter().find_map(|tone| {
            let style = tone.style();
            [style.to_string(), format!("{style:#}")]
                .into_iter()
                .find_map(|sequence| text.starts_with(&sequence).then(|| &text[..sequence.len()]))
        })
    }

    /// Returns a text in the colour of its meaning.
    pub(super) fn text(self, tone: Tone, text: &str) -> String {
        let style = tone.style();
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
