//! The image as a Pod runs it: an unprivileged user, a read-only root, no capabilities, the network
//! of the tests' cluster, and a ServiceAccount with the rights that the command `rbac` derives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use super::image::Image;
use crate::fixture::{Fixture, database};
use crate::support::{Daemon, case::cases, daemon, shared, temp_dir};

pub(crate) fn cases() -> Vec<Trial> {
    let native = cases![the_image_publishes_with_the_rights_of_a_pod];
    let emulated = cases![the_arm64_image_publishes_under_emulation];
    // Built by `make image-arm64` alone, as it takes as long again.
    let missing = Image::find("arm64").is_none() || emulator().is_none();
    let emulated = emulated.into_iter().map(|case| case.with_ignored_flag(missing));
    native.into_iter().chain(emulated).collect()
}

/// The work of a container runtime: the mounts of the Pod, a read-only root, and a user without
/// capabilities who cannot gain any.
const RUNTIME: &str = r#"
    root=$1 user=$2 mounted=$3 account=var/run/secrets/kubernetes.io/serviceaccount
    shift 3
    mount --bind "$root" "$root"
    mkdir -p "$root/proc" "$root/etc/external-endpoints" "$root/$account"
    mount -t proc proc "$root/proc"
    mount --bind -o ro "$mounted" "$root/$account"
    previous=
    for argument; do
        shift
        if [ "$previous" = --config ]; then
            mount --bind -o ro "$(dirname "$argument")" "$root/etc/external-endpoints"
            argument=/etc/external-endpoints/config.yaml
        fi
        previous=$argument
        set -- "$@" "$argument"
    done
    mount -o remount,bind,ro "$root"
    exec setpriv --no-new-privs unshare --user "--map-user=$user" "--map-group=$user" \
        "--root=$root" --wd=/ "$@"
"#;

/// Returns the emulator of arm64, if it is installed.
fn emulator() -> Option<PathBuf> {
    let path = Path::new("/usr/bin/qemu-aarch64-static");
    path.exists().then(|| path.to_owned())
}

async fn the_image_publishes_with_the_rights_of_a_pod() {
    publishes(&Image::native(), None).await;
}

async fn the_arm64_image_publishes_under_emulation() {
    let emulator = emulator().expect("Debian's package qemu-user-static");
    publishes(&Image::find("arm64").expect("an image"), Some(&emulator)).await;
}

/// Gives the ServiceAccount `daemon` the rights that the config needs. Returns its token.
async fn account(fixture: &Fixture) -> String {
    let namespace = &fixture.namespace;
    namespace.create_service_account("daemon").await;
    let folder = temp_dir("rights");
    let config = folder.join("config.yaml");
    fs::write(&config, fixture.config()).expect("a file in the sandbox");
    let account = format!("{}/daemon", namespace.name);
    let rights = Command::new(daemon::PROGRAM)
        .args(["rbac", "--service-account", &account])
        .arg(&config)
        .output()
        .expect("the daemon's program");
    assert!(rights.status.success(), "{}", String::from_utf8_lossy(&rights.stderr));
    let manifests = folder.join("rights.yaml");
    fs::write(&manifests, rights.stdout).expect("a file in the sandbox");
    let applied = shared().kubectl(&["apply", "-f", &manifests.to_string_lossy()]).await;
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    namespace.token("daemon").await
}

/// Writes the files of a ServiceAccount as the kubelet does.
fn files_of_account(namespace: &str, token: &str) -> PathBuf {
    let mounted = temp_dir("account");
    fs::write(mounted.join("token"), token).expect("a file in the sandbox");
    fs::write(mounted.join("namespace"), namespace).expect("a file in the sandbox");
    fs::copy(shared().ca(), mounted.join("ca.crt")).expect("a file in the sandbox");
    mounted
}

async fn start(image: &Image, emulator: Option<&Path>, fixture: &Fixture) -> Daemon {
    let token = account(fixture).await;
    let root = temp_dir("root");
    image.unpack(&root);
    let address = shared().api_address();
    let (host, port) = address.rsplit_once(':').expect("a host and a port");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--", "sh", "-ec", RUNTIME, "sh"])
        .arg(&root)
        .arg(image.user().to_string())
        .arg(files_of_account(&fixture.namespace.name, &token))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("KUBERNETES_SERVICE_HOST", host)
        .env("KUBERNETES_SERVICE_PORT", port);
    if let Some(emulator) = emulator {
        fs::copy(emulator, root.join("emulator")).expect("a file in the sandbox");
        command.arg("/emulator");
    }
    command.arg(image.entrypoint());
    Daemon::start_command(command, &fixture.config(), &[daemon::DEFAULT_LEASE]).await
}

async fn publishes(image: &Image, emulator: Option<&Path>) {
    let mut fixture = Fixture::new("image").await;
    let mut daemon = start(image, emulator, &fixture).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    runs_without_rights(daemon.pid(), image.user());
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    fixture.databases[0].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let status = daemon.status().await;
    assert_eq!(status["lease"]["held"], true, "{status}");
    assert_eq!(database(&status)["condition"], "Published");
    let (status, _) = daemon.terminate().await;
    assert!(status.success(), "{status}: {:?}", daemon.lines());
}

/// Checks what the kernel says about the process.
fn runs_without_rights(pid: u32, user: u32) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a process");
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{status}")).trim().to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    for map in ["uid_map", "gid_map"] {
        let map = read(map);
        assert_eq!(map.split_whitespace().next(), Some(user.to_string().as_str()), "{map}");
    }
    let mounts = read("mountinfo");
    let mut root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let root = root.rfind(|words| words[4] == "/").expect("a root");
    assert!(root[5].split(',').any(|option| option == "ro"), "{root:?}");
}
