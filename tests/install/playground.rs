//! A shell in a cluster in a bottle (`make playground`): a real control plane, three databases that
//! can be stopped, and the tools to install the daemon and to watch what it does.

use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::support::daemon::PROGRAM;
use crate::support::kubelet::Kubelet;
use crate::support::{
    ControlPlane, Database, Namespace, Options, binaries, blocking, runtime, temp_dir,
};

const IPS: [&str; 3] = ["203.0.113.11", "203.0.113.12", "203.0.113.13"];
const PORT: u16 = 3306;

const CONFIG: &str = "\
databases:
- service: mysql
  namespace: prod
  port: 3306
  addresses: [203.0.113.11, 203.0.113.12, 203.0.113.13]
  check:
    interval: 1s
    timeout: 1s
    tcp: {}
";

const BANNER: &str = "\
A real Kubernetes control plane with kube-proxy, for as long as this shell is open. The Service
prod/mysql has no selector, and the databases 203.0.113.11 to 203.0.113.13 listen on port 3306.

  kubectl, helm, external-endpoints   as in any cluster
  database stop|start ADDRESS         break a database, and repair it
  connect NAMESPACE/SERVICE           10 seconds of connections: who answers?

This folder has databases.yaml and deploy/. The logs of Pods are in logs/, and `exit` ends it all.
Begin with

  helm install external-endpoints deploy/chart --namespace external-endpoints \\
    --create-namespace --wait --set-file config=databases.yaml
";

/// The script `database`. It needs PLAYGROUND, the folder, and BOTTLE, this program.
const DATABASE: &str = r#"#!/bin/sh
set -eu
[ $# -eq 2 ] || { echo "usage: database stop|start ADDRESS" >&2; exit 2; }
pid=$PLAYGROUND/.databases/$2
case $1 in
	stop)
		[ -e "$pid" ] || { echo "no database runs at $2" >&2; exit 1; }
		kill "$(cat "$pid")"
		rm "$pid"
		echo "$2 is stopped" ;;
	start)
		[ ! -e "$pid" ] || { echo "$2 runs already" >&2; exit 1; }
		setsid "$BOTTLE" --database "$2" </dev/null >/dev/null 2>&1 &
		echo $! >"$pid"
		echo "$2 is started" ;;
	*) echo "usage: database stop|start ADDRESS" >&2; exit 2 ;;
esac
"#;

/// The script `connect`. It prints a line whenever others answer than before.
const CONNECT: &str = r#"#!/bin/bash
set -eu
[[ ${1:-} == */* ]] || { echo "usage: connect NAMESPACE/SERVICE" >&2; exit 2; }
service=(-n "${1%/*}" get service "${1#*/}")
ip=$(kubectl "${service[@]}" -o 'jsonpath={.spec.clusterIP}')
port=$(kubectl "${service[@]}" -o 'jsonpath={.spec.ports[0].port}')
try() {
	timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1" && read -r line <&3 && echo "$line"' \
		"$ip" "$port" 2>/dev/null || echo nobody
}
last=
# Thirty at once: connections that nobody answers take two seconds each.
until ((SECONDS >= 10)); do
	now=$(for _ in {1..30}; do try & done | sort -V | uniq | paste -sd, | sed 's/,/, /g')
	[ "$now" = "$last" ] || echo "answered: $now"
	last=$now
	sleep 0.5
done
"#;

/// Serves one database until it is killed.
pub(crate) fn database(ip: &str) -> ExitCode {
    let Ok(ip) = ip.parse::<IpAddr>() else {
        eprintln!("error: {ip} is no IP address");
        return ExitCode::FAILURE;
    };
    runtime().block_on(async {
        let _database = Database::start(ip, PORT).await;
        std::future::pending().await
    })
}

/// Opens a shell in a new cluster, or runs the commands of the standard input there.
pub(crate) fn run() -> ExitCode {
    let playground = runtime().block_on(Playground::start());
    let mut shell = playground.shell();
    if std::io::stdin().is_terminal() {
        println!("\n{BANNER}");
        shell.args(["--noprofile", "--norc", "-i"]).env("PS1", "playground$ ");
    } else {
        let mut commands = String::new();
        std::io::stdin().read_to_string(&mut commands).expect("commands in UTF-8");
        shell.args(["-ec", &commands]);
    }
    let status = shell.status().expect("bash");
    ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

/// Runs these commands in a new cluster. Returns what they print.
pub(crate) async fn rehearse(commands: &str) -> String {
    let playground = Playground::start().await;
    let mut shell = playground.shell();
    shell.args(["-ec", commands]).stdin(Stdio::null());
    let output = blocking(move || shell.output().expect("bash")).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{errors}");
    said
}

struct Playground {
    folder: PathBuf,
    plane: Arc<ControlPlane>,
    _kubelet: Kubelet,
}

impl Playground {
    async fn start() -> Playground {
        let options = Options { proxy: true, ..Options::default() };
        let plane = Arc::new(ControlPlane::start(options).await);
        let kubelet = Kubelet::start(plane.clone());
        let namespaces: Api<KubeNamespace> = Api::all(plane.client());
        let prod = serde_json::from_value(json!({"metadata": {"name": "prod"}})).expect("JSON");
        namespaces.create(&PostParams::default(), &prod).await.expect("a namespace");
        let prod = Namespace { name: "prod".to_owned(), client: plane.client() };
        prod.create_service("mysql", &[("", PORT)]).await;
        let folder = temp_dir("playground");
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        symlink(deploy, folder.join("deploy")).expect("a link in the sandbox");
        symlink(kubelet.logs(), folder.join("logs")).expect("a link in the sandbox");
        fs::write(folder.join("databases.yaml"), CONFIG).expect("a file in the sandbox");
        write_tools(&folder.join(".bin"));
        fs::create_dir(folder.join(".databases")).expect("a folder in the sandbox");
        let playground = Playground { folder, plane, _kubelet: kubelet };
        for ip in IPS {
            let mut shell = playground.shell();
            shell.args(["-ec", &format!("database start {ip}")]).stdout(Stdio::null());
            let status = blocking(move || shell.status().expect("bash")).await;
            assert!(status.success(), "a database at {ip}");
        }
        playground
    }

    fn shell(&self) -> Command {
        let own = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash");
        shell
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{own}", self.folder.join(".bin").display()))
            .env("HOME", &self.folder)
            .env("KUBECONFIG", self.plane.kubeconfig())
            .env("PLAYGROUND", &self.folder)
            .env("BOTTLE", std::env::current_exe().expect("the path of this program"));
        shell
    }
}

/// Writes the folder of the commands that the shell has.
fn write_tools(folder: &Path) {
    fs::create_dir(folder).expect("a folder in the sandbox");
    for (name, script) in [("database", DATABASE), ("connect", CONNECT)] {
        let path = folder.join(name);
        fs::write(&path, script).expect("a file in the sandbox");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
    }
    let tools = [
        ("external-endpoints", PathBuf::from(PROGRAM)),
        ("kubectl-external_endpoints", PathBuf::from(PROGRAM)),
        ("helm", binaries::helm()),
        ("kubectl", binaries::kubernetes("kubectl")),
    ];
    for (name, path) in tools {
        symlink(path, folder.join(name)).expect("a link in the sandbox");
    }
}
