//! Arguments that several commands share, and the grammar of their values. Each error says what to
//! write instead.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{self, DatabaseId};
use crate::lease;

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
    config::validate_lease(name)?;
    Ok(lease::Name { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn split_name(text: &str) -> Option<(&str, &str)> {
    text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}
