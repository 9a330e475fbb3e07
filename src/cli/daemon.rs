//! The way to the daemon: through the API server to the Pod that holds the Lease, with the caller's
//! rights, or by a URL.
//!
//! | Lease | Pods that can be listed | the status is that of |
//! | --- | --- | --- |
//! | any | any, and `--url` is given | the URL |
//! | held | any | its holder; if it does not answer, any other Pod that is ready |
//! | held | not allowed | its holder, at port 8080 |
//! | none, or not held | some | any Pod that is ready |
//! | none, or not held | none, or not allowed | none: an error says how to name the daemon |

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures::AsyncReadExt as _;
use hyper::{Request, Uri};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, Config};
use serde::Deserialize as _;
use serde_json::Value;

use super::args::parse_lease;
use super::cluster::{Cluster, ClusterArgs};
use crate::api::{self, ApiError, Call, ErrorKind, UserAgent, error_message};
use crate::lease;
use crate::status::text::visible_sentence;
use crate::status::{DaemonStatus, Time, table};

/// The namespace of the daemon and the name of its Lease, as `deploy/` has them.
const DEPLOYED: &str = "external-endpoints";

/// The label of the daemon's Pods.
const POD_LABEL: &str = "app.kubernetes.io/name=external-endpoints";

/// The name of the port of the daemon's pages in its Pods.
const PORT_NAME: &str = "admin";

/// The port of the daemon's pages where the Pod does not name it.
const DEFAULT_PORT: u16 = 8080;

/// The longest time that the daemon may take to answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest status that is read: that of 10,000 targets has less than a third.
const MAX_STATUS_BYTES: u64 = 64 << 20;

/// The flags that find the daemon.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct DaemonArgs {
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    /// Read the daemon's pages at this URL, as in http://127.0.0.1:8080, and not through the API
    /// server
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    url: Option<Uri>,
    /// The Lease of the daemon, whose holder is the Pod that is asked [default: external-endpoints
    /// in the namespace external-endpoints]
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_lease)]
    pub(super) lease: Option<lease::Name>,
}

fn parse_url(text: &str) -> Result<Uri, String> {
    let url: Option<Uri> = text.parse().ok();
    url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some())
        .filter(|url| url.query().is_none())
        .map(without_password)
        .ok_or_else(|| "write http://HOST:PORT, as in http://127.0.0.1:8080".to_owned())
}

/// Removes the user and the password from a URL. Requests have never had them, and errors must not.
fn without_password(url: Uri) -> Uri {
    let host = url.authority().and_then(|all| all.as_str().rsplit_once('@')).map(|(_, host)| host);
    let Some(Ok(host)) = host.map(|host| host.parse()) else { return url };
    let mut parts = url.clone().into_parts();
    parts.authority = Some(host);
    Uri::from_parts(parts).unwrap_or(url)
}

/// The status of the daemon, and the way it was read.
#[derive(Debug)]
pub(super) struct DaemonReport {
    /// The status.
    pub(super) status: DaemonStatus,
    /// The same as the daemon wrote it, with fields that this version does not know.
    pub(super) document: Value,
    /// The facts about the replicas that the status itself does not have.
    pub(super) replicas: table::Replicas,
    /// The namespace of the kubeconfig's context; none without a cluster.
    pub(super) default_namespace: Option<String>,
    /// Warnings about the way.
    pub(super) warnings: Vec<String>,
}

impl DaemonArgs {
    /// Reads the status of the daemon.
    pub(super) async fn report(&self) -> anyhow::Result<DaemonReport> {
        if let Some(url) = &self.url {
            let client = api::client(Config::new(url.clone()), UserAgent::cli())
                .map_err(|error| anyhow!("{url}: {}", error_message(&error)))?;
            let text = get(&client, "/api/v1/status")
                .await
                .map_err(|error| anyhow!("can't read the status at {url}: {}", cause(&error)))?;
            return DaemonReport::read(&text, table::Replicas::default(), Vec::new());
        }
        let cluster = self.cluster.open().await?;
        let default = lease::Name { namespace: DEPLOYED.to_owned(), name: DEPLOYED.to_owned() };
        let lease = self.lease.as_ref().unwrap_or(&default);
        let replicas = Replicas::find(&cluster, lease).await?;
        let report = replicas.report(&cluster).await?;
        let default_namespace = Some(cluster.default_namespace().to_owned());
        Ok(DaemonReport { default_namespace, ..report })
    }
}

impl DaemonReport {
    fn read(text: &[u8], replicas: table::Replicas, warnings: Vec<String>) -> anyhow::Result<Self> {
        const NO_STATUS: &str =
            "the answer is no status of external-endpoints; is it another program's?";
        let document: Value = serde_json::from_slice(text).context(NO_STATUS)?;
        let status = DaemonStatus::deserialize(&document).context(NO_STATUS)?;
        Ok(Self { status, document, replicas, default_namespace: None, warnings })
    }
}

/// A Pod of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Replica {
    pod: String,
    port: u16,
}

/// The Pods of the daemon, in the order in which they are asked.
#[derive(Debug)]
struct Replicas {
    namespace: String,
    facts: table::Replicas,
    candidates: Vec<Replica>,
    /// The Pod that holds the Lease.
    holder: Option<String>,
    warnings: Vec<String>,
}

impl Replicas {
    async fn find(cluster: &Cluster, lease: &lease::Name) -> anyhow::Result<Self> {
        let lease::Name { namespace, name } = lease;
        let mut warnings = Vec::new();
        let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
        let call = Call { verb: "get", plural: "leases", namespace, name: Some(name) };
        let found = cluster.call(call, leases.get(name)).await;
        let found = optional(found, &mut warnings)?;
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let call = Call { verb: "list", plural: "pods", namespace, name: None };
        let params = ListParams::default().labels(POD_LABEL);
        let pods = cluster.call(call, pods.list(&params)).await;
        let pods = optional(pods, &mut warnings)?.map(|pods| pods.items);
        let lease_spec = found.and_then(|lease| lease.spec);
        let held_since = lease_spec.as_ref().and_then(|spec| spec.acquire_time.as_ref());
        let held_since = held_since.map(|time| Time(time.0.into()));
        let identity = lease_spec.and_then(|spec| spec.holder_identity);
        let (candidates, holder) = candidates(identity.as_deref(), pods.as_deref().unwrap_or(&[]));
        if candidates.is_empty() {
            let denied = warnings.join("; ");
            let denied = if denied.is_empty() { denied } else { format!(" ({denied})") };
            bail!(
                "no daemon found: namespace {namespace} has no Pod with the label {POD_LABEL}, \
                 and no Pod holds the Lease {lease}{denied}; name the daemon's Lease by --lease \
                 NAMESPACE/NAME, or give --url"
            );
        }
        // Without a list of the Pods the answer is as good; it only lacks the number of replicas.
        warnings.retain(|_| holder.is_none());
        let ready = pods.map(|pods| pods.iter().filter(|pod| is_ready(pod)).count());
        let facts = table::Replicas { ready, held_since };
        Ok(Self { namespace: namespace.clone(), facts, candidates, holder, warnings })
    }

    /// Reads the status of the first Pod that answers.
    async fn report(mut self, cluster: &Cluster) -> anyhow::Result<DaemonReport> {
        let mut first_error = None;
        for Replica { pod, port } in &self.candidates {
            let (namespace, page) = (&self.namespace, "api/v1/status");
            let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{page}");
            match get(&cluster.client, &path).await {
                Ok(text) => return DaemonReport::read(&text, self.facts, self.warnings),
                Err(error) => {
                    let error = proxy_error(&error, namespace, pod);
                    if self.holder.as_ref() == Some(pod) {
                        let other = "the status is that of another replica";
                        self.warnings.push(format!("{error}; {other}"));
                    }
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| anyhow!("no Pod of the daemon was asked")))
    }
}

/// Returns an answer; none for what is not there, and none with a warning for what is forbidden.
fn optional<T>(
    answer: Result<T, ApiError>,
    warnings: &mut Vec<String>,
) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => match error.kind {
            ErrorKind::Forbidden => {
                warnings.push(error.message);
                Ok(None)
            }
            ErrorKind::NotFound | ErrorKind::NamespaceNotFound => Ok(None),
            _ => Err(error),
        },
    }
}

/// Returns the Pods to ask, the holder of the Lease first, and the name of that holder.
fn candidates(identity: Option<&str>, pods: &[Pod]) -> (Vec<Replica>, Option<String>) {
    let replica = |pod: &Pod| {
        let name = pod.metadata.name.clone().filter(|name| is_pod_name(name))?;
        Some(Replica { pod: name, port: port(pod) })
    };
    let identity = identity.filter(|identity| !identity.is_empty());
    // The identity is HOST_UID. With `hostNetwork` the host is the node and not the Pod.
    let (host, uid) = match identity.and_then(|identity| identity.rsplit_once('_')) {
        Some((host, uid)) => (Some(host), Some(uid)),
        None => (identity, None),
    };
    let is_holder = |pod: &&Pod| {
        pod.metadata.uid.as_deref().is_some_and(|own| Some(own) == uid)
            || pod.metadata.name.as_deref() == host
    };
    let holder = match pods.iter().find(is_holder).and_then(replica) {
        Some(holder) => Some(holder),
        None => host
            .filter(|host| is_pod_name(host))
            .map(|host| Replica { pod: host.to_owned(), port: DEFAULT_PORT }),
    };
    let name = holder.as_ref().map(|holder| holder.pod.clone());
    let others = pods.iter().filter(|pod| is_ready(pod)).filter_map(replica);
    let others = others.filter(|other| Some(&other.pod) != name.as_ref());
    (holder.iter().cloned().chain(others).collect(), name)
}

/// Returns whether a name can be that of a Pod, and so part of a path.
fn is_pod_name(name: &str) -> bool {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    name.len() <= 253
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(is_good)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True")
    })
}

/// Returns the port of the daemon's pages.
fn port(pod: &Pod) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .find(|port| port.name.as_deref() == Some(PORT_NAME))
        .and_then(|port| u16::try_from(port.container_port).ok())
        .unwrap_or(DEFAULT_PORT)
}

/// Reads a page as far as it may be long.
async fn get(client: &Client, path: &str) -> anyhow::Result<Vec<u8>> {
    let read = async {
        let request = Request::get(path).header("accept", "application/json").body(Vec::new())?;
        let body = client.request_stream(request).await?;
        let mut text = Vec::new();
        body.take(MAX_STATUS_BYTES).read_to_end(&mut text).await?;
        if text.len() as u64 == MAX_STATUS_BYTES {
            bail!("the answer is longer than {} MiB, and no status", MAX_STATUS_BYTES >> 20);
        }
        Ok(text)
    };
    match tokio::time::timeout(STATUS_TIMEOUT, read).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer in {}", humantime::format_duration(STATUS_TIMEOUT)),
    }
}

/// Returns why there is no answer. Whoever answered may have written anything.
fn cause(error: &anyhow::Error) -> String {
    match error.downcast_ref() {
        Some(kube::Error::Api(status)) => {
            format!("the answer was {}: {}", status.code, visible_sentence(status.message.trim()))
        }
        Some(error) => visible_sentence(&error_message(error)),
        None => visible_sentence(&format!("{error:#}")),
    }
}

/// Says what to do about a Pod that could not be asked.
fn proxy_error(error: &anyhow::Error, namespace: &str, pod: &str) -> anyhow::Error {
    let Some(kube::Error::Api(status)) = error.downcast_ref() else {
        return anyhow!("can't ask Pod {namespace}/{pod}: {}", cause(error));
    };
    let reply = visible_sentence(status.message.trim());
    match status.code {
        403 => anyhow!(
            "you may not get pods/proxy in namespace {namespace}; ask for the Role in \
             deploy/reader.yaml, or use --url with `kubectl -n {namespace} port-forward {pod} \
             8080` (the API says: {reply})"
        ),
        404 => anyhow!(
            "Pod {namespace}/{pod} holds the Lease, but it is gone; another replica takes over \
             within 15 s: try again then"
        ),
        code => anyhow!(
            "Pod {namespace}/{pod} can't be reached through the API server, which answered {code}: \
             {reply}; see `kubectl -n {namespace} logs {pod}` and its NetworkPolicies"
        ),
    }
}

#[cfg(test)]
mod tests;
