//! One figure of the result, as a line of the table and as JSON.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// The largest value that meets the goal.
    pub goal: Option<f64>,
    pub reached: Option<bool>,
    /// An explanation of the value.
    pub detail: String,
}

impl Row {
    pub(crate) fn new(
        name: impl Into<String>,
        value: f64,
        unit: &str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.to_owned(),
            goal: None,
            reached: None,
            detail: detail.into(),
        }
    }

    /// Sets the largest value that meets the goal.
    pub(crate) fn at_most(self, goal: f64) -> Self {
        Self { goal: Some(goal), reached: Some(self.value.abs() <= goal), ..self }
    }

    pub(crate) fn to_json(&self) -> Value {
        let value = (self.value * 1000.0).round() / 1000.0;
        let Self { name, unit, goal, reached, detail, .. } = self;
        json!({
            "name": name, "value": value, "unit": unit,
            "goal": goal, "reached": reached, "detail": detail,
        })
    }

    pub(crate) fn from_json(row: &Value) -> Result<Self> {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            name: row["name"]
                .as_str()
                .with_context(|| format!("a row without a name: {row}"))?
                .to_owned(),
            value: row["value"]
                .as_f64()
                .with_context(|| format!("a row without a value: {row}"))?,
            unit: text("unit"),
            goal: row["goal"].as_f64(),
            reached: row["reached"].as_bool(),
            detail: text("detail"),
        })
    }
}

/// Formats a table for a terminal.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = ["figure", "value", "", "goal", "", "how"].map(str::to_owned);
    let lines = rows.iter().map(|row| {
        let goal = row
            .goal
            .map_or_else(String::new, |goal| format!("<= {}", (goal * 100.0).round() / 100.0));
        let reached = match row.reached {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        [
            row.name.clone(),
            number(row.value),
            row.unit.clone(),
            goal,
            reached.to_owned(),
            row.detail.clone(),
        ]
    });
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(lines).collect();
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |line: &[String; 6]| {
        let mut text = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            // Aligns numbers to the right.
            let cell =
                if column == 1 { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            text.push_str(&cell);
            text.push_str("  ");
        }
        text.trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

/// Formats a table for a Markdown page.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from("| figure | value | goal | |\n| --- | ---: | ---: | --- |\n");
    for Row { name, value, unit, goal, reached, .. } in rows {
        let goal = goal.map_or_else(String::new, |goal| format!("{goal}"));
        let reached = match reached {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None => "",
        };
        text.push_str(&format!("| {name} | {} {unit} | {goal} | {reached} |\n", number(*value)));
    }
    text
}

fn number(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_json() {
        let row = Row::new("tcp: daemon / baseline", 1.125, "x", "27.0 over 24.0").at_most(1.15);
        assert_eq!(Row::from_json(&row.to_json()).expect("a row"), row);
        let plain = Row::new("tcp: baseline", 27.0, "us", "");
        assert_eq!(Row::from_json(&plain.to_json()).expect("a row"), plain);
    }

    #[test]
    fn a_row_without_a_value_is_refused() {
        assert!(Row::from_json(&json!({"name": "write"})).is_err());
        assert!(Row::from_json(&json!({"value": 1})).is_err());
    }

    #[test]
    fn a_drift_of_either_sign_can_miss() {
        assert_eq!(Row::new("drift", -12.0, "ppm", "").at_most(10.0).reached, Some(false));
        assert_eq!(Row::new("drift", -8.0, "ppm", "").at_most(10.0).reached, Some(true));
    }

    #[test]
    fn a_page_tells_what_was_missed() {
        let rows = [Row::new("tcp: burst", 1.6, "x mean", "").at_most(1.5)];
        assert!(markdown(&rows).ends_with("| tcp: burst | 1.600 x mean | 1.5 | **missed** |\n"));
    }

    #[test]
    fn the_table_lines_up() {
        let rows = [
            Row::new("a", 1.0, "x", "short").at_most(1.15),
            Row::new("longer", 123.4, "us", "").at_most(10.0),
        ];
        let expected = "figure  value      goal              how\n\
                        a       1.000  x   <= 1.15  reached  short\n\
                        longer  123.4  us  <= 10    MISSED\n";
        assert_eq!(table(&rows), expected);
    }
}
