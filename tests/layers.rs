//! Checks the import order of the modules, and that the pure modules stay pure.

use std::fs;
use std::path::{Path, PathBuf};

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
            "console",
            "output",
            "cluster",
            "daemon",
            "service",
            "completion",
            "explain",
            "failback",
            "maintenance",
            "man",
            "probe",
            "rbac",
            "run",
            "schema",
            "status",
            "validate",
        ],
    ),
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
    ("config::kinds", &["kind", "tls", "exec", "http", "tcp"]),
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
            "phase", "target", "text", "value", "stream", "kind", "tls", "http", "tcp", "exec",
            "fast", "registry",
        ],
    ),
    ("probe::exec", &["expand", "output", "spawn", "process_group", "command"]),
    (
        "probe::fast",
        &["waker", "check", "exchange", "probe", "slab", "deadlines", "reactor", "single"],
    ),
    (
        "probe::http",
        &["expectation", "request", "body", "head", "response", "http1", "http2", "plain", "https"],
    ),
    ("probe::stream", &["bounded", "connect", "close"]),
    ("probe::tls", &["verifier", "client_auth", "config", "errors", "handshake"]),
    (
        "publish",
        &[
            "condition",
            "ownership",
            "foreign_writer",
            "backoff",
            "installation",
            "cache",
            "cluster",
            "status",
            "decide",
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
    ("run", &["cluster", "election", "signals"]),
    ("status", &["time", "check", "history", "mark", "membership", "names", "text", "table"]),
];

/// Names that pure modules must not use.
const IMPURE: [&str; 5] = ["tokio", "k8s_openapi", "kube::", "clock::", "std::fs"];
const PURE: [&str; 6] = ["health", "names", "freeze", "plan", "annotations", "schedule"];

/// The modules that may use Kubernetes' types.
const KUBERNETES: &[&str] =
    &["endpoints", "api", "kubeconfig", "lease", "publish", "event", "run", "cli"];

/// A path of a module or an item from the root of the crate, such as `["publish", "cache"]`.
type ModulePath = Vec<String>;

// ---- the reader ----

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns a module's files: `src/NAME.rs` and all below `src/NAME/`.
fn files(module: &str) -> Vec<PathBuf> {
    let module = module.replace("::", "/");
    let mut files = vec![source().join(format!("{module}.rs"))];
    let mut folders = vec![source().join(module)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let paths = entries.map(|entry| entry.expect("a readable folder").path());
        let (inner, found): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
        folders.extend(inner);
        files.extend(found);
    }
    files
}

/// Returns the names of the modules in a folder of `src/`, sorted.
fn children(module: &str) -> Vec<String> {
    let folder = source().join(module.replace("::", "/"));
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Returns the code of a file, without comments.
fn code(file: &Path) -> String {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns the path of the module that a file holds.
fn module_path(file: &Path) -> ModulePath {
    let path = file.strip_prefix(source()).expect("a file of src/").with_extension("");
    path.iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Returns all paths in the crate that the code of a module names: those that begin with `crate::`,
/// `self::` or `super::`, with lists in braces expanded.
fn uses(code: &str, module: &[String]) -> Vec<ModulePath> {
    let mut used = Vec::new();
    for keyword in ["crate", "self", "super"] {
        for (at, _) in code.match_indices(&format!("{keyword}::")) {
            let before = code[..at].chars().next_back();
            // Within a longer name or a longer path, such as the second half of `super::super::`.
            if before.is_some_and(|c| is_name_char(c) || c == ':') {
                continue;
            }
            let mut base = if keyword == "crate" { Vec::new() } else { module.to_vec() };
            if keyword == "super" {
                base.pop();
            }
            let mut rest = &code[at + keyword.len() + 2..];
            while let Some(next) = rest.strip_prefix("super::") {
                base.pop();
                rest = next;
            }
            expand(&base, rest, &mut used);
        }
    }
    used
}

/// Adds the paths at the beginning of a piece of code, such as `a::{b, c}`, and returns the rest.
fn expand<'a>(base: &[String], code: &'a str, used: &mut Vec<ModulePath>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = expand(base, rest, used).trim_start();
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let (name, rest) = code.split_at(code.find(|c| !is_name_char(c)).unwrap_or(code.len()));
    if name.is_empty() {
        return rest;
    }
    let path = [base, &[name.to_owned()]].concat();
    match rest.strip_prefix("::") {
        Some(next) => expand(&path, next, used),
        None => {
            used.push(path);
            rest.strip_prefix(" as ").map_or(rest, |alias| alias.trim_start_matches(is_name_char))
        }
    }
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the name of the child of a module that a path leads into.
fn child_of<'a>(path: &'a [String], module: &str) -> Option<&'a str> {
    let mut names = path.iter();
    let is_inside = module.split("::").all(|name| names.next().is_some_and(|other| other == name));
    names.next().map(String::as_str).filter(|_| is_inside)
}

/// Returns the code of a file before its inline unit tests, which may use any module.
fn without_unit_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(code)
}

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
