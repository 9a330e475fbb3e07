//! The config as it is written: one record a mapping, from which reading, the JSON Schema and `validate --explain` all come.

use schemars::JsonSchema;
use serde::Serialize;

use super::bytes::{BodyText, ExpectedAnswer, Payload};
use super::leaf::{
    AbsoluteDir, Argument, Bool, DnsLabel, ExitStatusRange, FilePath, HeaderName, HostHeader,
    Interval, Ip, Method, PortNumber, ServerName, ServiceName, StatusRange, Threshold, UrlPath,
    VariableName, Zone,
};
use super::policy::{Policy, Priority, Reason};
use super::read::{Field, FromNode, Reader, ScalarType, camel_case, record};
use super::tree::{Entry, Node, NodeKind, Scalar, ScalarKind};
use super::value::NamedValues;
use super::{Protocol, PublishMode, Scheme};

record! {
    /// Databases outside the cluster, and how to find out which of their addresses are healthy.
    Config requires ["databases"] {
        /// What every database has unless it says otherwise.
        defaults: Defaults,
        /// The databases, one for each Service.
        #[schemars(length(min = 1))]
        databases: Vec<Field<Database>>,
        /// Delete the Endpoints of a database that is taken out of this file while the daemon runs; else they stay as they are.
        #[schemars(extend("default" = false))]
        prune: Bool,
    }
}

record! {
    /// What every database has unless it says otherwise.
    Defaults requires [] {
        /// The namespace of databases that name none; without it, the namespace of the Pod that reads this.
        namespace: DnsLabel,
        /// The check of databases that have none, and the keys that a database's check leaves out.
        check: Check,
    }
}

record! {
    /// One Service without a selector, and the addresses outside the cluster that stand behind it.
    #[schemars(extend("oneOf" = [{"required": ["port"]}, {"required": ["ports"]}]))]
    Database requires ["service", "addresses"] {
        /// The name of the Service, and so of its Endpoints.
        service: ServiceName,
        /// The namespace of the Service; else `defaults.namespace`.
        namespace: DnsLabel,
        /// The one port of the database: short for `ports: [{port: …}]`.
        port: PortNumber,
        /// The ports of the database. With several, each has a name: the one it has in the Service.
        #[schemars(length(min = 1))]
        ports: Vec<Field<Port>>,
        /// Where the database answers.
        #[schemars(length(min = 1))]
        addresses: Vec<Field<AddressEntry>>,
        /// How its addresses are checked.
        check: Check,
        /// Which of the healthy addresses are published, and which others.
        policy: Policy,
        /// What the healthy addresses are published in: Endpoints, which Kubernetes mirrors into EndpointSlices;
        /// EndpointSlices; or both.
        #[schemars(extend("default" = "endpoints"))]
        publish: PublishMode,
        /// Create the Service when there is none; without this key a missing Service is waited for.
        create_service: CreateService,
        /// Take over Endpoints that someone else wrote.
        #[schemars(extend("default" = false))]
        adopt: Bool,
    }
}

record! {
    /// What kind of Service to create when there is none.
    CreateService requires [] {
        /// Without an IP of its own: DNS gives the addresses themselves.
        #[schemars(extend("default" = false))]
        headless: Bool,
    }
}

record! {
    /// A port of the database.
    Port requires ["port"] {
        /// The name of the port in the Service. Needed when there are several.
        name: DnsLabel,
        /// The number that the database listens on.
        port: PortNumber,
        /// The protocol of the port.
        #[schemars(extend("default" = "TCP"))]
        protocol: Protocol,
    }
}

record! {
    /// An address with more to say about it than the IP.
    Address requires ["address"] {
        /// The IP.
        address: Ip,
        /// The tier: the lowest number is preferred; the others serve only when all that are preferred to them are too weak.
        #[schemars(extend("default" = 0))]
        priority: Priority,
        /// The DNS label of this replica in a headless Service.
        hostname: DnsLabel,
        /// The topology zone that it is in. Only with `publish: slices` or `both`.
        zone: Zone,
        /// Why this address is in maintenance: it is taken out, still checked, and shown with this reason.
        maintenance: Reason,
        /// What is different in the check of this address: single keys, laid over the database's check.
        check: Check,
    }
}

record! {
    /// How an address is tried: one kind (`tcp`, `http` or `exec`), and how often and how patiently.
    Check requires [] {
        /// How often an address is tried.
        #[schemars(extend("default" = "5s"))]
        interval: Interval,
        /// How long one try may take, all of it. Not more than the interval.
        #[schemars(extend("default" = "2s"))]
        timeout: Interval,
        /// How soon an address is tried again after a verdict that disagrees with its state, until it flips or
        /// recovers. Not more than the interval, to which the default shrinks.
        #[schemars(extend("default" = "1s"))]
        recheck_interval: Interval,
        /// How many passes in a row make an address healthy.
        #[schemars(extend("default" = 2))]
        healthy_threshold: Threshold,
        /// How many failures in a row make an address unhealthy.
        #[schemars(extend("default" = 3))]
        unhealthy_threshold: Threshold,
        /// Passes when the connection is accepted; with `expect`, when the answer contains it.
        tcp: Tcp,
        /// Passes when the status is expected and the body contains the text.
        http: Http,
        /// Passes when the program exits with status 0.
        exec: Exec,
    }
}

record! {
    /// A check over a TCP connection.
    Tcp requires [] {
        /// The port to connect to; else the database's first port.
        port: PortNumber,
        /// Speak TLS on the connection. `{}` checks against the system's certificates.
        tls: Tls,
        /// What to send once connected.
        send: Payload,
        /// Text that the answer must contain, or bytes.
        expect: ExpectedAnswer,
        /// Complete the handshake, so that the database sees the connection. Implied by `tls`, `send` and `expect`;
        /// without it the connection ends before the database hears of it.
        #[schemars(extend("default" = false))]
        accept: Bool,
    }
}

record! {
    /// A check by one HTTP request. Redirects are not followed.
    Http requires [] {
        /// The path, and the query if there is one.
        #[schemars(extend("default" = "/"))]
        path: UrlPath,
        /// The port to connect to; else the database's first port.
        port: PortNumber,
        /// Whether TLS is spoken.
        #[schemars(extend("default" = "http"))]
        scheme: Scheme,
        /// The method of the request.
        #[schemars(extend("default" = "GET"))]
        method: Method,
        /// The Host header; else the address.
        host: HostHeader,
        /// More headers, from name to value.
        headers: NamedValues<HeaderName>,
        /// The statuses that pass: numbers, or ranges like `200-299`.
        #[schemars(length(min = 1), extend("default" = ["200-399"]))]
        expected_statuses: Vec<Field<StatusRange>>,
        /// Text that the body must contain.
        expected_body: BodyText,
        /// Offer HTTP/2, which the server may choose. Only with `scheme: https`; else HTTP/1.1 is spoken.
        #[schemars(extend("default" = false))]
        http2: Bool,
        /// How TLS is spoken. Only with `scheme: https`.
        tls: Tls,
    }
}

record! {
    /// A check by a program, which is run without a shell.
    Exec requires [] {
        /// The program and its arguments. `$(TARGET_IP)`, `$(TARGET_PORT)`, `$(TARGET_HOST)`, `$(SERVICE)`,
        /// `$(NAMESPACE)` and the names in `env` are expanded.
        #[schemars(length(min = 1))]
        command: Vec<Field<Argument>>,
        /// What the program finds in its environment beside TARGET_IP, TARGET_PORT, TARGET_HOST, SERVICE and
        /// NAMESPACE. It sees nothing else.
        env: NamedValues<VariableName>,
        /// The folder that the program runs in: an absolute path.
        working_directory: AbsoluteDir,
        /// The exit statuses that say nothing about the address, as 3 of Nagios' plugins: numbers, or ranges like
        /// `64-78`. A try that ends so is inconclusive. So is one that ends with 126 or 127, by which a shell says that
        /// it can't run a command.
        #[schemars(extend("default" = []))]
        inconclusive_statuses: Vec<Field<ExitStatusRange>>,
    }
}

record! {
    /// How a TLS connection is made.
    Tls requires [] {
        /// PEM certificates of those who may sign the server's; else the system's.
        ca_file: FilePath,
        /// PEM chain of the client's certificate, with `keyFile`.
        cert_file: FilePath,
        /// PEM key of the client's certificate, with `certFile`.
        key_file: FilePath,
        /// The name that the server's certificate must carry; else the address.
        server_name: ServerName,
        /// Take any certificate. The connection is then safe from no one.
        #[schemars(extend("default" = false))]
        insecure_skip_verify: Bool,
    }
}

/// One of a database's addresses, short or long.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum AddressEntry {
    /// An IP.
    Short(Ip),
    Long(Address),
}

impl FromNode for AddressEntry {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.kind {
            NodeKind::Scalar(Scalar { kind: ScalarKind::Text | ScalarKind::Number, .. }) => {
                Ip::read(node, reader).map(AddressEntry::Short)
            }
            NodeKind::Map(entries) => {
                if let [Entry { key, key_span, .. }] = entries.as_slice()
                    && Ip::parse(&Scalar::text(format!("{key}:"))).is_ok()
                {
                    let message = format!(
                        "YAML takes the last colon for a key's; write `\"{key}:\"` in quotes"
                    );
                    reader.error(*key_span, message);
                    return None;
                }
                Address::read(node, reader).map(AddressEntry::Long)
            }
            _ => reader.expected(
                node,
                "an IP",
                "write one like `10.20.0.11`, or `{address: 10.20.0.11, …}`",
            ),
        }
    }
}
