//! Checks that everything built from other people's code is pinned by a digest.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_sha256(digest: &str) -> bool {
    digest.len() == 64 && digest.chars().all(|char| char.is_ascii_hexdigit())
}

#[test]
fn the_image_is_built_from_images_by_digest() {
    let dockerfile = text("deploy/Dockerfile");
    let bases =
        dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split_whitespace().next());
    let bases: Vec<&str> = bases.filter(|base| *base != "scratch").collect();
    assert!(!bases.is_empty());
    for base in bases {
        let (name, digest) =
            base.split_once("@sha256:").unwrap_or_else(|| panic!("{base} has no digest"));
        assert!(
            is_sha256(digest) && name.contains(':'),
            "{base}: a tag for people, a digest for the build"
        );
    }
    assert!(
        !dockerfile.contains("# syntax="),
        "a front end by its tag is an image without a digest"
    );
    assert!(dockerfile.contains("--locked"));
}

/// Returns the files and folders that the Dockerfile copies from the repository.
fn copied_into_the_build(dockerfile: &str) -> Vec<&str> {
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let sources = copies.filter(|copy| !copy.starts_with("--from")).flat_map(|copy| {
        let words: Vec<&str> = copy.split_whitespace().collect();
        words[..words.len() - 1].to_vec()
    });
    sources.collect()
}

#[test]
fn the_image_has_all_that_the_manifest_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let context = tempfile::tempdir().expect("a folder");
    for source in copied_into_the_build(&text("deploy/Dockerfile")) {
        let status = Command::new("cp")
            .arg("-r")
            .arg(root.join(source))
            .arg(context.path().join(source))
            .status()
            .expect("cp");
        assert!(status.success(), "{source}");
    }
    // Cargo reads the whole manifest before it looks for a program that does not exist.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--offline", "--bin", "no-such-program"])
        .current_dir(context.path())
        .output()
        .expect("cargo");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no bin target named `no-such-program`"), "{error}");
}

#[test]
fn each_npm_package_has_its_digest_and_no_host() {
    let package: Value =
        serde_json::from_str(&text("tests/stand-ins/mongosh/package.json")).expect("JSON");
    let lock: Value =
        serde_json::from_str(&text("tests/stand-ins/mongosh/package-lock.json")).expect("JSON");
    assert_eq!(
        lock["packages"][""]["dependencies"], package["dependencies"],
        "the lock file is of another package.json"
    );
    let packages = lock["packages"].as_object().expect("packages");
    assert!(packages.len() > 100);
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        let integrity = package["integrity"].as_str().unwrap_or_default();
        assert!(integrity.starts_with("sha512-"), "{name}: {integrity:?}");
        assert!(
            package.get("resolved").is_none(),
            "{name}: which registry it comes from is for each machine to say"
        );
    }
    assert!(text("tests/control-plane/build.sh").contains("npm ci"));
}

#[test]
fn each_crate_is_from_crates_io_and_has_its_digest() {
    for lock in ["Cargo.lock", "benches/Cargo.lock"] {
        let lock = text(lock);
        let packages =
            lock.split("[[package]]").skip(1).filter(|package| package.contains("source = "));
        for package in packages {
            assert!(
                package
                    .contains("source = \"registry+https://github.com/rust-lang/crates.io-index\""),
                "{package}"
            );
            assert!(package.contains("checksum = "), "{package}");
        }
    }
    let deny = text("deny.toml");
    for section in ["[advisories]", "[licenses]", "[bans]", "[sources]"] {
        assert!(deny.contains(section), "{section}");
    }
}

/// Returns the workflows with their names.
fn workflows() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows");
    let paths =
        fs::read_dir(folder).expect("the workflows").map(|entry| entry.expect("one").path());
    let read = |path: &Path| fs::read_to_string(path).expect("a workflow");
    paths.map(|path| (path.display().to_string(), read(&path))).collect()
}

#[test]
fn each_action_is_pinned_by_the_hash_of_a_release() {
    let mut count = 0;
    for (name, text) in workflows() {
        for action in text.lines().filter_map(|line| line.split_once("uses: ")) {
            let (action, version) =
                action.1.split_once(" # v").unwrap_or_else(|| panic!("{name}: {}", action.1));
            let (_, hash) = action.split_once('@').expect("a hash");
            assert!(
                hash.len() == 40 && hash.chars().all(|char| char.is_ascii_hexdigit()),
                "{name}: {action}"
            );
            assert!(
                version.split('.').all(|part| part.parse::<u32>().is_ok()),
                "{name}: {version}"
            );
            count += 1;
        }
    }
    assert!(count > 5);
}

#[test]
fn a_workflow_has_no_right_that_a_job_does_not_ask_for() {
    for (name, text) in workflows() {
        assert!(text.contains("\npermissions: {}\n"), "{name}");
        // Only the job that publishes a release may write, and it runs no code of a dependency.
        let writes = text.contains("contents: write");
        assert!(!writes || name.ends_with("release.yaml"), "{name}");
        assert!(!text.contains("pull_request_target"), "{name}");
    }
}

#[test]
fn the_workflow_runs_all_that_ci_runs() {
    let workflow = text(".github/workflows/ci.yaml");
    // A target stands behind `make`, or in the list of a matrix.
    let words = workflow.split(|char: char| !(char.is_ascii_alphanumeric() || char == '-'));
    let words: Vec<&str> = words.collect();
    let script = text(".ci/run");
    let targets = script.lines().filter_map(|line| line.strip_prefix("make "));
    for target in targets.filter_map(|arguments| arguments.split_whitespace().next()) {
        assert!(words.contains(&target), "{target}");
    }
    // `make test` builds the commit that tests/upgrade names, which a shallow clone lacks.
    let job = workflow.split("\n  test:\n").nth(1).and_then(|jobs| jobs.split("make test").next());
    assert!(job.expect("the job").contains("fetch-depth: 0"));
}

#[test]
fn the_manifests_name_this_version() {
    for file in ["deploy/base/kustomization.yaml", "deploy/example/kustomization.yaml"] {
        let tag = concat!("newTag: ", env!("CARGO_PKG_VERSION"), "\n");
        assert!(text(file).contains(tag), "{file}");
    }
    let version = concat!("\nversion: ", env!("CARGO_PKG_VERSION"), "\n");
    let app_version = concat!("\nappVersion: ", env!("CARGO_PKG_VERSION"), "\n");
    let chart = text("deploy/chart/Chart.yaml");
    assert!(chart.contains(version) && chart.contains(app_version), "{chart}");
    let label = concat!("ARG VERSION=", env!("CARGO_PKG_VERSION"), "\n");
    assert!(text("deploy/Dockerfile").contains(label));
    let source = concat!("image.source=\"", env!("CARGO_PKG_REPOSITORY"), "\"");
    assert!(text("deploy/Dockerfile").contains(source));
}
