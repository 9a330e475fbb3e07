//! Ten faults, each found with `kubectl describe service`, the page and `explain` alone: they name
//! the cause and the step to take.
//!
//! With `SCREENS` set to a folder, each trial leaves there what a person sees.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::deploy::permissions::{grant, without_rights};
use crate::cluster::fixture::{CHECK, Fixture, TIMEOUT, config};
use crate::cluster::freeze::Fleet;
use crate::cluster::lease::replicas;
use crate::cluster::names::fixture as names;
use crate::support::daemon::PROGRAM;
use crate::support::name_server::Reply;
use crate::support::rbac::{READ, rule, rule_for_names};
use crate::support::{Behavior, Daemon, Namespace, blocking, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_dead_address_is_found,
        a_wrong_port_name_is_found,
        foreign_endpoints_are_found,
        a_missing_right_is_found,
        a_freeze_is_found,
        a_flapping_address_is_found,
        maintenance_is_found,
        a_split_brain_is_found,
        a_name_that_does_not_resolve_is_found,
        a_standby_in_trouble_is_found,
    ]
}

/// The place of a fault: the Service `mysql` of a namespace, and an address of it.
struct Place<'a> {
    namespace: &'a Namespace,
    daemon: &'a Daemon,
    address: String,
}

/// The words that a person finds on each screen.
struct Words<'a> {
    describe: &'a [&'a str],
    page: &'a [&'a str],
    status: &'a [&'a str],
    explain: &'a [&'a str],
}

impl Place<'_> {
    /// Waits until each screen has its words.
    async fn expect(&self, fault: &str, words: Words<'_>) {
        let screens = [
            ("describe", words.describe),
            ("page", words.page),
            ("status", words.status),
            ("explain", words.explain),
        ];
        for (screen, words) in screens {
            eventually(TIMEOUT, &format!("{screen} has {words:?}"), async || {
                let text = self.screen(screen).await;
                leave(fault, screen, &text);
                if words.iter().all(|word| text.contains(word)) { Ok(()) } else { Err(text) }
            })
            .await;
        }
    }

    async fn screen(&self, screen: &str) -> String {
        let name = &self.namespace.name;
        match screen {
            "describe" => {
                let arguments = ["describe", "service", "mysql", "--namespace", name];
                let output = shared().kubectl(&arguments).await;
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
            "page" => self.daemon.get_html("/").await,
            "status" => self.run(&["status"]).await,
            _ => self.run(&["explain", &format!("{name}/mysql"), &self.address]).await,
        }
    }

    /// Runs a command on the daemon's pages. Returns what it prints.
    async fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).args(["--url", &self.daemon.url()]).env("NO_COLOR", "1");
        let output = blocking(move || command.output().expect("the daemon's program")).await;
        let text = [output.stdout, output.stderr].concat();
        format!("{}exit status {:?}\n", String::from_utf8_lossy(&text), output.status.code())
    }
}

/// Writes a screen into the folder that `SCREENS` names.
fn leave(fault: &str, screen: &str, text: &str) {
    let Some(folder) = std::env::var_os("SCREENS").map(PathBuf::from) else { return };
    let folder = folder.join(fault);
    let extension = if screen == "page" { "html" } else { "txt" };
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join(screen).with_extension(extension), text))
        .expect("a folder that can be written");
}

fn place<'a>(fixture: &'a Fixture, daemon: &'a Daemon, which: usize) -> Place<'a> {
    let address = fixture.databases[which].ip.to_string();
    Place { namespace: &fixture.namespace, daemon, address }
}

async fn a_dead_address_is_found() {
    let mut fixture = Fixture::new("find-dead").await;
    let daemon = fixture.start_published().await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    let words = Words {
        describe: &["TargetDown", "connect: refused"],
        page: &["▼", "connect: refused"],
        status: &["▼", "connect: refused"],
        explain: &["is OUT", "connect: refused", "comes back when"],
    };
    place(&fixture, &daemon, 0).expect("dead-address", words).await;
}

async fn a_wrong_port_name_is_found() {
    let fixture = Fixture::without_service("find-port").await;
    fixture.namespace.create_service("mysql", &[("sql", 1), ("admin", 2)]).await;
    let daemon = fixture.start().await;
    let cause = &["PortMismatch", "3306", "sql (1/TCP)"];
    let explain = &["shall be PUBLISHED", "is not done: PortMismatch", "give each port"];
    let words = Words { describe: cause, page: cause, status: cause, explain };
    place(&fixture, &daemon, 0).expect("port-name", words).await;
}

async fn foreign_endpoints_are_found() {
    let fixture = Fixture::new("find-foreign").await;
    let ips = [fixture.databases[0].ip];
    fixture.namespace.create_endpoints("mysql", &ips, &[("", 3306)]).await;
    let daemon = fixture.start().await;
    let cause = &["NotOurs", "field manager", "adopt: true"];
    let words = Words { describe: cause, page: cause, status: cause, explain: cause };
    place(&fixture, &daemon, 0).expect("foreign-endpoints", words).await;
}

async fn a_missing_right_is_found() {
    let fixture = Fixture::new("find-right").await;
    let token = without_rights(&fixture.namespace).await;
    let events = rule("events", &["create", "list", "patch"]);
    let read = [rule("services", READ), rule("endpoints", READ), events];
    grant(&fixture.namespace, &json!(read)).await;
    let kubeconfig = shared().kubeconfig_for_token(&token);
    let daemon = Daemon::start(&fixture.config(), &kubeconfig, &[]).await;
    let cause = &["Forbidden", "patch", "endpoints"];
    let explain = &["is OUT", "is not done: Forbidden", "allow it there with a Role"];
    let words = Words { describe: cause, page: cause, status: cause, explain };
    place(&fixture, &daemon, 0).expect("missing-right", words).await;
}

async fn a_freeze_is_found() {
    let mut fleet = Fleet::new("find-freeze").await;
    let daemon = fleet.start(&[]).await;
    fleet.expect_all_published().await;
    fleet.stop().await;
    let cause = "the daemon's own";
    let words = Words {
        describe: &["Frozen", cause],
        page: &["Frozen", "mend the network of this daemon"],
        status: &["frozen", cause],
        explain: &["stay", cause, "mend the network of this daemon"],
    };
    let address = fleet.first_ip();
    let place = Place { namespace: &fleet.namespace, daemon: &daemon, address };
    place.expect("freeze", words).await;
}

async fn a_flapping_address_is_found() {
    let mut fixture = Fixture::new("find-flapping").await;
    let yaml = fixture.config_with("  policy: {maxFlips: 1}\n");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[0, 2]).await;
    fixture.databases[1].restart().await;
    let words = Words {
        describe: &["Flapping", "flapped"],
        page: &["◆", "flapping"],
        status: &["◆", "flapping"],
        explain: &["is OUT", "flap", "comes back when"],
    };
    place(&fixture, &daemon, 1).expect("flapping", words).await;
}

async fn maintenance_is_found() {
    let fixture = Fixture::new("find-maintenance").await;
    let daemon = fixture.start_published().await;
    let place = place(&fixture, &daemon, 0);
    let service = format!("{}/mysql", fixture.namespace.name);
    let on = ["maintenance", "on", &service, &place.address, "--reason", "disk swap"];
    let mut command = Command::new(PROGRAM);
    let arguments = ["--for", "2h", "--url", &daemon.url()];
    command.args(on).args(arguments).env("KUBECONFIG", shared().kubeconfig());
    let output = blocking(move || command.output().expect("the daemon's program")).await;
    assert!(output.status.success(), "{output:?}");
    let words = Words {
        describe: &["MaintenanceBegan", "disk swap"],
        page: &["■", "disk swap"],
        status: &["■", "disk swap", "until"],
        explain: &["is OUT", "disk swap", "maintenance off"],
    };
    place.expect("maintenance", words).await;
}

async fn a_split_brain_is_found() {
    let mut fixture = Fixture::new("find-split").await;
    for (which, status) in [200, 200, 503].into_iter().enumerate() {
        fixture.databases[which].set_behavior(Behavior::Http(status, String::new())).await;
    }
    let ips: Vec<String> = fixture.databases.iter().map(|it| it.ip.to_string()).collect();
    let check = "{http: {path: /primary}, interval: 250ms, timeout: 1s}";
    let policy = "  policy: {exactlyOne: true}\n";
    let yaml = config(&fixture.namespace.name, &ips.join(", "), check, policy);
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    let words = Words {
        describe: &["SplitBrain", "split brain"],
        page: &["split brain"],
        status: &["split brain"],
        explain: &["is OUT", "exactlyOne", "comes back when"],
    };
    place(&fixture, &daemon, 1).expect("split-brain", words).await;
}

async fn a_name_that_does_not_resolve_is_found() {
    let fixture = Fixture::new("find-name").await;
    let dns = names::name_server().await;
    dns.set(names::NAME, Reply::NoSuchName);
    let yaml = config(&fixture.namespace.name, names::NAME, CHECK, "");
    let daemon = names::start(&dns, &yaml).await;
    let cause = &["WaitingForNames", names::NAME];
    let words = Words {
        describe: cause,
        page: &[names::NAME, "no such name"],
        status: cause,
        explain: &[names::NAME, "no such name"],
    };
    let address = names::NAME.to_owned();
    let place = Place { namespace: &fixture.namespace, daemon: &daemon, address };
    place.expect("unresolved-name", words).await;
}

async fn a_standby_in_trouble_is_found() {
    let fixture = Fixture::new("find-standby").await;
    let leader = replicas::replica(&fixture).await;
    let _leader = replicas::published(&fixture, leader).await;
    // It may do all but read the Lease.
    let token = without_rights(&fixture.namespace).await;
    let read: Vec<Value> = ["services", "endpoints", "endpointslices.discovery.k8s.io"]
        .map(|resource| rule(resource, READ))
        .into();
    let write = rule_for_names("endpoints", &["mysql"], &["patch"]);
    grant(&fixture.namespace, &json!([read, vec![write]].concat())).await;
    let standby = replicas::replica_at(&fixture, &shared().kubeconfig_for_token(&token)).await;
    let cause = &["leases", "allow it there with a Role"];
    let words = Words { describe: &["Published"], page: cause, status: cause, explain: cause };
    place(&fixture, &standby, 0).expect("standby-in-trouble", words).await;
}
