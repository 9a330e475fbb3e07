//! Random Specs that a config can say, for the round trip through `explain`.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use external_endpoints::config::{
    Address, AllowedNetworks, Check, CheckKind, CreateService, Database, DatabaseId, ExecCheck,
    ExpectedContent, GrpcCheck, HttpCheck, MongodbCheck, MysqlCheck, NameEntry, NameKind, Port,
    PostgresCheck, Protocol, PublishMode, RedisCheck, Role, Scheme, Spec, TcpCheck, Tls,
    ValueSource,
};
use external_endpoints::health::Thresholds;
use external_endpoints::names::{Families, Settings};
use external_endpoints::plan::{Failback, MinHealthy, Policy};
use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

pub(crate) fn specs() -> impl Strategy<Value = Spec> {
    (btree_map((label(), service()), database(), 1..4), any::<bool>()).prop_map(
        |(databases, prune)| Spec {
            databases: databases
                .into_iter()
                .map(|((namespace, service), database)| {
                    Arc::new(Database { id: DatabaseId { namespace, service }, ..database })
                })
                .collect(),
            prune,
        },
    )
}

fn database() -> impl Strategy<Value = Database> {
    let ips = btree_set(ip(), 0..5);
    let names = btree_map(name(), dns(), 0..4);
    let places = (ips, names).prop_filter("a database has an address", |(ips, names)| {
        !ips.is_empty() || !names.is_empty()
    });
    let keys = vec((of(label()), of(zone()), prop_oneof![Just(0), any::<u32>()], of(reason())), 9);
    let publishing = (publish(), of(any::<bool>()), policy(), any::<bool>());
    (ports(), places, keys, checks(), publishing).prop_map(
        |(ports, (ips, names), keys, checks, publishing)| {
            let (publish, headless, policy, adopt) = publishing;
            let mut keys = keys.into_iter().zip(checks.iter().cycle());
            let mut next = || keys.next().expect("keys for each address");
            let addresses = ips.into_iter().map(|ip| {
                let ((hostname, zone, priority, maintenance), check) = next();
                let zone = zone.map(String::into_boxed_str);
                let check = check.clone();
                Address { ip, name: None, priority, hostname, zone, maintenance, check }
            });
            let addresses = addresses.collect();
            let names = names.into_iter().map(|(name, dns)| {
                let ((hostname, zone, priority, maintenance), check) = next();
                let zone = zone.map(String::into_boxed_str);
                let check = check.clone();
                let kind = if name.starts_with('_') { NameKind::Service } else { NameKind::Host };
                let name = name.into();
                NameEntry { name, kind, hostname, zone, priority, maintenance, check, ..dns }
            });
            let names = names.collect();
            let id = DatabaseId { namespace: String::new(), service: String::new() };
            let create_service = headless.map(|headless| CreateService { headless });
            let (refused, allowed) = (Vec::new(), AllowedNetworks::default());
            Database {
                refused_answers: Arc::default(),
                id,
                ports,
                addresses,
                names,
                rejected: refused,
                allowed_networks: allowed,
                policy,
                publish,
                create_service,
                adopt,
            }
        },
    )
}

/// Words that YAML may take for something else belong to what must survive.
fn name() -> impl Strategy<Value = String> {
    let label = || "[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?";
    let host = (label(), label(), "[a-z]([a-z0-9-]{0,5}[a-z])?")
        .prop_map(|(first, second, last)| format!("{first}.{second}.{last}"))
        .prop_filter("no SRV name", |name| !name.starts_with('_') && !name.contains("._"));
    let service = ("[a-z][a-z0-9-]{0,5}x", "[a-z]{3}", "[a-z]{1,5}(\\.[a-z]{1,3}){0,3}")
        .prop_map(|(service, protocol, name)| format!("_{service}._{protocol}.{name}"));
    let hard = proptest::sample::select(&["1e3.e", "0x1f.x", "no.no", "_a._b.c"][..]);
    prop_oneof![
        host,
        service.prop_filter("no localhost", |name| !name.ends_with("localhost")),
        hard.prop_map(String::from)
    ]
}

/// Returns entries whose keys beside `dns` are replaced.
fn dns() -> impl Strategy<Value = NameEntry> {
    let families = of(prop_oneof![
        Just(Families::BOTH),
        Just(Families { ipv4: true, ipv6: false }),
        Just(Families { ipv4: false, ipv6: true })
    ]);
    let seconds = |range| Strategy::prop_map(range, Duration::from_secs);
    let forget_after = prop_oneof![Just(Duration::from_secs(1800)), seconds(60..=86_400_u64)];
    let settings = (any::<bool>(), forget_after, of(seconds(60..=2_592_000))).prop_map(
        |(rotating, forget_after, gone_after)| Settings { rotating, forget_after, gone_after },
    );
    let within = of(vec((ip(), 0..=32_u8), 1..3)).prop_map(|networks| {
        let network = |(ip, length)| IpNet::new(ip, length).expect("a network").trunc();
        let networks: Vec<_> = networks.into_iter().flatten().map(network).collect();
        AllowedNetworks::new(&networks)
    });
    (families, seconds(1..=3600), within, settings, check(tcp().boxed())).prop_map(
        |(families, refresh, within, settings, check)| NameEntry {
            name: "".into(),
            kind: NameKind::Host,
            families,
            refresh,
            within,
            settings,
            priority: 0,
            hostname: None,
            zone: None,
            maintenance: None,
            check,
        },
    )
}

fn reason() -> impl Strategy<Value = Arc<str>> {
    prop_oneof!["[ -~]{0,20}[!-~]", Just("yes".into())]
        .prop_map(|reason: String| reason.trim().into())
}

fn policy() -> impl Strategy<Value = Policy> {
    let min_healthy = prop_oneof![
        any::<u32>().prop_map(MinHealthy::Number),
        (0..=100_u8).prop_map(MinHealthy::Percentage),
    ];
    let delay = prop_oneof![span(), Just(Duration::ZERO)].prop_map(Failback::Delay);
    let failback = prop_oneof![delay, Just(Failback::Manual)];
    (min_healthy, any::<bool>(), failback, 1..=1000_u32).prop_map(
        |(min_healthy, exactly_one, failback, max_flips)| Policy {
            min_healthy,
            exactly_one,
            failback,
            max_flips,
        },
    )
}

fn publish() -> impl Strategy<Value = PublishMode> {
    prop_oneof![Just(PublishMode::Endpoints), Just(PublishMode::Slices), Just(PublishMode::Both)]
}

fn zone() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9]([A-Za-z0-9_.-]{0,10}[A-Za-z0-9])?",
        Just("null".into()),
        Just("1.5".into())
    ]
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let named = btree_map(label(), (1_u16.., protocol.clone()), 1..4).prop_map(|ports| {
        ports
            .into_iter()
            .map(|(name, (number, protocol))| Port { name: Some(name), number, protocol })
            .collect()
    });
    let unnamed = (1_u16.., protocol)
        .prop_map(|(number, protocol)| vec![Port { name: None, number, protocol }]);
    prop_oneof![named, unnamed]
}

/// A random check of one kind.
type AnyKind = fn() -> BoxedStrategy<CheckKind>;

/// Each kind with its random checks.
pub(crate) const KINDS: [(&str, AnyKind); 8] = [
    ("tcp", || tcp().boxed()),
    ("http", || http().boxed()),
    ("exec", || exec().boxed()),
    ("postgres", || postgres().boxed()),
    ("redis", || redis().boxed()),
    ("mongodb", || mongodb().boxed()),
    ("mysql", || mysql().boxed()),
    ("grpc", || grpc().boxed()),
];

/// Returns the checks of a database's addresses, which are all of one kind.
fn checks() -> impl Strategy<Value = Vec<Arc<Check>>> {
    proptest::sample::select(&KINDS[..]).prop_flat_map(|(_, kind)| vec(check(kind()), 1..3))
}

fn check(kind: BoxedStrategy<CheckKind>) -> impl Strategy<Value = Arc<Check>> {
    let threshold = || prop_oneof![1..10_u32, Just(u32::MAX)];
    let spans = (span(), span(), span());
    (kind, spans, threshold(), threshold()).prop_map(
        |(kind, (interval, timeout, recheck), healthy, unhealthy)| {
            let thresholds = Thresholds { healthy, unhealthy };
            Arc::new(Check {
                kind,
                interval,
                timeout,
                recheck_interval: recheck.min(interval),
                thresholds,
            })
        },
    )
}

fn tcp() -> impl Strategy<Value = CheckKind> {
    (1_u16.., of(tls()), of(value()), of(expected()), any::<bool>()).prop_map(
        |(port, tls, send, expect, accept)| {
            let accept = accept || tls.is_some() || send.is_some() || expect.is_some();
            CheckKind::Tcp(TcpCheck { port, tls, send, expect, accept })
        },
    )
}

fn http() -> impl Strategy<Value = CheckKind> {
    let scheme = prop_oneof![Just(Scheme::Http), Just(Scheme::Https)];
    let method = prop_oneof![Just("GET".to_string()), "[A-Z]{1,8}"];
    let http2 = any::<bool>();
    let request =
        (1_u16.., "/[a-z0-9/?=&%._~-]{0,20}", scheme, method, of("[a-z0-9.-]{1,20}(:80)?"));
    let headers = btree_map("[A-Z][a-z]{0,3}(-[A-Z][a-z]{0,3})?x", value(), 0..3);
    (request, headers, vec(statuses(), 1..3), of(text()), http2, tls()).prop_map(
        |(
            (port, path, scheme, method, host),
            headers,
            expected_statuses,
            expected_body,
            http2,
            tls,
        )| {
            CheckKind::Http(HttpCheck {
                port,
                path,
                scheme,
                method,
                host,
                headers: headers.into_iter().collect(),
                expected_statuses,
                expected_body,
                http2: http2 && scheme == Scheme::Https,
                tls: if scheme == Scheme::Https { tls } else { Tls::default() },
            })
        },
    )
}

fn exec() -> impl Strategy<Value = CheckKind> {
    let env = btree_map("X[A-Z0-9_]{0,8}", value(), 0..3);
    let statuses = vec(
        (1..=255_u8, 1..=255_u8).prop_map(|(one, other)| one.min(other)..=one.max(other)),
        0..3,
    );
    (text(), vec(prop_oneof![text(), Just(String::new())], 0..4), env, of(folder()), statuses)
        .prop_map(|(program, arguments, env, working_directory, inconclusive_statuses)| {
            CheckKind::Exec(ExecCheck {
                command: std::iter::once(program).chain(arguments).collect(),
                env: env.into_iter().collect(),
                working_directory,
                inconclusive_statuses,
            })
        })
}

fn postgres() -> impl Strategy<Value = CheckKind> {
    let values = (of(value()), of(value()));
    (1_u16.., role_and_lag(1), values, text(), of(tls())).prop_map(
        |(port, (role, max_lag), (user, password), database, tls)| {
            let check = PostgresCheck { port, role, max_lag, user, password, database, tls };
            CheckKind::Postgres(check)
        },
    )
}

fn redis() -> impl Strategy<Value = CheckKind> {
    (1_u16.., role_and_lag(11), credentials(), of(tls())).prop_map(
        |(port, (role, max_lag), (user, password), tls)| {
            CheckKind::Redis(RedisCheck { port, role, max_lag, user, password, tls })
        },
    )
}

fn mongodb() -> impl Strategy<Value = CheckKind> {
    (1_u16.., role_and_lag(20), of(tls())).prop_map(|(port, (role, max_lag), tls)| {
        CheckKind::Mongodb(MongodbCheck { port, role, max_lag, tls })
    })
}

fn mysql() -> impl Strategy<Value = CheckKind> {
    let flags = (any::<bool>(), any::<bool>());
    (1_u16.., role_and_lag(1), (value(), of(value())), flags, of(tls())).prop_map(
        |(port, (role, max_lag), (user, password), (donor, fetches), tls)| {
            CheckKind::Mysql(MysqlCheck {
                port,
                role,
                max_lag,
                user,
                password,
                donor,
                fetch_public_key: fetches && tls.is_none(),
                tls,
            })
        },
    )
}

fn grpc() -> impl Strategy<Value = CheckKind> {
    let service = prop_oneof![Just(String::new()), text()];
    (1_u16.., service, of("[a-z0-9.-]{1,20}(:80)?"), of(tls())).prop_map(
        |(port, service, authority, tls)| {
            CheckKind::Grpc(GrpcCheck { port, service, authority, tls })
        },
    )
}

/// Returns roles with a lag of at least so many seconds. A primary has none.
fn role_and_lag(lowest: u64) -> impl Strategy<Value = (Role, Option<Duration>)> {
    let lag = of((lowest..=86_400).prop_map(Duration::from_secs));
    prop_oneof![
        Just((Role::Primary, None)),
        lag.clone().prop_map(|lag| (Role::Any, lag)),
        lag.prop_map(|lag| (Role::Replica, lag))
    ]
}

/// Returns users and passwords. No user stands alone.
fn credentials() -> impl Strategy<Value = (Option<ValueSource>, Option<ValueSource>)> {
    of((of(value()), value())).prop_map(|both| match both {
        Some((user, password)) => (user, Some(password)),
        None => (None, None),
    })
}

fn tls() -> impl Strategy<Value = Tls> {
    (of(path()), of((path(), path())), of("[a-z][a-z0-9]{0,8}\\.example"), any::<bool>()).prop_map(
        |(ca_file, client, server_name, insecure_skip_verify)| {
            let (cert_file, key_file) = client.unzip();
            Tls { ca_file, cert_file, key_file, server_name, insecure_skip_verify }
        },
    )
}

fn expected() -> impl Strategy<Value = ExpectedContent> {
    prop_oneof![
        text().prop_map(ExpectedContent::Text),
        vec(any::<u8>(), 1..20).prop_map(ExpectedContent::Hex)
    ]
}

/// Literals are left out: `explain` hides them.
fn value() -> impl Strategy<Value = ValueSource> {
    prop_oneof![
        path().prop_map(ValueSource::File),
        text().prop_map(|name| ValueSource::FromEnv(name.replace('=', "_")))
    ]
}

fn span() -> impl Strategy<Value = Duration> {
    (10..86_400_000_u64).prop_map(Duration::from_millis)
}

fn statuses() -> impl Strategy<Value = RangeInclusive<u16>> {
    (100..=599_u16, 100..=599_u16).prop_map(|(one, other)| one.min(other)..=one.max(other))
}

fn ip() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<[u8; 2]>().prop_map(|[third, last]| IpAddr::from([10, 20, third, last]));
    let v6 = any::<u16>().prop_map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]));
    prop_oneof![v4, v6]
}

fn label() -> impl Strategy<Value = String> {
    // Words that YAML may take for something else belong to what must survive.
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?",
        Just("null".into()),
        Just("no".into()),
        "[0-9]{1,3}(e[0-9])?"
    ]
}

fn service() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]([a-z0-9-]{0,10}[a-z0-9])?", Just("true".into()), Just("y".into())]
}

fn path() -> impl Strategy<Value = PathBuf> {
    text().prop_map(PathBuf::from)
}

fn folder() -> impl Strategy<Value = PathBuf> {
    text().prop_map(|text| PathBuf::from(format!("/{text}")))
}

fn text() -> impl Strategy<Value = String> {
    const HARD: [&str; 17] = [
        "~",
        "- x",
        "# x",
        "a: b",
        "{}",
        "[]",
        "1.5",
        "0x1f",
        "*a",
        "&a",
        "|",
        "\r\n",
        "+PONG\r\n",
        " x ",
        "\t",
        "'",
        "\"",
    ];
    prop_oneof![
        proptest::sample::select(&HARD[..]).prop_map(String::from),
        "[ -~]{1,30}",
        "[^\\x00]{1,10}"
    ]
}
