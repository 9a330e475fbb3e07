//! The image as it lies in its OCI layout: what it holds, and what it says about itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::case::cases;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        the_image_holds_the_program_and_the_certificates,
        the_image_is_small,
        the_image_runs_as_a_user_without_rights,
        the_image_says_where_it_comes_from,
        each_image_is_for_its_architecture,
    ]
}

/// The architectures that an image may be built for, with the machine in the header of their
/// programs.
const ARCHITECTURES: [(&str, &str); 2] = [("amd64", "X86-64"), ("arm64", "AArch64")];

/// The limit of a compressed image, in bytes.
const MAX_SIZE: u64 = 12 * 1024 * 1024;

/// An image in an OCI layout.
pub(crate) struct Image {
    folder: PathBuf,
    manifest: Value,
    config: Value,
}

impl Image {
    /// Reads the image of an architecture, if `make image` has built it.
    pub(crate) fn find(architecture: &str) -> Option<Image> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join("target/package/image").join(architecture);
        let index = fs::read_to_string(folder.join("index.json")).ok()?;
        let index: Value = serde_json::from_str(&index).expect("an index");
        let mut image = Image { folder, manifest: Value::Null, config: Value::Null };
        image.manifest = image.json(&index["manifests"][0]);
        image.config = image.json(&image.manifest["config"]);
        Some(image)
    }

    /// Reads the image of this machine's architecture.
    pub(crate) fn native() -> Image {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Image::find(architecture).unwrap_or_else(|| panic!("run `make image` before"))
    }

    fn all() -> Vec<(&'static str, Image)> {
        let found = ARCHITECTURES.iter().filter_map(|(name, _)| Some((*name, Image::find(name)?)));
        let found: Vec<_> = found.collect();
        assert!(!found.is_empty(), "run `make image` before");
        found
    }

    fn blob(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().expect("a digest");
        self.folder.join("blobs").join(digest.replace(':', "/"))
    }

    fn json(&self, descriptor: &Value) -> Value {
        let text = fs::read_to_string(self.blob(descriptor)).expect("a blob");
        serde_json::from_str(&text).expect("JSON")
    }

    fn layer(&self) -> PathBuf {
        let layers = self.manifest["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 1, "{layers:?}");
        self.blob(&layers[0])
    }

    /// Unpacks the image into a folder.
    pub(crate) fn unpack(&self, folder: &Path) {
        let status = Command::new("tar")
            .args(["--no-same-owner", "-xzf"])
            .arg(self.layer())
            .arg("-C")
            .arg(folder)
            .status();
        assert!(status.expect("tar").success());
    }

    /// Returns the command that the image runs.
    pub(crate) fn entrypoint(&self) -> String {
        let entrypoint = self.config["config"]["Entrypoint"].as_array().expect("an entrypoint");
        assert_eq!(entrypoint.len(), 1, "{entrypoint:?}");
        entrypoint[0].as_str().expect("a path").to_owned()
    }

    /// Returns the number of the user that the image runs as.
    pub(crate) fn user(&self) -> u32 {
        let user = self.config["config"]["User"].as_str().expect("a user");
        let (user, group) = user.split_once(':').expect("a user and a group");
        assert_eq!(user, group);
        user.parse().expect("a number, as runAsNonRoot cannot check a name")
    }
}

fn output(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

async fn the_image_holds_the_program_and_the_certificates() {
    for (architecture, image) in Image::all() {
        let list =
            output(Command::new("tar").args(["--numeric-owner", "-tvzf"]).arg(image.layer()));
        let mut files: Vec<(&str, &str, &str)> = Vec::new();
        for line in list.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            files.push((words[0], words[1], words[5]));
        }
        let expected = [
            ("drwxr-xr-x", "0/0", "etc/"),
            ("drwxr-xr-x", "0/0", "etc/ssl/"),
            ("drwxr-xr-x", "0/0", "etc/ssl/certs/"),
            ("-rw-r--r--", "0/0", "etc/ssl/certs/ca-certificates.crt"),
            ("-rwxr-xr-x", "0/0", "external-endpoints"),
        ];
        assert_eq!(files, expected, "{architecture}");
    }
}

async fn the_image_is_small() {
    for (architecture, image) in Image::all() {
        let size = fs::metadata(image.layer()).expect("a layer").len();
        assert!(size <= MAX_SIZE, "{architecture}: {size} bytes");
        // The limit would say nothing about a layer that is not compressed.
        let media_type = &image.manifest["layers"][0]["mediaType"];
        assert_eq!(*media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    }
}

async fn the_image_runs_as_a_user_without_rights() {
    for (architecture, image) in Image::all() {
        assert_eq!(image.user(), 65532, "{architecture}");
        assert_eq!(image.entrypoint(), "/external-endpoints", "{architecture}");
        let ports = &image.config["config"]["ExposedPorts"];
        assert_eq!(*ports, json!({"8080/tcp": {}}), "{architecture}");
    }
}

async fn the_image_says_where_it_comes_from() {
    for (architecture, image) in Image::all() {
        let labels = &image.config["config"]["Labels"];
        let label = |name: &str| {
            let value = labels[format!("org.opencontainers.image.{name}")].as_str();
            value.unwrap_or_else(|| panic!("{architecture} has no label {name}")).to_owned()
        };
        assert_eq!(label("title"), env!("CARGO_PKG_NAME"));
        assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
        assert_eq!(label("source"), env!("CARGO_PKG_REPOSITORY"));
        assert!(label("documentation").starts_with(env!("CARGO_PKG_REPOSITORY")));
        let revision = label("revision");
        assert!(revision == "unknown" || revision.len() == 40, "{revision}");
        assert!(label("description").len() > 20);
    }
}

async fn each_image_is_for_its_architecture() {
    for (architecture, image) in Image::all() {
        assert_eq!(image.config["architecture"], *architecture);
        assert_eq!(image.config["os"], "linux");
        let folder = tempfile::tempdir().expect("a folder");
        image.unpack(folder.path());
        let program = folder.path().join("external-endpoints");
        let header = output(Command::new("readelf").args(["-h", "-l"]).arg(program));
        let machine = ARCHITECTURES.iter().find(|(name, _)| *name == architecture).expect("one").1;
        assert!(header.contains(machine), "{architecture}: {header}");
        assert!(!header.contains("INTERP"), "{architecture}: it is not static");
    }
}
