//! The targets that are checked, and the config of each checker for them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::dns;
use crate::protocol::Protocol;

/// The ports of the targets, by their behavior.
pub(crate) mod port {
    pub(crate) const DRAIN: u16 = 7001;
    pub(crate) const HTTP: u16 = 7002;
    pub(crate) const STOPS: u16 = 7003;
    pub(crate) const VANISHES: u16 = 7004;
    /// A port without a listener.
    pub(crate) const CLOSED: u16 = 7005;
    pub(crate) const BLACK_HOLE: u16 = 7006;
    pub(crate) const SILENT: u16 = 7007;
    pub(crate) const DRIP: u16 = 7008;
    pub(crate) const RESET: u16 = 7009;
    pub(crate) const GARBAGE: u16 = 7010;
    pub(crate) const REDIS: u16 = 7011;
    pub(crate) const MYSQL: u16 = 7012;
    pub(crate) const POSTGRES: u16 = 7013;
    pub(crate) const MONGODB: u16 = 7014;
    /// The port of the daemon's pages.
    pub(crate) const PAGES: u16 = 7999;
}

/// The number of addresses of a database.
pub(crate) const DATABASE_SIZE: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Connects, and resets before the last ACK.
    Tcp,
    /// Connects with a complete handshake, which the target's program sees.
    Accept,
    /// Sends a GET on a new connection.
    Http,
    /// Runs a program that does nothing.
    Exec,
    /// Sends PING to a Redis.
    Redis,
    /// Logs in to a MySQL without a password, and asks for its role.
    Mysql,
    /// Begins a session with a PostgreSQL.
    Postgres,
    /// Logs in to a PostgreSQL by SCRAM, and asks for its role.
    PostgresLogin,
    /// Asks a MongoDB for its role.
    Mongodb,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Tcp,
        Self::Accept,
        Self::Http,
        Self::Exec,
        Self::Redis,
        Self::Mysql,
        Self::Postgres,
        Self::PostgresLogin,
        Self::Mongodb,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Accept => "accept",
            Self::Http => "http",
            Self::Exec => "exec",
            Self::Redis => "redis",
            Self::Mysql => "mysql",
            Self::Postgres => "postgres",
            Self::PostgresLogin => "postgres with login and role",
            Self::Mongodb => "mongodb",
        }
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Http => port::HTTP,
            Self::Redis => port::REDIS,
            Self::Mysql => port::MYSQL,
            Self::Postgres | Self::PostgresLogin => port::POSTGRES,
            Self::Mongodb => port::MONGODB,
            Self::Tcp | Self::Accept | Self::Exec => port::DRAIN,
        }
    }

    /// Returns the protocol that the check speaks, if it is one of a database.
    pub(crate) fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Redis => Some(Protocol::Redis),
            Self::Mysql => Some(Protocol::Mysql),
            Self::Postgres | Self::PostgresLogin => Some(Protocol::Postgres),
            Self::Mongodb => Some(Protocol::Mongodb),
            Self::Tcp | Self::Accept | Self::Http | Self::Exec => None,
        }
    }

    pub(crate) fn yaml(self) -> &'static str {
        match self {
            Self::Tcp => "tcp: {}",
            Self::Accept => "tcp: {accept: true}",
            Self::Http => "http: {}",
            Self::Exec => "exec: {command: [/bin/true]}",
            Self::Redis => "redis: {}",
            Self::Mysql => "mysql: {user: checker}",
            Self::Postgres => "postgres: {}",
            Self::PostgresLogin => "postgres: {role: primary, password: secret}",
            Self::Mongodb => "mongodb: {}",
        }
    }
}

/// Databases of [`DATABASE_SIZE`] addresses each that are checked alike.
#[derive(Clone)]
pub(crate) struct Database {
    pub port: u16,
    /// The `check` of the daemon's config.
    pub check: String,
    pub addresses: Vec<Ipv4Addr>,
}

/// The form of the addresses in the daemon's config.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AddressedBy {
    Ip,
    /// The name that DNS has for each address.
    Name,
}

#[derive(Clone)]
pub(crate) struct Workload {
    pub interval: Duration,
    pub databases: Vec<Database>,
    pub addressed_by: AddressedBy,
    /// Databases more in the daemon's config, of one name each.
    pub unresolved: usize,
    /// Arguments more of the daemon.
    pub arguments: Vec<String>,
}

/// Returns the address of the target with this number.
pub(crate) fn address(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).expect("far fewer than the network has");
    let first = u32::from(Ipv4Addr::new(198, 18, 1, 1));
    // Addresses that end in 0 or 255 could be taken for a network or a broadcast.
    Ipv4Addr::from(first + number / 250 * 256 + number % 250)
}

impl Workload {
    /// Returns a workload without databases.
    pub(crate) fn empty(interval: Duration) -> Self {
        Self {
            interval,
            databases: Vec::new(),
            addressed_by: AddressedBy::Ip,
            unresolved: 0,
            arguments: Vec::new(),
        }
    }

    /// Returns a workload of this number of targets of one kind.
    pub(crate) fn uniform(kind: Kind, targets: usize, interval: Duration) -> Self {
        let mut workload = Self::empty(interval);
        let mut left = targets;
        while left > 0 {
            let group = left.min(DATABASE_SIZE);
            workload.add(kind.port(), kind.yaml(), group);
            left -= group;
        }
        workload
    }

    /// Adds a database with new addresses, and returns them.
    pub(crate) fn add(&mut self, port: u16, check: &str, group: usize) -> Vec<Ipv4Addr> {
        let from = self.databases.iter().map(|database| database.addresses.len()).sum();
        let addresses: Vec<Ipv4Addr> = (from..from + group).map(address).collect();
        self.databases.push(Database {
            port,
            check: check.to_owned(),
            addresses: addresses.clone(),
        });
        addresses
    }

    pub(crate) fn targets(&self) -> Vec<SocketAddrV4> {
        let of = |database: &Database| {
            let port = database.port;
            database
                .addresses
                .iter()
                .map(move |address| SocketAddrV4::new(*address, port))
                .collect::<Vec<_>>()
        };
        self.databases.iter().flat_map(of).collect()
    }

    /// Returns the daemon's config.
    pub(crate) fn daemon_config(&self) -> String {
        let mut text = String::from("databases:\n");
        if self.addressed_by == AddressedBy::Name || self.unresolved > 0 {
            text = String::from("defaults: {dns: {families: [IPv4]}}\ndatabases:\n");
        }
        let interval = self.interval.as_millis();
        let timeout = interval.min(1000);
        let mut first = 0;
        for (number, Database { port, check, addresses }) in self.databases.iter().enumerate() {
            let addresses: Vec<String> = match self.addressed_by {
                AddressedBy::Ip => addresses.iter().map(Ipv4Addr::to_string).collect(),
                AddressedBy::Name => (first..first + addresses.len()).map(dns::name).collect(),
            };
            first += addresses.len();
            let addresses = addresses.join(", ");
            writeln!(
                text,
                "- service: db-{number}
  namespace: bench
  port: {port}
  addresses: [{addresses}]
  check: {{{check}, interval: {interval}ms, timeout: {timeout}ms, \
                 unhealthyThreshold: 3, healthyThreshold: 2}}"
            )
            .expect("text grows");
        }
        for number in 0..self.unresolved {
            let (port, name) = (port::DRAIN, dns::name(first + number));
            writeln!(
                text,
                "- {{service: name-{number}, namespace: bench, port: {port}, addresses: [{name}], \
                 check: {{tcp: {{}}}}}}"
            )
            .expect("text grows");
        }
        text
    }

    /// Returns HAProxy's config: a line for each target, with the options for the same kind of
    /// check.
    pub(crate) fn haproxy_config(&self, kind: Kind, socket: &str) -> String {
        let interval = self.interval.as_millis();
        let (global, check) = match kind {
            Kind::Redis => ("", "option redis-check"),
            Kind::Mysql => ("", "option mysql-check user checker"),
            Kind::Postgres | Kind::PostgresLogin => ("", "option pgsql-check user checker"),
            Kind::Tcp | Kind::Accept | Kind::Mongodb => ("", ""),
            Kind::Http => {
                ("", "option httpchk\n  http-check send meth GET uri / ver HTTP/1.1 hdr Host bench")
            }
            Kind::Exec => (
                "external-check\n  insecure-fork-wanted",
                "option external-check\n  external-check path /usr/bin:/bin\n  \
                 external-check command /bin/true",
            ),
        };
        let mut text = format!(
            "global\n  nbthread 1\n  maxconn 100\n  stats socket {socket} level admin\n  {global}\n\
             defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n\
             backend bench\n  timeout check {interval}ms\n  {check}\n  \
             default-server check inter {interval}ms fall 3 rise 2\n"
        );
        for (number, target) in self.targets().iter().enumerate() {
            writeln!(text, "  server s{number} {target}").expect("text grows");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_target_has_an_address_of_its_own_in_the_network() {
        let workload = Workload::uniform(Kind::Tcp, 10_000, Duration::from_secs(1));
        let addresses: BTreeSet<_> = workload.targets().iter().map(|target| *target.ip()).collect();
        assert_eq!(addresses.len(), 10_000);
        assert!(
            addresses
                .iter()
                .all(|address| (address.octets()[1] & 0xfe) == 18 && address.octets()[0] == 198)
        );
        assert!(addresses.iter().all(|address| !matches!(address.octets()[3], 0 | 255)));
    }

    #[test]
    fn names_have_the_numbers_of_their_targets() {
        let mut workload = Workload::uniform(Kind::Tcp, 5, Duration::from_secs(1));
        assert!(!workload.daemon_config().contains("bench.example"));
        workload.addressed_by = AddressedBy::Name;
        workload.unresolved = 1;
        let config = workload.daemon_config();
        assert!(config.contains("addresses: [t3.bench.example, t4.bench.example]"), "{config}");
        assert!(config.contains("service: name-0, namespace: bench, port: 7001, addresses: [t5."));
    }

    #[test]
    fn the_last_database_has_what_is_left() {
        let workload = Workload::uniform(Kind::Http, 7, Duration::from_secs(1));
        let groups: Vec<usize> =
            workload.databases.iter().map(|database| database.addresses.len()).collect();
        assert_eq!(groups, [3, 3, 1]);
        assert!(workload.haproxy_config(Kind::Http, "/s").contains("server s6 198.18.1.7:7002\n"));
    }
}
