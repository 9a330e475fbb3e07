//! Reads the modules of `src/`, and the paths that their code names.

use std::fs;
use std::path::{Path, PathBuf};

/// A path of a module or an item from the root of the crate, such as `["publish", "cache"]`.
pub(crate) type ModulePath = Vec<String>;

pub(crate) fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns a module's files: `src/NAME.rs` and all below `src/NAME/`.
pub(crate) fn files(module: &str) -> Vec<PathBuf> {
    let module = module.replace("::", "/");
    let mut files = vec![source().join(format!("{module}.rs"))];
    let mut folders = vec![source().join(module)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let paths = entries.map(|entry| entry.expect("a readable folder").path());
        let (inner, found): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
        folders.extend(inner);
        files.extend(found);
    }
    files
}

/// Returns the names of the modules in a folder of `src/`, sorted.
pub(crate) fn children(module: &str) -> Vec<String> {
    let folder = source().join(module.replace("::", "/"));
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Returns the code of a file, without comments.
pub(crate) fn code(file: &Path) -> String {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns the path of the module that a file holds.
pub(crate) fn module_path(file: &Path) -> ModulePath {
    let path = file.strip_prefix(source()).expect("a file of src/").with_extension("");
    path.iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Returns all paths in the crate that the code of a module names: those that begin with `crate::`,
/// `self::` or `super::`, with lists in braces expanded.
pub(crate) fn uses(code: &str, module: &[String]) -> Vec<ModulePath> {
    let mut used = Vec::new();
    for keyword in ["crate", "self", "super"] {
        for (at, _) in code.match_indices(&format!("{keyword}::")) {
            let before = code[..at].chars().next_back();
            // Within a longer name or a longer path, such as the second half of `super::super::`.
            if before.is_some_and(|c| is_name_char(c) || c == ':') {
                continue;
            }
            let mut base = if keyword == "crate" { Vec::new() } else { module.to_vec() };
            if keyword == "super" {
                base.pop();
            }
            let mut rest = &code[at + keyword.len() + 2..];
            while let Some(next) = rest.strip_prefix("super::") {
                base.pop();
                rest = next;
            }
            expand(&base, rest, &mut used);
        }
    }
    used
}

/// Adds the paths at the beginning of a piece of code, such as `a::{b, c}`, and returns the rest.
pub(crate) fn expand<'a>(base: &[String], code: &'a str, used: &mut Vec<ModulePath>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = expand(base, rest, used).trim_start();
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let (name, rest) = code.split_at(code.find(|c| !is_name_char(c)).unwrap_or(code.len()));
    if name.is_empty() {
        return rest;
    }
    let path = [base, &[name.to_owned()]].concat();
    match rest.strip_prefix("::") {
        Some(next) => expand(&path, next, used),
        None => {
            used.push(path);
            rest.strip_prefix(" as ").map_or(rest, |alias| alias.trim_start_matches(is_name_char))
        }
    }
}

pub(crate) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the name of the child of a module that a path leads into.
pub(crate) fn child_of<'a>(path: &'a [String], module: &str) -> Option<&'a str> {
    let mut names = path.iter();
    let is_inside = module.split("::").all(|name| names.next().is_some_and(|other| other == name));
    names.next().map(String::as_str).filter(|_| is_inside)
}

/// Returns the code of a file before its inline unit tests, which may use any module.
pub(crate) fn without_unit_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(code)
}
