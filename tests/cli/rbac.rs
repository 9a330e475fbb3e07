//! `rbac`: the forms of its output, and its mistakes.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde_json::Value;

use crate::{BAD, GOOD, file, run};

fn documents(text: &str) -> Vec<Value> {
    let parse = |document: &str| serde_saphyr::from_str(document).expect("YAML");
    text.split("---\n").map(parse).collect()
}

#[test]
fn the_roles_are_manifests_bound_to_the_service_account() {
    let config = file(GOOD);
    let account = "ops/checker";
    let (status, yaml, stderr) =
        run(&["rbac", config.path().to_str().expect("UTF-8"), "--service-account", account]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let documents = documents(&yaml);
    assert_eq!(documents.len(), 4, "{yaml}");
    for pair in documents.chunks(2) {
        let role: Role = serde_json::from_value(pair[0].clone()).expect("a Role");
        let binding: RoleBinding = serde_json::from_value(pair[1].clone()).expect("a RoleBinding");
        assert_eq!(role.metadata.namespace, binding.metadata.namespace);
        assert_eq!(role.metadata.name.as_deref(), Some("checker"));
        assert_eq!(binding.role_ref.name, "checker");
        let subject = &binding.subjects.expect("a subject")[0];
        assert_eq!((subject.namespace.as_deref(), subject.name.as_str()), (Some("ops"), "checker"));
    }
    let namespaces: Vec<&str> =
        documents.iter().filter_map(|it| it["metadata"]["namespace"].as_str()).collect();
    assert_eq!(namespaces, ["ops", "ops", "prod", "prod"]);
}

#[test]
fn a_database_without_a_namespace_is_in_that_of_the_account() {
    let config = file(&GOOD.replace("namespace: prod, ", ""));
    let config = config.path().to_str().expect("UTF-8");
    let (_, yaml, _) = run(&["rbac", config, "--no-leader-election", "--service-account", "a/b"]);
    let documents = documents(&yaml);
    assert_eq!((documents.len(), &documents[0]["metadata"]["namespace"]), (2, &"a".into()));
}

#[test]
fn one_namespace_can_be_picked() {
    let config = file(GOOD);
    let config = config.path().to_str().expect("UTF-8");
    let (status, yaml, _) = run(&["rbac", config, "-n", "prod"]);
    assert_eq!((status, documents(&yaml).len()), (Some(0), 2));
    let (status, stdout, stderr) = run(&["rbac", config, "-n", "elsewhere"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("it needs some in external-endpoints, prod"), "{stderr}");
}

#[test]
fn values_for_helm_have_the_same_objects() {
    let config = file(GOOD);
    let config = config.path().to_str().expect("UTF-8");
    let (_, yaml, _) = run(&["rbac", config]);
    let (status, values, _) = run(&["rbac", config, "-o", "values"]);
    let values: Value = serde_saphyr::from_str(&values).expect("YAML");
    assert_eq!(status, Some(0));
    assert_eq!(values["extraObjects"], Value::from(documents(&yaml)));
}

#[test]
fn kustomize_gets_a_folder() {
    let (config, folder) = (file(GOOD), tempfile::tempdir().expect("a folder"));
    let config = config.path().to_str().expect("UTF-8");
    let target = folder.path().join("rights");
    let arguments = ["rbac", config, "-o", "kustomize", "--dir", target.to_str().expect("UTF-8")];
    let (status, paths, stderr) = run(&arguments);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let read = |name: &str| std::fs::read_to_string(target.join(name)).expect("a file");
    let kustomization: Value = serde_saphyr::from_str(&read("kustomization.yaml")).expect("YAML");
    for name in kustomization["resources"].as_array().expect("a list") {
        assert_eq!(documents(&read(name.as_str().expect("a name"))).len(), 2);
    }
    assert_eq!(paths.lines().count(), 3, "{paths}");
    // Its own files are written anew. Those of others are not.
    assert_eq!(run(&arguments).0, Some(0));
    std::fs::write(target.join("kustomization.yaml"), "mine").expect("a file");
    let (status, _, stderr) = run(&arguments);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("kustomization.yaml was not written by this command"), "{stderr}");
    assert_eq!(read("kustomization.yaml"), "mine");
}

#[test]
fn mistakes_have_their_exit_status() {
    let (good, bad) = (file(GOOD), file(BAD));
    let (good, bad) = (good.path().to_str().expect("UTF-8"), bad.path().to_str().expect("UTF-8"));
    for (arguments, expected, words) in [
        (vec!["rbac", bad], 78, "a duration needs a unit"),
        (vec!["rbac", good, "--service-account", "checker"], 2, "write NAMESPACE/NAME"),
        (vec!["rbac", good, "--service-account", "a/B"], 2, "is not the name of a ServiceAccount"),
        (vec!["rbac", good, "-n", "Prod"], 2, "is not a DNS label"),
        (vec!["rbac", good, "-o", "kustomize"], 1, "say where with --dir"),
        (vec!["rbac", good, "--dir", "x"], 1, "--dir is for `-o kustomize`"),
        (vec!["rbac", good, "--check", "-o", "yaml"], 2, "cannot be used with"),
    ] {
        let (status, _, stderr) = run(&arguments);
        assert_eq!(status, Some(expected), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
}
