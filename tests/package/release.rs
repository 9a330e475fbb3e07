//! The files of `make release`: complete, and each with its checksum.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::ZlibDecoder;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::{case::cases, daemon};

pub(crate) fn cases() -> Vec<Trial> {
    let cases = cases![
        each_file_of_the_release_has_its_checksum,
        each_archive_has_the_program_and_its_manuals,
        the_program_lists_its_crates,
        the_bill_of_materials_lists_the_same_crates,
        the_manifests_of_the_release_name_its_version,
        the_schema_of_the_release_is_the_one_in_config,
        the_chart_is_that_of_the_repository,
    ];
    let missing = !dist().join("SHA256SUMS").exists();
    cases.into_iter().map(|case| case.with_ignored_flag(missing)).collect()
}

const NAME: &str = concat!("external-endpoints-", env!("CARGO_PKG_VERSION"));

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn dist() -> PathBuf {
    root().join("dist")
}

fn read(name: &str) -> String {
    let path = dist().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files() -> BTreeSet<String> {
    let entries = fs::read_dir(dist()).expect("dist/");
    entries.map(|entry| entry.expect("a file").file_name().into_string().expect("UTF-8")).collect()
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Unpacks the archive of each architecture that was built. Returns their folders.
fn archives() -> Vec<(tempfile::TempDir, PathBuf)> {
    let archives = files().into_iter().filter(|name| name.ends_with("64.tar.gz"));
    let unpacked = archives.map(|archive| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut tar = Command::new("tar");
        output(tar.arg("-xzf").arg(dist().join(archive)).arg("-C").arg(folder.path()));
        let inside = folder.path().join(NAME);
        (folder, inside)
    });
    let unpacked: Vec<_> = unpacked.collect();
    assert!(!unpacked.is_empty(), "{:?}", files());
    unpacked
}

async fn each_file_of_the_release_has_its_checksum() {
    let mut check = Command::new("sha256sum");
    output(check.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(dist()));
    let sums = read("SHA256SUMS");
    let listed: BTreeSet<String> =
        sums.lines().filter_map(|line| line.split_once("  ")).map(|sum| sum.1.to_owned()).collect();
    let mut files = files();
    files.remove("SHA256SUMS");
    assert_eq!(listed, files);
}

async fn each_archive_has_the_program_and_its_manuals() {
    for (_kept, folder) in archives() {
        for file in ["external-endpoints", "LICENSE", "README.md", "CHANGELOG.md"] {
            assert!(folder.join(file).is_file(), "{file}");
        }
        let help = output(Command::new(daemon::PROGRAM).arg("help"));
        let commands = help.split("Commands:").nth(1).expect("commands");
        let commands = commands.split("Options:").next().expect("commands");
        let commands = commands.lines().filter(|line| line.starts_with("  "));
        let commands = commands.filter_map(|line| line.split_whitespace().next());
        for command in commands.filter(|command| *command != "help") {
            let page = folder.join(format!("man/external-endpoints-{command}.1"));
            assert!(page.is_file(), "{}", page.display());
        }
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let script = folder.join(format!("completions/external-endpoints.{shell}"));
            assert!(fs::metadata(&script).expect("a script").len() > 1000, "{shell}");
        }
    }
}

/// Returns the crates in the section that `cargo auditable` writes, as NAME VERSION.
fn crates_of(program: &Path) -> BTreeSet<String> {
    let section = tempfile::NamedTempFile::new().expect("a file");
    let dump = format!(".dep-v0={}", section.path().display());
    let mut command = Command::new("objcopy");
    // It would write the program back, and knows one architecture.
    output(
        command.args(["-I", "elf64-little", "--dump-section", &dump]).arg(program).arg("/dev/null"),
    );
    let mut text = String::new();
    let section = fs::File::open(section.path()).expect("a section");
    ZlibDecoder::new(section).read_to_string(&mut text).expect("a compressed text");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let packages = list["packages"].as_array().expect("packages");
    let packages = packages.iter().filter(|package| package["kind"] != "build");
    packages.map(|package| name_of(&package["name"], &package["version"])).collect()
}

fn name_of(name: &Value, version: &Value) -> String {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    format!("{} {}", text(name), text(version))
}

async fn the_program_lists_its_crates() {
    for (_kept, folder) in archives() {
        let crates = crates_of(&folder.join("external-endpoints"));
        assert!(crates.contains(&NAME.replace("-0", " 0")), "{crates:?}");
        assert!(crates.len() > 100, "{crates:?}");
        let locked = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
        for package in &crates {
            let (name, version) = package.split_once(' ').expect("a version");
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"");
            assert!(locked.contains(&entry), "{package}");
        }
    }
}

async fn the_bill_of_materials_lists_the_same_crates() {
    let bill: Value = serde_json::from_str(&read(&format!("{NAME}.cdx.json"))).expect("JSON");
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert_eq!(bill["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let components = bill["components"].as_array().expect("components");
    let listed: BTreeSet<String> =
        components.iter().map(|it| name_of(&it["name"], &it["version"])).collect();
    let (_kept, folder) = archives().remove(0);
    let mut built = crates_of(&folder.join("external-endpoints"));
    built.retain(|package| !package.starts_with("external-endpoints "));
    let missing: Vec<_> = built.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let unhashed: Vec<_> = components.iter().filter(|it| it["hashes"][0].is_null()).collect();
    assert!(unhashed.is_empty(), "{unhashed:?}");
}

async fn the_manifests_of_the_release_name_its_version() {
    let released = read("install.yaml");
    let image = released.lines().find(|line| line.trim_start().starts_with("image: "));
    let image = image.expect("an image");
    assert!(image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))), "{image}");
    // Nothing but the name of the image differs from the file in the repository.
    let ours = fs::read_to_string(root().join("deploy/install.yaml")).expect("install.yaml");
    assert_eq!(released.lines().count(), ours.lines().count());
    let differing = released.lines().zip(ours.lines()).filter(|(theirs, ours)| theirs != ours);
    assert!(differing.count() <= 1);
}

async fn the_schema_of_the_release_is_the_one_in_config() {
    let ours = fs::read_to_string(root().join("config/schema.json")).expect("the schema");
    let same = read(&format!("{NAME}.schema.json")) == ours;
    assert!(same, "dist/ is of another commit; run `make release` again");
}

async fn the_chart_is_that_of_the_repository() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = dist().join(format!("{NAME}.tgz"));
    output(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()));
    let chart = folder.path().join("external-endpoints");
    let ours = root().join("deploy/chart");
    let mut count = 0;
    for path in files_below(&ours) {
        let name = path.strip_prefix(&ours).expect("a file of the chart");
        let read = |path: &Path| fs::read_to_string(path);
        let released = read(&chart.join(name));
        let released = released.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
        let ours = read(&path).expect("a file");
        // Helm writes Chart.yaml anew, and IMAGE is one line of values.yaml.
        let differing = released.lines().zip(ours.lines()).filter(|(theirs, ours)| theirs != ours);
        let is_same = match name.to_str() {
            Some("Chart.yaml") => {
                released.contains(concat!("\nversion: ", env!("CARGO_PKG_VERSION"), "\n"))
            }
            Some("values.yaml") => differing.count() <= 1,
            _ => released == ours,
        };
        assert!(is_same, "{} is of another commit; run `make release` again", name.display());
        count += 1;
    }
    assert!(count > 10, "{count}");
}

/// Returns all files in a folder and in those below it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one").path());
    let below =
        entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] });
    below.collect()
}
