//! `import` from files: its output is a config, and its mistakes say what to do.

use std::io::Write as _;

use crate::{outcome, program, run};

const MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: crm, namespace: legacy}
spec: {ports: [{port: 5432}]}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Endpoints
  metadata: {name: crm, namespace: legacy}
  subsets: [{addresses: [{ip: 10.1.0.17}], ports: [{port: 5432}]}]
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: prod}
  spec: {ports: [{port: 80}], selector: {app: web}}
";

fn named(suffix: &str, text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("a file that can be written");
    file
}

/// Runs the import and validates what it prints.
fn imported(arguments: &[&str]) -> String {
    let (status, config, stderr) = run(&[&["import"], arguments].concat());
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    let file = named(".yaml", &config);
    let (status, _, stderr) = run(&["validate", file.path().to_str().expect("UTF-8")]);
    assert_eq!(status, Some(0), "{stderr}\n{config}");
    config
}

#[test]
fn manifests_become_a_config() {
    let file = named(".yaml", MANIFESTS);
    let path = file.path().to_str().expect("UTF-8");
    let config = imported(&["--file", path]);
    assert!(config.contains("- service: crm\n  namespace: legacy\n  port: 5432\n"), "{config}");
    assert!(config.contains("# Found: 1, left out: 0."), "a Service with a selector is none");
    assert_eq!(imported(&["-f", path, "-n", "legacy"]), config);
    let stdin = program().args(["import", "-f", "-"]).write_stdin(MANIFESTS).output();
    let (status, from_stdin, _) = outcome(stdin.expect("the program runs"));
    assert_eq!((status, from_stdin), (Some(0), config.replace(path, "-")));
}

#[test]
fn haproxy_and_other_controllers_become_a_config() {
    let haproxy = named(".cfg", "backend a\n server s 10.0.0.1:3306 check\n");
    let config = imported(&["--from", haproxy.path().to_str().expect("UTF-8")]);
    assert!(config.contains("- service: a\n  port: 3306\n"), "{config}");
    let config = imported(&["--from", haproxy.path().to_str().expect("UTF-8"), "-n", "prod"]);
    assert!(config.contains("- service: a\n  namespace: prod\n"), "{config}");
    let object = "kind: ClusterEndpoint\nmetadata: {name: a, namespace: prod}\nspec: {hosts: \
                  [10.0.0.1], ports: [{port: 80, targetPort: 80}]}\n";
    let file = named(".yaml", object);
    let path = file.path().to_str().expect("UTF-8");
    let config = imported(&["--from", "clusterendpoints", "-f", path]);
    assert!(config.contains("  adopt: true"), "{config}");
}

#[test]
fn mistakes_say_what_to_do() {
    let empty = named(".yaml", "");
    let broken = named(".yaml", "a: [");
    let latin = named(".cfg", "");
    std::fs::write(latin.path(), [0xff, 0xfe]).expect("a file");
    let nothing = named(".cfg", "global\n");
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().expect("UTF-8").to_owned();
    let kubeconfig = "/nowhere/kubeconfig";
    for (arguments, expected, words) in [
        (vec!["--from", "consul"], 2, "write endpoints, clusterendpoints, discoveredservices"),
        (vec!["-f", "/nowhere/x.yaml"], 1, "there is no such file; give the path"),
        (vec!["-f", "/"], 1, "is a directory; give the path of a file"),
        (vec!["--from", "/nowhere/haproxy.cfg"], 1, "there is no such file"),
        (vec!["-f", &path(&empty)], 1, "there is no database to import"),
        (vec!["--from", &path(&nothing)], 1, "there is no database to import"),
        (vec!["-f", &path(&broken)], 1, &path(&broken)),
        (vec!["--from", &path(&latin)], 1, "is not UTF-8"),
        (vec!["--from", "haproxy.cfg", "-f", "x"], 1, "give an HAProxy config by --from"),
        (vec!["--from", &path(&nothing), "-A"], 1, "has no namespaces; name one by -n"),
        (vec!["--kubeconfig", kubeconfig], 1, "no cluster: "),
    ] {
        let (status, _, stderr) = run(&[&["import"], &arguments[..]].concat());
        assert_eq!(status, Some(expected), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_bomb_of_aliases_and_endless_nesting_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let last = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", [last.as_str(); 10].join(", "));
    }
    for text in [bomb, "[".repeat(200_000), "- ".repeat(200_000), "---\n".repeat(100_000)] {
        let file = named(".yaml", &text);
        let (status, _, stderr) = run(&["import", "-f", file.path().to_str().expect("UTF-8")]);
        assert_eq!(status, Some(1), "{stderr}");
    }
    let servers = named(".cfg", &format!("backend a\n{}", "server s 10.0.0.1:1\n".repeat(50_000)));
    let (status, _, _) = run(&["import", "--from", servers.path().to_str().expect("UTF-8")]);
    assert_eq!(status, Some(1), "the same address twice");
}
