//! The report of `validate`: for people, as JSON, or as annotations for GitHub Actions.

use std::path::Path;

use serde::Serialize;

use crate::cli::console::{Console, Reported, print};
use crate::cli::output::{Format, print_document};
use crate::config::{Database, FoundConfig, Problem, Problems, Spec};

/// The format of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReportFormat {
    /// A line for each problem on standard error, and one for each good config
    Text,
    /// One JSON object
    Json,
    /// Workflow commands, which GitHub shows at the lines of a pull request
    Github,
}

/// The report, as it grows.
pub(super) struct Report {
    format: ReportFormat,
    count: usize,
    errors: usize,
    warnings: usize,
    configs: Vec<ConfigJson>,
}

/// A config in the report, in JSON.
#[derive(Serialize)]
struct ConfigJson {
    file: String,
    /// The ConfigMap and its key; null for a config that is a document of the file.
    place: Option<String>,
    good: bool,
    /// The numbers of databases, addresses, and names among these; null for a bad config.
    databases: Option<usize>,
    addresses: Option<usize>,
    names: Option<usize>,
    errors: Vec<ProblemJson>,
    warnings: Vec<ProblemJson>,
}

/// A problem in the report, in JSON.
#[derive(Serialize)]
struct ProblemJson {
    /// The line and the column, from 1; null for the whole file.
    line: Option<usize>,
    column: Option<usize>,
    /// The path of keys; empty for the whole file and for bad YAML.
    path: String,
    message: String,
}

/// The whole report in JSON.
#[derive(Serialize)]
struct ReportJson<'a> {
    good: bool,
    errors: usize,
    warnings: usize,
    configs: &'a [ConfigJson],
}

impl Report {
    /// Returns an empty report.
    pub(super) fn new(format: ReportFormat) -> Self {
        Self { format, count: 0, errors: 0, warnings: 0, configs: Vec::new() }
    }

    /// Returns the number of configs so far.
    pub(super) fn configs(&self) -> usize {
        self.count
    }

    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn warnings(&self) -> usize {
        self.warnings
    }

    /// Counts the problems of a config.
    pub(super) fn count(&mut self, found: &FoundConfig) {
        self.count += 1;
        match &found.loaded {
            Ok(loaded) => self.warnings += loaded.warnings.len(),
            Err(problems) => self.errors += problems.len(),
        }
    }

    /// Adds a config.
    pub(super) fn add(&mut self, path: &Path, found: &FoundConfig) -> Result<(), Reported> {
        self.count(found);
        match self.format {
            ReportFormat::Json => {
                self.configs.push(ConfigJson::new(path, found));
                return Ok(());
            }
            ReportFormat::Text => match &found.loaded {
                Ok(loaded) => Console::Stderr.report_warnings(&loaded.warnings),
                Err(problems) => {
                    Console::Stderr.fail_config(problems);
                }
            },
            ReportFormat::Github => {
                let (level, problems) = match &found.loaded {
                    Ok(loaded) => ("warning", &loaded.warnings),
                    Err(problems) => ("error", problems),
                };
                print(&annotations(level, path, problems))?;
            }
        }
        let Ok(loaded) = &found.loaded else { return Ok(()) };
        let place = found.place.as_ref().map(|place| format!(" {place}:")).unwrap_or_default();
        print(&format!("{}:{place} good; {}\n", path.display(), summary(&loaded.spec)))
    }

    /// Prints what can only be printed at the end.
    pub(super) fn end(&self) -> Result<(), Reported> {
        if self.format != ReportFormat::Json {
            return Ok(());
        }
        let &Self { errors, warnings, ref configs, .. } = self;
        let report = ReportJson { good: errors == 0, errors, warnings, configs };
        print_document(Format::Json, &report)
    }
}

impl ConfigJson {
    fn new(path: &Path, found: &FoundConfig) -> Self {
        let problems = |problems: &Problems| problems.iter().map(ProblemJson::new).collect();
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        let mut numbers = [None; 3];
        match &found.loaded {
            Ok(loaded) => {
                warnings = problems(&loaded.warnings);
                numbers = counts(&loaded.spec).map(Some);
            }
            Err(found) => errors = problems(found),
        }
        let [databases, addresses, names] = numbers;
        Self {
            file: path.display().to_string(),
            place: found.place.clone(),
            good: found.loaded.is_ok(),
            databases,
            addresses,
            names,
            errors,
            warnings,
        }
    }
}

impl ProblemJson {
    fn new(problem: &Problem) -> Self {
        Self {
            line: problem.position.map(|position| position.line),
            column: problem.position.map(|position| position.column),
            path: problem.path.clone(),
            message: problem.message.clone(),
        }
    }
}

fn summary(spec: &Spec) -> String {
    let [databases, addresses, names] = counts(spec);
    let of_them = if names == 0 { String::new() } else { format!(", names among them: {names}") };
    format!("databases: {databases}, addresses: {addresses}{of_them}")
}

/// Returns the number of databases, of addresses, and of names among these.
fn counts(spec: &Spec) -> [usize; 3] {
    let count = |of: fn(&Database) -> usize| -> usize {
        spec.databases.iter().map(|database| of(database)).sum()
    };
    let (ips, names) =
        (count(|database| database.addresses.len()), count(|database| database.names.len()));
    [spec.databases.len(), ips + names, names]
}

/// Returns the workflow commands for problems.
fn annotations(level: &str, path: &Path, problems: &Problems) -> String {
    let file = path.display().to_string();
    let annotation = |problem: &Problem| {
        let mut properties = Vec::new();
        // Standard input is no file of the repository.
        if file != "-" {
            properties.push(format!("file={}", escape(&file, &[':', ','])));
        }
        if let Some(position) = problem.position {
            properties.push(format!("line={},col={}", position.line, position.column));
        }
        let colon = if problem.path.is_empty() { "" } else { ": " };
        let message = escape(&format!("{}{colon}{}", problem.path, problem.message), &[]);
        format!("::{level} {}::{message}\n", properties.join(","))
    };
    let mut lines: String = problems.iter().map(annotation).collect();
    let omitted = problems.len() - problems.iter().count();
    if omitted > 0 {
        lines += &format!("::{level}::and {omitted} more problems\n");
    }
    lines
}

/// Escapes a text for a workflow command: control characters always, and these as well.
fn escape(text: &str, more: &[char]) -> String {
    let escaped = |char: char| match char {
        '%' | '\r' | '\n' => format!("%{:02X}", u32::from(char)),
        char if more.contains(&char) => format!("%{:02X}", u32::from(char)),
        char => char.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, parse};

    #[test]
    fn an_annotation_is_one_line_whatever_the_file_is_called() {
        let text = "databases: [{service: a, port: 0, addresses: [192.0.2.1], check: {tcp: {}}}]";
        let problems = parse("x", text, &Options::default()).expect_err("a bad config");
        let file = "a,b:c%\n::error::d.yaml";
        let line = annotations("error", Path::new(file), &problems);
        let start = "::error file=a%2Cb%3Ac%25%0A%3A%3Aerror%3A%3Ad.yaml,line=1,col=32::\
                     databases[0].port: ";
        assert!(line.starts_with(start), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
        let line = annotations("error", Path::new("-"), &problems);
        assert!(line.starts_with("::error line=1,col=32::"), "{line}");
    }
}
