//! The figures of the last run of each part, kept as JSON, so that a part can be measured again without the others.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::namespace::run;
use crate::options::Options;
use crate::row::Row;

/// A part's name, and its figures.
pub type Part = (String, Vec<Row>);

/// Puts these parts in the place of what the file has of them.
pub fn keep(file: &Path, parts: &[Part], options: &Options) -> Result<()> {
    let text = fs::read_to_string(file).unwrap_or_else(|_| "{}".to_owned());
    let kept: Value = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let text = serde_json::to_string_pretty(&merge(kept, parts, &circumstances(options)?))?;
    fs::write(file, text + "\n").with_context(|| file.display().to_string())
}

fn merge(mut kept: Value, parts: &[Part], circumstances: &Value) -> Value {
    if !kept["parts"].is_object() {
        kept = json!({"parts": {}});
    }
    for (name, rows) in parts {
        let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
        kept["parts"][name] = json!({"measured": circumstances, "rows": rows});
    }
    kept
}

/// On what, with what and when it was measured.
fn circumstances(options: &Options) -> Result<Value> {
    let mut all = Map::new();
    let mut say = |key: &str, value: String| all.insert(key.to_owned(), value.trim().into());
    say("date", run(Command::new("date").args(["-u", "+%F"]))?);
    say("kernel", fs::read_to_string("/proc/sys/kernel/osrelease")?);
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let models: Vec<&str> = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name)
        .collect();
    say("cpus", format!("{} x {}", models.len(), models.first().unwrap_or(&"unknown")));
    let haproxy = run(Command::new("haproxy").arg("-v"))?;
    say("haproxy", haproxy.lines().next().unwrap_or_default().to_owned());
    // Figures of a tree that no commit holds are told apart.
    say(
        "commit",
        run(Command::new("git").args(["describe", "--always", "--dirty"])).unwrap_or_else(|_| "unknown".into()),
    );
    let Options { time, rounds, .. } = options;
    say("run", format!("{rounds} rounds of {} s", time.as_secs()));
    Ok(all.into())
}

/// What a program wrote as a JSON array of rows.
pub fn read_rows(file: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let rows: Vec<Value> = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    rows.iter().map(Row::from_json).collect()
}

pub fn write_rows(file: &Path, rows: &[Row]) -> Result<()> {
    let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
    fs::write(file, Value::from(rows).to_string()).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_the_place_of_its_old_figures_only() {
        let row = |value: f64| Row::new("tcp: floor", value, "us/check", "");
        let old = merge(Value::Null, &[("tcp".into(), vec![row(1.0)]), ("http".into(), vec![row(2.0)])], &json!("old"));
        let new = merge(old, &[("tcp".into(), vec![row(3.0)])], &json!("new"));
        assert_eq!(new["parts"]["tcp"]["rows"][0]["value"], 3.0);
        assert_eq!(new["parts"]["tcp"]["measured"], "new");
        assert_eq!(new["parts"]["http"]["rows"][0]["value"], 2.0);
        assert_eq!(new["parts"]["http"]["measured"], "old");
    }
}
