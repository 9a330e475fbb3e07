//! Debian's Prometheus, with the shipped rules and the replicas as its targets.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::Process;
use crate::support::{addresses, eventually, http, temp_dir};

/// The number of times that the rules' minutes are shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speed {
    /// A minute is a minute.
    Real,
    /// A minute of `for` is a second, and a minute of a range is two: a range needs two scrapes.
    Fast,
}

/// The namespace of the daemon, as the scrape has it.
pub(crate) const HOME: &str = "external-endpoints";

pub(crate) struct Prometheus {
    process: Process,
    address: String,
}

impl Prometheus {
    /// Starts it with these targets, and waits until it answers.
    pub(crate) async fn start(speed: Speed, targets: &[SocketAddr]) -> Prometheus {
        let folder = temp_dir("prometheus");
        let rules = folder.join("rules.yaml");
        fs::write(&rules, rules_at(speed).to_string()).expect("a file in the sandbox");
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let config = json!({
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
            },
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "external-endpoints",
                "honor_labels": true,
                "static_configs": [{"targets": targets, "labels": {"namespace": HOME}}],
            }],
        });
        let file = folder.join("prometheus.yaml");
        fs::write(&file, config.to_string()).expect("a file in the sandbox");
        let address = format!("127.0.0.1:{}", addresses::allocate_port());
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Process::start("prometheus", command, &folder.join("prometheus.log"));
        let mut prometheus = Prometheus { process, address };
        prometheus.wait_until_ready().await;
        prometheus
    }

    async fn wait_until_ready(&mut self) {
        eventually(Duration::from_secs(60), "Prometheus is ready", async || {
            let ended = self.process.exit_status();
            assert!(ended.is_none(), "Prometheus ends at once:\n{}", self.process.log_tail());
            match http::get(&self.address, "/-/ready").await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Returns the series that an expression has now.
    pub(crate) async fn query(&self, expression: &str) -> Vec<Value> {
        self.get("query", &[("query", expression)]).await
    }

    /// Returns the series that an expression has had between two moments, in seconds.
    pub(crate) async fn query_range(&self, expression: &str, from: f64, until: f64) -> Vec<Value> {
        let (from, until) = (from.to_string(), until.to_string());
        let words = [("query", expression), ("start", &from), ("end", &until), ("step", "2")];
        self.get("query_range", &words).await
    }

    async fn get(&self, what: &str, words: &[(&str, &str)]) -> Vec<Value> {
        let words = form_urlencoded::Serializer::new(String::new()).extend_pairs(words).finish();
        let path = format!("/api/v1/{what}?{words}");
        let answer = http::get(&self.address, &path).await;
        let (status, body) = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(status, 200, "{path}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["data"]["result"].as_array().expect("series").clone()
    }

    /// Returns its time, in seconds.
    pub(crate) async fn now(&self) -> f64 {
        let (_, body) = http::get(&self.address, "/api/v1/query?query=time()").await.expect("time");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["data"]["result"][1].as_str().and_then(|time| time.parse().ok()).expect("a time")
    }

    /// Returns the names of the alerts that fire.
    pub(crate) async fn firing(&self) -> BTreeSet<String> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}").await.into_iter();
        alerts.map(|alert| alert["metric"]["alertname"].as_str().expect("a name").into()).collect()
    }
}

/// Returns the shipped rules at a speed.
fn rules_at(speed: Speed) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/chart/files/alerts.yaml");
    let text = fs::read_to_string(path).expect("the rules");
    let mut file: Value = serde_saphyr::from_str(&text).expect("YAML");
    if speed == Speed::Real {
        return file;
    }
    for rule in file["groups"][0]["rules"].as_array_mut().expect("rules") {
        let minutes = rule["for"].as_str().and_then(|time| time.strip_suffix('m'));
        rule["for"] = format!("{}s", minutes.expect("minutes")).into();
        let mut expression = rule["expr"].as_str().expect("an expression").to_owned();
        for (range, fast) in [("[1h]", "[2m]"), ("[3m]", "[6s]"), ("[5m]", "[10s]")] {
            expression = expression.replace(range, fast);
        }
        assert!(!expression.contains("m]\n"), "a range is not scaled: {expression}");
        rule["expr"] = expression.into();
    }
    file
}
