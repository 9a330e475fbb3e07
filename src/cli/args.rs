//! Arguments that several commands share, and the grammar of their values. Each error says what to
//! write instead.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use anyhow::bail;
use ipnet::IpNet;

use crate::config::{self, DatabaseId};
use crate::lease;
use crate::resolve::{self, ServerSource};

/// The networks that addresses may be in.
#[derive(clap::Args)]
pub(super) struct AllowedCidrs {
    /// Reject addresses outside this network; repeat the flag for more networks [default: any]
    #[arg(long = "allow-cidr", value_name = "CIDR", value_parser = parse_cidr)]
    pub(super) cidrs: Vec<IpNet>,
}

fn parse_cidr(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(ip) => format!(
            "write {} for this address alone, or a network as in 10.20.0.0/16",
            IpNet::from(ip)
        ),
        Err(_) => "write a network as in 10.20.0.0/16 or 2001:db8::/32".to_owned(),
    })
}

/// The DNS servers to ask.
#[derive(clap::Args)]
pub(super) struct DnsServers {
    /// Ask this DNS server for names; repeat the flag for more servers, the preferred one first
    /// [default: those of /etc/resolv.conf, also when it changes]
    #[arg(long = "dns-server", value_name = "IP[:PORT]", value_parser = parse_dns_server)]
    servers: Vec<SocketAddr>,
}

impl DnsServers {
    /// Returns the servers to ask.
    pub(super) fn source(self) -> ServerSource {
        if self.servers.is_empty() {
            ServerSource::ResolvConf(resolve::RESOLV_CONF.into())
        } else {
            ServerSource::Fixed(self.servers)
        }
    }
}

fn parse_dns_server(text: &str) -> Result<SocketAddr, String> {
    let is_host = |ip: IpAddr| {
        !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
    };
    let server =
        resolve::parse_server(text).filter(|server| server.port() != 0 && is_host(server.ip()));
    server.ok_or_else(|| {
        "write the IP of a DNS server, as in 10.96.0.10, or with a port, as in 10.96.0.10:5353 or \
         [2001:db8::53]:5353"
            .to_owned()
    })
}

/// The most questions to DNS per second: no server of a cluster answers more.
const MAX_DNS_QPS: u32 = 100_000;

/// Parses the number of questions to DNS per second.
pub(super) fn parse_dns_qps(text: &str) -> Result<NonZeroU32, String> {
    match text.parse::<u32>() {
        Ok(number) if number <= MAX_DNS_QPS => NonZeroU32::new(number)
            .ok_or_else(|| "with 0 no name would ever be asked; write at least 1".to_owned()),
        _ => Err(format!("write a number from 1 to {MAX_DNS_QPS}")),
    }
}

/// Parses the address of a listener.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write IP:PORT, as in 0.0.0.0:8080 or [::]:8080".to_owned())
}

/// Parses a percentage from 1 to 100, with or without `%`.
pub(super) fn parse_percentage(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number
        .filter(|number| (1..=100).contains(number))
        .ok_or_else(|| "write a percentage from 1% to 100%".to_owned())
}

/// The longest duration of an argument. A point in time this far ahead can still be written as a
/// date.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Parses a duration of at most 365 days.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "write a duration as in 10m, 90s or 0s".to_owned())?;
    if duration > MAX_DURATION {
        return Err("write at most 365d".to_owned());
    }
    Ok(duration)
}

/// The most commands that may run at once. Each has a thread of its own.
const MAX_EXEC: usize = 10_000;

/// Parses the number of commands that may run at once.
pub(super) fn parse_max_exec(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<usize>() {
        Ok(number) if number <= MAX_EXEC => NonZeroUsize::new(number)
            .ok_or_else(|| "with 0 no exec check would ever run; write at least 1".to_owned()),
        _ => Err(format!("write a number from 1 to {MAX_EXEC}")),
    }
}

/// Parses the name of a namespace.
pub(super) fn parse_namespace(text: &str) -> Result<String, String> {
    config::validate_namespace(text)?;
    Ok(text.to_owned())
}

/// The name of a Service, perhaps without its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceName {
    namespace: Option<String>,
    service: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.service),
            None => f.write_str(&self.service),
        }
    }
}

impl ServiceName {
    /// Returns whether it is the name of a Service.
    pub(super) fn names(&self, namespace: &str, service: &str) -> bool {
        self.service == service && self.namespace.as_ref().is_none_or(|own| own == namespace)
    }

    /// Returns an error if it names another namespace than `-n` does.
    pub(super) fn check_namespace(&self, chosen: Option<&str>) -> anyhow::Result<()> {
        let Self { namespace, service } = self;
        match (namespace.as_deref(), chosen) {
            (Some(own), Some(chosen)) if own != chosen => {
                bail!("{own}/{service} is not in the namespace {chosen} of -n; write one namespace")
            }
            _ => Ok(()),
        }
    }

    /// Returns the Service; `default_namespace` is for a name without a namespace.
    pub(super) fn in_namespace(self, default_namespace: &str) -> DatabaseId {
        let namespace = self.namespace.unwrap_or_else(|| default_namespace.to_owned());
        DatabaseId { namespace, service: self.service }
    }
}

/// Parses the name of a Service, with or without a namespace.
pub(super) fn parse_service(text: &str) -> Result<ServiceName, String> {
    if text.contains('/') {
        let DatabaseId { namespace, service } = parse_database_id(text)?;
        return Ok(ServiceName { namespace: Some(namespace), service });
    }
    config::validate_service(text)?;
    Ok(ServiceName { namespace: None, service: text.to_owned() })
}

/// Parses the name of a database's Service.
pub(super) fn parse_database_id(text: &str) -> Result<DatabaseId, String> {
    let (namespace, service) =
        split_name(text).ok_or("write NAMESPACE/SERVICE, as in prod/mysql")?;
    config::validate_namespace(namespace)?;
    config::validate_service(service)?;
    Ok(DatabaseId { namespace: namespace.to_owned(), service: service.to_owned() })
}

/// Parses the name of a Lease.
pub(super) fn parse_lease(text: &str) -> Result<lease::Name, String> {
    let (namespace, name) = split_name(text).ok_or("write NAMESPACE/NAME, as in prod/mysql")?;
    config::validate_namespace(namespace)?;
    config::validate_object(name, "a Lease")?;
    Ok(lease::Name { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// The namespace and name of a ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceAccountName {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The one in deploy/.
impl Default for ServiceAccountName {
    fn default() -> Self {
        let name = "external-endpoints".to_owned();
        Self { namespace: name.clone(), name }
    }
}

impl fmt::Display for ServiceAccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Parses the name of a ServiceAccount.
pub(super) fn parse_service_account(text: &str) -> Result<ServiceAccountName, String> {
    let (namespace, name) = split_name(text).ok_or("write NAMESPACE/NAME, as in ops/checker")?;
    config::validate_namespace(namespace)?;
    config::validate_object(name, "a ServiceAccount")?;
    Ok(ServiceAccountName { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn split_name(text: &str) -> Option<(&str, &str)> {
    text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}
