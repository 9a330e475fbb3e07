//! The questions that reach a name server: which names, which families, and which server.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use super::fixture::{
    NAME, TTL, at, expect_queries, expect_resolved, lines_with, name_server, start, yaml,
};
use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::support::name_server::{NameServer, Query, Reply};
use crate::support::{Daemon, case::cases, consistently, daemon, eventually, shared, temp_dir};

pub(super) fn cases() -> Vec<Trial> {
    cases![in names:
        a_name_is_asked_as_it_is_written,
        a_changed_resolv_conf_is_used_within_5_seconds,
        a_missing_resolv_conf_takes_nothing_away,
        the_families_of_the_service_are_asked_for,
    ]
}

/// Starts the daemon with a `/etc/resolv.conf` of its own.
async fn start_with_resolv_conf(resolv_conf: &Path, yaml: &str) -> Daemon {
    let script = r#"mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@""#;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--", "sh", "-c", script])
        .arg(resolv_conf)
        .arg(daemon::PROGRAM)
        .env("KUBECONFIG", shared().kubeconfig());
    Daemon::start_command(command, yaml, &[]).await
}

/// Writes the resolv.conf of a Pod with this name server.
fn write_resolv_conf(path: &Path, dns: &NameServer) {
    let text = format!(
        "search prod.svc.cluster.local svc.cluster.local cluster.local
nameserver {}
options ndots:5
",
        dns.address.ip()
    );
    // In place: the mount is of this file.
    fs::write(path, text).expect("a file in the sandbox");
}

/// Returns the names and kinds of all queries, each once.
fn distinct(queries: &[Query]) -> Vec<(String, RecordType)> {
    let mut distinct: Vec<_> =
        queries.iter().map(|query| (query.name.clone(), query.kind)).collect();
    distinct.sort_by_key(|(name, kind)| (name.clone(), u16::from(*kind)));
    distinct.dedup();
    distinct
}

async fn a_name_is_asked_as_it_is_written() {
    let fixture = Fixture::new("dns-written").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0]));
    // In each domain of the search list there is a database under this name.
    for domain in ["prod.svc.cluster.local", "svc.cluster.local", "cluster.local"] {
        dns.set(&format!("{NAME}.{domain}"), at(&fixture, &[1]));
    }
    let resolv_conf = temp_dir("resolv").join("resolv.conf");
    write_resolv_conf(&resolv_conf, &dns);
    let daemon = start_with_resolv_conf(&resolv_conf, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0]).await;
    expect_queries(&dns, NAME, 2).await;
    dns.set(NAME, Reply::NoSuchName);
    expect_resolved(&daemon, NAME, 0.0).await;
    assert_eq!(distinct(&dns.take_queries()), [(NAME.to_owned(), RecordType::A)]);
    assert_eq!(fixture.namespace.endpoint_ips("mysql").await, fixture.ips(&[0]));
}

async fn a_changed_resolv_conf_is_used_within_5_seconds() {
    let fixture = Fixture::new("dns-resolv").await;
    let (first, second) = (name_server().await, name_server().await);
    first.set(NAME, at(&fixture, &[0]));
    second.set(NAME, at(&fixture, &[1]));
    let resolv_conf = temp_dir("resolv").join("resolv.conf");
    write_resolv_conf(&resolv_conf, &first);
    let _daemon = start_with_resolv_conf(&resolv_conf, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0]).await;
    write_resolv_conf(&resolv_conf, &second);
    // It is read every 5 s, and the name is due a second later at the latest.
    let patience = Duration::from_secs(5) + Duration::from_secs(TTL.into()) + TIMEOUT / 6;
    eventually(patience, "the new server is asked", async || {
        fixture.namespace.endpoint_ips("mysql").await == fixture.ips(&[1])
    })
    .await;
}

async fn a_missing_resolv_conf_takes_nothing_away() {
    let fixture = Fixture::new("dns-no-resolv").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0]));
    let resolv_conf = temp_dir("resolv").join("resolv.conf");
    write_resolv_conf(&resolv_conf, &dns);
    let daemon = start_with_resolv_conf(&resolv_conf, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0]).await;
    let history = fixture.history().await;
    fs::write(&resolv_conf, "# nothing\n").expect("a file in the sandbox");
    eventually(TIMEOUT, "it is reported", async || lines_with(&daemon, &["/etc/resolv.conf"]) >= 1)
        .await;
    assert_eq!(history.steps(), []);
    write_resolv_conf(&resolv_conf, &dns);
    dns.set(NAME, at(&fixture, &[1]));
    fixture.expect_endpoints(&[1]).await;
}

async fn the_families_of_the_service_are_asked_for() {
    let fixture = Fixture::new("dns-families").await;
    let dns = name_server().await;
    dns.set(NAME, at(&fixture, &[0]));
    let _daemon = start(&dns, &yaml(&fixture, NAME, "")).await;
    fixture.expect_endpoints(&[0]).await;
    expect_queries(&dns, NAME, 3).await;
    assert_eq!(dns.count_of(NAME, RecordType::AAAA), 0);
    consistently(Duration::from_secs(2), "only A is asked", async || {
        dns.count_of(NAME, RecordType::AAAA) == 0
    })
    .await;
    let dual = json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}});
    let api = fixture.namespace.api::<Service>();
    api.patch("mysql", &PatchParams::default(), &Patch::Merge(dual)).await.expect("a patch");
    eventually(TIMEOUT, "AAAA is asked", async || dns.count_of(NAME, RecordType::AAAA) >= 2).await;
}
