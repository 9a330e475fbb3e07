//! The queries of the dashboard.

use serde_json::Value;

use crate::monitoring::prometheus::Prometheus;

/// The shipped dashboard.
const DASHBOARD: &str = include_str!("../../deploy/chart/files/dashboard.json");

/// The variables, as Grafana fills them in when everything is chosen.
const VARIABLES: [(&str, &str); 4] =
    [("$namespace", ".*"), ("$service", ".*"), ("$job", ".*"), ("$__rate_interval", "10s")];

/// Panics unless each query has had data between two moments, in seconds.
pub(crate) async fn expect_data(prometheus: &Prometheus, from: f64, until: f64) {
    let mut empty = Vec::new();
    let queries = queries();
    assert!(queries.len() > 40, "{} queries", queries.len());
    for (panel, query) in queries {
        let series = prometheus.query_range(&query, from, until).await;
        let values = series.iter().flat_map(|series| series["values"].as_array().expect("values"));
        if !values.into_iter().any(|value| value[1] != "NaN") {
            empty.push(format!("{panel}: {query}"));
        }
    }
    assert!(empty.is_empty(), "without data:\n{}", empty.join("\n"));
}

/// Returns the queries of all panels and variables, each with the title of its panel.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let mut queries: Vec<(String, String)> = panels
        .flat_map(|panel| {
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.map(|target| (text(&panel["title"]), filled_in(&text(&target["expr"]))))
        })
        .collect();
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if variable["type"] == "query" {
            let query = text(&variable["query"]["query"]);
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (series, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("a label");
            let query = format!("count by ({label}) ({})", filled_in(series));
            queries.push((text(&variable["name"]), query));
        }
    }
    queries
}

fn filled_in(query: &str) -> String {
    let filled =
        VARIABLES.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!filled.contains('$'), "an unknown variable in {query}");
    filled
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
