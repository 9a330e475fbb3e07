//! `$(NAME)` in the command of an exec check: warns of a name that nothing knows, which is handed to the program as it stands,
//! and of a URL with `$(TARGET_IP)` that has no brackets where the address needs some.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::leaf::{Argument, BUILTIN_VARIABLES};
use super::problem::Collector;
use super::read::{Field, Location, Spanned};
use super::{ValueSource, raw};

pub(super) fn warn_of_unknown(
    argument: &str,
    place: &Location,
    env: &[(String, ValueSource)],
    problems: &mut Collector,
) {
    let known: Vec<&str> =
        BUILTIN_VARIABLES.into_iter().chain(env.iter().map(|(name, _)| name.as_str())).collect();
    for (_, name) in references(argument).filter(|(_, name)| is_name(name) && !known.contains(name))
    {
        let nearest =
            known.iter().min_by_key(|known| strsim::osa_distance(known, &name.to_uppercase()));
        let message = format!(
            "nothing is known as `$({name})`, so that it stays as it is; write `$({})`, a name in `env`, or `$$({name})` if \
             it is meant as it is",
            nearest.unwrap_or(&BUILTIN_VARIABLES[0])
        );
        problems.warn(place.span, &place.path, message);
    }
}

/// The places and the names of all `$(…)`, of which `$$` begins none.
fn references(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = text.len() - rest.len() + rest.find('$')?;
            rest = &text[start + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                rest = after;
            } else if let Some((name, after)) =
                rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
            {
                rest = after;
                return Some((start, name));
            }
        }
    })
}

/// Anything else in `$(…)`, as a command of a shell, is no reference to a variable.
fn is_name(name: &str) -> bool {
    let fits = |char: char| char.is_ascii_alphanumeric() || char == '_';
    (1..=40).contains(&name.len())
        && name.chars().all(fits)
        && !name.starts_with(|char: char| char.is_ascii_digit())
}

const TARGET_IP: &str = "$(TARGET_IP)";

/// Gathers which addresses the arguments of a database's commands are for.
#[derive(Default)]
pub(super) struct Urls<'a>(BTreeMap<u32, Url<'a>>);

/// An argument that has `$(TARGET_IP)` in a URL, and the first address of each family that it is for.
struct Url<'a> {
    argument: &'a Spanned<Argument>,
    has_brackets: bool,
    ipv4: Option<IpAddr>,
    ipv6: Option<IpAddr>,
}

impl<'a> Urls<'a> {
    /// Takes note that an address is checked like this.
    pub(super) fn add(&mut self, check: &'a raw::Check, ip: IpAddr) {
        let Some(command) = check.exec.value().and_then(|exec| exec.command.value()) else {
            return;
        };
        for argument in command.iter().filter_map(Field::given) {
            let Some(has_brackets) = url_has_brackets(&argument.value.0) else { continue };
            let unknown = Url { argument, has_brackets, ipv4: None, ipv6: None };
            let url = self.0.entry(argument.location.span.start).or_insert(unknown);
            let family = if ip.is_ipv4() { &mut url.ipv4 } else { &mut url.ipv6 };
            family.get_or_insert(ip);
        }
    }

    /// Warns of brackets that an address needs, or must not have.
    pub(super) fn warn(&self, problems: &mut Collector) {
        for Url { argument, has_brackets, ipv4, ipv6 } in self.0.values() {
            let (wrong, right) = if *has_brackets { (ipv4, ipv6) } else { (ipv6, ipv4) };
            let Some(wrong) = wrong else { continue };
            let write = if *has_brackets {
                format!(
                    "{wrong} is no IPv6 address, and in a URL only these have brackets; write `{TARGET_IP}` alone"
                )
            } else {
                format!(
                    "{wrong} is an IPv6 address, which needs brackets in a URL; write `[{TARGET_IP}]`"
                )
            };
            let only = if right.is_some() {
                " in a `check: {exec: {command: …}}` of that address"
            } else {
                ""
            };
            problems.warn(
                argument.location.span,
                &argument.location.path,
                format!("{write}{only}"),
            );
        }
    }
}

/// Whether `$(TARGET_IP)` has brackets where it is the host of a URL, or stands before a port. None where it is neither.
fn url_has_brackets(argument: &str) -> Option<bool> {
    let mut hosts = references(argument).filter(|(_, name)| *name == "TARGET_IP");
    hosts.find_map(|(start, _)| {
        let (before, after) = (&argument[..start], &argument[start + TARGET_IP.len()..]);
        if before.ends_with('[') && after.starts_with(']') {
            let before = &before[..before.len() - 1];
            return (is_in_authority(before) || is_port(&after[1..])).then_some(true);
        }
        (is_in_authority(before) || is_port(after)).then_some(false)
    })
}

/// Whether the text ends after the `//` of a URL, and before its path.
fn is_in_authority(before: &str) -> bool {
    let word = before.rsplit([' ', '\t', '\n', '"', '\'']).next().unwrap_or_default();
    word.rsplit_once("://").is_some_and(|(_, authority)| !authority.contains(['/', '?', '#']))
}

fn is_port(after: &str) -> bool {
    after.strip_prefix(':').is_some_and(|port| {
        port.starts_with("$(") || port.starts_with(|char: char| char.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_urls_and_those_before_a_port_are_found() {
        let table = [
            ("http://$(TARGET_IP):$(TARGET_PORT)/health", Some(false)),
            ("http://[$(TARGET_IP)]:$(TARGET_PORT)/health", Some(true)),
            ("https://$(TARGET_IP)", Some(false)),
            ("postgresql://app:$(PW)@$(TARGET_IP)/orders", Some(false)),
            ("mongodb://a.example,[$(TARGET_IP)]/", Some(true)),
            ("curl -s \"http://$(TARGET_IP)/\"", Some(false)),
            ("$(TARGET_IP):8080", Some(false)),
            ("--endpoint=$(TARGET_IP):$(TARGET_PORT)", Some(false)),
            ("[$(TARGET_IP)]:2379", Some(true)),
            ("--host=$(TARGET_IP)", None),
            ("$(TARGET_IP)", None),
            ("[$(TARGET_IP)]", None),
            ("http://proxy.example/?ip=$(TARGET_IP)", None),
            ("http://proxy.example/ $(TARGET_IP)", None),
            ("http://$$(TARGET_IP)/", None),
            ("$$$(TARGET_IP):1", Some(false)),
            ("é://$(TARGET_IP)", Some(false)),
            ("$(TARGET_IP): up", None),
        ];
        for (argument, expected) in table {
            assert_eq!(url_has_brackets(argument), expected, "{argument}");
        }
    }
}
