//! The figures of the last run of each part, kept as JSON, so that a part can be measured again
//! without the others.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::namespace::run;
use crate::options::{Options, PARTS};
use crate::row::{self, Row};

/// The name of a part with its figures.
pub(crate) type Part = (String, Vec<Row>);

/// Replaces these parts in the file.
pub(crate) fn keep(file: &Path, parts: &[Part], options: &Options) -> Result<()> {
    let text = fs::read_to_string(file).unwrap_or_else(|_| "{}".to_owned());
    let kept: Value = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let all = merge(kept, parts, &circumstances(options)?);
    fs::write(file, serde_json::to_string_pretty(&all)? + "\n")
        .with_context(|| file.display().to_string())?;
    let page = file.with_file_name("README.md");
    match fs::read_to_string(&page) {
        Ok(text) => {
            fs::write(&page, show(&text, &all)?).with_context(|| page.display().to_string())
        }
        Err(_) => Ok(()),
    }
}

/// The first line of the page's generated part.
const BEGIN: &str = "<!-- figures -->\n";
const END: &str = "<!-- end of figures -->\n";

/// Replaces the figures in the page.
fn show(page: &str, all: &Value) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no place for the figures")?;
    let (_, after) = rest.split_once(END).context("the figures' place in the page has no end")?;
    let mut text = before.to_owned() + BEGIN;
    for part in PARTS {
        let Some(rows) = all["parts"][part]["rows"].as_array() else { continue };
        let rows: Vec<Row> = rows.iter().map(Row::from_json).collect::<Result<_>>()?;
        let said =
            |key: &str| all["parts"][part]["measured"][key].as_str().unwrap_or("?").to_owned();
        let (run, date, commit) = (said("run"), said("date"), said("commit"));
        let table = row::markdown(&rows);
        text.push_str(&format!("\n`{part}`: {run}, {date}, commit {commit}\n\n{table}"));
    }
    Ok(text + "\n" + END + after)
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

/// Describes the machine, the versions and the date of a measurement.
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
    say("commit", commit());
    let Options { time, rounds, .. } = options;
    say("run", format!("{rounds} x {} s", time.as_secs()));
    Ok(all.into())
}

/// Returns the measured commit. A tree with changes is marked; changed figures don't count.
fn commit() -> String {
    let git = |arguments: &[&str]| run(Command::new("git").args(arguments));
    let Ok(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".into() };
    let clean = git(&[
        "diff",
        "--quiet",
        "HEAD",
        "--",
        ":/",
        ":!/benches/results.json",
        ":!/benches/README.md",
    ])
    .is_ok();
    commit.trim().to_owned() + if clean { "" } else { " and changes" }
}

/// Reads a JSON array of rows.
pub(crate) fn read_rows(file: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let rows: Vec<Value> =
        serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    rows.iter().map(Row::from_json).collect()
}

pub(crate) fn write_rows(file: &Path, rows: &[Row]) -> Result<()> {
    let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
    fs::write(file, Value::from(rows).to_string()).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_figures_and_keeps_the_rest() {
        let row = Row::new("tcp: baseline", 1.0, "us/check", "");
        let all = merge(Value::Null, &[("tcp".into(), vec![row])], &json!({"date": "today"}));
        let page = format!("before\n{BEGIN}old figures\n{END}after\n");
        let shown = show(&page, &all).expect("a page");
        assert!(
            shown.starts_with("before\n") && shown.ends_with("after\n") && !shown.contains("old"),
            "{shown}"
        );
        assert!(shown.contains("| tcp: baseline | 1.000 us/check |"), "{shown}");
        assert_eq!(show(&shown, &all).expect("the same page"), shown);
        assert!(show("no place", &all).is_err());
    }

    #[test]
    fn a_part_takes_the_place_of_its_old_figures_only() {
        let row = |value: f64| Row::new("tcp: baseline", value, "us/check", "");
        let old = merge(
            Value::Null,
            &[("tcp".into(), vec![row(1.0)]), ("http".into(), vec![row(2.0)])],
            &json!("old"),
        );
        let new = merge(old, &[("tcp".into(), vec![row(3.0)])], &json!("new"));
        assert_eq!(new["parts"]["tcp"]["rows"][0]["value"], 3.0);
        assert_eq!(new["parts"]["tcp"]["measured"], "new");
        assert_eq!(new["parts"]["http"]["rows"][0]["value"], 2.0);
        assert_eq!(new["parts"]["http"]["measured"], "old");
    }
}
