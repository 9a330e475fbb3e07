//! Compiles the addresses of a database.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Compiler;
use crate::config::check::CheckKeys;
use crate::config::ip;
use crate::config::kinds::kind::{CheckContext, ServicePort};
use crate::config::language::reader::FromNode as _;
use crate::config::language::record::Record as _;
use crate::config::language::scalars::Ip;
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::templates::UrlHosts;
use crate::config::problem::Reported;
use crate::config::records::{self, AddressEntry};
use crate::config::spec::{Address, Check, RejectedAddress};

/// The addresses of a database.
#[derive(Default)]
pub(super) struct AddressLists {
    pub addresses: Vec<Address>,
    pub rejected: Vec<RejectedAddress>,
}

/// The check of a database: its keys over those of `defaults`, and the checked form.
pub(super) struct Checks {
    pub keys: Result<CheckKeys, Reported>,
    pub compiled: Result<Arc<Check>, Reported>,
}

impl Compiler<'_> {
    /// Returns the addresses of a database.
    pub(super) fn addresses(
        &mut self,
        database: &records::Database,
        checks: &Checks,
        port: Option<ServicePort>,
    ) -> Result<AddressLists, Reported> {
        let list = database.addresses.given().ok_or(Reported)?;
        if list.value.is_empty() {
            let message = "the list is empty; write at least one IP, as in `[10.20.0.11]`";
            return Err(self.problems.error_at(&list.location, message));
        }
        let mut lines = BTreeMap::new();
        let mut lists = AddressLists::default();
        let mut keys_by_ip = Vec::new();
        for entry in list.value.iter().filter_map(Field::given) {
            let address = match &entry.value {
                AddressEntry::Short(ip) => records::Address {
                    address: Field::Given(Box::new(Spanned {
                        value: ip.clone(),
                        location: entry.location.clone(),
                    })),
                    ..records::Address::built_in()
                },
                AddressEntry::Long(address) => address.overlay(&records::Address::built_in()),
            };
            let ip = self.unique_ip(&address, &mut lines);
            let (keys, check) = self.address_check(&address, checks, port);
            if let (Ok(keys), Ok((ip, None))) = (keys, &ip) {
                keys_by_ip.push((keys, *ip));
            }
            let Ok((ip, rejection)) = ip else { continue };
            let Ok(address) = check.and_then(|check| compile_address(&address, ip, check)) else {
                continue;
            };
            match rejection {
                None => lists.addresses.push(address),
                Some(reason) => lists.rejected.push(RejectedAddress { ip, reason }),
            }
        }
        let mut urls = UrlHosts::default();
        for (keys, ip) in &keys_by_ip {
            for (text, location) in keys.templates() {
                urls.add(text, location, *ip);
            }
        }
        urls.warn(self.problems);
        let count = lists.addresses.len() + lists.rejected.len();
        if count == list.value.len() { Ok(lists) } else { Err(Reported) }
    }
    /// Returns the IP if it is not in the list already, and the reason if it may not be published.
    fn unique_ip(
        &mut self,
        address: &records::Address,
        lines: &mut BTreeMap<IpAddr, u32>,
    ) -> Result<(IpAddr, Option<String>), Reported> {
        let Spanned { value: Ip(ip), location } = address.address.given().ok_or(Reported)?;
        let rejection = ip::rejection(*ip, &self.allowed);
        match &rejection {
            Some(reason) if self.options.skip_rejected => {
                let message = format!("{reason}; until then it is neither checked nor published");
                self.problems.warn_at(location, message);
            }
            Some(reason) => {
                self.problems.error_at(location, reason);
            }
            None => {}
        }
        if let Some(first) = lines.get(ip) {
            let message =
                format!("{ip} is already in the list, on line {first}; write each address once");
            return Err(self.problems.error_at(location, message));
        }
        lines.insert(*ip, location.span.line);
        Ok((*ip, rejection))
    }

    /// Returns the check of an address: its own keys over those of the database, or the check that
    /// the addresses without keys share.
    fn address_check<'c>(
        &mut self,
        address: &records::Address,
        database: &'c Checks,
        port: Option<ServicePort>,
    ) -> (Result<Cow<'c, CheckKeys>, Reported>, Result<Arc<Check>, Reported>) {
        if address.check.is_absent() {
            let keys = database.keys.as_ref().map(Cow::Borrowed).map_err(|reported| *reported);
            return (keys, database.compiled.clone());
        }
        let Some(own) = address.check.given() else { return (Err(Reported), Err(Reported)) };
        match self.merge_keys(&own.value, database) {
            Ok(keys) => {
                let context = CheckContext { port, location: &own.location };
                let compiled = keys.compile(&context, self.problems).map(Arc::new);
                (Ok(Cow::Owned(keys)), compiled)
            }
            Err(Reported) => (Err(Reported), Err(Reported)),
        }
    }

    fn merge_keys(&mut self, own: &CheckKeys, database: &Checks) -> Result<CheckKeys, Reported> {
        own.reject_second_kind(self.problems)?;
        own.over_database(database.keys.as_ref().map_err(|reported| *reported)?, self.problems)
    }
}

fn compile_address(
    keys: &records::Address,
    ip: IpAddr,
    check: Arc<Check>,
) -> Result<Address, Reported> {
    Ok(Address {
        ip,
        name: None,
        priority: keys.priority.required()?.0,
        hostname: keys.hostname.optional()?.map(|label| label.0),
        zone: keys.zone.optional()?.map(|zone| zone.0.into_boxed_str()),
        maintenance: keys.maintenance.optional()?.map(|reason| reason.0.into()),
        check,
    })
}
