//! Changes of the annotation for maintenance that keep all other entries to the letter, also those
//! that are wrong.

use std::fmt;

use super::maintenance::{entry_subject, parse_entry_text, split_entries};
use super::{MAX_BYTES, MaintenanceEntry, Subject, parse_maintenance};

/// The reason why an entry can't be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EditError {
    /// The reason would be read as something else: as another entry, as an end, or cut off.
    Misread,
    /// The annotation would be longer than what is read of it.
    TooLong,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EditError::Misread => {
                "this reason would be read in another way, because entries of the annotation end \
                 at commas; leave out `=` and addresses after a comma, and `; until=`"
            }
            EditError::TooLong => {
                "the annotation would be over 8 kB, and the daemon reads no more; write a shorter \
                 reason, or end other maintenance first"
            }
        })
    }
}

/// Sets an entry, in the place of the entries of its subject, else at the end.
pub(crate) fn set_entry(
    value: &str,
    entry: &MaintenanceEntry,
    known: impl Fn(&Subject) -> bool,
) -> Result<String, EditError> {
    let text = entry.to_string();
    let mut texts = split_entries(value, &known);
    texts.retain(|text| !tidy(text).is_empty());
    let is_of_subject = |text: &str| entry_subject(text).as_ref() == Some(&entry.subject);
    let place = texts.iter().position(|text| is_of_subject(text)).unwrap_or(texts.len());
    texts.retain(|text| !is_of_subject(text));
    texts.insert(place.min(texts.len()), &text);
    let value = join(&texts);
    // What is written must be read again as it was meant, whatever the reason holds.
    let read = split_entries(&value, &known).into_iter().map(tidy);
    let alone = parse_maintenance(&text, |_| true);
    if !read.eq(texts.iter().map(|text| tidy(text)))
        || alone.entries.as_slice() != std::slice::from_ref(entry)
        || !alone.problems.is_empty()
    {
        return Err(EditError::Misread);
    }
    if value.len() > MAX_BYTES {
        return Err(EditError::TooLong);
    }
    Ok(value)
}

/// Removes the entries of a subject. Returns none if there are none.
pub(crate) fn remove_entry(
    value: &str,
    subject: &Subject,
    known: impl Fn(&Subject) -> bool,
) -> Option<String> {
    let mut texts = split_entries(value, known);
    let before = texts.len();
    texts.retain(|text| entry_subject(text).as_ref() != Some(subject));
    (texts.len() < before).then(|| join(&texts))
}

/// Returns the entries that can be read, in the order of the annotation.
pub(crate) fn entries(value: &str, known: impl Fn(&Subject) -> bool) -> Vec<MaintenanceEntry> {
    split_entries(value, known).into_iter().filter_map(parse_entry_text).collect()
}

fn join(texts: &[&str]) -> String {
    let texts: Vec<&str> = texts.iter().copied().map(tidy).collect();
    texts.join(", ")
}

/// Returns an entry without the white space and the commas around it.
fn tidy(text: &str) -> &str {
    text.trim_matches(|char: char| char == ',' || char.is_whitespace())
}

#[cfg(test)]
mod tests;
