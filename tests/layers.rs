//! Checks the import order of the modules, and that the pure modules stay pure.

mod layers {
    pub(crate) mod reader;
}

use layers::reader::{
    ModulePath, child_of, children, code, files, module_path, source, uses, without_unit_tests,
};

/// The modules of the crate in order: each may use only those before it.
const ORDER: &[&str] = &[
    "clock",
    "log",
    "health",
    "names",
    "freeze",
    "plan",
    "annotations",
    "endpoints",
    "config",
    "notice",
    "limits",
    "api",
    "kubeconfig",
    "lease",
    "probe",
    "resolve",
    "schedule",
    "monitor",
    "publish",
    "event",
    "reload",
    "metrics",
    "status",
    "page",
    "admin",
    "init",
    "run",
    "cli",
];

/// The order inside of larger modules: each child may use only the children before it.
/// The module itself comes last, as the face of its children.
const INNER_ORDER: &[(&str, &[&str])] = &[
    ("annotations", &["subject", "maintenance", "edit"]),
    (
        "admin",
        &[
            "encoding",
            "accept",
            "chunked",
            "connections",
            "guarded_body",
            "server",
            "state",
            "overview",
            "database",
        ],
    ),
    ("api", &["call", "error", "deadline", "retry_after", "user_agent"]),
    (
        "cli",
        &[
            "args",
            "width",
            "paint",
            "console",
            "output",
            "cluster",
            "daemon",
            "service",
            "completion",
            "explain",
            "diff",
            "failback",
            "import",
            "maintenance",
            "man",
            "probe",
            "rbac",
            "check",
            "run",
            "schema",
            "status",
            "validate",
        ],
    ),
    ("cli::check", &["finding", "cluster", "daemon"]),
    ("cli::import", &["entry", "endpoints", "haproxy", "peers", "read"]),
    ("cli::import::haproxy", &["tokens", "keywords", "server", "settings", "remarks"]),
    ("cli::maintenance", &["list"]),
    ("cli::rbac", &["rules", "manifests", "review"]),
    ("cli::validate", &["files", "report"]),
    ("cli::explain", &["answer"]),
    (
        "config",
        &[
            "invisible",
            "excerpt",
            "problem",
            "names",
            "ip",
            "dns_name",
            "yaml",
            "language",
            "kinds",
            "spec",
            "policy",
            "dns",
            "check",
            "records",
            "compile",
            "explain",
            "schema",
            "reference",
            "load",
            "manifest",
        ],
    ),
    ("config::compile", &["dns", "addresses", "ports"]),
    ("config::dns_name", &["punycode"]),
    ("config::ip", &["embedded"]),
    (
        "config::kinds",
        &[
            "kind", "login", "role", "tls", "exec", "http", "tcp", "postgres", "redis", "mongodb",
            "mysql", "grpc",
        ],
    ),
    (
        "config::language",
        &["hex", "spanned", "hints", "reader", "record", "scalars", "value", "bytes", "templates"],
    ),
    ("config::yaml", &["node", "secrets", "syntax", "tree"]),
    ("endpoints", &["packing", "slices"]),
    ("event", &["aggregator", "object", "client", "truth", "audit"]),
    (
        "lease",
        &["mark", "identity", "fitness", "decision", "election", "permission", "handle", "elector"],
    ),
    ("log", &["queue", "stderr"]),
    ("metrics", &["encoder", "names", "policy", "families"]),
    (
        "monitor",
        &[
            "admission_queue",
            "budget",
            "facts",
            "histogram",
            "last_hour",
            "change_log",
            "check_durations",
            "snapshot",
            "thread",
            "database",
            "freeze_driver",
            "reevaluation",
            "results",
            "names",
            "start_delay",
            "commands",
            "reload",
            "snapshot_channel",
            "starts",
            "handle",
        ],
    ),
    (
        "monitor::database",
        &[
            "trouble",
            "announcements",
            "maintenance",
            "recent_failures",
            "answers",
            "name_status",
            "dns_addresses",
            "dns_notices",
            "decision",
            "readdress",
        ],
    ),
    ("names", &["lookup", "rotation"]),
    ("notice", &["reason", "log_line", "recorder"]),
    ("page", &["text", "query", "bar", "layout", "plain", "section"]),
    (
        "plan",
        &[
            "keep_reason",
            "policy",
            "policy_note",
            "exactly_one",
            "min_healthy",
            "tiers",
            "freeze_hold",
            "standing",
            "not_replaced",
            "membership",
        ],
    ),
    (
        "probe",
        &[
            "phase",
            "target",
            "text",
            "server_text",
            "value",
            "credentials",
            "observation",
            "stream",
            "conversation",
            "kind",
            "tls",
            "native",
            "http2_client",
            "http",
            "tcp",
            "exec",
            "postgres",
            "redis",
            "mongodb",
            "mysql",
            "grpc",
            "fast",
            "registry",
        ],
    ),
    ("probe::exec", &["expand", "output", "spawn", "process_group", "command"]),
    (
        "probe::fast",
        &[
            "waker",
            "check",
            "exchange",
            "native_exchange",
            "probe",
            "slab",
            "deadlines",
            "reactor",
            "single",
        ],
    ),
    ("probe::grpc", &["message", "status"]),
    (
        "probe::http",
        &["expectation", "request", "body", "head", "response", "http1", "http2", "plain", "https"],
    ),
    ("probe::mongodb", &["bson", "message"]),
    ("probe::postgres", &["wire", "scram", "query", "dialog"]),
    ("probe::redis", &["resp"]),
    ("probe::mysql", &["wire", "auth", "brake", "verdicts", "table", "query", "dialog"]),
    ("probe::stream", &["bounded", "connect", "close"]),
    (
        "probe::tls",
        &["end_point", "alpn", "verifier", "client_auth", "config", "errors", "handshake"],
    ),
    (
        "publish",
        &[
            "condition",
            "foreign_writer",
            "ownership",
            "backoff",
            "cache",
            "installation",
            "cluster",
            "status",
            "decide",
            "preview",
            "apply",
            "reconciler",
            "supervisor",
        ],
    ),
    (
        "publish::apply",
        &["queue", "throttle", "calls", "feedback", "report", "state", "executor", "pruner"],
    ),
    ("publish::cache", &["object", "orphans", "watch_state", "slices", "observed", "reflector"]),
    (
        "publish::decide",
        &[
            "ports",
            "service",
            "waiting",
            "serving",
            "inputs",
            "mirroring",
            "remarks",
            "step",
            "desired",
            "diff",
            "next_step",
            "prune_gate",
            "prune",
        ],
    ),
    (
        "resolve",
        &[
            "counts",
            "wire",
            "servers",
            "resolv_conf",
            "transport",
            "exchange",
            "service",
            "lookup",
            "queue",
            "name",
            "feed",
            "lateness",
            "suspension",
            "task",
        ],
    ),
    ("run", &["cluster", "election", "rehearsal", "signals"]),
    (
        "status",
        &[
            "time",
            "text",
            "check",
            "history",
            "mark",
            "membership",
            "names",
            "observation",
            "table",
        ],
    ),
];

/// Names that pure modules must not use.
const IMPURE: [&str; 5] = ["tokio", "k8s_openapi", "kube::", "clock::", "std::fs"];
const PURE: [&str; 6] = ["health", "names", "freeze", "plan", "annotations", "schedule"];

/// The modules that may use Kubernetes' types.
const KUBERNETES: &[&str] =
    &["endpoints", "api", "kubeconfig", "lease", "publish", "event", "run", "cli"];

// ---- the rules ----

#[test]
fn the_order_lists_every_module() {
    let mut listed: Vec<String> = ORDER.iter().map(|name| (*name).to_owned()).collect();
    listed.sort();
    let mut existing = children("");
    existing.retain(|name| name != "lib" && name != "main");
    assert_eq!(existing, listed);
    for (module, order) in INNER_ORDER {
        let mut listed: Vec<String> = order.iter().map(|name| (*name).to_owned()).collect();
        listed.sort();
        let mut existing = children(module);
        existing.retain(|name| name != "tests" && !name.ends_with("_tests"));
        assert_eq!(existing, listed, "the children of {module}");
    }
}

#[test]
fn each_module_uses_only_those_before_it() {
    let mut found = 0;
    for (place, module) in ORDER.iter().enumerate() {
        for file in files(module) {
            for used in uses(&code(&file), &module_path(&file)) {
                let Some(other) = ORDER.iter().position(|other| *other == used[0]) else {
                    continue;
                };
                found += 1;
                assert!(
                    other <= place,
                    "{} uses {}, which comes after {module}",
                    file.display(),
                    used.join("::")
                );
            }
        }
    }
    assert!(found > 20, "found only {found} uses: the test no longer reads the code");
}

#[test]
fn each_child_uses_only_those_before_it() {
    let mut wrong = Vec::new();
    for (module, order) in INNER_ORDER {
        for (place, child) in order.iter().enumerate() {
            for file in files(&format!("{module}::{child}")) {
                if file.iter().any(|name| name == "tests" || name == "tests.rs") {
                    continue;
                }
                let code = code(&file);
                for used in uses(without_unit_tests(&code), &module_path(&file)) {
                    let other = child_of(&used, module)
                        .and_then(|name| order.iter().position(|other| *other == name));
                    if other.is_some_and(|other| other > place) {
                        let file = file.strip_prefix(source()).expect("a file of src/");
                        wrong.push(format!("{} uses {}", file.display(), used.join("::")));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "uses of what comes later:\n{}", wrong.join("\n"));
}

#[test]
fn the_pure_modules_name_no_clock_no_runtime_and_no_cluster() {
    for module in PURE {
        for file in files(module) {
            for impure in IMPURE {
                assert!(!code(&file).contains(impure), "{} names {impure}", file.display());
            }
        }
    }
}

#[test]
fn only_a_few_modules_name_kubernetes() {
    for module in ORDER.iter().filter(|module| !KUBERNETES.contains(module)) {
        for file in files(module) {
            for name in ["k8s_openapi", "kube::"] {
                assert!(!code(&file).contains(name), "{} names {name}", file.display());
            }
        }
    }
}

// ---- tests of the reader ----

#[test]
fn the_reader_finds_uses_of_other_modules() {
    let paths = |code: &str, module: &str| -> Vec<String> {
        let module: ModulePath = module.split("::").map(str::to_owned).collect();
        uses(code, &module).iter().map(|path| path.join("::")).collect()
    };
    assert_eq!(
        paths("use crate::publish::Kind;\nlet x = crate::run::y();", "cli"),
        ["publish::Kind", "run::y"]
    );
    assert_eq!(
        paths("use crate::{admin, monitor::{self as m, plan::{A, B}}, cli};", "run"),
        ["admin", "monitor::self", "monitor::plan::A", "monitor::plan::B", "cli"]
    );
    assert_eq!(
        paths("use super::{a, b::C};\nsuper::super::d::e(); self::f();", "x::y::z"),
        ["x::y::z::f", "x::y::a", "x::y::b::C", "x::d::e"]
    );
}
