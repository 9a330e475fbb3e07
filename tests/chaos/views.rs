//! The answers of the replica that writes, on its pages, as a person or Prometheus would get them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinHandle;

use super::fixture::{DATABASES, service};
use super::record::View;
use crate::support::daemon::metric_in;
use crate::support::{http, runtime};

/// The time between two reads of the pages.
const INTERVAL: Duration = Duration::from_millis(500);

/// The time within which the pages must have been read.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The addresses of the pages of all replicas that run.
pub(crate) type Pages = Arc<Mutex<Vec<SocketAddr>>>;

/// A reader of the pages that runs until it is dropped.
pub(crate) struct Views {
    seen: Arc<Mutex<Vec<View>>>,
    task: JoinHandle<()>,
}

impl Views {
    pub(crate) fn start(pages: Pages, began: Instant) -> Views {
        let seen: Arc<Mutex<Vec<View>>> = Arc::default();
        let fill = seen.clone();
        let task = runtime().spawn(async move {
            loop {
                let addresses = pages.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for address in addresses {
                    // A replica that is suspended does not answer.
                    let views = tokio::time::timeout(TIMEOUT, read(address, began)).await;
                    let views = views.ok().flatten().unwrap_or_default();
                    fill.lock().unwrap_or_else(PoisonError::into_inner).extend(views);
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Views { seen, task }
    }

    pub(crate) fn all(&self) -> Vec<View> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the pages of a replica. Returns none if it is gone, or is not the one that writes.
async fn read(address: SocketAddr, began: Instant) -> Option<Vec<View>> {
    let from = began.elapsed();
    let (_, metrics) = http::get(address, "/metrics").await.ok()?;
    let (_, status) = http::get(address, "/api/v1/status").await.ok()?;
    let until = began.elapsed();
    let status: Value = serde_json::from_str(&status).ok()?;
    if status["role"] != "leader" {
        return None;
    }
    let replica = status["lease"]["identity"].as_str()?.to_owned();
    let view = |database: usize| {
        let name = service(database);
        let shown = status["databases"].as_array()?.iter().find(|it| it["service"] == *name)?;
        let labels = [("service", name.as_str())];
        let gauge = metric_in(&metrics, "external_endpoints_published_addresses", &labels);
        Some(View {
            from,
            until,
            replica: replica.clone(),
            database,
            published: addresses(&shown["published"]),
            planned: addresses(&shown["planned"]),
            condition: shown["condition"].as_str()?.to_owned(),
            gauge: gauge.map(|gauge| gauge as usize),
            gauge_condition: condition(&metrics, &name),
        })
    };
    Some((0..DATABASES).filter_map(view).collect())
}

fn addresses(list: &Value) -> Option<BTreeSet<IpAddr>> {
    let list = list.as_array()?.iter();
    Some(list.filter_map(|address| address.as_str()?.parse().ok()).collect())
}

/// Returns the condition of a database by the metrics.
fn condition(metrics: &str, service: &str) -> Option<String> {
    let service = format!("service=\"{service}\"");
    let mut lines = metrics.lines().filter(|line| {
        line.starts_with("external_endpoints_database_condition{") && line.contains(&service)
    });
    let (_, rest) = lines.next()?.split_once("condition=\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}
