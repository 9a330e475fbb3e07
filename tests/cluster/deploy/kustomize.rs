//! The base as one file and by a URL, and the components, whose Roles are those of the command
//! `rbac`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use serde_json::Value;

use crate::support::{daemon, shared, temp_dir};

use super::permissions::atoms;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Returns the output of `kubectl kustomize`, or its error.
async fn kustomize(folder: &Path) -> Result<String, String> {
    let output = shared().kubectl(&["kustomize", &folder.to_string_lossy()]).await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

pub(super) async fn install_yaml_is_the_base() {
    let base = kustomize(&deploy().join("base")).await.expect("the base");
    let file = std::fs::read_to_string(deploy().join("install.yaml")).expect("install.yaml");
    let body: String =
        file.split_inclusive('\n').skip_while(|line| line.starts_with('#')).collect();
    assert_eq!(body, base, "run `make manifests`");
    // Whoever applies the file of a later version keeps the config.
    assert!(!base.contains("kind: ConfigMap"), "{base}");
}

fn run(program: &str, folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).current_dir(folder).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Puts the files of deploy/ into a git repository, with the tag `v1`. Returns its URL.
fn repository() -> String {
    let folder = temp_dir("repository");
    run("cp", &folder, &["-R", &deploy().to_string_lossy(), "."]);
    let name = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
    run("git", &folder, &["init", "--quiet"]);
    run("git", &folder, &["add", "."]);
    run("git", &folder, &[&name[..], &["commit", "--quiet", "--message=Test"]].concat());
    run("git", &folder, &["tag", "v1"]);
    format!("file://{}", folder.display())
}

/// Writes a kustomization into a folder of its own.
fn kustomization(name: &str, text: &str) -> PathBuf {
    let folder = temp_dir(name);
    let text = format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n{text}");
    std::fs::write(folder.join("kustomization.yaml"), text).expect("a file in the sandbox");
    folder
}

pub(super) async fn the_base_works_by_a_url() {
    let url = repository();
    let base = kustomization("remote", &format!("resources:\n- {url}//deploy/base?ref=v1\n"));
    let local = kustomize(&deploy().join("base")).await.expect("the base");
    assert_eq!(kustomize(&base).await.as_ref(), Ok(&local));
    let component = "deploy/components/watched-namespace?ref=v1";
    let watched = format!("namespace: prod\ncomponents:\n- {url}//{component}\n");
    let roles = kustomize(&kustomization("watched", &watched)).await.expect("the component");
    assert!(roles.contains("namespace: prod"), "{roles}");
    let gone = format!("resources:\n- {url}//deploy/base?ref=v0\n");
    let error =
        kustomize(&kustomization("gone", &gone)).await.expect_err("a tag that is not there");
    assert!(error.contains("v0"), "{error}");
}

/// Returns the rights of each Role in some manifests.
fn rights(manifests: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for document in manifests.split("---\n") {
        let object: Value = serde_saphyr::from_str(document).expect("YAML");
        if object["kind"] == "Role" {
            assert_eq!(object["metadata"]["namespace"], "prod", "{document}");
            let role: Role = serde_json::from_value(object).expect("a Role");
            all.extend(atoms(&role.rules.unwrap_or_default()));
        }
    }
    all
}

/// Returns the rights that the command `rbac` derives for the namespace `prod`.
fn derived(keys: &str, prune: &str) -> BTreeSet<String> {
    let config = temp_dir("config").join("config.yaml");
    let text = format!(
        "{prune}databases:\n- service: mysql\n  namespace: prod\n  port: 3306\n  \
         addresses: [10.20.0.11]\n  check: {{tcp: {{}}}}\n{keys}"
    );
    std::fs::write(&config, text).expect("a file in the sandbox");
    let arguments = ["rbac", &config.to_string_lossy(), "--namespace=prod"];
    rights(&run(daemon::PROGRAM, Path::new("/"), &arguments))
}

/// Returns a JSON patch that names objects in the first rule of a Role.
fn named(role: &str, name: &str) -> String {
    format!(
        "- target: {{kind: Role, name: {role}}}\n  patch: |\n    - op: replace\n      \
         path: /rules/0/resourceNames\n      value: [{name}]\n"
    )
}

/// Returns the rights that the components give together.
async fn composed(components: &[&str]) -> BTreeSet<String> {
    let components: Vec<PathBuf> =
        components.iter().map(|name| deploy().join("components").join(name)).collect();
    // A path in a kustomization is a relative one.
    let folder = temp_dir("composed");
    let up = "../".repeat(folder.components().count() - 1);
    let listed = components.iter().map(|path| {
        let path = path.strip_prefix("/").expect("an absolute path");
        format!("- {up}{}\n", path.display())
    });
    let slices = components.iter().any(|path| path.ends_with("slices"));
    let text = format!(
        "namespace: prod\ncomponents:\n{}patches:\n{}{}",
        listed.collect::<String>(),
        named("external-endpoints", "mysql"),
        if slices {
            named("external-endpoints-slices", "mysql-external-ipv4-1")
        } else {
            String::new()
        }
    );
    let text = format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n{text}");
    std::fs::write(folder.join("kustomization.yaml"), text).expect("a file in the sandbox");
    rights(&kustomize(&folder).await.expect("the components"))
}

pub(super) async fn components_give_what_rbac_derives() {
    const WATCHED: &str = "watched-namespace";
    let expected = |components: &[&str]| match components {
        [_] => derived("", ""),
        [_, "slices"] => derived("  publish: slices\n", ""),
        [_, "create-service"] => derived("  createService: {}\n", ""),
        [_, "prune"] => derived("", "prune: true\n"),
        _ => derived("  publish: slices\n", "prune: true\n"),
    };
    let sets: [&[&str]; 5] = [
        &[WATCHED],
        &[WATCHED, "slices"],
        &[WATCHED, "create-service"],
        &[WATCHED, "prune"],
        &[WATCHED, "prune", "slices"],
    ];
    for components in sets {
        assert_eq!(composed(components).await, expected(components), "{components:?}");
    }
}

/// Returns the rules of the Role of a component, for a Service that is called `mysql`.
pub(crate) fn role_of(component: &str) -> Vec<PolicyRule> {
    let path = deploy().join("components").join(component).join("role.yaml");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let role = text.split("---\n").next().expect("a Role").replace("[SERVICE", "[mysql");
    let role: Role =
        serde_saphyr::from_str(&role).unwrap_or_else(|error| panic!("{component}: {error}"));
    role.rules.expect("rules")
}
