//! The servers of an HAProxy section: their addresses and parameters. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::keywords;

/// The parameters of a server, or of all servers of a section.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters {
    pub(super) is_checked: bool,
    pub(super) is_backup: bool,
    is_disabled: bool,
    weight: Option<String>,
    pub(super) inter: Option<String>,
    pub(super) fastinter: Option<String>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
    /// The port of its check.
    pub(super) port: Option<u16>,
    pub(super) speaks_tls: bool,
    check_ssl: Option<bool>,
    pub(super) skips_verify: bool,
    ca_file: Option<String>,
    /// The file of the client's certificate and key.
    certificate: Option<String>,
    server_name: Option<String>,
    /// True if it is checked at another address.
    pub(super) has_check_address: bool,
    /// The parameters that have no equal here, with their arguments.
    left_out: BTreeMap<String, String>,
}

impl Parameters {
    /// Applies the words behind the address.
    pub(super) fn apply(&mut self, words: &[&str]) {
        let mut rest = words;
        while let [first, others @ ..] = rest {
            rest = others;
            let argument = others.first().copied().unwrap_or_default();
            let has_argument = match *first {
                flag if self.set_flag(flag) => false,
                first if self.set_value(first, argument) => true,
                other => self.leave_out(other, argument),
            };
            if has_argument && !rest.is_empty() {
                rest = &rest[1..];
            }
        }
    }

    /// Applies a parameter with an argument. Returns whether it is one that is translated.
    fn set_value(&mut self, parameter: &str, argument: &str) -> bool {
        let is_good = match parameter {
            "inter" => set(&mut self.inter, duration(argument)),
            "fastinter" => set(&mut self.fastinter, duration(argument)),
            "rise" => set(&mut self.rise, argument.parse().ok()),
            "fall" => set(&mut self.fall, argument.parse().ok()),
            "port" => set(&mut self.port, argument.parse().ok()),
            "weight" => set(&mut self.weight, Some(argument.to_owned())),
            "verify" => {
                self.skips_verify = argument == "none";
                true
            }
            // The certificates of the system are those that count without a file.
            "ca-file" if argument == "@system-ca" => {
                self.ca_file = None;
                true
            }
            "ca-file" => set(&mut self.ca_file, Some(argument.to_owned())),
            "crt" => set(&mut self.certificate, Some(argument.to_owned())),
            "check-sni" | "verifyhost" => set(&mut self.server_name, Some(argument.to_owned())),
            "sni" => {
                // A fixed name; any other expression depends on the client.
                let fixed = argument.strip_prefix("str(").and_then(|it| it.strip_suffix(')'));
                fixed.is_some_and(|name| set(&mut self.server_name, Some(name.to_owned())))
            }
            "addr" => {
                self.has_check_address = true;
                true
            }
            _ => return false,
        };
        if is_good {
            self.left_out.remove(parameter);
        } else {
            self.left_out.insert(parameter.to_owned(), argument.to_owned());
        }
        true
    }

    /// Notes a parameter that is not translated. Returns whether it has an argument.
    fn leave_out(&mut self, parameter: &str, argument: &str) -> bool {
        let has_argument = keywords::has_argument(parameter);
        if let Some(negated) = parameter.strip_prefix("no-")
            && self.left_out.remove(negated).is_some()
        {
            return false;
        }
        if !keywords::is_server_without_meaning(parameter) {
            let argument = if has_argument { argument } else { "" };
            self.left_out.insert(parameter.to_owned(), argument.to_owned());
        }
        has_argument
    }

    /// Returns the parameters that have no equal here, as they are written.
    pub(super) fn left_out(&self) -> impl Iterator<Item = String> {
        let weight = self.weight.as_ref().filter(|weight| *weight != "0");
        let weight = weight.map(|weight| ("weight", weight.as_str()));
        let others =
            self.left_out.iter().map(|(name, argument)| (name.as_str(), argument.as_str()));
        others.chain(weight).map(|(name, argument)| format!("{name} {argument}").trim().to_owned())
    }

    /// Returns the reason why it gets no connections, if it gets none.
    pub(super) fn out(&self) -> Option<&'static str> {
        match &self.weight {
            _ if self.is_disabled => Some("disabled in HAProxy"),
            Some(weight) if weight == "0" => Some("weight 0 in HAProxy"),
            _ => None,
        }
    }

    /// Returns whether it has the health of another server.
    pub(super) fn tracks(&self) -> bool {
        self.left_out.contains_key("track")
    }

    /// Applies a parameter without an argument. Returns whether it is one.
    fn set_flag(&mut self, flag: &str) -> bool {
        match flag {
            "check" => self.is_checked = true,
            "no-check" => self.is_checked = false,
            "backup" => self.is_backup = true,
            "no-backup" => self.is_backup = false,
            "disabled" => self.is_disabled = true,
            "enabled" => self.is_disabled = false,
            "ssl" => self.speaks_tls = true,
            "no-ssl" => self.speaks_tls = false,
            "check-ssl" => self.check_ssl = Some(true),
            "no-check-ssl" => self.check_ssl = Some(false),
            _ => return false,
        }
        true
    }

    /// Returns whether its check speaks TLS: as its traffic does, unless it has a port of its own.
    pub(super) fn checks_by_tls(&self) -> bool {
        self.check_ssl.unwrap_or(self.speaks_tls && self.port.is_none())
    }

    /// Returns the files of its check that must be where the daemon runs.
    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        self.ca_file.iter().filter(|_| !self.skips_verify).chain(&self.certificate)
    }

    /// Returns the TLS settings of its check.
    pub(super) fn tls(&self) -> Value {
        let mut tls = Map::new();
        if self.skips_verify {
            tls.insert("insecureSkipVerify".to_owned(), json!(true));
        }
        if let Some(file) = self.ca_file.as_ref().filter(|_| !self.skips_verify) {
            tls.insert("caFile".to_owned(), json!(file));
        }
        if let Some(file) = &self.certificate {
            tls.insert("certFile".to_owned(), json!(file));
            tls.insert("keyFile".to_owned(), json!(file));
        }
        if let Some(name) = &self.server_name {
            tls.insert("serverName".to_owned(), json!(name));
        }
        Value::Object(tls)
    }
}

/// Sets a field. Returns whether the value could be read.
fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    *field = value;
    field.is_some()
}

/// A server of a section.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) name: String,
    /// The IP or the host name.
    pub(super) host: String,
    /// The port; none if HAProxy uses that of its client.
    pub(super) port: Option<u16>,
    pub(super) parameters: Parameters,
}

impl Server {
    /// Reads the words behind `server`. The error says why it is no database.
    pub(super) fn read(words: &[&str], defaults: &Parameters) -> Result<Self, String> {
        let [name, address, rest @ ..] = words else {
            return Err(format!("`server {}` has no address", words.join(" ")));
        };
        let (host, port) = split_address(address)
            .ok_or_else(|| format!("server {name} is at {address}, which is no IP and no name"))?;
        let mut parameters = defaults.clone();
        parameters.apply(rest);
        Ok(Self { name: (*name).to_owned(), host, port, parameters })
    }
}

/// Splits `HOST:PORT`, as HAProxy does: the last colon is before the port.
fn split_address(text: &str) -> Option<(String, Option<u16>)> {
    let text = match text.split_once('@') {
        Some(("ipv4" | "ipv6", rest)) => rest,
        Some(_) => return None,
        None => text,
    };
    if text.starts_with('/') || text.starts_with('*') || text.is_empty() {
        return None;
    }
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without a port is in brackets, or has its last colon before a group.
        _ if text.starts_with('[') && text.ends_with(']') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_ip = host.parse::<IpAddr>().is_ok();
    if host.contains(':') && host.parse::<Ipv6Addr>().is_err() || (host.is_empty() && !is_ip) {
        return None;
    }
    // A port such as `+1000` or a range depends on the client's.
    let is_number = |port: &&str| port.chars().all(|c| c.is_ascii_digit());
    Some((host.to_owned(), port.filter(is_number).and_then(|port| port.parse().ok())))
}

/// Returns a duration of HAProxy in words of ours. One without a unit is in milliseconds.
pub(super) fn duration(text: &str) -> Option<String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let duration = match &text[digits.len()..] {
        "us" => Duration::from_micros(number.max(1000)),
        "" | "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        "d" => Duration::from_secs(number.checked_mul(86_400)?),
        _ => return None,
    };
    let millis = duration.as_millis();
    Some(match millis % 1000 {
        0 => humantime::format_duration(duration).to_string(),
        _ => format!("{millis}ms"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_before_the_last_colon() {
        let table = [
            ("10.0.0.1:80", Some(("10.0.0.1", Some(80)))),
            ("10.0.0.1", Some(("10.0.0.1", None))),
            ("10.0.0.1:+80", Some(("10.0.0.1", None))),
            ("ipv4@10.0.0.1:80", Some(("10.0.0.1", Some(80)))),
            ("[2001:db8::1]:80", Some(("2001:db8::1", Some(80)))),
            ("[2001:db8::1]", Some(("2001:db8::1", None))),
            ("2001:db8::1:80", Some(("2001:db8::1", Some(80)))),
            ("db.example.com:3306", Some(("db.example.com", Some(3306)))),
            ("unix@/run/x.sock", None),
            ("/run/x.sock", None),
            ("abns@x", None),
            ("*:80", None),
            ("", None),
            (":80", None),
        ];
        for (text, expected) in table {
            let split = split_address(text);
            let split = split.as_ref().map(|(host, port)| (host.as_str(), *port));
            assert_eq!(split, expected, "{text}");
        }
    }

    #[test]
    fn durations_without_a_unit_are_milliseconds() {
        let table =
            [("2000", Some("2s")), ("1500", Some("1500ms")), ("1m", Some("1m")), ("x", None)];
        for (text, expected) in table {
            assert_eq!(duration(text).as_deref(), expected, "{text}");
        }
        assert_eq!(duration("99999999999999999999d"), None);
    }

    #[test]
    fn an_argument_is_not_taken_for_a_parameter() {
        let mut parameters = Parameters::default();
        parameters.apply(&["cookie", "backup", "check", "maxconn", "disabled", "weight"]);
        assert!(parameters.is_checked && !parameters.is_backup && parameters.out().is_none());
    }

    #[test]
    fn parameters_without_an_equal_are_kept_as_written() {
        let mut parameters = Parameters::default();
        parameters.apply(&["check-via-socks4", "check", "send-proxy", "weight", "10", "id", "7"]);
        parameters.apply(&["no-send-proxy", "newly-made", "fall", "many", "on-error", "mark-down"]);
        assert!(parameters.is_checked);
        let left_out: Vec<String> = parameters.left_out().collect();
        let expected = ["check-via-socks4", "fall many", "newly-made", "on-error mark-down"];
        assert_eq!(left_out[..4], expected);
        assert_eq!(left_out[4..], ["weight 10"]);
    }

    #[test]
    fn a_check_speaks_tls_as_the_traffic_on_its_port_does() {
        let by_tls = |words: &[&str]| {
            let mut parameters = Parameters::default();
            parameters.apply(words);
            parameters.checks_by_tls()
        };
        assert!(by_tls(&["ssl", "check"]) && by_tls(&["check-ssl", "port", "8080"]));
        assert!(!by_tls(&["ssl", "port", "8080"]) && !by_tls(&["ssl", "no-check-ssl"]));
    }
}
