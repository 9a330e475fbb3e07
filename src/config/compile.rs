//! Makes the [`Spec`] from the records: fills in the defaults, and applies the rules that need more
//! than one value.

mod addresses;
mod dns;
mod ports;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::addresses::{AddressLists, Checks, Shared};
use self::dns::NameFacts;
use super::check::CheckKeys;
use super::ip::AllowedNetworks;
use super::kinds::kind::{CheckContext, ServicePort};
use super::language::reader::FromNode as _;
use super::language::record::Record as _;
use super::language::scalars::{DnsLabel, PublishMode};
use super::language::spanned::{Field, Spanned};
use super::policy;
use super::problem::{Collector, Reported};
use super::records::{self, AddressEntry, Config, Defaults};
use super::spec::{CreateService, Database, DatabaseId, Port, Spec};
use crate::endpoints::MAX_MIRRORED_ADDRESSES;

/// The settings that the meaning of a config depends on beside its text.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The namespace of databases for which the config names none.
    pub own_namespace: String,
    /// The networks that addresses may be in. An empty list allows all.
    pub allow_cidr: Vec<ipnet::IpNet>,
    /// Leaves out addresses that may not be published, with a warning, instead of rejecting the
    /// whole config. One wrong address then does not stop the others.
    pub skip_rejected: bool,
}

/// Returns the Spec, or reports everything that is wrong.
pub(super) fn compile(
    written: &Config,
    options: &Options,
    problems: &mut Collector,
) -> Result<Spec, Reported> {
    let config = written.overlay(&Config::built_in());
    if let Some(check) = config.defaults.value().and_then(|defaults| defaults.check.value()) {
        // An error here does not hide the mistakes of the databases.
        let _ = check.reject_second_kind(problems);
    }
    let list = config.databases.given().ok_or(Reported)?;
    if list.value.is_empty() {
        let message = "the list is empty; write at least one database, as in \
                       `- {service: mysql, port: 3306, …}`";
        problems.error_at(&list.location, message);
    }
    let defaults = config.defaults.or(Defaults::default());
    let mut compiler = Compiler {
        options,
        allowed: AllowedNetworks::new(&options.allow_cidr),
        problems,
        // Without good defaults the databases are still searched for mistakes of their own.
        defaults: defaults.unwrap_or_default(),
        services: BTreeMap::new(),
        name_facts: NameFacts::default(),
    };
    let databases: Vec<_> =
        list.value.iter().map(|database| compiler.field(database).map(Arc::new)).collect();
    compiler.name_facts.warn(compiler.problems);
    let databases = databases.into_iter().collect::<Result<_, Reported>>()?;
    Ok(Spec { databases, prune: config.prune.required()?.0 })
}

/// The state while the databases are compiled one after the other.
struct Compiler<'a> {
    options: &'a Options,
    allowed: AllowedNetworks,
    problems: &'a mut Collector,
    defaults: Defaults,
    /// The databases so far, with the lines of their names.
    services: BTreeMap<DatabaseId, u32>,
    name_facts: NameFacts,
}

impl Compiler<'_> {
    fn field(&mut self, field: &Field<records::Database>) -> Result<Database, Reported> {
        let written = field.given().ok_or(Reported)?;
        let value = written.value.overlay(&records::Database::built_in());
        self.database(&Spanned { value, location: written.location.clone() })
    }

    fn database(&mut self, database: &Spanned<records::Database>) -> Result<Database, Reported> {
        let keys = &database.value;
        let id = self.id(keys);
        let ports = ports::compile(database, self.problems);
        let port = ports.as_ref().ok().and_then(|ports| ports.first()).map(service_port);
        let checks = self.checks(database, port);
        let shared = Shared { id, checks, dns: self.dns_layers(keys), port };
        let addresses = self.addresses(keys, &shared);
        let publish = keys.publish.required();
        if publish == Ok(PublishMode::Endpoints) {
            self.warn_unsupported(keys);
        }
        let tiers = addresses.as_ref().map(AddressLists::tiers).map_err(|error| *error);
        let policy = policy::compile(&keys.policy, tiers, self.problems);
        let AddressLists { addresses, names, rejected } = addresses?;
        Ok(Database {
            id: shared.id?,
            ports: ports?,
            addresses,
            names: names.into(),
            rejected,
            refused_answers: Arc::default(),
            allowed_networks: self.allowed.clone(),
            policy: policy?,
            publish: publish?,
            create_service: create_service(keys)?,
            adopt: keys.adopt.required()?.0,
        })
    }

    /// Returns the Service of a database, which must be in the config once.
    fn id(&mut self, keys: &records::Database) -> Result<DatabaseId, Reported> {
        let service = keys.service.given().ok_or(Reported)?;
        let own = DnsLabel(self.options.own_namespace.clone());
        let namespace = keys.namespace.or(self.defaults.namespace.or(own)?)?.0;
        let id = DatabaseId { namespace, service: service.value.0.clone() };
        if id.namespace == "default" && id.service == "kubernetes" {
            let message = "default/kubernetes is the API server's own Service, whose Endpoints \
                           are never written; name another Service";
            self.problems.warn_at(&service.location, message);
        }
        let line = service.location.span.line;
        if let Some(first) = self.services.get(&id) {
            let message =
                format!("{id} is already the database on line {first}; write each Service once");
            return Err(self.problems.error_at(&service.location, message));
        }
        self.services.insert(id.clone(), line);
        Ok(id)
    }

    /// Returns the check of a database over the one of `defaults`, as it is written and compiled.
    fn checks(
        &mut self,
        database: &Spanned<records::Database>,
        port: Option<ServicePort>,
    ) -> Checks {
        let keys = self.check_keys(&database.value);
        let location = match database.value.check.given() {
            Some(check) => &check.location,
            None => &database.location,
        };
        let context = CheckContext { port, location };
        let compiled = match &keys {
            Ok(keys) => keys.compile(&context, self.problems).map(Arc::new),
            Err(Reported) => Err(Reported),
        };
        Checks { keys, compiled }
    }

    fn check_keys(&mut self, keys: &records::Database) -> Result<CheckKeys, Reported> {
        let own = keys.check.or(CheckKeys::default())?;
        let defaults = self.defaults.check.or(CheckKeys::default())?;
        own.reject_second_kind(self.problems)?;
        Ok(own.over_defaults(&defaults))
    }

    /// Reports settings of the addresses that Endpoints do not support.
    fn warn_unsupported(&mut self, keys: &records::Database) {
        let Some(list) = keys.addresses.given() else { return };
        let count = list.value.len();
        if count > MAX_MIRRORED_ADDRESSES {
            let message = format!(
                "{count} addresses; Kubernetes copies only {MAX_MIRRORED_ADDRESSES} of them from \
                 Endpoints into EndpointSlices, and clients reach no others; add \
                 `publish: slices` to the database"
            );
            self.problems.error_at(&list.location, message);
        }
        for entry in list.value.iter().filter_map(Field::value) {
            let AddressEntry::Long(address) = entry else { continue };
            if let Some(zone) = address.zone.given() {
                let message = "Endpoints have no zones, so this has no effect; add \
                               `publish: slices` (or `both`) to the database, or remove `zone`";
                self.problems.warn_at(&zone.location, message);
            }
        }
    }
}

fn service_port(port: &Port) -> ServicePort {
    ServicePort { number: port.number, protocol: port.protocol }
}

fn create_service(keys: &records::Database) -> Result<Option<CreateService>, Reported> {
    let Some(service) = keys.create_service.optional()? else { return Ok(None) };
    let service = service.overlay(&records::CreateService::built_in());
    Ok(Some(CreateService { headless: service.headless.required()?.0 }))
}
