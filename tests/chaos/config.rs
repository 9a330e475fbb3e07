//! The config of a chaos run: its content, the files of the replicas, and the edits that people
//! make.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fixture::{
    CHECK_INTERVAL, CHECK_TIMEOUT, HEALTHY_THRESHOLD, PORT, RECHECK_INTERVAL, UNHEALTHY_THRESHOLD,
    host_name, service,
};
use super::scenario::{Target, is_named, keeps_last_target, uses_slice};

/// A config that was saved in the middle of an edit.
const UNFINISHED: &str = "defaults:\n  check: {tcp: {}, interval: 5";

pub(crate) struct Config {
    namespace: String,
    databases: Vec<Vec<IpAddr>>,
    /// The targets that are not in the config.
    out: BTreeSet<Target>,
    edits: usize,
    files: Vec<PathBuf>,
}

impl Config {
    pub(crate) fn new(namespace: &str, databases: Vec<Vec<IpAddr>>) -> Config {
        Config {
            namespace: namespace.to_owned(),
            databases,
            out: BTreeSet::new(),
            edits: 0,
            files: Vec::new(),
        }
    }

    pub(crate) fn has(&self, who: Target) -> bool {
        !self.out.contains(&who)
    }

    /// Returns the number of targets in the config. Those that DNS gives are none.
    pub(crate) fn targets(&self) -> usize {
        let databases = self.databases.iter().enumerate();
        let with_ips = databases.filter(|(database, _)| !is_named(*database));
        with_ips.map(|(_, ips)| ips.len()).sum::<usize>() - self.out.len()
    }

    /// Writes each later edit to this file too.
    pub(crate) fn add_file(&mut self, file: PathBuf) {
        self.files.push(file);
    }

    pub(crate) fn leaves(&mut self, who: Target) {
        self.out.insert(who);
        self.save(&self.text());
    }

    pub(crate) fn joins(&mut self, who: Target) {
        self.out.remove(&who);
        self.save(&self.text());
    }

    /// Saves an edit that changes only a comment.
    pub(crate) fn comment(&mut self) {
        self.edits += 1;
        self.save(&self.text());
    }

    /// Saves a bad config. It stays bad until it is mended.
    pub(crate) fn corrupt(&self) {
        self.save(UNFINISHED);
    }

    pub(crate) fn mend(&self) {
        self.save(&self.text());
    }

    /// Writes the files in place, as an editor does, so that a reader may see half of one.
    fn save(&self, text: &str) {
        for file in &self.files {
            fs::write(file, text).expect("a file in the sandbox");
        }
    }

    pub(crate) fn text(&self) -> String {
        let time =
            |duration: Duration| humantime::format_duration(duration).to_string().replace(' ', "");
        let mut text = format!(
            "# {edits} comments
defaults:
  namespace: {namespace}
  check:
    tcp: {{}}
    interval: {interval}
    recheckInterval: {recheck_interval}
    timeout: {timeout}
    healthyThreshold: {HEALTHY_THRESHOLD}
    unhealthyThreshold: {UNHEALTHY_THRESHOLD}
databases:
",
            edits = self.edits,
            namespace = self.namespace,
            interval = time(CHECK_INTERVAL),
            recheck_interval = time(RECHECK_INTERVAL),
            timeout = time(CHECK_TIMEOUT),
        );
        for (database, ips) in self.databases.iter().enumerate() {
            let there = ips.iter().enumerate().filter(|(index, _)| self.has((database, *index)));
            let ips: Vec<String> = there.map(|(_, ip)| ip.to_string()).collect();
            let addresses = if is_named(database) { host_name(database) } else { ips.join(", ") };
            let min_healthy = if keeps_last_target(database) { ", minHealthy: 1" } else { "" };
            let slices = if uses_slice(database) { "  publish: slices\n" } else { "" };
            // Targets flip for minutes here, and have to come back each time.
            text += &format!(
                "- service: {}
  port: {PORT}
  addresses: [{}]
  policy: {{maxFlips: 1000{min_healthy}}}
{slices}",
                service(database),
                addresses
            );
        }
        text
    }
}
