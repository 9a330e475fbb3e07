//! Remarks on what a section of HAProxy has and a database has not. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Section;
use super::server::Server;

impl Section {
    /// Adds the remarks on all servers, once they are known.
    pub(super) fn add_remarks(&mut self) {
        let named = |is: fn(&Server) -> bool| -> String {
            let servers = self.servers.iter().filter(|server| is(server));
            servers.map(|server| server.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let unchecked =
            named(|server| !server.parameters.is_checked && !server.parameters.tracks());
        let elsewhere = named(|server| server.parameters.has_check_address);
        let by_tls = named(|server| server.parameters.speaks_tls);
        let remarks = [
            (&unchecked, format!("HAProxy does not check {unchecked}; here all are checked")),
            (
                &elsewhere,
                format!("HAProxy checks {elsewhere} at another address, which is left out"),
            ),
            (&by_tls, format!("HAProxy speaks TLS to {by_tls}; here the clients must")),
        ];
        for (names, remark) in remarks {
            if !names.is_empty() {
                self.settings.remark(remark);
            }
        }
        self.add_files();
        self.add_left_out();
    }

    /// Adds the remark on the files of the checks.
    fn add_files(&mut self) {
        let files: BTreeSet<&str> = self
            .servers
            .iter()
            .flat_map(|server| server.parameters.files())
            .map(|it| &**it)
            .collect();
        if !files.is_empty() {
            let list = files.into_iter().collect::<Vec<_>>().join(", ");
            self.settings.remark(format!("mount these files of HAProxy for the daemon: {list}"));
        }
    }

    /// Adds the remarks on the keywords that have no equal.
    fn add_left_out(&mut self) {
        let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for server in &self.servers {
            for parameter in server.parameters.left_out() {
                names.entry(parameter).or_default().push(&server.name);
            }
        }
        let lines = self.settings.left_out.iter().map(|line| format!("`{line}`"));
        let parameters = names.iter().map(|(parameter, names)| match names.len() {
            all if all == self.servers.len() => format!("`{parameter}`"),
            _ => format!("`{parameter}` ({})", names.join(", ")),
        });
        let list = lines.chain(parameters).collect::<Vec<_>>().join(", ");
        if !list.is_empty() {
            self.settings.remark(format!("without an equal here, and left out: {list}"));
        }
    }
}
