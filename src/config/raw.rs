//! The config as it is written: one record a mapping, from which reading, the JSON Schema and `validate --explain` all come.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::leaf::{
    Argument, FilePath, Folder, HeaderName, HostHeader, Ip, Label, Method, Period, PortNumber, ServerName, ServiceName,
    SourceName, Statuses, Switch, Text, Threshold, UrlPath, VariableName, Zone,
};
use super::policy::{Policy, Priority, Reason};
use super::read::{At, Field, Leaf, Read, Reader, camel_case, record};
use super::tree::{Entry, Kind, Node, Scalar, ScalarKind};
use super::{Protocol, Publish, Scheme};

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
        prune: Switch,
    }
}

record! {
    /// What every database has unless it says otherwise.
    Defaults requires [] {
        /// The namespace of databases that name none; without it, the namespace of the Pod that reads this.
        namespace: Label,
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
        namespace: Label,
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
        publish: Publish,
        /// Create the Service when there is none; without this key a missing Service is waited for.
        create_service: CreateService,
        /// Take over Endpoints that someone else wrote.
        #[schemars(extend("default" = false))]
        adopt: Switch,
    }
}

record! {
    /// What kind of Service to create when there is none.
    CreateService requires [] {
        /// Without an IP of its own: DNS gives the addresses themselves.
        #[schemars(extend("default" = false))]
        headless: Switch,
    }
}

record! {
    /// A port of the database.
    Port requires ["port"] {
        /// The name of the port in the Service. Needed when there are several.
        name: Label,
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
        hostname: Label,
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
        interval: Period,
        /// How long one try may take, all of it. Not more than the interval.
        #[schemars(extend("default" = "2s"))]
        timeout: Period,
        /// How soon an address is tried again after a verdict that disagrees with its state, until it flips or
        /// recovers. Not more than the interval, to which the default shrinks.
        #[schemars(extend("default" = "1s"))]
        recheck_interval: Period,
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
        send: Value,
        /// Text that the answer must contain.
        expect: Text,
        /// Complete the handshake, so that the database sees the connection. Implied by `tls`, `send` and `expect`;
        /// without it the connection ends before the database hears of it.
        #[schemars(extend("default" = false))]
        accept: Switch,
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
        headers: Values<HeaderName>,
        /// The statuses that pass: numbers, or ranges like `200-299`.
        #[schemars(length(min = 1), extend("default" = ["200-399"]))]
        expected_statuses: Vec<Field<Statuses>>,
        /// Text that the body must contain.
        expected_body: Text,
        /// Offer HTTP/2, which the server may choose. Only with `scheme: https`; else HTTP/1.1 is spoken.
        #[schemars(extend("default" = false))]
        http2: Switch,
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
        env: Values<VariableName>,
        /// The folder that the program runs in: an absolute path.
        working_directory: Folder,
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
        insecure_skip_verify: Switch,
    }
}

record! {
    /// A file that holds the value. It is read at each use.
    FromFile requires ["file"] {
        /// The path of the file.
        file: FilePath,
    }
}

record! {
    /// A variable of the daemon's own environment that holds the value.
    FromEnv requires ["fromEnv"] {
        /// The name of the variable.
        from_env: SourceName,
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

impl Read for AddressEntry {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(Scalar { kind: ScalarKind::Text | ScalarKind::Number, .. }) => {
                Ip::read(node, reader).map(AddressEntry::Short)
            }
            Kind::Map(entries) => {
                if let [Entry { key, key_span, .. }] = entries.as_slice()
                    && Ip::parse(&Scalar { text: format!("{key}:"), kind: ScalarKind::Text }).is_ok()
                {
                    let message = format!("YAML takes the last colon for a key's; write `\"{key}:\"` in quotes");
                    reader.error(*key_span, message);
                    return None;
                }
                Address::read(node, reader).map(AddressEntry::Long)
            }
            _ => reader.expected(node, "an IP", "write one like `10.20.0.11`, or `{address: 10.20.0.11, …}`"),
        }
    }
}

/// A string that may be a secret, or where to take it from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value(pub super::Value);

/// What `validate --explain` shows for a literal. Refused on reading, or an explained config would check with it.
pub(super) const MASK: &str = "…";

const VALUE_FORMS: &str = "write a text, `{file: path}` or `{fromEnv: NAME}`";

impl Read for Value {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(scalar) => {
                if scalar.kind != ScalarKind::Null {
                    reader.hide(node.span);
                }
                let wrong = match scalar.kind {
                    ScalarKind::Text if scalar.text == MASK => {
                        "`…` is what `validate --explain` shows instead of a value; write the value, `{file: path}` or \
                         `{fromEnv: NAME}`"
                    }
                    ScalarKind::Text if scalar.text.contains('\0') => "holds a NUL character; take it away",
                    ScalarKind::Text => return Some(Value(super::Value::Literal(scalar.text.clone()))),
                    ScalarKind::Null => "the value is missing; write a text, `{file: path}` or `{fromEnv: NAME}`",
                    ScalarKind::Number => "without quotes this is a number to YAML; put it in quotes",
                    ScalarKind::Bool(_) => "without quotes this is true or false to YAML; put it in quotes",
                };
                reader.error(node.span, wrong);
                None
            }
            Kind::Map(entries) => match entries.as_slice() {
                [Entry { key, .. }] if key == "file" => {
                    let record = FromFile::read(node, reader)?;
                    Some(Value(super::Value::File(record.file.value()?.0.clone())))
                }
                [Entry { key, .. }] if key == "fromEnv" => {
                    let record = FromEnv::read(node, reader)?;
                    Some(Value(super::Value::FromEnv(record.from_env.value()?.0.clone())))
                }
                _ => {
                    reader.hide(node.span);
                    reader.error(node.span, format!("this mapping is no value; {VALUE_FORMS}"));
                    None
                }
            },
            Kind::List(_) => reader.expected(node, "one value", VALUE_FORMS),
        }
    }
}

/// A literal is never written out: it may be a secret.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            super::Value::Literal(_) => serializer.serialize_str(MASK),
            super::Value::File(path) => FromFile { file: Field::new(FilePath(path.clone())) }.serialize(serializer),
            super::Value::FromEnv(name) => {
                FromEnv { from_env: Field::new(SourceName(name.clone())) }.serialize(serializer)
            }
        }
    }
}

impl JsonSchema for Value {
    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or where to take it from, so that no secret need stand in the config.",
            "anyOf": [
                {"type": "string", "not": {"const": MASK}},
                generator.subschema_for::<FromFile>(),
                generator.subschema_for::<FromEnv>(),
            ]
        })
    }
}

/// What values are known by.
pub(super) trait Name: Leaf {
    fn text(&self) -> &str;

    /// Equal for names that mean the same.
    fn identity(&self) -> String;
}

impl Name for HeaderName {
    fn text(&self) -> &str {
        &self.0
    }

    fn identity(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl Name for VariableName {
    fn text(&self) -> &str {
        &self.0
    }

    fn identity(&self) -> String {
        self.0.clone()
    }
}

/// Values by name, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Values<N>(pub Vec<(At<N>, Field<Value>)>);

impl<N: Name> Values<N> {
    fn names(&self) -> BTreeSet<String> {
        self.0.iter().map(|(name, _)| name.value.identity()).collect()
    }
}

impl<N: Name> Read for Values<N> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            reader.hide(node.span);
            return reader.expected(node, "a mapping of names to values", "write `{NAME: value}`");
        };
        let mut values = Vec::new();
        let mut lines = BTreeMap::new();
        for entry in entries {
            let Some((name, value)) = named::<N>(entry, reader) else { continue };
            if let Some(first) = lines.insert(name.value.identity(), entry.key_span.line) {
                let message = format!("the same name is already on line {first}; write it once");
                reader.within(&format!(".{}", entry.key), |reader| reader.error(entry.key_span, message));
            }
            values.push((name, value));
        }
        Some(Values(values))
    }

    /// What only the lower layer has comes first; then all of this, in its own order.
    fn over(&self, lower: &Self) -> Self {
        let own = self.names();
        let inherited = lower.0.iter().filter(|(name, _)| !own.contains(&name.value.identity()));
        Values(inherited.chain(&self.0).cloned().collect())
    }

    fn common(&self, other: &Self) -> Self {
        let others = other.names();
        Values(self.0.iter().filter(|(name, _)| others.contains(&name.value.identity())).cloned().collect())
    }
}

fn named<N: Name>(entry: &Entry, reader: &mut Reader) -> Option<(At<N>, Field<Value>)> {
    let scalar = Scalar { text: entry.key.clone(), kind: ScalarKind::Text };
    match N::parse(&scalar) {
        Ok(name) if entry.is_plain => reader.within(&format!(".{}", entry.key), |reader| {
            let place = reader.place(entry.key_span, entry.key_span);
            Some((At { value: name, place }, reader.field(&entry.value, entry.key_span)))
        }),
        parsed => {
            let message =
                parsed.err().unwrap_or_else(|| "a name stands here without a value; write `name: value`".into());
            if !entry.is_plain {
                reader.hide(entry.key_span);
            }
            if entry.value.span != entry.key_span {
                reader.hide(entry.value.span);
            }
            reader.error(entry.key_span, message);
            None
        }
    }
}

impl<N: Name> Serialize for Values<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name.value.text(), value)?;
        }
        map.end()
    }
}

impl<N: JsonSchema> JsonSchema for Values<N> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Values".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = <BTreeMap<String, Value>>::json_schema(generator);
        schema.insert("propertyNames".into(), N::json_schema(generator).into());
        schema
    }
}
