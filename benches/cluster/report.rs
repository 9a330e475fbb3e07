//! The results as rows: a table for people, and JSON for the program that combines all figures.

use comfy_table::Table;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// The largest value that meets the goal, or none for a figure without a goal.
    pub goal: Option<f64>,
    pub reached: Option<bool>,
    pub detail: String,
}

impl Row {
    /// Returns a figure with a goal, if there is one, that its value must not exceed.
    pub(crate) fn at_most(
        goal: Option<f64>,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        detail: String,
    ) -> Row {
        Row {
            name: name.into(),
            value,
            unit,
            goal,
            reached: goal.map(|goal| value <= goal),
            detail,
        }
    }

    /// Returns a figure without a goal.
    pub(crate) fn without_goal(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        detail: String,
    ) -> Row {
        Row::at_most(None, name, value, unit, detail)
    }

    /// Marks the figure as invalid if something went wrong during the measurement.
    pub(crate) fn invalid_if(self, why: Option<String>) -> Row {
        let Some(why) = why else { return self };
        Row {
            reached: self.goal.map(|_| false),
            detail: format!("{}; WRONG: {why}", self.detail),
            ..self
        }
    }
}

pub(crate) fn json(rows: &[Row]) -> String {
    serde_json::to_string_pretty(rows).expect("plain data") + "\n"
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["figure", "measured", "to reach", "", "in detail"]);
    for row in rows {
        let goal = row.goal.map(|goal| format!("{goal} {}", row.unit)).unwrap_or_default();
        let reached = match row.reached {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "",
        };
        let value = format!("{:.*} {}", decimals(row.value), row.value, row.unit);
        table.add_row([row.name.as_str(), &value, &goal, reached, &row.detail]);
    }
    format!("{table}\n")
}

/// Returns the number of decimals for three digits. A shared machine measures no more.
fn decimals(value: f64) -> usize {
    match value.abs() {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    }
}
