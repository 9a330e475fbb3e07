//! A stand-in for the kubelets of a cluster, of which the sandbox has none: it runs the daemon's
//! Pods as processes, with the files, variables, arguments and probes of their spec.
//!
//! The API server, the controllers that make the Pods, and the daemon are real. Only the container
//! is not: the program sees the files of the sandbox beside its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, PodSpec};
use kube::api::{Api, ListParams, Patch, PatchParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::task::JoinHandle;

use super::daemon::PROGRAM;
use super::process::kill_group;
use super::{ControlPlane, Namespace, addresses, http, runtime, temp_dir};

/// The Pods that it runs.
const LABEL: &str = "app.kubernetes.io/name=external-endpoints";

/// The time between two looks at the cluster.
const INTERVAL: Duration = Duration::from_millis(200);

/// A script that puts the ServiceAccount's files where they belong, on a /run of its own, names the
/// host after the Pod, and runs the program.
const AS_A_POD: &str = r#"
    run=$(readlink -f /run)
    mount -t tmpfs tmpfs "$run"
    mkdir -p "$run/secrets/kubernetes.io/serviceaccount"
    cp "$1"/* "$run/secrets/kubernetes.io/serviceaccount/"
    echo "$2" >/proc/sys/kernel/hostname
    shift 2
    exec "$@"
"#;

/// A kubelet that runs until it is dropped. Its Pods end with it.
pub(crate) struct Kubelet {
    task: JoinHandle<()>,
    logs: PathBuf,
}

impl Kubelet {
    pub(crate) fn start(plane: Arc<ControlPlane>) -> Kubelet {
        let logs = temp_dir("pods");
        let mut node = Node { plane, logs: logs.clone(), pods: BTreeMap::new() };
        let task = runtime().spawn(async move {
            loop {
                // The API server may be away. The Pods go on.
                let _ = node.sync().await;
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Kubelet { task, logs }
    }

    /// Returns the folder of the logs: a file for each Pod, by its name.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
        if std::thread::panicking() {
            for log in fs::read_dir(&self.logs).into_iter().flatten().flatten() {
                let text = fs::read_to_string(log.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(40)..].join("\n");
                eprintln!("--- {} ends with\n{last}", log.path().display());
            }
        }
    }
}

/// The one node of the sandbox.
struct Node {
    plane: Arc<ControlPlane>,
    logs: PathBuf,
    /// The running Pods by UID.
    pods: BTreeMap<String, RunningPod>,
}

struct RunningPod {
    name: String,
    namespace: String,
    ip: IpAddr,
    process: Child,
    /// The ConfigMaps that are mounted, with their folders.
    config_maps: Vec<(String, PathBuf)>,
    /// The path of the readiness probe.
    readiness: String,
    is_ready: bool,
}

impl Drop for RunningPod {
    fn drop(&mut self) {
        kill_group(&mut self.process);
    }
}

impl Node {
    async fn sync(&mut self) -> kube::Result<()> {
        let all: Api<Pod> = Api::all(self.plane.client());
        let pods = all.list(&ListParams::default().labels(LABEL)).await?.items;
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        for pod in &pods {
            if !self.pods.contains_key(&uid(pod))
                && let Some(running) = self.start(pod).await?
            {
                self.pods.insert(uid(pod), running);
            }
        }
        let gone = |id: &&String| !pods.iter().any(|pod| uid(pod) == **id);
        let gone: Vec<String> = self.pods.keys().filter(gone).cloned().collect();
        for mut pod in gone.iter().filter_map(|id| self.pods.remove(id)) {
            let _ = kill(Pid::from_raw(pod.process.id().cast_signed()), Signal::SIGTERM);
            runtime().spawn_blocking(move || pod.process.wait());
        }
        // A container that ended starts again at the next look.
        self.pods.retain(|_, pod| pod.process.try_wait().is_ok_and(|status| status.is_none()));
        for pod in self.pods.values_mut() {
            pod.sync(&self.plane).await?;
        }
        Ok(())
    }

    /// Starts a Pod; none if something that it mounts is missing.
    async fn start(&self, pod: &Pod) -> kube::Result<Option<RunningPod>> {
        let Some(spec) = &pod.spec else { return Ok(None) };
        let name = pod.metadata.name.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let folder = temp_dir("pod");
        let mut command = self.as_a_pod((&namespace, &name), spec, &folder).await;
        let container = &spec.containers[0];
        let (mut paths, mut config_maps) = (Vec::new(), Vec::new());
        for mount in container.volume_mounts.iter().flatten() {
            let on_disk = folder.join(&mount.name);
            let _ = fs::create_dir_all(&on_disk);
            let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
            if let Some(source) = volume.and_then(|volume| volume.config_map.as_ref()) {
                if !write(&self.plane, &namespace, &source.name, &on_disk).await? {
                    return Ok(None);
                }
                config_maps.push((source.name.clone(), on_disk.clone()));
            }
            paths.push((mount.mount_path.clone(), on_disk.display().to_string()));
        }
        // Each Pod has an address of its own. All share one network, so none may listen on all.
        let ip = addresses::allocate_one();
        let listen = format!("--listen={ip}:");
        for argument in container.args.iter().flatten() {
            let with_paths = |text: String, (from, to): &(String, String)| text.replace(from, to);
            let argument = argument.replace("--listen=0.0.0.0:", &listen);
            command.arg(paths.iter().fold(argument, with_paths));
        }
        if !container.args.iter().flatten().any(|argument| argument.starts_with("--listen")) {
            command.arg(format!("{listen}8080"));
        }
        for variable in container.env.iter().flatten() {
            command.env(&variable.name, value_of(variable, pod));
        }
        let log = fs::File::create(self.logs.join(format!("{name}.log"))).expect("a log");
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("the daemon's program");
        let readiness = readiness_path(container);
        let is_ready = false;
        Ok(Some(RunningPod { name, namespace, ip, process, config_maps, readiness, is_ready }))
    }

    /// Returns a command that runs the program with the ServiceAccount of the Pod.
    async fn as_a_pod(
        &self,
        (namespace, pod): (&str, &str),
        spec: &PodSpec,
        folder: &Path,
    ) -> Command {
        let account = folder.join("account");
        fs::create_dir_all(&account).expect("a folder in the sandbox");
        let home = Namespace { name: namespace.to_owned(), client: self.plane.client() };
        let token = home.token(spec.service_account_name.as_deref().unwrap_or("default")).await;
        fs::write(account.join("token"), token).expect("a file in the sandbox");
        fs::write(account.join("namespace"), namespace).expect("a file in the sandbox");
        fs::copy(self.plane.ca(), account.join("ca.crt")).expect("a file in the sandbox");
        let address = self.plane.api_address();
        let (host, port) = address.rsplit_once(':').expect("a host and a port");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--uts", "--", "sh", "-ec", AS_A_POD, "sh"])
            .arg(&account)
            .arg(pod)
            .arg(PROGRAM)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nowhere")
            .env("KUBERNETES_SERVICE_HOST", host)
            .env("KUBERNETES_SERVICE_PORT", port);
        command
    }
}

impl RunningPod {
    /// Delivers changed ConfigMaps, and reports the state of the Pod.
    async fn sync(&mut self, plane: &ControlPlane) -> kube::Result<()> {
        for (name, folder) in &self.config_maps {
            write(plane, &self.namespace, name, folder).await?;
        }
        let page = http::get((self.ip, 8080), &self.readiness).await;
        self.is_ready = page.is_ok_and(|(status, _)| status == 200);
        let ready = if self.is_ready { "True" } else { "False" };
        let status = json!({"status": {
            "phase": "Running", "podIP": self.ip, "podIPs": [{"ip": self.ip}],
            "conditions": [
                {"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": ready},
            ],
            "containerStatuses": [{
                "name": "external-endpoints", "image": "external-endpoints", "imageID": "",
                "ready": self.is_ready, "restartCount": 0, "started": true,
                "state": {"running": {}},
            }],
        }});
        let pods: Api<Pod> = Api::namespaced(plane.client(), &self.namespace);
        let patch = Patch::Merge(&status);
        pods.patch_status(&self.name, &PatchParams::default(), &patch).await.map(drop)
    }
}

/// Writes the files of a ConfigMap, if they differ. Returns whether it exists.
async fn write(
    plane: &ControlPlane,
    namespace: &str,
    name: &str,
    folder: &Path,
) -> kube::Result<bool> {
    let api: Api<ConfigMap> = Api::namespaced(plane.client(), namespace);
    let Some(found) = api.get_opt(name).await? else { return Ok(false) };
    for (file, text) in found.data.into_iter().flatten() {
        let path = folder.join(&file);
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            let part = folder.join(format!(".{file}"));
            fs::write(&part, text).expect("a file in the sandbox");
            fs::rename(part, path).expect("a file in the sandbox");
        }
    }
    Ok(true)
}

/// Returns the value of a variable, which may come from a field of the Pod.
fn value_of(variable: &EnvVar, pod: &Pod) -> String {
    let source = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
    let field = match source.map(|field| field.field_path.as_str()) {
        Some("metadata.uid") => pod.metadata.uid.clone(),
        Some("metadata.name") => pod.metadata.name.clone(),
        Some("metadata.namespace") => pod.metadata.namespace.clone(),
        Some(other) => panic!("the field {other} of a Pod is not supported here"),
        None => variable.value.clone(),
    };
    field.unwrap_or_default()
}

fn readiness_path(container: &Container) -> String {
    let probe = container.readiness_probe.as_ref().and_then(|probe| probe.http_get.as_ref());
    probe.and_then(|get| get.path.clone()).unwrap_or_else(|| "/readyz".to_owned())
}
