//! The rights that a config needs, and no others. Pure.
//!
//! | what the config has | resource | names | verbs |
//! | --- | --- | --- | --- |
//! | a database in the namespace | services | | get, list, watch |
//! | a database in the namespace | endpoints, endpointslices | | list, watch |
//! | a database | endpoints | its Service | get, create, patch |
//! | `publish: slices` or `both` | endpointslices | its slices | get, create, patch, delete |
//! | `createService` | services | | create |
//! | `prune` | endpoints | its Service | delete |
//! | `prune` and `createService` | services | its Service | delete |
//! | a database in the namespace, or the Lease | events | | list, create, patch |
//! | the Lease | leases | its name | get, create, update |
//!
//! Each of these is needed, which a test shows by taking away one after the other. Kubernetes can't
//! limit `create` of Services to a name.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::config::{Database, PublishMode, Spec};
use crate::endpoints::slices::{self, IpFamily};
use crate::lease;
use crate::names::{Families, MAX_ADDRESSES};

/// The rules that each namespace needs.
pub(crate) type RulesByNamespace = BTreeMap<String, Vec<PolicyRule>>;

/// The API groups of the rules.
const CORE: &str = "";
const DISCOVERY: &str = "discovery.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";

/// Returns the rules for a config, and for the Lease if there is one.
pub(crate) fn derive(spec: &Spec, lease: Option<&lease::Name>) -> RulesByNamespace {
    let mut databases: BTreeMap<&str, Vec<&Database>> = BTreeMap::new();
    for database in &spec.databases {
        databases.entry(&database.id.namespace).or_default().push(database);
    }
    let mut rules: RulesByNamespace = databases
        .into_iter()
        .map(|(namespace, databases)| (namespace.to_owned(), watched(&databases, spec)))
        .collect();
    if let Some(lease) = lease {
        let home = rules.entry(lease.namespace.clone()).or_default();
        let names = BTreeSet::from([lease.name.clone()]);
        // The Lease is created by a PUT, for which a name limits `create` too.
        home.extend(named(COORDINATION, "leases", names, &["get", "create", "update"]));
    }
    for rules in rules.values_mut() {
        rules.push(rule(CORE, &["events"], &["list", "create", "patch"]));
    }
    rules
}

/// Returns the rules of a namespace that has these databases.
fn watched(databases: &[&Database], spec: &Spec) -> Vec<PolicyRule> {
    let services = |has: &dyn Fn(&Database) -> bool| -> BTreeSet<String> {
        let having = databases.iter().filter(|database| has(database));
        having.map(|database| database.id.service.clone()).collect()
    };
    let creates = |database: &Database| database.create_service.is_some();
    let slices = databases.iter().flat_map(|database| slice_names(database)).collect();
    let mut rules = vec![
        rule(CORE, &["services"], &["get", "list", "watch"]),
        rule(CORE, &["endpoints"], &["list", "watch"]),
        rule(DISCOVERY, &["endpointslices"], &["list", "watch"]),
    ];
    let endpoints: &[&str] = match spec.prune {
        true => &["get", "create", "patch", "delete"],
        false => &["get", "create", "patch"],
    };
    rules.extend(named(CORE, "endpoints", services(&|_| true), endpoints));
    let on_slices = &["get", "create", "patch", "delete"];
    rules.extend(named(DISCOVERY, "endpointslices", slices, on_slices));
    if databases.iter().any(|database| creates(database)) {
        rules.push(rule(CORE, &["services"], &["create"]));
        if spec.prune {
            rules.extend(named(CORE, "services", services(&creates), &["delete"]));
        }
    }
    rules
}

/// Returns the names of the slices that a database may have.
fn slice_names(database: &Database) -> BTreeSet<String> {
    if database.publish == PublishMode::Endpoints {
        return BTreeSet::new();
    }
    let mut counts = BTreeMap::from([(IpFamily::V4, 0), (IpFamily::V6, 0)]);
    let mut add = |family, more: usize| *counts.entry(family).or_default() += more;
    for address in &database.addresses {
        add(IpFamily::from_ip(address.ip), 1);
    }
    for name in database.names.iter() {
        let families = name.families.unwrap_or(Families::BOTH);
        for (family, has) in [(IpFamily::V4, families.ipv4), (IpFamily::V6, families.ipv6)] {
            add(family, if has { MAX_ADDRESSES } else { 0 });
        }
    }
    let names = |(family, count)| slices::names(&database.id.service, family, count);
    counts.into_iter().flat_map(names).collect()
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

/// Returns a rule for objects with these names; none without names, as it would be for all objects.
fn named(
    group: &str,
    resource: &str,
    names: BTreeSet<String>,
    verbs: &[&str],
) -> Option<PolicyRule> {
    let resource_names = Some(names.into_iter().collect::<Vec<_>>());
    let rule = PolicyRule { resource_names, ..rule(group, &[resource], verbs) };
    rule.resource_names.as_ref().is_some_and(|names| !names.is_empty()).then_some(rule)
}

#[cfg(test)]
mod tests;
