//! The keys that say how a name is followed: the layers over each other, the checked form, and the
//! way back.
//!
//! ```text
//! built-in defaults < defaults.dns < databases[].dns < databases[].addresses[].dns
//! ```

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::ip::AllowedNetworks;
use super::kinds::kind::{new_list, non_empty_list};
use super::language::reader::FromNode as _;
use super::language::record::{Record as _, record};
use super::language::scalars::{Bool, keywords, parse_duration_within, scalar};
use super::language::spanned::{Field, Spanned};
use super::problem::{Collector, Reported, quote};
use super::spec::NameEntry;
use super::yaml::node::Scalar;
use crate::names::{self, Families};

record! {
    /// The way in which a name is followed. DNS adds IPs at once. It takes one away only in
    /// exchange for another of the same name that is healthy.
    #[schemars(rename = "Dns")]
    DnsKeys requires [] {
        /// The families of IPs that are asked for. Default: those that the Service has.
        #[schemars(length(min = 1))]
        families: Vec<Field<Family>>,
        /// Each answer has only some of the IPs, as that of a reader endpoint has. All that were
        /// in an answer lately are followed.
        rotating: Bool = Bool(false),
        /// With `rotating`: the time for which an IP stays that is in no answer. It must also be
        /// absent from 20 answers for each IP of the name.
        forget_after: ForgetAfter = ForgetAfter(Duration::from_secs(30 * 60)),
        /// The time after which the name is asked again at the latest, if its TTL is longer.
        refresh: Refresh = Refresh(Duration::from_secs(60)),
        /// The networks that the IPs must be in, beside those of `--allow-cidr`. Others are neither
        /// checked nor published. Default: all.
        #[schemars(length(min = 1))]
        within: Vec<Field<Network>>,
        /// The time after which an IP leaves that is in no answer, although no other takes its
        /// place. Default: never.
        gone_after: GoneAfter,
    }
}

keywords! {
    /// A family of IPs.
    pub(crate) Family, "`IPv4` or `IPv6`" {
        /// The addresses of A records.
        Ipv4 = "IPv4" | "4" | "v4" | "inet" | "a",
        /// The addresses of AAAA records.
        Ipv6 = "IPv6" | "6" | "v6" | "inet6" | "aaaa",
    }
}

/// Declares a duration with its limits.
macro_rules! limited_duration {
    ($(#[$meta:meta])* $name:ident, $example:literal, $min:literal to $max:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(pub Duration);

        scalar!(
            $name,
            concat!("a duration like `", $example, "`"),
            {
                "type": "string",
                "pattern": "^ *([0-9]+(\\.[0-9]+)? *[a-zA-Zµ]+ *)+$",
                "x-limits": concat!("`", $min, "` to `", $max, "`"),
            },
            |scalar, expected| parse_duration_within(scalar, $min..=$max, expected).map($name)
        );

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&humantime::format_duration(self.0))
            }
        }
    };
}

limited_duration!(
    /// The time for which an address of a rotating name is remembered.
    ForgetAfter, "30m", "1m" to "24h"
);
limited_duration!(
    /// The time between two lookups.
    Refresh, "60s", "1s" to "1h"
);
limited_duration!(
    /// The time after which an address that DNS no longer has leaves.
    GoneAfter, "10m", "1m" to "30d"
);

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network(pub IpNet);

scalar!(
    Network,
    "a network like `10.20.0.0/16`",
    {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"},
    parse_network
);

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn parse_network(scalar: &Scalar, expected: &str) -> Result<Network, String> {
    let text = scalar.text.as_str();
    if let Ok(network) = text.parse::<IpNet>() {
        return Ok(Network(network.trunc()));
    }
    let shown = quote(text);
    Err(match text.parse::<IpAddr>() {
        Ok(ip) => format!("{shown} is an IP; write `{}` for this address alone", IpNet::from(ip)),
        Err(_) => format!("{shown} is not {expected}; write the first IP and the length in bits"),
    })
}

/// The checked form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dns {
    pub families: Option<Families>,
    pub refresh: Duration,
    pub within: AllowedNetworks,
    pub settings: names::Settings,
}

impl Dns {
    /// Returns the settings of a name.
    pub(super) fn of(entry: &NameEntry) -> Self {
        let NameEntry { families, refresh, within, settings, .. } = entry;
        Self { families: *families, refresh: *refresh, within: within.clone(), settings: *settings }
    }
}

impl DnsKeys {
    /// Returns the checked form with every default filled in, or reports all that is wrong with it.
    pub(super) fn compile(&self, problems: &mut Collector) -> Result<Dns, Reported> {
        let all = self.overlay(&DnsKeys::built_in());
        let families = compile_families(&all.families, problems);
        let advice = "write at least one network, as in `[10.20.0.0/16]`";
        let within = non_empty_list(&all.within, advice, problems);
        let (families, within) = (families?, within?.unwrap_or_default());
        let within: Vec<IpNet> = within.into_iter().map(|network| network.0).collect();
        Ok(Dns {
            families,
            refresh: all.refresh.required()?.0,
            within: AllowedNetworks::new(&within),
            settings: names::Settings {
                rotating: all.rotating.required()?.0,
                forget_after: all.forget_after.required()?.0,
                gone_after: all.gone_after.optional()?.map(|gone_after| gone_after.0),
            },
        })
    }

    /// Returns the keys of a checked form, with every default written out. `forgetAfter` is left
    /// out where it has no effect.
    pub(super) fn explain(dns: &Dns) -> Self {
        let names::Settings { rotating, forget_after, gone_after } = dns.settings;
        let forget_after = ForgetAfter(forget_after);
        let is_default = DnsKeys::built_in().forget_after.value() == Some(&forget_after);
        let families = dns.families.map(|families| {
            let written = [(families.ipv4, Family::Ipv4), (families.ipv6, Family::Ipv6)];
            let written = written.into_iter().filter(|(followed, _)| *followed);
            written.map(|(_, family)| Field::new(family)).collect()
        });
        let within = dns.within.networks();
        DnsKeys {
            families: Field::from_option(families),
            rotating: Field::new(Bool(rotating)),
            forget_after: Field::from_option((rotating || !is_default).then_some(forget_after)),
            refresh: Field::new(Refresh(dns.refresh)),
            within: match within {
                [] => Field::Absent,
                _ => new_list(within, |network| Network(*network)),
            },
            gone_after: Field::from_option(gone_after.map(GoneAfter)),
        }
    }
}

fn compile_families(
    list: &Field<Vec<Field<Family>>>,
    problems: &mut Collector,
) -> Result<Option<Families>, Reported> {
    let advice = "write `[IPv4]`, `[IPv6]` or `[IPv4, IPv6]`";
    let Some(written) = non_empty_list(list, advice, problems)? else { return Ok(None) };
    let items = list.value().into_iter().flatten().filter_map(Field::given);
    for (index, Spanned { value, location }) in items.enumerate() {
        if written[..index].contains(value) {
            let message = format!("`{}` is already in the list; write it once", value.as_str());
            return Err(problems.error_at(location, message));
        }
    }
    let has = |family: Family| written.contains(&family);
    Ok(Some(Families { ipv4: has(Family::Ipv4), ipv6: has(Family::Ipv6) }))
}
