//! Joins a database's ports to those of its Service: kube-proxy knows an endpoint's port by the NAME of the Service's.

use k8s_openapi::api::core::v1::{EndpointPort, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::{Port, Protocol};

/// The ports that the Endpoints shall have, in the order of the config; else, in words, why there is no join.
pub fn join(ours: &[Port], theirs: &[ServicePort]) -> Result<Vec<EndpointPort>, String> {
    let joined: Option<Vec<EndpointPort>> = match ours {
        [port] if port.name.is_none() => unnamed(port, theirs).map(|service| vec![endpoint_port(port, service)]),
        _ => ours.iter().map(|port| named(port, theirs).map(|service| endpoint_port(port, service))).collect(),
    };
    joined.ok_or_else(|| {
        format!(
            "the database's ports {} do not match the Service's ports {}; give each port the name that the Service has for it",
            list(ours.iter().map(|p| show(p.name.as_deref(), i32::from(p.number), p.protocol.as_str()))),
            list(theirs.iter().map(|p| show(p.name.as_deref(), p.port, protocol(p)))),
        )
    })
}

/// The only port that the Service has, else the one whose target port (or port) has our number.
fn unnamed<'a>(port: &Port, theirs: &'a [ServicePort]) -> Option<&'a ServicePort> {
    let number = i32::from(port.number);
    let speaks = |service: &&ServicePort| protocol(service) == port.protocol.as_str();
    match theirs {
        [only] => Some(only).filter(speaks),
        _ => {
            let targets = |service: &&ServicePort| service.target_port == Some(IntOrString::Int(number));
            let listens = |service: &&ServicePort| service.port == number;
            let candidates = || theirs.iter().filter(speaks);
            candidates().find(targets).or_else(|| candidates().find(listens))
        }
    }
}

fn named<'a>(port: &Port, theirs: &'a [ServicePort]) -> Option<&'a ServicePort> {
    theirs.iter().find(|service| {
        service.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
            && protocol(service) == port.protocol.as_str()
    })
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
    fn an_unnamed_port_takes_the_name_of_the_only_port_whatever_its_number() {
        assert_eq!(names(join(&[ours(None, 3306)], &[theirs("mysql", 33, 44)])), [(Some("mysql".into()), 3306)]);
        assert_eq!(names(join(&[ours(None, 3306)], &[theirs("", 3306, 3306)])), [(None, 3306)]);
    }

    #[test]
    fn an_unnamed_port_finds_its_number_among_several_by_target_port_first() {
        let service = [theirs("a", 3306, 1), theirs("b", 80, 3306), theirs("c", 5432, 5432)];
        assert_eq!(names(join(&[ours(None, 3306)], &service)), [(Some("b".into()), 3306)]);
        assert_eq!(names(join(&[ours(None, 80)], &service)), [(Some("b".into()), 80)]);
        assert!(join(&[ours(None, 9)], &service).is_err());
    }

    #[test]
    fn named_ports_join_by_name_alone() {
        let service = [theirs("patroni", 1, 1), theirs("postgres", 2, 2), theirs("more", 3, 3)];
        let joined = join(&[ours(Some("postgres"), 5432), ours(Some("patroni"), 8008)], &service);
        assert_eq!(names(joined), [(Some("postgres".into()), 5432), (Some("patroni".into()), 8008)]);
    }

    #[test]
    fn no_join_names_both_lists() {
        let error = join(&[ours(Some("mysql"), 3306)], &[theirs("", 3306, 3306)]).unwrap_err();
        assert!(error.starts_with(
            "the database's ports [mysql (3306/TCP)] do not match the Service's ports [unnamed (3306/TCP)];"
        ));
    }

    #[test]
    fn another_protocol_is_no_join() {
        let udp = ServicePort { protocol: Some("UDP".into()), ..theirs("dns", 53, 53) };
        assert!(join(&[ours(None, 53)], std::slice::from_ref(&udp)).is_err());
        assert!(join(&[ours(Some("dns"), 53)], &[udp]).is_err());
    }
}
