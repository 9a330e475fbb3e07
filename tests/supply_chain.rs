//! Checks that everything built from other people's code is pinned by a digest.

use std::fs;
use std::path::Path;

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
