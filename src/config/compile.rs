//! From what is written to the [`Spec`]: defaults filled in, and the rules that take more than one value to see.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::leaf::{Bool, DnsLabel, Zone};
use super::problem::Collector;
use super::raw::{self, AddressEntry};
use super::read::{Field, Location, Spanned};
use super::reference::Urls;
use super::{
    Address, AllowedNetworks, Check, CreateService, Database, DatabaseId, Options, Port, Protocol,
    PublishMode, RejectedAddress, Spec, check, ip, policy,
};

/// Addresses of one Service that Kubernetes mirrors from Endpoints into EndpointSlices.
const MIRRORED: usize = 1000;

/// The Spec, or None when something is wrong, all of which is then reported.
pub(super) fn compile(
    config: &raw::Config,
    options: &Options,
    problems: &mut Collector,
) -> Option<Spec> {
    let defaults = config.defaults.or(raw::Defaults::default());
    if let Some(check) = config.defaults.value().and_then(|defaults| defaults.check.value()) {
        check::has_at_most_one_kind(check, problems);
    }
    let list = config.databases.given()?;
    if list.value.is_empty() {
        let message = "the list is empty; write at least one database, as in `- {service: mysql, port: 3306, …}`";
        problems.error(list.location.span, &list.location.path, message);
    }
    // With the defaults in doubt, the databases are still looked through for mistakes of their own.
    let mut compiler = Compiler {
        options,
        allowed: AllowedNetworks::new(&options.allow_cidr),
        problems,
        defaults: defaults.unwrap_or_default(),
        services: BTreeMap::new(),
    };
    let databases: Vec<_> = list
        .value
        .iter()
        .map(|database| Some(Arc::new(compiler.database(database.given()?)?)))
        .collect();
    let prune = config.prune.or(Bool(false))?.0;
    Some(Spec { databases: databases.into_iter().collect::<Option<_>>()?, prune })
}

struct Compiler<'a> {
    options: &'a Options,
    allowed: AllowedNetworks,
    problems: &'a mut Collector,
    defaults: raw::Defaults,
    /// The databases so far, and the lines that they are named on.
    services: BTreeMap<DatabaseId, u32>,
}

impl Compiler<'_> {
    fn database(&mut self, database: &Spanned<raw::Database>) -> Option<Database> {
        let id = self.id(database);
        let ports = self.ports(database);
        let first = ports.as_ref().and_then(|ports| ports.first());
        let (raw_check, check) = self.check(database, first);
        let addresses = self.addresses(database, first, raw_check.as_ref(), check.as_ref());
        let publish = database.value.publish.or(PublishMode::Endpoints);
        self.fits(database, publish);
        let shown = addresses.as_ref().map(|(addresses, _)| addresses.as_slice());
        let policy = policy::compile(&database.value.policy, shown, self.problems);
        let (addresses, refused) = addresses?;
        Some(Database {
            id: id?,
            ports: ports?,
            addresses,
            rejected: refused,
            allowed_networks: self.allowed.clone(),
            policy: policy?,
            publish: publish?,
            create_service: self.create_service(database)?,
            adopt: database.value.adopt.or(Bool(false))?.0,
        })
    }

    fn create_service(
        &mut self,
        database: &Spanned<raw::Database>,
    ) -> Option<Option<CreateService>> {
        let raw = database.value.create_service.optional()?;
        let headless = raw.map(|service| service.headless.or(Bool(false)));
        match headless {
            Some(headless) => Some(Some(CreateService { headless: headless?.0 })),
            None => Some(None),
        }
    }

    /// Says what the addresses ask for that Endpoints do not give.
    fn fits(&mut self, database: &Spanned<raw::Database>, publish: Option<PublishMode>) {
        let (Some(PublishMode::Endpoints), Some(list)) =
            (publish, database.value.addresses.given())
        else {
            return;
        };
        if list.value.len() > MIRRORED {
            let message = format!(
                "{} addresses; Kubernetes copies only {MIRRORED} of them from Endpoints into EndpointSlices, and clients reach no others; add `publish: slices` to the database",
                list.value.len()
            );
            self.error(&list.location, message);
        }
        for entry in list.value.iter().filter_map(Field::given) {
            if let AddressEntry::Long(raw::Address { zone: Field::Given(zone), .. }) = &entry.value
            {
                let message = "Endpoints know no zone, so that it has no effect; add `publish: slices` (or `both`) to the database, or take `zone` away";
                self.problems.warn(zone.location.span, &zone.location.path, message);
            }
        }
    }

    fn id(&mut self, database: &Spanned<raw::Database>) -> Option<DatabaseId> {
        let service = database.value.service.given()?;
        let default = self.defaults.namespace.or(DnsLabel(self.options.own_namespace.clone()))?;
        let namespace = database.value.namespace.or(default)?.0;
        let id = DatabaseId { namespace, service: service.value.0.clone() };
        if id.namespace == "default" && id.service == "kubernetes" {
            let message = "default/kubernetes is the API server's own Service, whose Endpoints stay as they are; name another Service";
            self.problems.warn(service.location.span, &service.location.path, message);
        }
        let line = service.location.span.line;
        if let Some(first) = self.services.get(&id) {
            let message =
                format!("{id} is already the database on line {first}; write each Service once");
            self.error(&service.location, message);
            return None;
        }
        self.services.insert(id.clone(), line);
        Some(id)
    }

    fn error(&mut self, place: &Location, message: impl Into<String>) {
        self.problems.error(place.span, &place.path, message);
    }

    fn ports(&mut self, database: &Spanned<raw::Database>) -> Option<Vec<Port>> {
        let raw = &database.value;
        match (&raw.port, &raw.ports) {
            (Field::Absent, Field::Absent) => {
                let message = "the key `port` is missing; write `port: 3306`, or `ports: [{name: …, port: …}]`";
                self.error(&database.location, message);
                None
            }
            (Field::Given(_), Field::Given(ports)) => {
                let message = "`port` is short for one of `ports`; take `port` or `ports` away";
                self.problems.error(ports.location.key, &ports.location.path, message);
                None
            }
            (Field::Given(port), Field::Absent) => {
                Some(vec![Port { name: None, number: port.value.0, protocol: Protocol::Tcp }])
            }
            (Field::Absent, Field::Given(ports)) => self.port_list(ports),
            _ => None,
        }
    }

    fn port_list(&mut self, ports: &Spanned<Vec<Field<raw::Port>>>) -> Option<Vec<Port>> {
        if ports.value.is_empty() {
            self.error(
                &ports.location,
                "the list is empty; write at least one port, as in `[{port: 3306}]`",
            );
            return None;
        }
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        let mut list = Some(Vec::new());
        for field in &ports.value {
            let port =
                field.given().and_then(|port| self.port(port, ports.value.len(), &mut names));
            list = list.zip(port).map(|(mut list, port)| {
                list.push(port);
                list
            });
        }
        list
    }

    fn port<'a>(
        &mut self,
        port: &'a Spanned<raw::Port>,
        count: usize,
        names: &mut BTreeMap<&'a str, u32>,
    ) -> Option<Port> {
        match &port.value.name {
            Field::Given(name) => {
                if let Some(first) = names.get(name.value.0.as_str()) {
                    let message = format!(
                        "the port on line {first} has this name too; give each port its own"
                    );
                    self.error(&name.location, message);
                } else {
                    names.insert(&name.value.0, name.location.span.line);
                }
            }
            Field::Absent if count > 1 => {
                let message = "with several ports each needs the name that it has in the Service; write `name: …`";
                self.error(&port.location, message);
            }
            _ => {}
        }
        Some(Port {
            name: port.value.name.optional()?.map(|name| name.0),
            number: port.value.port.value()?.0,
            protocol: port.value.protocol.or(Protocol::Tcp)?,
        })
    }

    /// The database's check over the defaults', as it is written and as it is compiled.
    fn check(
        &mut self,
        database: &Spanned<raw::Database>,
        port: Option<&Port>,
    ) -> (Option<raw::Check>, Option<Arc<Check>>) {
        let own = database.value.check.or(raw::Check::default());
        let defaults = self.defaults.check.or(raw::Check::default());
        let (Some(own), Some(defaults)) = (own, defaults) else { return (None, None) };
        if !check::has_at_most_one_kind(&own, self.problems) {
            return (None, None);
        }
        let place =
            database.value.check.given().map_or(&database.location, |check| &check.location);
        let raw = check::over_defaults(&own, &defaults);
        let compiled = check::compile(&raw, &check::Owner { port, place }, self.problems);
        (Some(raw), compiled.map(Arc::new))
    }

    fn addresses(
        &mut self,
        database: &Spanned<raw::Database>,
        port: Option<&Port>,
        raw_check: Option<&raw::Check>,
        check: Option<&Arc<Check>>,
    ) -> Option<(Vec<Address>, Vec<RejectedAddress>)> {
        let list = database.value.addresses.given()?;
        if list.value.is_empty() {
            self.error(
                &list.location,
                "the list is empty; write at least one IP, as in `[10.20.0.11]`",
            );
            return None;
        }
        let mut lines = BTreeMap::new();
        let (mut addresses, mut refused) = (Vec::new(), Vec::new());
        let mut commands = Vec::new();
        for field in &list.value {
            let Some(entry) = field.given() else { continue };
            let (ip, hostname, zone, policy, own) = match &entry.value {
                AddressEntry::Short(ip) => {
                    (Some((ip.0, &entry.location)), Some(None), Some(None), Some((0, None)), None)
                }
                AddressEntry::Long(long) => (
                    long.address.given().map(|at| (at.value.0, &at.location)),
                    long.hostname.optional(),
                    long.zone.optional(),
                    policy::of_address(long),
                    (!long.check.is_absent()).then_some(&long.check),
                ),
            };
            let ip = ip.and_then(|(ip, place)| self.fresh_ip(ip, place, &mut lines));
            let (raw_check, check) = match own {
                None => (raw_check.map(Cow::Borrowed), check.cloned()),
                Some(own) => {
                    let own = self.own_check(own, port, raw_check);
                    own.map_or((None, None), |(raw, check)| (Some(Cow::Owned(raw)), check))
                }
            };
            if let (Some(raw_check), Some(Ok(ip))) = (raw_check, &ip) {
                commands.push((raw_check, *ip));
            }
            match (ip, hostname, zone, policy, check) {
                (Some(Err(why)), Some(_), Some(_), Some(_), Some(_)) => refused.push(why),
                (
                    Some(Ok(ip)),
                    Some(hostname),
                    Some(zone),
                    Some((priority, maintenance)),
                    Some(check),
                ) => {
                    let hostname = hostname.map(|label: DnsLabel| label.0);
                    let zone = zone.map(|zone: Zone| zone.0.into_boxed_str());
                    addresses.push(Address { ip, priority, hostname, zone, maintenance, check });
                }
                _ => {}
            }
        }
        let mut urls = Urls::default();
        commands.iter().for_each(|(check, ip)| urls.add(check, *ip));
        urls.warn(self.problems);
        (addresses.len() + refused.len() == list.value.len()).then_some((addresses, refused))
    }

    /// The IP, if it is not in the list already; or why it may not be published.
    fn fresh_ip(
        &mut self,
        ip: std::net::IpAddr,
        place: &Location,
        lines: &mut BTreeMap<std::net::IpAddr, u32>,
    ) -> Option<Result<std::net::IpAddr, RejectedAddress>> {
        let why = ip::refused(ip, &self.allowed);
        match &why {
            Some(why) if self.options.skip_rejected => {
                let message = format!("{why}; until then it is neither checked nor published");
                self.problems.warn(place.span, &place.path, message);
            }
            Some(why) => self.error(place, why),
            None => {}
        }
        if let Some(first) = lines.get(&ip) {
            self.error(
                place,
                format!("{ip} is already in the list, on line {first}; write each address once"),
            );
            return None;
        }
        lines.insert(ip, place.span.line);
        Some(why.map_or(Ok(ip), |why| Err(RejectedAddress { ip, reason: why })))
    }

    fn own_check(
        &mut self,
        own: &Field<raw::Check>,
        port: Option<&Port>,
        database: Option<&raw::Check>,
    ) -> Option<(raw::Check, Option<Arc<Check>>)> {
        let own = own.given()?;
        if !check::has_at_most_one_kind(&own.value, self.problems) {
            return None;
        }
        let merged = check::over_database(&own.value, database?, self.problems)?;
        let owner = check::Owner { port, place: &own.location };
        let compiled = check::compile(&merged, &owner, self.problems).map(Arc::new);
        Some((merged, compiled))
    }
}
