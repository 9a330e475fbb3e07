//! The join of a database's ports with those of its Service: kube-proxy knows an endpoint's port by
//! the name of the Service's port. Pure.
//!
//! | the database has        | a port of the Service joins it                             |
//! | ---                     | ---                                                        |
//! | one port without a name | the only port of the Service, whatever its number          |
//! |                         | else each one whose target port has the number             |
//! |                         | else the one whose port has the number                     |
//! | ports with names        | the one of that name                                       |
//! | either                  | also each other one with the target port of one that joins |
//!
//! Both must have the same protocol. Each port of the database must join, or nothing is published.

use k8s_openapi::api::core::v1::{EndpointPort, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::{Port, Protocol};

/// Returns the ports that the Endpoints shall have, one for each port of the Service that joins, in
/// the order of the config and then of the Service. Otherwise returns the reason why a port of the
/// database joins none.
pub(crate) fn join(ours: &[Port], theirs: &[ServicePort]) -> Result<Vec<EndpointPort>, String> {
    let joined = joined(ours, theirs).ok_or_else(|| {
        format!(
            "the database's ports {} do not match the Service's ports {}; give each port the name \
             that the Service has for it",
            list(ours.iter().map(|p| show(
                p.name.as_deref(),
                i32::from(p.number),
                p.protocol.as_str()
            ))),
            list(theirs.iter().map(show_service)),
        )
    })?;
    Ok(joined.into_iter().map(|(port, service)| endpoint_port(port, service)).collect())
}

/// Returns the ports of the Service to which nothing is published, in words.
pub(crate) fn unserved(ours: &[Port], theirs: &[ServicePort]) -> Option<String> {
    let joined = joined(ours, theirs)?;
    let is_served =
        |service: &&ServicePort| joined.iter().any(|(_, joined)| std::ptr::eq(*joined, *service));
    let mut unserved =
        theirs.iter().filter(|service| !is_served(service)).map(show_service).peekable();
    unserved.peek().is_some().then(|| list(unserved))
}

/// Pairs each port of the database with those of the Service that join it; none if one joins none.
fn joined<'a>(
    ours: &'a [Port],
    theirs: &'a [ServicePort],
) -> Option<Vec<(&'a Port, &'a ServicePort)>> {
    let joined: Vec<(&Port, Vec<&ServicePort>)> = match ours {
        [port] if port.name.is_none() => vec![(port, unnamed(port, theirs))],
        _ => ours.iter().map(|port| (port, named(port, theirs).into_iter().collect())).collect(),
    };
    if joined.iter().any(|(_, services)| services.is_empty()) {
        return None;
    }
    let mut free: Vec<&ServicePort> = theirs.iter().collect();
    free.retain(|service| {
        !joined.iter().any(|(_, services)| services.iter().any(|one| std::ptr::eq(*one, *service)))
    });
    let mut pairs = Vec::new();
    for (port, mut services) in joined {
        let leads_there = |service: &&ServicePort| {
            services
                .iter()
                .any(|one| target(one) == target(service) && protocol(one) == protocol(service))
        };
        let (more, rest): (Vec<_>, Vec<_>) = free.into_iter().partition(leads_there);
        free = rest;
        services.extend(more);
        pairs.extend(services.into_iter().map(|service| (port, service)));
    }
    Some(pairs)
}

/// Returns the only port of the Service, else those whose target port, or port, has the number.
fn unnamed<'a>(port: &Port, theirs: &'a [ServicePort]) -> Vec<&'a ServicePort> {
    let number = i32::from(port.number);
    let of_protocol =
        || theirs.iter().filter(|service| protocol(service) == port.protocol.as_str());
    if theirs.len() == 1 {
        return of_protocol().collect();
    }
    let targets: Vec<&ServicePort> = of_protocol()
        .filter(|service| service.target_port == Some(IntOrString::Int(number)))
        .collect();
    if !targets.is_empty() {
        return targets;
    }
    of_protocol().find(|service| service.port == number).into_iter().collect()
}

fn named<'a>(port: &Port, theirs: &'a [ServicePort]) -> Option<&'a ServicePort> {
    theirs.iter().find(|service| {
        service.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
            && protocol(service) == port.protocol.as_str()
    })
}

/// Returns the port that a Service's port leads to. The API fills in its own number where none is
/// given.
fn target(service: &ServicePort) -> IntOrString {
    service.target_port.clone().unwrap_or(IntOrString::Int(service.port))
}

fn endpoint_port(port: &Port, service: &ServicePort) -> EndpointPort {
    EndpointPort {
        // The API stores an empty name as none.
        name: service.name.clone().filter(|name| !name.is_empty()),
        port: i32::from(port.number),
        protocol: Some(port.protocol.as_str().to_owned()),
        app_protocol: None,
    }
}

fn protocol(service: &ServicePort) -> &str {
    service.protocol.as_deref().unwrap_or(Protocol::Tcp.as_str())
}

fn show_service(port: &ServicePort) -> String {
    show(port.name.as_deref(), port.port, protocol(port))
}

fn show(name: Option<&str>, number: i32, protocol: &str) -> String {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("{name} ({number}/{protocol})"),
        None => format!("unnamed ({number}/{protocol})"),
    }
}

fn list(ports: impl Iterator<Item = String>) -> String {
    format!("[{}]", ports.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(name: Option<&str>, number: u16) -> Port {
        Port { name: name.map(Into::into), number, protocol: Protocol::Tcp }
    }

    fn theirs(name: &str, port: i32, target: i32) -> ServicePort {
        ServicePort {
            name: (!name.is_empty()).then(|| name.to_owned()),
            port,
            target_port: Some(IntOrString::Int(target)),
            protocol: Some("TCP".into()),
            ..ServicePort::default()
        }
    }

    fn names(joined: Result<Vec<EndpointPort>, String>) -> Vec<(Option<String>, i32)> {
        joined.expect("a join").into_iter().map(|p| (p.name, p.port)).collect()
    }

    #[test]
    fn an_unnamed_port_takes_the_name_of_the_only_port() {
        assert_eq!(
            names(join(&[ours(None, 3306)], &[theirs("mysql", 33, 44)])),
            [(Some("mysql".into()), 3306)]
        );
        assert_eq!(names(join(&[ours(None, 3306)], &[theirs("", 3306, 3306)])), [(None, 3306)]);
    }

    #[test]
    fn an_unnamed_port_is_found_by_its_target_port_first() {
        let service = [theirs("a", 3306, 1), theirs("b", 80, 3306), theirs("c", 5432, 5432)];
        assert_eq!(names(join(&[ours(None, 3306)], &service)), [(Some("b".into()), 3306)]);
        assert_eq!(names(join(&[ours(None, 80)], &service)), [(Some("b".into()), 80)]);
        assert!(join(&[ours(None, 9)], &service).is_err());
        assert_eq!(
            unserved(&[ours(None, 3306)], &service).as_deref(),
            Some("[a (3306/TCP), c (5432/TCP)]"),
            "nothing is published to those that lead elsewhere"
        );
    }

    #[test]
    fn all_service_ports_that_lead_to_the_same_target_join() {
        let service = [
            theirs("mysql", 3306, 3306),
            theirs("admin", 9000, 9000),
            theirs("mysqlx", 33060, 3306),
        ];
        let both = [(Some("mysql".into()), 3306), (Some("mysqlx".into()), 3306)];
        assert_eq!(names(join(&[ours(None, 3306)], &service)), both);
        assert_eq!(names(join(&[ours(Some("mysql"), 3306)], &service)), both);
        // The database listens elsewhere than the Service says: the port of that name joins, and so
        // do its twins.
        assert_eq!(
            names(join(&[ours(Some("mysql"), 3307)], &service)),
            [(Some("mysql".into()), 3307), (Some("mysqlx".into()), 3307)]
        );
        assert_eq!(unserved(&[ours(None, 3306)], &service).as_deref(), Some("[admin (9000/TCP)]"));
        assert_eq!(
            unserved(&[ours(Some("mysql"), 3306), ours(Some("admin"), 9000)], &service),
            None
        );
    }

    #[test]
    fn a_port_that_has_its_name_in_the_config_joins_that_one_alone() {
        let service = [theirs("mysql", 3306, 3306), theirs("mysqlx", 33060, 3306)];
        let joined = join(&[ours(Some("mysql"), 3306), ours(Some("mysqlx"), 33060)], &service);
        assert_eq!(names(joined), [(Some("mysql".into()), 3306), (Some("mysqlx".into()), 33060)]);
    }

    #[test]
    fn a_target_port_by_name_joins_its_twins_too() {
        let by_name = |name: &str, port: i32| ServicePort {
            target_port: Some(IntOrString::String("db".into())),
            ..theirs(name, port, 0)
        };
        let joined = join(&[ours(None, 3306)], &[by_name("a", 3306), by_name("b", 33060)]);
        assert_eq!(names(joined), [(Some("a".into()), 3306), (Some("b".into()), 3306)]);
    }

    #[test]
    fn a_twin_of_another_protocol_is_unserved() {
        let udp = ServicePort { protocol: Some("UDP".into()), ..theirs("dns-udp", 53, 53) };
        let service = [theirs("dns", 53, 53), udp];
        assert_eq!(names(join(&[ours(None, 53)], &service)), [(Some("dns".into()), 53)]);
        assert_eq!(unserved(&[ours(None, 53)], &service).as_deref(), Some("[dns-udp (53/UDP)]"));
        assert_eq!(unserved(&[ours(None, 9)], &service), None, "that is a mismatch");
    }

    #[test]
    fn named_ports_join_by_name_alone() {
        let service = [theirs("patroni", 1, 1), theirs("postgres", 2, 2), theirs("more", 3, 3)];
        let joined = join(&[ours(Some("postgres"), 5432), ours(Some("patroni"), 8008)], &service);
        assert_eq!(
            names(joined),
            [(Some("postgres".into()), 5432), (Some("patroni".into()), 8008)]
        );
    }

    #[test]
    fn no_join_names_both_lists() {
        let error = join(&[ours(Some("mysql"), 3306)], &[theirs("", 3306, 3306)]).unwrap_err();
        assert!(error.starts_with(
            "the database's ports [mysql (3306/TCP)] do not match the Service's ports [unnamed \
             (3306/TCP)];"
        ));
    }

    #[test]
    fn another_protocol_is_no_join() {
        let udp = ServicePort { protocol: Some("UDP".into()), ..theirs("dns", 53, 53) };
        assert!(join(&[ours(None, 53)], std::slice::from_ref(&udp)).is_err());
        assert!(join(&[ours(Some("dns"), 53)], &[udp]).is_err());
    }
}
