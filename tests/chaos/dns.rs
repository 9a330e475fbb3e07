//! The DNS servers of a chaos run, one for each replica, with the faults that are made in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use super::dns_history::{DnsChange, SERVERS};
use super::fixture::{host_name, is_named};
use super::record::Time;
use super::scenario::{DnsFault, Servers};
use crate::support::NameServer;
use crate::support::name_server::Reply;

/// The TTL of all answers, in seconds.
const TTL: u32 = 1;

/// The servers, with all changes of their answers.
#[derive(Clone)]
pub(crate) struct Dns {
    servers: Arc<Vec<NameServer>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The addresses by server and database.
    answers: BTreeMap<(usize, usize), BTreeSet<IpAddr>>,
    /// The fault by server and database.
    faults: BTreeMap<(usize, usize), DnsFault>,
    changes: Vec<DnsChange>,
}

impl Servers {
    fn numbers(self) -> Vec<usize> {
        match self {
            Servers::Both => (0..SERVERS).collect(),
            Servers::One(server) => vec![server],
        }
    }
}

impl Dns {
    /// Starts servers that have all addresses of the databases with names.
    pub(crate) async fn start(databases: &[Vec<IpAddr>]) -> Dns {
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            servers.push(NameServer::start().await);
        }
        let dns = Dns { servers: Arc::new(servers), state: Arc::default() };
        for (database, ips) in named(databases) {
            dns.answer(Time::ZERO, database, Servers::Both, ips.iter().copied().collect());
        }
        dns
    }

    /// Returns the address of the server that the replica in this slot asks.
    pub(crate) fn address(&self, slot: usize) -> SocketAddr {
        self.servers[slot].address
    }

    /// Forgets the changes so far. The answers stay.
    pub(crate) fn forget_changes(&self) {
        self.update(|state| state.changes.clear());
    }

    /// Returns all changes in order.
    pub(crate) fn changes(&self) -> Vec<DnsChange> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).changes.clone()
    }

    /// Changes the addresses of a database.
    pub(crate) fn answer(
        &self,
        at: Time,
        database: usize,
        servers: Servers,
        ips: BTreeSet<IpAddr>,
    ) {
        for server in servers.numbers() {
            self.change(at, (server, database), |state| {
                state.answers.insert((server, database), ips.clone());
            });
        }
    }

    /// Begins a fault of these databases.
    pub(crate) fn begin(&self, at: Time, databases: &[usize], servers: Servers, fault: DnsFault) {
        for server in servers.numbers() {
            for database in databases {
                self.change(at, (server, *database), |state| {
                    state.faults.insert((server, *database), fault);
                });
            }
        }
    }

    /// Ends the fault of these databases.
    pub(crate) fn end(&self, at: Time, databases: &[usize], servers: Servers) {
        for server in servers.numbers() {
            for database in databases {
                self.change(at, (server, *database), |state| {
                    state.faults.remove(&(server, *database));
                });
            }
        }
    }

    /// Ends all faults, and lets all databases have all of their addresses.
    pub(crate) fn heal(&self, at: Time, databases: &[Vec<IpAddr>]) {
        for (database, ips) in named(databases) {
            self.end(at, &[database], Servers::Both);
            self.answer(at, database, Servers::Both, ips.iter().copied().collect());
        }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn change(&self, at: Time, of: (usize, usize), change: impl FnOnce(&mut State)) {
        self.update(|state| {
            change(state);
            let (server, database) = of;
            let ips = state.answers.get(&of).cloned().unwrap_or_default();
            let fault = state.faults.get(&of);
            let reply = match fault {
                None => Reply::addresses(ips.iter().copied(), TTL),
                Some(fault) => reply(*fault),
            };
            self.servers[server].set(&host_name(database), reply);
            let answer = fault.is_none().then_some(ips);
            state.changes.push(DnsChange { at, database, server, answer });
        });
    }
}

/// Returns the databases with names, with their addresses.
fn named(databases: &[Vec<IpAddr>]) -> impl Iterator<Item = (usize, &Vec<IpAddr>)> {
    databases.iter().enumerate().filter(|(database, _)| is_named(*database))
}

fn reply(fault: DnsFault) -> Reply {
    match fault {
        DnsFault::NoSuchName => Reply::NoSuchName,
        DnsFault::NoRecords => Reply::NoRecords,
        DnsFault::Code(code) => Reply::Code(code),
        DnsFault::Silence => Reply::Silence,
        DnsFault::Truncated => Reply::TruncatedWithoutTcp,
        DnsFault::Garbage => {
            Reply::Garbage((0..200).map(|byte: u8| byte.wrapping_mul(37)).collect())
        }
    }
}
