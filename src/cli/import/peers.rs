//! Databases from the objects of two other controllers: `ClusterEndpoint` of endpoints-operator
//! (groups `sealos.io` and `sealyun.com`), and `DiscoveredService` of
//! external-service-discovery-operator (group `discovery.k8sready.com`). Pure.
//!
//! | field of a ClusterEndpoint | becomes |
//! | --- | --- |
//! | `hosts`, `ports[].hosts` | `addresses`; the hosts of all ports must be the same |
//! | `ports[].targetPort` | `ports` |
//! | `ports[].httpGet`, else `tcpSocket` | `check`: the first probe |
//! | `periodSeconds`, `timeoutSeconds`, `successThreshold`, … | `interval`, `timeout`, … |
//! | its Endpoints | `adopt: true` |
//!
//! | field of a DiscoveredService | becomes |
//! | --- | --- |
//! | `discovery.static.addresses`, `discovery.dns.names` | `addresses` |
//! | `ports[].targetPort`, else `port` | `ports` |
//! | `healthCheck` | `check` |
//! | its EndpointSlice | `publish: slices`, and advice to delete it in the end |

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::entry::{Entry, Found, PortEntry, tcp_check};

/// An object of a custom resource.
#[derive(Debug, Deserialize)]
struct Object<S> {
    metadata: Metadata,
    spec: S,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    namespace: Option<String>,
}

/// Returns what became of a ClusterEndpoint. `namespace` is for one that names none.
pub(super) fn cluster_endpoint(object: &Value, namespace: Option<&str>) -> Found {
    convert(object, namespace, |spec: ClusterEndpointSpec, entry| spec.complete(entry))
}

/// Returns what became of a DiscoveredService. `namespace` is for one that names none.
pub(super) fn discovered_service(object: &Value, namespace: Option<&str>) -> Found {
    convert(object, namespace, |spec: DiscoveredServiceSpec, entry| spec.complete(entry))
}

fn convert<S: DeserializeOwned>(
    object: &Value,
    namespace: Option<&str>,
    complete: impl FnOnce(S, Entry) -> Result<Entry, String>,
) -> Found {
    let metadata = object.get("metadata").cloned().unwrap_or_default();
    let metadata = Metadata::deserialize(&metadata).unwrap_or_default();
    let namespace = metadata.namespace.as_deref().or(namespace);
    let what = format!("{}/{}", namespace.unwrap_or_default(), metadata.name);
    let what = what.trim_start_matches('/').to_owned();
    match Object::<S>::deserialize(object) {
        Err(error) => Found::left_out(what, format!("it can't be read: {error}")),
        Ok(Object { metadata, spec }) => {
            match complete(spec, Entry::new(&metadata.name, namespace)) {
                Ok(entry) => Found::checked(&what, entry),
                Err(why) => Found::left_out(what, why),
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClusterEndpointSpec {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    ports: Vec<ClusterEndpointPort>,
    period_seconds: Option<u32>,
    timeout_seconds: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClusterEndpointPort {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    name: String,
    #[serde(default = "tcp")]
    protocol: String,
    target_port: u16,
    timeout_seconds: Option<u32>,
    success_threshold: Option<u32>,
    failure_threshold: Option<u32>,
    http_get: Option<HttpGet>,
    tcp_socket: Option<Value>,
    udp_socket: Option<Value>,
    grpc: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    path: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<HttpHeader>,
}

#[derive(Debug, Clone, Deserialize)]
struct HttpHeader {
    name: String,
    value: String,
}

fn tcp() -> String {
    "TCP".to_owned()
}

impl ClusterEndpointSpec {
    /// The controller's own defaults.
    const PERIOD: u32 = 10;
    const TIMEOUT: u32 = 1;
    const SUCCESSES: u32 = 1;
    const FAILURES: u32 = 3;

    fn complete(self, entry: Entry) -> Result<Entry, String> {
        let hosts = |port: &ClusterEndpointPort| -> BTreeSet<String> {
            self.hosts.iter().chain(&port.hosts).cloned().collect()
        };
        let different: BTreeSet<BTreeSet<String>> = self.ports.iter().map(hosts).collect();
        let hosts = match different.len() {
            1 => different.into_iter().next().unwrap_or_default(),
            0 => return Err("it has no ports".to_owned()),
            _ => {
                return Err("its ports have different hosts; give each list of hosts a Service \
                            and a database of its own"
                    .to_owned());
            }
        };
        let ports: Vec<PortEntry> = self.ports.iter().map(ClusterEndpointPort::entry).collect();
        let (check, dropped) = self.check(&ports);
        let entry = entry
            .ports(&single_without_name(ports))
            .key("addresses", json!(hosts))
            .commented_key("adopt", json!(true), "its Endpoints are endpoints-operator's")
            .key("check", check)
            .remark(
                "stop endpoints-operator before this daemon runs; then delete the ClusterEndpoint \
                 with --cascade=orphan, or its Service is deleted too",
            );
        Ok(entry.with_remarks(dropped))
    }

    /// Returns the check, and remarks on the probes that it leaves out.
    fn check(&self, ports: &[PortEntry]) -> (Value, Vec<String>) {
        let by_http = self.ports.iter().find(|port| port.http_get.is_some());
        let by_tcp = self.ports.iter().find(|port| port.tcp_socket.is_some());
        let probed = by_http.or(by_tcp).or(self.ports.first());
        let mut check = match by_http.and_then(|port| Some((port, port.http_get.as_ref()?))) {
            Some((port, http)) => json!({"http": http.check(port.target_port)}),
            None => match by_tcp.filter(|port| port.target_port != ports[0].number) {
                Some(port) => json!({"tcp": {"port": port.target_port}}),
                None => tcp_check(ports),
            },
        };
        let of_port = |get: fn(&ClusterEndpointPort) -> Option<u32>, default| {
            probed.and_then(get).unwrap_or(default)
        };
        let default_timeout = self.timeout_seconds.unwrap_or(Self::TIMEOUT);
        let timeout = of_port(|port| port.timeout_seconds, default_timeout);
        check["interval"] = seconds(self.period_seconds.unwrap_or(Self::PERIOD));
        check["timeout"] = seconds(timeout);
        check["healthyThreshold"] = json!(of_port(|port| port.success_threshold, Self::SUCCESSES));
        check["unhealthyThreshold"] = json!(of_port(|port| port.failure_threshold, Self::FAILURES));
        let is_other = |port: &&ClusterEndpointPort| {
            probed.is_none_or(|probed| probed.target_port != port.target_port)
        };
        let mut dropped: Vec<String> = self
            .ports
            .iter()
            .filter(is_other)
            .filter(|port| port.http_get.is_some() || port.tcp_socket.is_some())
            .map(|port| format!("the probe of port {} is left out", port.target_port))
            .collect();
        for port in &self.ports {
            for (probe, there) in [("udpSocket", &port.udp_socket), ("grpc", &port.grpc)] {
                if there.is_some() {
                    dropped.push(format!(
                        "the {probe} probe of port {} is left out; an exec check can ask the same",
                        port.target_port
                    ));
                }
            }
        }
        (check, dropped)
    }
}

impl ClusterEndpointPort {
    fn entry(&self) -> PortEntry {
        let name = Some(self.name.clone()).filter(|name| !name.is_empty());
        PortEntry { name, number: self.target_port, protocol: self.protocol.clone() }
    }
}

impl HttpGet {
    fn check(&self, port: u16) -> Value {
        let mut http = Map::from_iter([("port".to_owned(), json!(port))]);
        if let Some(path) = &self.path {
            http.insert("path".to_owned(), json!(path));
        }
        if self.scheme.as_ref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            http.insert("scheme".to_owned(), json!("https"));
            // The kubelet's probes, which these are modelled on, verify no certificate.
            http.insert("tls".to_owned(), json!({"insecureSkipVerify": true}));
        }
        let (hosts, others): (Vec<&HttpHeader>, Vec<&HttpHeader>) =
            self.http_headers.iter().partition(|header| header.name.eq_ignore_ascii_case("host"));
        if let Some(host) = hosts.first() {
            http.insert("host".to_owned(), json!(host.value));
        }
        if !others.is_empty() {
            let headers = others.into_iter().map(|it| (it.name.clone(), json!(it.value)));
            http.insert("headers".to_owned(), Value::Object(headers.collect()));
        }
        Value::Object(http)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoveredServiceSpec {
    discovery: Discovery,
    ports: Vec<DiscoveredPort>,
    health_check: Option<HealthCheck>,
}

#[derive(Debug, Deserialize)]
struct Discovery {
    #[serde(rename = "static")]
    fixed: Option<StaticDiscovery>,
    dns: Option<DnsDiscovery>,
}

#[derive(Debug, Deserialize)]
struct StaticDiscovery {
    addresses: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct DnsDiscovery {
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoveredPort {
    #[serde(default)]
    name: String,
    port: u16,
    target_port: Option<u16>,
    #[serde(default = "tcp")]
    protocol: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthCheck {
    #[serde(rename = "type")]
    kind: String,
    port: u16,
    path: Option<String>,
    host: Option<String>,
    expected_statuses: Option<Vec<u16>>,
    interval: Option<String>,
    timeout: Option<String>,
    success_threshold: Option<u32>,
    failure_threshold: Option<u32>,
}

impl DiscoveredServiceSpec {
    fn complete(self, entry: Entry) -> Result<Entry, String> {
        let fixed = self.discovery.fixed.map(|fixed| fixed.addresses).unwrap_or_default();
        let names = self.discovery.dns.map(|dns| dns.names).unwrap_or_default();
        let follows_names = !names.is_empty();
        let addresses: Vec<String> = fixed.into_iter().chain(names).collect();
        let ports: Vec<PortEntry> = self.ports.iter().map(DiscoveredPort::entry).collect();
        let check = match &self.health_check {
            Some(check) => check.check(),
            None => tcp_check(&ports),
        };
        let mut entry = entry
            .ports(&single_without_name(ports))
            .key("addresses", json!(addresses))
            .key("publish", json!("slices"))
            .key("check", check)
            .remark(
                "once this database is Published, stop external-service-discovery-operator, \
                 delete the DiscoveredService with --cascade=orphan, and then the EndpointSlice \
                 of the same name, which sends clients to its addresses too",
            );
        if follows_names {
            entry = entry.key("dns", json!({"families": ["IPv4"]}));
        }
        if self.health_check.is_none() {
            entry = entry.remark("it had no check; here its addresses are checked");
        }
        Ok(entry)
    }
}

impl DiscoveredPort {
    fn entry(&self) -> PortEntry {
        let name = Some(self.name.clone()).filter(|name| !name.is_empty());
        let number = self.target_port.unwrap_or(self.port);
        PortEntry { name, number, protocol: self.protocol.clone() }
    }
}

impl HealthCheck {
    fn check(&self) -> Value {
        let mut check = match self.kind.as_str() {
            "HTTP" | "HTTPS" => json!({"http": self.http()}),
            _ => json!({"tcp": {"port": self.port}}),
        };
        check["interval"] = json!(self.interval.as_deref().unwrap_or("10s"));
        check["timeout"] = json!(self.timeout.as_deref().unwrap_or("3s"));
        check["healthyThreshold"] = json!(self.success_threshold.unwrap_or(1));
        check["unhealthyThreshold"] = json!(self.failure_threshold.unwrap_or(3));
        check
    }

    fn http(&self) -> Value {
        let mut http = Map::from_iter([("port".to_owned(), json!(self.port))]);
        let mut set = |key: &str, value: Value| http.insert(key.to_owned(), value);
        if let Some(path) = &self.path {
            set("path", json!(path));
        }
        if let Some(host) = &self.host {
            set("host", json!(host));
        }
        if let Some(statuses) = &self.expected_statuses {
            set("expectedStatuses", json!(statuses));
        }
        if self.kind == "HTTPS" {
            set("scheme", json!("https"));
            if let Some(host) = &self.host {
                set("tls", json!({"serverName": host}));
            }
        }
        Value::Object(http)
    }
}

/// Returns the ports; a single one takes its name from the Service.
fn single_without_name(mut ports: Vec<PortEntry>) -> Vec<PortEntry> {
    if let [port] = &mut ports[..] {
        port.name = None;
    }
    ports
}

/// Returns a duration of whole seconds. The controllers take 0 for their least value, one second.
fn seconds(seconds: u32) -> Value {
    json!(format!("{}s", seconds.max(1)))
}

#[cfg(test)]
mod tests;
