//! Finds the configs in a file that may be a manifest: a ConfigMap has its configs as texts.
//!
//! | document of the file | is read as |
//! | --- | --- |
//! | has `databases`, `defaults` or our `apiVersion` | a config |
//! | a ConfigMap, or a List of these | one config for each text in it that is one |
//! | another object of Kubernetes | nothing |
//! | any other, in a file without manifests | a config, which is then bad |
//!
//! A config in a ConfigMap is read where it stands: all lines around it are blanked, and its own
//! keep their indentation, which means nothing to YAML. So a mistake has the line and the column of
//! the manifest. A text in quotes has no lines of its own, so its mistakes stand at its beginning.

use std::path::Path;
use std::sync::Arc;

use serde_saphyr::granit_parser::ScalarStyle;

use super::compile::Options;
use super::load::{LoadedConfig, ReadError, parse, parse_bytes};
use super::problem::{Collector, Position, Problems, Span};
use super::yaml::node::{Entry, Node, NodeKind};
use super::yaml::tree;

/// The greatest number of configs in one file. Each is read on its own.
const MAX_CONFIGS: usize = 100;

/// The keys of a ConfigMap whose text is a config, whatever it holds.
const CONFIG_KEYS: [&str; 2] = ["config.yaml", "config.yml"];

/// The way in which a file was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A person named it, so it must hold a config.
    Named,
    /// One of a folder, which need not hold any.
    OfFolder,
}

/// A config in a file.
#[derive(Debug, Clone)]
pub struct FoundConfig {
    /// The ConfigMap and its key; none for a config that is a document of the file.
    pub place: Option<String>,
    /// The config, or what is wrong with it.
    pub loaded: Result<LoadedConfig, Problems>,
}

/// Reads all configs in the content of a file.
pub fn parse_all(
    path: &Path,
    content: Result<Vec<u8>, ReadError>,
    options: &Options,
    choice: Choice,
) -> Vec<FoundConfig> {
    let name = path.display().to_string();
    let whole = |loaded| vec![FoundConfig { place: None, loaded }];
    let bytes = match content {
        Ok(bytes) => bytes,
        Err(error) => return whole(parse_bytes(path, Err(error), options)),
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return whole(parse_bytes(path, Ok(bytes), options));
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents = documents(text);
    if !documents.iter().any(|document| document.is_manifest()) {
        let is_config = documents.iter().any(|it| matches!(it.kind, Kind::Config | Kind::Bad));
        if choice == Choice::OfFolder && !is_config {
            return Vec::new();
        }
        return whole(parse(&name, text, options));
    }
    let mut sources: Vec<Source> = documents.iter().flat_map(Document::sources).collect();
    if sources.len() > MAX_CONFIGS {
        let message =
            format!("has {} configs; validate at most {MAX_CONFIGS} in one file", sources.len());
        return whole(Err(Problems::whole_file(&name, message)));
    }
    if sources.is_empty() && choice == Choice::Named {
        let message = "has no config; give a config, or a ConfigMap with a config under the key \
                       `config.yaml`";
        return whole(Err(Problems::whole_file(&name, message.into())));
    }
    sources.drain(..).map(|source| source.read(&name, options)).collect()
}

/// A document of a file.
struct Document<'a> {
    /// The lines of the file before it.
    lines_before: usize,
    text: &'a str,
    kind: Kind,
}

enum Kind {
    /// No content.
    Empty,
    Config,
    /// An object of Kubernetes. Those other than ConfigMaps have no configs.
    Manifest(Arc<Node>),
    /// No valid YAML.
    Bad,
    Other,
}

/// Splits a file into its documents. A line that begins with `---` begins one, wherever it stands:
/// YAML allows no text to have such a line.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut lines_before, mut end) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_marker && end > start {
            documents.push(Document::new(&text[start..end], lines_before));
            (start, lines_before) = (end, number);
        }
        end += line.len();
    }
    documents.push(Document::new(&text[start..], lines_before));
    documents
}

impl<'a> Document<'a> {
    fn new(text: &'a str, lines_before: usize) -> Self {
        let content = text.strip_prefix("---").unwrap_or(text);
        if content.lines().all(|line| line.trim().is_empty() || is_comment(line)) {
            return Self { lines_before, text, kind: Kind::Empty };
        }
        let kind = match tree::parse(text, &mut Collector::default()) {
            Err(_) => Kind::Bad,
            Ok(root) => Kind::new(root),
        };
        Self { lines_before, text, kind }
    }

    fn is_manifest(&self) -> bool {
        matches!(self.kind, Kind::Manifest(_))
    }

    /// Returns the configs in it.
    fn sources(&self) -> Vec<Source> {
        match &self.kind {
            Kind::Config | Kind::Bad => {
                let text = "\n".repeat(self.lines_before) + self.text;
                vec![Source { place: None, text, moved_to: None }]
            }
            Kind::Manifest(root) => self.sources_of(root),
            Kind::Empty | Kind::Other => Vec::new(),
        }
    }

    /// Returns the configs in a ConfigMap, or in those of a List.
    fn sources_of(&self, object: &Node) -> Vec<Source> {
        if let Some(NodeKind::List(items)) = object.get("items").map(|items| &items.kind) {
            let items = items.iter().filter(|item| item.is_config_map());
            return items.flat_map(|item| self.sources_of(item)).collect();
        }
        let Some(NodeKind::Map(data)) = object.get("data").map(|data| &data.kind) else {
            return Vec::new();
        };
        if !object.is_config_map() {
            return Vec::new();
        }
        let metadata = object.get("metadata");
        let text = |key| metadata.map_or("", |metadata| metadata.text_at(key));
        let name = match (text("namespace"), text("name")) {
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        let configs = data.iter().filter(|entry| is_config(entry));
        configs
            .map(|entry| {
                let place = Some(format!("ConfigMap {name}, {}", entry.key));
                match self.block_in_place(entry) {
                    Some(text) => Source { place, text, moved_to: None },
                    None => {
                        let Span { line, column, .. } = entry.value.span;
                        let line = self.lines_before + line as usize;
                        let position = Position { line, column: column as usize };
                        let text = entry.value.text().to_owned();
                        Source { place, text, moved_to: Some(position) }
                    }
                }
            })
            .collect()
    }

    /// Returns the text of a block that begins with `|`, with all lines before it blank. Returns
    /// none for a text in another style, whose lines are not those of the file.
    fn block_in_place(&self, entry: &Entry) -> Option<String> {
        let NodeKind::Scalar(scalar) = &entry.value.kind else { return None };
        if scalar.style != ScalarStyle::Literal {
            return None;
        }
        let (header, key_indent) =
            (entry.key_span.line as usize, entry.key_span.column as usize - 1);
        let lines: Vec<&str> = self.text.lines().skip(header).collect();
        let is_inside = |line: &&&str| line.trim().is_empty() || indent(line) > key_indent;
        let lines: Vec<&str> = lines.iter().take_while(is_inside).copied().collect();
        let indentation = indent(lines.iter().find(|line| !line.trim().is_empty())?);
        let dedented =
            lines.iter().map(|line| line.get(indentation..).unwrap_or_default().trim_end());
        if !dedented.eq(trailing_blank(&scalar.text, lines.len())) {
            return None;
        }
        let mut text = "\n".repeat(self.lines_before + header);
        let mut has_content = false;
        for line in lines {
            // Indented, the marker of a document would be a text. On top it has no effect.
            let is_marker =
                ["---", "..."].iter().any(|marker| line.trim_start().starts_with(marker));
            if is_marker && (has_content || line.trim() != "---") {
                return None;
            }
            has_content |= !line.trim().is_empty() && !is_comment(line);
            text.push_str(if is_marker { "" } else { line });
            text.push('\n');
        }
        Some(text)
    }
}

impl Kind {
    fn new(root: Arc<Node>) -> Self {
        let NodeKind::Map(entries) = &root.kind else {
            return if root.text().is_empty() { Self::Empty } else { Self::Other };
        };
        let version = root.text_at("apiVersion");
        let has = |key: &str| entries.iter().any(|entry| entry.key == key);
        if version.starts_with("external-endpoints/") || has("databases") {
            Self::Config
        } else if !version.is_empty() && has("kind") {
            Self::Manifest(root)
        } else if has("defaults") {
            Self::Config
        } else {
            Self::Other
        }
    }
}

/// A config, as it is to be read.
struct Source {
    place: Option<String>,
    text: String,
    /// The place of all mistakes, for a text that is not read where it stands.
    moved_to: Option<Position>,
}

impl Source {
    fn read(self, file: &str, options: &Options) -> FoundConfig {
        let mut loaded = parse(file, &self.text, options);
        if let Some(position) = self.moved_to {
            match &mut loaded {
                Ok(loaded) => loaded.warnings.move_to(position),
                Err(problems) => problems.move_to(position),
            }
        }
        FoundConfig { place: self.place, loaded }
    }
}

/// Returns whether the text of a ConfigMap is a config.
fn is_config(entry: &Entry) -> bool {
    let text = entry.value.text();
    CONFIG_KEYS.contains(&entry.key.as_str())
        || documents(text).iter().any(|document| matches!(document.kind, Kind::Config))
}

/// Returns this number of lines: those of a text without spaces at their ends, and blank ones.
fn trailing_blank(text: &str, count: usize) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end).chain(std::iter::repeat("")).take(count)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}
