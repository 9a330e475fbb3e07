//! The sentences of the documentation are in plain order: none begins with a word that inverts it.

use super::pages::{Page, pages};

/// Words that begin no sentence, each with what follows it.
const BANNED: [&str; 9] =
    ["What ", "Whatever ", "Whether ", "Who ", "Whoever ", "Whose ", "That ", "Of ", "Those "];

/// Returns the paragraphs and items of lists of a page, without headings, tables and blocks.
fn paragraphs(page: &Page) -> Vec<String> {
    let mut found: Vec<String> = vec![String::new()];
    for line in page.prose() {
        let text = line.trim_start();
        let item = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let is_item = text.starts_with("- ") || (item != text && item.starts_with(' '));
        if text.is_empty() || text.starts_with(['#', '|', '<']) {
            found.push(String::new());
            continue;
        }
        if is_item {
            found.push(String::new());
        }
        let text = text.trim_start_matches("- ").trim_start_matches("**");
        let last = found.last_mut().expect("a paragraph");
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(text);
    }
    found
}

#[test]
fn no_sentence_begins_with_an_inverting_word() {
    let mut problems = Vec::new();
    for page in pages().iter().filter(|page| !page.path.starts_with("benches")) {
        for paragraph in paragraphs(page) {
            for sentence in paragraph.split(['.', ':', '!', '?']) {
                let sentence = sentence.trim_start();
                if BANNED.iter().any(|word| sentence.starts_with(word))
                    || sentence.starts_with("So that ")
                {
                    problems.push(format!("{}: {sentence}", page.path.display()));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}
