//! How a check comes about: the layers laid over each other, and what comes out checked and filled with the defaults.

use std::time::Duration;

use crate::health::Thresholds;

use super::leaf::{
    AbsoluteDir, Bool, FilePath, HeaderName, HostHeader, Interval, Method, PortNumber, ServerName,
    StatusRange, Threshold, UrlPath,
};
use super::problem::{Collector, Span};
use super::raw;
use super::read::{Field, FromNode, Location, Spanned};
use super::reference;
use super::value::{self, NamedValues};
use super::{
    Check, CheckKind, ExecCheck, HttpCheck, Port, Protocol, Scheme, TcpCheck, Tls, ValueSource,
};

/// The built-in values, which the JSON Schema shows as defaults too.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
const THRESHOLDS: Thresholds = Thresholds { healthy: 2, unhealthy: 3 };
const EXPECTED_STATUSES: std::ops::RangeInclusive<u16> = 200..=399;

/// What a check is compiled for.
pub(super) struct Owner<'a> {
    /// The database's first port; None when it is wrong, which is already reported.
    pub port: Option<&'a Port>,
    /// Where to point when the check itself stands in `defaults`.
    pub place: &'a Location,
}

/// A check of the database laid over the one of `defaults`: a kind replaces another kind, keys of the same kind merge.
pub(super) fn over_defaults(database: &raw::Check, defaults: &raw::Check) -> raw::Check {
    let mut lower = defaults.clone();
    if has_kind(database) {
        lower.tcp = if database.tcp.is_absent() { Field::Absent } else { lower.tcp };
        lower.http = if database.http.is_absent() { Field::Absent } else { lower.http };
        lower.exec = if database.exec.is_absent() { Field::Absent } else { lower.exec };
    }
    database.overlay(&lower)
}

/// An address's check laid over its database's, whose kind it keeps. None when it does not.
pub(super) fn over_database(
    address: &raw::Check,
    database: &raw::Check,
    problems: &mut Collector,
) -> Option<raw::Check> {
    let [(kind, _)] = kinds(database)[..] else { return None };
    let foreign = kinds(address).into_iter().find(|(other, _)| *other != kind);
    if let Some((other, place)) = foreign {
        let message = format!(
            "the database is checked by `{kind}`, and an address can only change single keys of that; write `{kind}` \
             instead of `{other}`"
        );
        problems.error(place.key, &place.path, message);
        return None;
    }
    Some(address.overlay(database))
}

/// Reports a second kind in one layer. False when there is one.
pub(super) fn has_at_most_one_kind(check: &raw::Check, problems: &mut Collector) -> bool {
    let mut kinds = kinds(check);
    kinds.sort_by_key(|(_, place)| place.key.start);
    let Some(((first, at), others)) = kinds.split_first() else { return true };
    for (kind, place) in others {
        let message = format!(
            "a check has one kind, and `{first}` is already on line {}; take `{first}` or `{kind}` away",
            at.key.line
        );
        problems.error(place.key, &place.path, message);
    }
    others.is_empty()
}

fn kinds(check: &raw::Check) -> Vec<(&'static str, &Location)> {
    let tcp = check.tcp.given().map(|at| ("tcp", &at.location));
    let http = check.http.given().map(|at| ("http", &at.location));
    let exec = check.exec.given().map(|at| ("exec", &at.location));
    [tcp, http, exec].into_iter().flatten().collect()
}

fn has_kind(check: &raw::Check) -> bool {
    !(check.tcp.is_absent() && check.http.is_absent() && check.exec.is_absent())
}

/// The check with every default filled in. None when something is wrong, all of which is then reported.
pub(super) fn compile(
    check: &raw::Check,
    owner: &Owner,
    problems: &mut Collector,
) -> Option<Check> {
    let interval = check.interval.or(Interval(INTERVAL));
    let timeout = check.timeout.or(Interval(TIMEOUT));
    let healthy = check.healthy_threshold.or(Threshold(THRESHOLDS.healthy));
    let unhealthy = check.unhealthy_threshold.or(Threshold(THRESHOLDS.unhealthy));
    if let (Some(interval), Some(timeout)) = (interval, timeout)
        && timeout.0 > interval.0
    {
        warn_of_long_timeout(check, interval, timeout, owner, problems);
    }
    let recheck_interval = recheck_interval(check, interval, problems);
    let kind = match (&check.tcp, &check.http, &check.exec) {
        (Field::Given(tcp), Field::Absent, Field::Absent) => {
            tcp_check(tcp, owner, problems).map(CheckKind::Tcp)
        }
        (Field::Absent, Field::Given(http), Field::Absent) => {
            http_check(http, owner, problems).map(CheckKind::Http)
        }
        (Field::Absent, Field::Absent, Field::Given(exec)) => {
            exec_check(exec, owner, problems).map(CheckKind::Exec)
        }
        (Field::Absent, Field::Absent, Field::Absent) => {
            let message = "no kind of check is given; write `check: {tcp: {}}`, or `http` or `exec` in place of `tcp`";
            problems.error(owner.place.key, &owner.place.path, message);
            None
        }
        _ => None,
    };
    Some(Check {
        kind: kind?,
        interval: interval?.0,
        timeout: timeout?.0,
        recheck_interval: recheck_interval?,
        thresholds: Thresholds { healthy: healthy?.0, unhealthy: unhealthy?.0 },
    })
}

fn warn_of_long_timeout(
    check: &raw::Check,
    interval: Interval,
    timeout: Interval,
    owner: &Owner,
    problems: &mut Collector,
) {
    let (interval, timeout) =
        (humantime::format_duration(interval.0), humantime::format_duration(timeout.0));
    let message = format!(
        "the timeout {timeout} is longer than the interval {interval}, so that a slow address is tried less often than \
         each {interval}; write a timeout of at most `{interval}`, or a longer interval"
    );
    let place = check
        .timeout
        .given()
        .map(|at| &at.location)
        .or(check.interval.given().map(|at| &at.location));
    let place = place.unwrap_or(owner.place);
    problems.warn(place.span, &place.path, message);
}

/// What is written beside the interval, or above it, must fit it. What comes from a layer below the interval's can't know
/// it, and shrinks to it as the default does.
fn recheck_interval(
    check: &raw::Check,
    interval: Option<Interval>,
    problems: &mut Collector,
) -> Option<Duration> {
    let recheck = check.recheck_interval.or(Interval(RECHECK_INTERVAL))?.0;
    let interval = interval?.0;
    if let Some(at) = check.recheck_interval.given()
        && recheck > interval
        && Layer::of(&at.location)
            >= check
                .interval
                .given()
                .map_or(Layer::BuiltIn, |interval| Layer::of(&interval.location))
    {
        let (recheck, interval) =
            (humantime::format_duration(recheck), humantime::format_duration(interval));
        let message = format!(
            "{recheck} is longer than the interval {interval}, and a recheck comes sooner than the next regular try; \
             write at most `{interval}`, or a longer interval"
        );
        problems.error(at.location.span, &at.location.path, message);
        return None;
    }
    Some(recheck.min(interval))
}

/// Where a key of a check was written, from the lowest layer up.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    BuiltIn,
    Defaults,
    Database,
    Address,
}

impl Layer {
    fn of(place: &Location) -> Self {
        match &place.path {
            path if path.starts_with("defaults") => Layer::Defaults,
            path if path.contains(".addresses[") => Layer::Address,
            _ => Layer::Database,
        }
    }
}

fn tcp_check(tcp: &Spanned<raw::Tcp>, owner: &Owner, problems: &mut Collector) -> Option<TcpCheck> {
    let port = port("tcp", &tcp.value.port, &tcp.location, owner, problems);
    let raw = &tcp.value;
    let speaks = !(raw.tls.is_absent() && raw.send.is_absent() && raw.expect.is_absent());
    let accept = raw.accept.or(Bool(speaks))?.0;
    if let (true, false, Some(at)) = (speaks, accept, raw.accept.given()) {
        let message =
            "`tls`, `send` and `expect` need the whole handshake; take `accept: false` away";
        problems.error(at.location.span, &at.location.path, message);
    }
    let tls = match raw.tls.given() {
        Some(at) => tls(at, problems).map(Some),
        None => raw.tls.optional().map(|_| None),
    };
    Some(TcpCheck {
        port: port?,
        tls: tls?,
        send: raw.send.optional()?.map(|value| value.0),
        expect: raw.expect.optional()?.map(|answer| answer.0),
        accept,
    })
}

fn http_check(
    http: &Spanned<raw::Http>,
    owner: &Owner,
    problems: &mut Collector,
) -> Option<HttpCheck> {
    let port = port("http", &http.value.port, &http.location, owner, problems);
    let raw = &http.value;
    let scheme = raw.scheme.or(Scheme::Http);
    let tls = match raw.tls.given() {
        Some(at) => {
            if scheme == Some(Scheme::Http) {
                let message =
                    "`tls` means nothing without `scheme: https`; add that, or take `tls` away";
                problems.error(at.location.key, &at.location.path, message);
            }
            tls(at, problems)
        }
        None => raw.tls.optional().map(|_| Tls::default()),
    };
    let http2 = raw.http2.or(Bool(false));
    if let (Some(Bool(true)), Some(Scheme::Http), Some(at)) = (&http2, scheme, raw.http2.given()) {
        let message =
            "`http2` means nothing without `scheme: https`; add that, or take `http2` away";
        problems.error(at.location.key, &at.location.path, message);
    }
    if let Some(headers) = raw.headers.value() {
        refuse_control_characters(headers, problems);
    }
    let statuses = filled("status", "[200-399]", &raw.expected_statuses, problems);
    let headers = raw
        .headers
        .or(NamedValues(Vec::new()))
        .and_then(|values| values_of(&values, |name| name.0.clone()));
    Some(HttpCheck {
        port: port?,
        path: raw.path.or(UrlPath("/".into()))?.0,
        scheme: scheme?,
        method: raw.method.or(Method("GET".into()))?.0,
        host: raw.host.optional()?.map(|host: HostHeader| host.0),
        headers: headers?,
        expected_statuses: match statuses? {
            Some(statuses) => {
                statuses.into_iter().map(|statuses: StatusRange| statuses.0).collect()
            }
            None => vec![EXPECTED_STATUSES],
        },
        expected_body: raw.expected_body.optional()?.map(|text| text.0),
        http2: http2?.0,
        tls: tls?,
    })
}

/// No request can carry them. What a file or a variable holds is seen only when the check runs.
fn refuse_control_characters(headers: &NamedValues<HeaderName>, problems: &mut Collector) {
    for at in headers.0.iter().filter_map(|(_, value)| value.given()) {
        if let ValueSource::Literal(text) = &at.value.0
            && text.chars().any(|char| char.is_ascii_control() && char != '\t')
        {
            let message = "a header can't carry a line break or another control character; write the value on one line";
            problems.error(at.location.span, &at.location.path, message);
        }
    }
}

fn exec_check(
    exec: &Spanned<raw::Exec>,
    owner: &Owner,
    problems: &mut Collector,
) -> Option<ExecCheck> {
    let raw = &exec.value;
    if raw.command.is_absent() {
        let (span, path) = near(&exec.location, owner);
        problems.error(
            span,
            path,
            "the key `command` is missing; write `command: [program, argument]`",
        );
    }
    let command = filled("program", "[program, argument]", &raw.command, problems).flatten();
    if let Some(Field::Given(program)) = raw.command.value().and_then(|command| command.first())
        && program.value.0.is_empty()
    {
        problems.error(
            program.location.span,
            &program.location.path,
            "the program's name is empty; write the path or name of a program",
        );
    }
    let env = raw
        .env
        .or(NamedValues(Vec::new()))
        .and_then(|values| values_of(&values, |name| name.0.clone()));
    let statuses = raw.inconclusive_statuses.or(Vec::new());
    let statuses = statuses
        .and_then(|list| list.iter().map(|item| item.value().cloned()).collect::<Option<Vec<_>>>());
    let (command, env) = (command?, env?);
    for argument in raw.command.value().into_iter().flatten().filter_map(Field::given) {
        reference::warn_of_unknown(&argument.value.0, &argument.location, &env, problems);
    }
    Some(ExecCheck {
        command: command.into_iter().map(|argument| argument.0).collect(),
        env,
        working_directory: raw.working_directory.optional()?.map(|path: AbsoluteDir| path.0),
        inconclusive_statuses: statuses?.into_iter().map(|statuses| statuses.0).collect(),
    })
}

/// The check's own port, else the database's first.
fn port(
    kind: &str,
    own: &Field<PortNumber>,
    place: &Location,
    owner: &Owner,
    problems: &mut Collector,
) -> Option<u16> {
    match own {
        Field::Given(at) => return Some(at.value.0),
        Field::Invalid => return None,
        Field::Absent => {}
    }
    let port = owner.port?;
    if port.protocol == Protocol::Tcp {
        return Some(port.number);
    }
    let (span, path) = near(place, owner);
    let protocol = if port.protocol == Protocol::Udp { "a UDP" } else { "an SCTP" };
    let message = format!(
        "the database's first port, {}, is {protocol} port, which `{kind}` can't check; set check.{kind}.port to a \
         TCP port",
        port.number
    );
    problems.error(span, path, message);
    None
}

/// Points at the check's kind if it stands in the database, else at the database: the fault is not in `defaults`.
fn near<'a>(place: &'a Location, owner: &'a Owner) -> (Span, &'a str) {
    let in_defaults = place.path.starts_with("defaults");
    let place = if in_defaults { owner.place } else { place };
    (place.key, &place.path)
}

fn tls(tls: &Spanned<raw::Tls>, problems: &mut Collector) -> Option<Tls> {
    let raw = &tls.value;
    for (one, other, given, missing) in [
        ("certFile", "keyFile", &raw.cert_file, &raw.key_file),
        ("keyFile", "certFile", &raw.key_file, &raw.cert_file),
    ] {
        if let (Some(at), true) = (given.given(), missing.is_absent()) {
            let message = format!("`{one}` is of no use alone; write `{other}` beside it");
            problems.error(at.location.key, &at.location.path, message);
        }
    }
    Some(Tls {
        ca_file: raw.ca_file.optional()?.map(|path: FilePath| path.0),
        cert_file: raw.cert_file.optional()?.map(|path: FilePath| path.0),
        key_file: raw.key_file.optional()?.map(|path: FilePath| path.0),
        server_name: raw.server_name.optional()?.map(|name: ServerName| name.0),
        insecure_skip_verify: raw.insecure_skip_verify.or(Bool(false))?.0,
    })
}

/// The items of a list that may be absent but not empty. The outer None when something is wrong.
fn filled<T: Clone>(
    what: &str,
    example: &str,
    list: &Field<Vec<Field<T>>>,
    problems: &mut Collector,
) -> Option<Option<Vec<T>>> {
    let at = match list {
        Field::Absent => return Some(None),
        Field::Invalid => return None,
        Field::Given(at) => at,
    };
    if at.value.is_empty() {
        problems.error(
            at.location.span,
            &at.location.path,
            format!("the list is empty; write at least one {what}, as in `{example}`"),
        );
        return None;
    }
    at.value.iter().map(|item| item.value().cloned()).collect::<Option<Vec<T>>>().map(Some)
}

fn values_of<N>(
    values: &NamedValues<N>,
    name: impl Fn(&N) -> String,
) -> Option<Vec<(String, ValueSource)>> {
    let pair = |(key, value): &(Spanned<N>, Field<value::Value>)| {
        Some((name(&key.value), value.value()?.0.clone()))
    };
    values.0.iter().map(pair).collect()
}
