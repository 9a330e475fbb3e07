//! Checks the part of the project's style that a program can check, in code, configs and docs.
//!
//! | rule          | applies to               | says                                              |
//! | ---           | ---                      | ---                                               |
//! | first word    | doc comments             | none begins with one of `BANNED_FIRST_WORDS`      |
//! | verb          | doc comment of functions | the first word is a verb in the third person      |
//! | width         | files that people write  | at most 100 columns                               |
//! | file length   | Rust files               | at most 500 lines                                 |
//! | function size | functions in `src/`      | at most 50 lines, test code excepted              |
//! | name length   | functions                | at most 60 characters                             |
//! | unit tests    | `src/`                   | inline up to 150 lines, otherwise in `x/tests.rs` |

use std::fs;
use std::path::{Path, PathBuf};

/// Words that start an inverted or incomplete sentence.
const BANNED_FIRST_WORDS: [&str; 29] = [
    "Also", "Are", "As", "Be", "How", "If", "Is", "It", "Its", "Of", "So", "Such", "That", "Those",
    "Till", "To", "What", "Whatever", "When", "Whenever", "Where", "Whether", "Which", "Who",
    "Whoever", "Whom", "Whose", "Why", "Within",
];

const MAX_COLUMNS: usize = 100;
const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 50;
const MAX_NAME_CHARS: usize = 60;
const MAX_INLINE_TEST_LINES: usize = 150;

/// Files whose lines may be wider than [`MAX_COLUMNS`], each with its reason.
const WIDE_FILES: [(&str, &str); 7] = [
    ("deploy/chart/README.md", "generated from values.yaml"),
    ("docs/getting-started.md", "shows a message of `validate` as it is printed"),
    ("docs/reference/cli.md", "generated from `--help`"),
    ("tests/config/bad/", "inputs of the config tests, long lines among them"),
    ("tests/config/good/", "inputs of the config tests, long lines among them"),
    ("docs/reference/config.md", "generated from the config's schema"),
    ("tests/alerts/", "series of Prometheus, whose names and labels are on one line"),
];

/// A file of the repository: its path from the root, with `/`, and its text.
struct File {
    path: String,
    text: String,
}

/// A doc comment with the line of code that it documents.
#[derive(Debug, PartialEq)]
struct Doc<'a> {
    line: usize,
    first_word: &'a str,
    is_of_function: bool,
}

/// A function with its first line number and its number of lines.
#[derive(Debug, PartialEq)]
struct Function<'a> {
    line: usize,
    name: &'a str,
    lines: usize,
}

// ---- the reader ----

/// Reads the files of the repository with one of these extensions or names.
fn files(endings: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(root, &mut paths);
    let mut files = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        if endings.iter().any(|ending| name.ends_with(ending)) {
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            files.push(File { path: name, text: String::from_utf8_lossy(&bytes).into_owned() });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Adds the files below a folder. Skips hidden folders, build output and installed packages.
fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !path.is_dir() {
            paths.push(path);
        } else if !name.starts_with('.') && name != "target" && name != "node_modules" {
            collect(&path, paths);
        }
    }
}

/// Finds the doc comments of a file: blocks of `///` or `//!` lines.
fn docs(text: &str) -> Vec<Doc<'_>> {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let mut docs = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let Some(marker) =
            ["///", "//!"].into_iter().find(|marker| lines[index].starts_with(marker))
        else {
            index += 1;
            continue;
        };
        let start = index;
        while lines.get(index).is_some_and(|line| line.starts_with(marker)) {
            index += 1;
        }
        let mut code = lines[index..].iter().skip_while(|line| line.starts_with("#["));
        docs.push(Doc {
            line: start + 1,
            first_word: first_word(&lines[start][marker.len()..]),
            is_of_function: marker == "///"
                && code.next().is_some_and(|code| function_name(code).is_some()),
        });
    }
    docs
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && !"`'-_".contains(c));
    &text[..end.unwrap_or(text.len())]
}

/// Returns the name of the function that a line of code begins to define.
fn function_name(code: &str) -> Option<&str> {
    let mut rest = code.trim_start();
    for modifier in
        ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "unsafe ", "extern \"C\" "]
    {
        rest = rest.strip_prefix(modifier).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&name[..end])
}

/// Finds the functions of a file that rustfmt has formatted: a body ends with a `}` that is as far
/// indented as its `fn`.
fn functions(text: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let is_end = |(offset, other): &(usize, &&str)| {
            let trimmed = other.trim_start();
            let is_declaration =
                trimmed.ends_with(';') && (*offset == 0 || trimmed.starts_with(')'));
            let is_one_line = *offset == 0 && trimmed.ends_with('}');
            indent(other) == indent(line) && (trimmed == "}" || is_declaration || is_one_line)
        };
        let end = lines[start..].iter().enumerate().find(is_end);
        let lines = end.map_or(lines.len() - start, |(offset, _)| offset + 1);
        functions.push(Function { line: start + 1, name, lines });
    }
    functions
}

/// Returns the lines of a file before its unit tests.
fn without_unit_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn is_unit_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn is_third_person(word: &str) -> bool {
    let is_capitalized = word.starts_with(|c: char| c.is_ascii_uppercase());
    is_capitalized && word.len() > 2 && word.ends_with('s')
}

#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

// ---- the rules ----

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    let mut problems = Vec::new();
    for File { path, text } in files(&[".rs"]) {
        for Doc { line, first_word, is_of_function } in docs(&text) {
            if BANNED_FIRST_WORDS.contains(&first_word) {
                problems.push(format!("{path}:{line}: a doc comment begins with {first_word}"));
            } else if is_of_function && !is_third_person(first_word) {
                problems
                    .push(format!("{path}:{line}: {first_word} is no verb in the third person"));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn lines_have_at_most_100_columns() {
    let mut problems = Vec::new();
    for File { path, text } in files(&[".rs", ".md", ".yaml", ".toml", ".sh", "Makefile"]) {
        if WIDE_FILES.iter().any(|(prefix, _)| path.starts_with(prefix)) {
            continue;
        }
        let mut is_in_code_block = false;
        for (index, line) in text.lines().enumerate() {
            is_in_code_block ^= path.ends_with(".md") && line.trim_start().starts_with("```");
            // Markdown has no way to break a row of a table, a link or a line of code.
            let may_be_wide = line.contains("https://")
                || path.ends_with(".md")
                    && (is_in_code_block || line.starts_with('|') || line.contains("]("));
            let columns = line.chars().count();
            if columns > MAX_COLUMNS && !may_be_wide {
                problems.push(format!("{path}:{}: {columns} columns", index + 1));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn files_have_at_most_500_lines() {
    let mut problems = Vec::new();
    for File { path, text } in files(&[".rs"]) {
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            problems.push(format!("{path}: {lines} lines"));
        }
    }
    assert_none(&problems);
}

#[test]
fn functions_in_src_have_at_most_50_lines() {
    let mut problems = Vec::new();
    for File { path, text } in files(&[".rs"]) {
        if !path.starts_with("src/") || is_unit_test_file(&path) {
            continue;
        }
        for Function { line, name, lines } in functions(without_unit_tests(&text)) {
            if lines > MAX_FUNCTION_LINES {
                problems.push(format!("{path}:{line}: {name} has {lines} lines"));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn function_names_have_at_most_60_characters() {
    let mut problems = Vec::new();
    for File { path, text } in files(&[".rs"]) {
        for Function { line, name, .. } in functions(&text) {
            if name.len() > MAX_NAME_CHARS {
                problems.push(format!("{path}:{line}: {name} has {} characters", name.len()));
            }
        }
    }
    assert_none(&problems);
}

/// The begin of an attribute that includes support of the integration tests.
const SHARED_SUPPORT: &str = "#[path = \"../../tests/support/";

#[test]
fn unit_tests_are_inline_or_in_a_file_named_tests() {
    let mut problems = Vec::new();
    for File { path, text } in files(&[".rs"]) {
        if !path.starts_with("src/") {
            continue;
        }
        let text_of_src = text.replace(SHARED_SUPPORT, "");
        if path.ends_with("_tests.rs") || text_of_src.contains("#[path") {
            problems.push(format!("{path}: unit tests of x.rs belong into x/tests.rs"));
        }
        let inline = text.lines().count() - without_unit_tests(&text).lines().count();
        if inline > MAX_INLINE_TEST_LINES {
            problems.push(format!("{path}: {inline} lines of inline tests belong into x/tests.rs"));
        }
    }
    assert_none(&problems);
}

// ---- tests of the reader ----

#[test]
fn the_reader_finds_doc_comments() {
    let text = [
        "//! Parses a file.",
        "//! More.",
        "",
        "/// What it is.",
        "#[must_use]",
        "pub(crate) async fn f() {}",
        "/// `x`",
        "struct S;",
    ]
    .join("\n");
    let doc = |line, first_word, is_of_function| Doc { line, first_word, is_of_function };
    assert_eq!(docs(&text), [doc(1, "Parses", false), doc(4, "What", true), doc(7, "`x`", false)]);
}

#[test]
fn the_reader_measures_functions() {
    let text = "
trait T {
    fn declared(
        &self,
    ) -> u8;
    fn short(&self) -> u8;
}
fn long<T>(
    x: T,
) -> T
where
    T: Copy,
{
    if true {
    }
    x
}
fn one_line() {}
";
    let function = |line, name, lines| Function { line, name, lines };
    assert_eq!(
        functions(text),
        [
            function(3, "declared", 3),
            function(6, "short", 1),
            function(8, "long", 10),
            function(18, "one_line", 1),
        ]
    );
}

#[test]
fn the_reader_cuts_off_unit_tests() {
    let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
    assert_eq!(without_unit_tests(text), "fn a() {}\n\n");
    assert!(is_unit_test_file("src/plan/tests.rs") && is_unit_test_file("src/plan/tests/one.rs"));
    assert!(!is_unit_test_file("src/plan.rs"));
}

#[test]
fn the_reader_knows_verbs_in_the_third_person() {
    assert!(is_third_person("Returns") && is_third_person("Re-reads"));
    assert!(!is_third_person("Return") && !is_third_person("`x`") && !is_third_person("The"));
}

#[test]
fn the_reader_finds_the_files_of_the_repository() {
    let found = files(&["Cargo.toml", "build.sh", "Makefile"]);
    let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
    for path in ["Cargo.toml", "Makefile", "benches/Cargo.toml", "tests/control-plane/build.sh"] {
        assert!(paths.contains(&path), "{path} is missing in {paths:?}");
    }
}
