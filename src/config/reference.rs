//! Writes docs/reference/config.md from the JSON Schema: every key with its type, default, limits
//! and help.

use std::collections::VecDeque;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::kinds;
use super::schema::annotated_schema;

const INTRO: &str = "\
# Config reference

<!-- Generated: do not edit, but run `UPDATE_DOCS=1 cargo test --test config generated`. -->

The config is one YAML file. It lists the databases, and may hold defaults for all of them:

```yaml config
apiVersion: external-endpoints/v1
kind: Config
defaults:
  check: {interval: 5s, tcp: {}}
databases:
- service: mysql
  namespace: prod
  port: 3306
  addresses: [10.20.0.11, 10.20.0.12]
```

This page lists every key. `external-endpoints validate FILE` checks a file and reports all its
mistakes at once; with `--explain` it prints the file with every default written out. It also reads
standard input (`-`), folders, and the manifests of ConfigMaps, whose mistakes it reports with the
lines of the manifest. For CI there are `-o json`, `-o github` and `--deny-warnings`.

Editors complete and check the keys if the file begins with this comment:

```yaml config
# yaml-language-server: $schema=schema.json
databases:
- {service: mysql, port: 3306, addresses: [10.20.0.11], check: {tcp: {}}}
```

`schema.json` is the path, relative to the file, or the URL of `config/schema.json`, or of the
output of `external-endpoints schema`. Its `$id`, `urn:external-endpoints:config:v1`, is a name and
no address.

## Versions of the language

Write `apiVersion` and `kind`: they say to people and to programs which file this is. A file without
them is read as `external-endpoints/v1`.

- Within `external-endpoints/v1`, keys and values keep their meaning, and defaults keep their value.
  Keys may be added.
- A key that is to go is deprecated first: it works as before for at least a year and two minor
  versions of the program, and `validate` warns of it and says what to write instead.
- A change that is not possible in this way makes a new version of the language. A program that
  reads it reads the one before for at least a year, too.
- A file of a newer version than the program reads is an error. The daemon then keeps the config in
  force.

## Rules for all keys

- A duration is a number with a unit: `ms`, `s`, `m` or `h`, as in `500ms`, `5s` or `1m 30s`.
- A number in quotes is text in YAML. Texts that look like numbers or like `true` need quotes.
- A check may stand in `defaults`, in a database and in an address. Each layer overrides single keys
  of the layer below it; lists are replaced as a whole. A database may replace the kind of check
  of `defaults` by another kind; an address keeps the kind of its database.
- A file may have at most 10 MiB.
";

/// Returns docs/reference/config.md.
pub fn reference() -> String {
    let schema: Value = annotated_schema().into();
    let mut page = Page { schema: &schema, sections: Vec::new() };
    page.collect();
    let mut out = INTRO.to_owned();
    for section in &page.sections {
        page.write_section(section, &mut out);
    }
    out
}

/// The page while it is written.
struct Page<'a> {
    schema: &'a Value,
    sections: Vec<Section<'a>>,
}

/// One mapping of the config, with the paths at which it may stand.
struct Section<'a> {
    /// The name of the definition in the schema. It is empty for the file as a whole.
    name: &'a str,
    definition: &'a Value,
    paths: Vec<String>,
}

impl<'a> Page<'a> {
    /// Finds every mapping, from the file inwards, and all paths that lead to it.
    fn collect(&mut self) {
        let mut queue = VecDeque::from([("", self.schema, String::new())]);
        while let Some((name, definition, path)) = queue.pop_front() {
            match self.sections.iter_mut().find(|section| section.name == name) {
                Some(section) if section.paths.contains(&path) => continue,
                Some(section) => section.paths.push(path.clone()),
                None => {
                    self.sections.push(Section { name, definition, paths: vec![path.clone()] });
                }
            }
            for (key, property) in properties(definition) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                for (name, path) in inner_mappings(self.schema, property, &path) {
                    queue.push_back((name, definition_of(self.schema, name), path));
                }
            }
        }
    }

    fn write_section(&self, section: &Section, out: &mut String) {
        let _ = write!(out, "\n## {}\n\n", section.title());
        out.push_str(&wrap(text_of(section.definition, "description")));
        if section.paths.len() > 1 {
            let paths: Vec<_> = section.paths.iter().map(|path| format!("- `{path}`\n")).collect();
            let _ = write!(out, "\nWhere it may stand:\n\n{}", paths.concat());
        }
        out.push_str(
            "\n| Key | Type | Default | Limits | Meaning |\n| --- | --- | --- | --- | --- |\n",
        );
        for (key, property) in properties(section.definition) {
            let default = if is_required(section.definition, key) {
                "required".to_owned()
            } else {
                property
                    .get("default")
                    .map(|value| format!("`{}`", show(value)))
                    .unwrap_or_default()
            };
            let kind = self.type_of(property);
            let limits = limits(property);
            // The type of some scalars names the limits already.
            let limits = if kind.ends_with(&limits) { "" } else { &limits };
            let help = text_of(property, "description");
            let help = if help.is_empty() { self.help_of_target(property) } else { help };
            let _ = writeln!(out, "| `{key}` | {kind} | {default} | {limits} | {} |", cell(help));
        }
        let kind = section.title();
        let examples = kinds::examples();
        if let Some((_, example)) =
            examples.iter().find(|(name, _)| kind == format!("`check.{name}`"))
        {
            let _ = write!(out, "\nExample:\n\n```yaml config\n{example}```\n");
        }
    }

    /// Returns the help of the mapping that a key holds.
    fn help_of_target(&self, property: &'a Value) -> &'a str {
        let target = reference_of(property).map(|name| definition_of(self.schema, name));
        target.map_or("", |target| text_of(target, "description"))
    }

    /// Returns the type of a value in words, with links to mappings.
    fn type_of(&self, property: &Value) -> String {
        if let Some(kind) = property.get("x-type").and_then(Value::as_str) {
            return cell(kind);
        }
        if let Some(name) = reference_of(property) {
            let definition = definition_of(self.schema, name);
            return match self.sections.iter().find(|section| section.name == name) {
                Some(section) => section.link(),
                None => self.type_of(definition),
            };
        }
        if let Some(alternatives) = property.get("anyOf").and_then(Value::as_array) {
            let types: Vec<_> = alternatives.iter().map(|one| self.type_of(one)).collect();
            return types.join(" or ");
        }
        if let Some(items) = property.get("items") {
            return format!("list; each item is {}", self.type_of(items));
        }
        match property.get("additionalProperties") {
            Some(values) => format!("mapping from a name to {}", self.type_of(values)),
            None => text_of(property, "type").to_owned(),
        }
    }
}

impl Section<'_> {
    /// Returns the heading: the part that all paths end with, or the one key of a form of a value.
    fn title(&self) -> String {
        if self.paths[0].is_empty() {
            return "The file".into();
        }
        let keys: Vec<_> = properties(self.definition).map(|(key, _)| key.as_str()).collect();
        if let [key] = keys[..]
            && is_required(self.definition, key)
        {
            return format!("`{{{key}: …}}`");
        }
        let reversed = |path: &str| path.rsplit('.').map(str::to_owned).collect::<Vec<_>>();
        let mut common = reversed(&self.paths[0]);
        for path in &self.paths[1..] {
            let other = reversed(path);
            let length = common.iter().zip(&other).take_while(|(one, other)| one == other).count();
            common.truncate(length);
        }
        common.reverse();
        format!("`{}`", common.join("."))
    }

    /// Returns a link to the heading.
    fn link(&self) -> String {
        let title = self.title();
        let is_kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
        let anchor: String = title.to_lowercase().chars().filter(is_kept).collect();
        format!("[{title}](#{})", anchor.replace(' ', "-"))
    }
}

fn properties(definition: &Value) -> impl Iterator<Item = (&String, &Value)> {
    definition.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn is_required(definition: &Value, key: &str) -> bool {
    let required = definition.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|name| name == key))
}

fn text_of<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the name of the definition that a schema refers to.
fn reference_of(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str)?.strip_prefix("#/$defs/")
}

fn definition_of<'a>(schema: &'a Value, name: &str) -> &'a Value {
    schema.get("$defs").and_then(|defs| defs.get(name)).unwrap_or(&Value::Null)
}

/// Returns the mappings that a value may be or hold, each with its path.
fn inner_mappings<'a>(
    schema: &'a Value,
    property: &'a Value,
    path: &str,
) -> Vec<(&'a str, String)> {
    if let Some(name) = reference_of(property) {
        let definition = definition_of(schema, name);
        return if definition.get("properties").is_some() {
            vec![(name, path.to_owned())]
        } else {
            inner_mappings(schema, definition, path)
        };
    }
    if let Some(items) = property.get("items") {
        return inner_mappings(schema, items, &format!("{path}[]"));
    }
    if let Some(values) = property.get("additionalProperties") {
        return inner_mappings(schema, values, &format!("{path}.NAME"));
    }
    let alternatives = property.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    alternatives.flat_map(|one| inner_mappings(schema, one, path)).collect()
}

/// Returns the limits of a value in words.
fn limits(property: &Value) -> String {
    let number = |key: &str| property.get(key).and_then(Value::as_u64);
    let mut limits = Vec::new();
    if let Some(text) = property.get("x-limits").and_then(Value::as_str) {
        limits.push(text.to_owned());
    }
    match (number("minimum"), number("maximum")) {
        (Some(min), Some(max)) => limits.push(format!("{min} to {max}")),
        (Some(min), None) => limits.push(format!("at least {min}")),
        _ => {}
    }
    match (number("minLength"), number("maxLength")) {
        (_, Some(max)) => limits.push(format!("at most {max} characters")),
        (Some(_), None) => limits.push("not empty".into()),
        _ => {}
    }
    if number("minItems").is_some() {
        limits.push("not empty".into());
    }
    limits.join(", ")
}

/// Returns a value as it is written in the config.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Returns a text that fits a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Wraps a text at 100 columns.
fn wrap(text: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > 100 {
            out.push('\n');
            width = 0;
        }
        if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += length;
    }
    out.push('\n');
    out
}
