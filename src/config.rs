//! The config: what the file says, made into a [`Spec`] in which every default is filled in and every value is checked.
//!
//! ```text
//! file --tree--> nodes with places --read--> raw records --compile, check--> Spec --explain--> the file, in full
//! ```
//!
//! Each step collects what is wrong and goes on, so that all mistakes of a file are shown at once; only bad YAML ends
//! the reading early.

mod bytes;
mod check;
mod compile;
mod explain;
mod file;
mod hex;
mod invisible;
mod ip;
mod leaf;
mod name;
mod policy;
mod problem;
mod raw;
mod read;
mod reference;
mod syntax;
mod tree;
mod value;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::health::Thresholds;
use crate::plan::Policy;

pub use explain::{explain, schema};
pub use file::{ReadError, load, parse, parse_bytes, read_file};
pub use ip::AllowedNetworks;
pub use name::{validate_lease, validate_namespace, validate_service};
pub use problem::{Position, Problem, Problems};

/// What the reading of a config depends on beside its text.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The namespace of databases for which the config names none.
    pub own_namespace: String,
    /// The networks that addresses may be in; empty allows all.
    pub allow_cidr: Vec<ipnet::IpNet>,
    /// Leave out addresses that may not be published, with a warning, where the config would else be bad. One wrong address
    /// shall not stop what runs for all others.
    pub skip_rejected: bool,
}

/// A config that can be used.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    pub spec: Spec,
    /// What is allowed, but probably not meant.
    pub warnings: Problems,
}

/// A whole config file, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    pub databases: Vec<Arc<Database>>,
    /// Delete what a database leaves behind that is taken out of the config.
    pub prune: bool,
}

/// The Service a database stands for, which also names the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId {
    pub namespace: String,
    pub service: String,
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)
    }
}

/// One entry of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub id: DatabaseId,
    /// At least one; with several, each has a name.
    pub ports: Vec<Port>,
    /// In the order of the file; no IP twice. At least one, unless all are refused.
    pub addresses: Vec<Address>,
    /// Those that may not be published, and so are not checked either.
    pub rejected: Vec<RejectedAddress>,
    /// Where addresses may be at all, those that the cluster holds from earlier included.
    pub allowed_networks: AllowedNetworks,
    /// Which of the healthy addresses are published, and which others.
    pub policy: Policy,
    /// In which kinds of object its members are published.
    pub publish: PublishMode,
    /// How to create the Service when there is none; without it, it is waited for.
    pub create_service: Option<CreateService>,
    /// Take over Endpoints that someone else wrote.
    pub adopt: bool,
}

/// The kinds of object that members are published in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishMode {
    /// Endpoints, which Kubernetes mirrors into EndpointSlices.
    Endpoints,
    /// EndpointSlices.
    Slices,
    /// EndpointSlices, and Endpoints that are not mirrored.
    Both,
}

/// What kind of Service to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateService {
    pub headless: bool,
}

/// A port of the database, joined to a port of the Service by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: Option<String>,
    pub number: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
}

/// One place where a database answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    /// The tier; the lowest is preferred.
    pub priority: u32,
    /// The DNS label of this replica in a headless Service.
    pub hostname: Option<String>,
    /// The topology zone, for EndpointSlices.
    pub zone: Option<Box<str>>,
    /// Why it is taken out, if it is.
    pub maintenance: Option<Arc<str>>,
    /// The database's check, with this address's overrides. Shared by the addresses that have none.
    pub check: Arc<Check>,
}

/// An address of the config that may not be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedAddress {
    pub ip: IpAddr,
    /// Why, and what to write instead.
    pub reason: String,
}

/// How, how often and how patiently a target is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub kind: CheckKind,
    pub interval: Duration,
    pub timeout: Duration,
    /// The pace of the tries after a verdict that disagrees with the target's state; at most the interval.
    pub recheck_interval: Duration,
    pub thresholds: Thresholds,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    Tcp(TcpCheck),
    Http(HttpCheck),
    Exec(ExecCheck),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpCheck {
    pub port: u16,
    pub tls: Option<Tls>,
    pub send: Option<ValueSource>,
    pub expect: Option<ExpectedContent>,
    /// Complete the handshake, so that the target's accept() sees it. Implied by the three above.
    pub accept: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    pub port: u16,
    pub path: String,
    pub scheme: Scheme,
    /// As it goes on the wire: `GET`.
    pub method: String,
    /// The Host header, if not the address.
    pub host: Option<String>,
    pub headers: Vec<(String, ValueSource)>,
    pub expected_statuses: Vec<RangeInclusive<u16>>,
    pub expected_body: Option<String>,
    /// Offers HTTP/2 to the server, which may choose HTTP/1.1; only when the scheme is https.
    pub http2: bool,
    /// How TLS is spoken when the scheme is https.
    pub tls: Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecCheck {
    /// The program and its arguments, `$(NAME)` not yet expanded.
    pub command: Vec<String>,
    pub env: Vec<(String, ValueSource)>,
    pub working_directory: Option<PathBuf>,
    /// The exit statuses that say nothing about the target.
    pub inconclusive_statuses: Vec<RangeInclusive<u8>>,
}

/// How a TLS connection to a target is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates that sign the target's; else the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM client certificate chain, with `key_file`.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// The name the certificate must carry and SNI announces; else the address.
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
}

/// What an answer must contain, as the config has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedContent {
    Text(String),
    /// Bytes that are no text, and are shown in hex.
    Hex(Vec<u8>),
}

impl ExpectedContent {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            ExpectedContent::Text(text) => text.as_bytes(),
            ExpectedContent::Hex(bytes) => bytes,
        }
    }
}

impl From<&str> for ExpectedContent {
    fn from(text: &str) -> Self {
        ExpectedContent::Text(text.into())
    }
}

/// A string that may be a secret: its literal form never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum ValueSource {
    Literal(String),
    /// As a literal, for what is no text.
    Bytes(Vec<u8>),
    /// Read at each use, so that a rotated Secret works.
    File(PathBuf),
    FromEnv(String),
}

impl fmt::Debug for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueSource::Literal(_) => f.write_str("Literal(…)"),
            ValueSource::Bytes(_) => f.write_str("Bytes(…)"),
            ValueSource::File(path) => write!(f, "File({})", path.display()),
            ValueSource::FromEnv(name) => write!(f, "FromEnv({name})"),
        }
    }
}
