//! The pages of the documentation, and their parts: blocks of code, prose and tables.

use std::fs;
use std::path::{Path, PathBuf};

/// One Markdown file.
pub(crate) struct Page {
    /// The path from the repository's root.
    pub path: PathBuf,
    pub text: String,
}

/// A fenced block of code.
pub(crate) struct Block {
    /// The path and the line of its first line, for messages.
    pub place: String,
    /// The words after the opening fence.
    pub info: String,
    pub text: String,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every page: those at the root, all of `docs/`, and the READMEs of folders.
pub(crate) fn pages() -> Vec<Page> {
    let readmes = ["benches/README.md", "deploy/chart/README.md", "tests/README.md"];
    let mut paths = readmes.map(PathBuf::from).to_vec();
    paths.retain(|path| root().join(path).exists());
    paths.extend(files(Path::new("."), "md", Depth::Folder));
    paths.extend(files(Path::new("docs"), "md", Depth::Tree));
    paths.sort();
    paths.into_iter().map(|path| page(&path)).collect()
}

/// Reads one page by its path from the repository's root.
pub(crate) fn page(path: impl AsRef<Path>) -> Page {
    let path = path.as_ref().to_owned();
    let text = fs::read_to_string(root().join(&path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Page { path, text }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Depth {
    Folder,
    Tree,
}

/// Returns the files of a folder that have this extension, by their paths from the root.
pub(crate) fn files(folder: &Path, extension: &str, depth: Depth) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(root().join(folder))
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("a readable folder");
        let path = folder.join(entry.file_name());
        let path = path.strip_prefix(".").map(Path::to_owned).unwrap_or(path);
        if entry.path().is_dir() {
            if depth == Depth::Tree {
                found.extend(files(&path, extension, depth));
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

impl Page {
    /// Returns the fenced blocks. A block in a list loses the indentation of its fence.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(Block, usize)> = None;
        for (number, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    let place = format!("{}:{}", self.path.display(), number + 2);
                    let block = Block { place, info: info.trim().into(), text: String::new() };
                    open = Some((block, indent));
                }
                (Some(_), Some("")) => blocks.extend(open.take().map(|(block, _)| block)),
                (Some((block, fence)), _) => {
                    block.text.push_str(line.get((*fence).min(indent)..).unwrap_or_default());
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block does not end", self.path.display());
        blocks
    }

    /// Returns the text without its blocks, line by line; the lines of blocks are empty.
    pub(crate) fn prose(&self) -> Vec<&str> {
        let mut in_block = false;
        self.text
            .lines()
            .map(|line| {
                let is_fence = line.trim_start().starts_with("```");
                in_block ^= is_fence;
                if in_block || is_fence { "" } else { line }
            })
            .collect()
    }

    /// Returns everything in single backticks outside of blocks.
    pub(crate) fn quoted(&self) -> Vec<String> {
        let prose = self.prose().join("\n");
        prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// Returns the cells of all tables with these column heads, row by row, without the heads.
    pub(crate) fn table(&self, heads: &[&str]) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        let mut inside = false;
        for line in self.prose() {
            let Some(cells) = cells(line) else {
                inside = false;
                continue;
            };
            if cells == heads {
                inside = true;
            } else if inside && !cells.iter().all(|cell| cell.starts_with("---")) {
                rows.push(cells);
            }
        }
        assert!(!rows.is_empty(), "{}: there is no table {heads:?}", self.path.display());
        rows
    }
}

/// Splits a row of a table. A `\|` does not end a cell.
fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace("\\|", "\u{0}");
    Some(row.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect())
}

/// Returns what is in backticks in a cell.
pub(crate) fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
