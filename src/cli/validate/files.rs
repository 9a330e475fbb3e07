//! The files that `validate` reads: those of the command line, and those in its folders.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Choice;

/// The deepest folder that is read, counted from the one of the command line.
const MAX_DEPTH: usize = 16;

/// The greatest number of files in one folder and those below it.
const MAX_FILES: usize = 10_000;

/// A file to read.
#[derive(Debug, PartialEq)]
pub(super) struct ConfigPath {
    pub path: PathBuf,
    /// The way in which it was chosen, or what is wrong with it.
    pub choice: Result<Choice, String>,
}

/// Returns the files of a path. In a folder these are the files in YAML, by name, also those in
/// folders below it. Names that begin with a dot are left out: they are folders of Git, and copies
/// of the kubelet.
pub(super) fn expand(path: &Path) -> Vec<ConfigPath> {
    if path.is_dir() {
        return files_of(path);
    }
    vec![ConfigPath { path: path.to_owned(), choice: Ok(Choice::Named) }]
}

fn files_of(folder: &Path) -> Vec<ConfigPath> {
    let mut files = Vec::new();
    collect(folder, 0, &mut files);
    if files.is_empty() {
        let message = "has no file that ends with .yaml or .yml; give a folder that has some";
        files.push(ConfigPath { path: folder.to_owned(), choice: Err(message.into()) });
    }
    files
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<ConfigPath>) {
    let mut fail = |message: String| {
        files.push(ConfigPath { path: folder.to_owned(), choice: Err(message) });
    };
    if depth > MAX_DEPTH {
        return fail(format!("is more than {MAX_DEPTH} folders deep; give a folder further down"));
    }
    let entries: Result<Vec<_>, _> = fs::read_dir(folder).and_then(Iterator::collect);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => return fail(format!("can't be read: {error}; give a readable folder")),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        // A link to a folder may lead back, so links are only followed to files.
        if entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
            collect(&path, depth + 1, files);
        } else if path.extension().is_some_and(|it| it == "yaml" || it == "yml") && !path.is_dir() {
            files.push(ConfigPath { path, choice: Ok(Choice::OfFolder) });
        }
        if files.len() > MAX_FILES {
            let message = format!("has more than {MAX_FILES} files; give a smaller folder");
            *files = vec![ConfigPath { path: folder.to_owned(), choice: Err(message) }];
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_files_in_yaml_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for path in ["b.yaml", "a.yml", "notes.txt", ".hidden.yaml", "sub/c.yaml", ".git/d.yaml"] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, "").expect("a file");
        }
        // As the kubelet mounts a ConfigMap.
        std::os::unix::fs::symlink("sub/c.yaml", root.join("mounted.yaml")).expect("a link");
        std::os::unix::fs::symlink(".", root.join("loop")).expect("a link");
        std::os::unix::fs::symlink(".", root.join("loop.yaml")).expect("a link");
        let paths = [root.to_owned(), root.join("b.yaml"), "-".into()];
        let files: Vec<ConfigPath> = paths.iter().flat_map(|path| expand(path)).collect();
        let expected = [
            (root.join("a.yml"), Choice::OfFolder),
            (root.join("b.yaml"), Choice::OfFolder),
            (root.join("mounted.yaml"), Choice::OfFolder),
            (root.join("sub/c.yaml"), Choice::OfFolder),
            (root.join("b.yaml"), Choice::Named),
            ("-".into(), Choice::Named),
        ];
        let expected = expected.map(|(path, choice)| ConfigPath { path, choice: Ok(choice) });
        assert_eq!(files, expected);
    }

    #[test]
    fn a_folder_without_files_and_one_too_deep_say_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = |files: Vec<ConfigPath>| files[0].choice.clone().expect_err("an error");
        assert!(error(expand(folder.path())).contains("no file that ends with"));
        let deep = "a/".repeat(MAX_DEPTH + 1);
        fs::create_dir_all(folder.path().join(deep)).expect("a folder");
        assert!(error(expand(folder.path())).contains("folders deep"));
    }
}
