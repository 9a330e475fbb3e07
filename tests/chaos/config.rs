//! The config of a chaos run: what it says now, in which files the replicas read it, and how people edit it.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fixture::{
    CHECK_INTERVAL, CHECK_TIMEOUT, HEALTHY_THRESHOLD, PORT, RECHECK_INTERVAL, UNHEALTHY_THRESHOLD,
    service,
};
use super::scenario::{Who, in_slice, keeps};

/// What someone saves who has not done yet.
const HALF_DONE: &str = "defaults:\n  check: {tcp: {}, interval: 5";

pub(crate) struct Config {
    namespace: String,
    databases: Vec<Vec<IpAddr>>,
    /// The targets that it does not have.
    out: BTreeSet<Who>,
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

    pub(crate) fn has(&self, who: Who) -> bool {
        !self.out.contains(&who)
    }

    /// How many targets it has.
    pub(crate) fn targets(&self) -> usize {
        self.databases.iter().map(Vec::len).sum::<usize>() - self.out.len()
    }

    /// Keeps this file as it is itself from now on.
    pub(crate) fn is_read_from(&mut self, file: PathBuf) {
        self.files.push(file);
    }

    pub(crate) fn leaves(&mut self, who: Who) {
        self.out.insert(who);
        self.save(&self.text());
    }

    pub(crate) fn joins(&mut self, who: Who) {
        self.out.remove(&who);
        self.save(&self.text());
    }

    /// Writes something that means nothing.
    pub(crate) fn comment(&mut self) {
        self.edits += 1;
        self.save(&self.text());
    }

    /// Is a bad one until it is mended.
    pub(crate) fn garble(&self) {
        self.save(HALF_DONE);
    }

    pub(crate) fn mend(&self) {
        self.save(&self.text());
    }

    /// As an editor does: in place, so that half of it may be seen.
    fn save(&self, text: &str) {
        for file in &self.files {
            fs::write(file, text).expect("a file in the sandbox");
        }
    }

    pub(crate) fn text(&self) -> String {
        let time =
            |duration: Duration| humantime::format_duration(duration).to_string().replace(' ', "");
        let mut text = format!(
            "# {} comments\ndefaults:\n  namespace: {}\n  check: {{tcp: {{}}, interval: {}, recheckInterval: {}, timeout: {}, healthyThreshold: {HEALTHY_THRESHOLD}, unhealthyThreshold: {UNHEALTHY_THRESHOLD}}}\ndatabases:\n",
            self.edits,
            self.namespace,
            time(CHECK_INTERVAL),
            time(RECHECK_INTERVAL),
            time(CHECK_TIMEOUT)
        );
        for (database, ips) in self.databases.iter().enumerate() {
            let there = ips.iter().enumerate().filter(|(index, _)| self.has((database, *index)));
            let ips: Vec<String> = there.map(|(_, ip)| ip.to_string()).collect();
            let floor = if keeps(database) { ", minHealthy: 1" } else { "" };
            let slices = if in_slice(database) { ", publish: slices" } else { "" };
            // Targets flip for minutes here, and shall come back each time.
            text += &format!(
                "- {{service: {}, port: {PORT}, addresses: [{}], policy: {{maxFlips: 1000{floor}}}{slices}}}\n",
                service(database),
                ips.join(", ")
            );
        }
        text
    }
}
