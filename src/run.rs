//! The daemon: wires the parts together, and ends them on a signal.

use std::error::Error;
use std::fmt;
use std::future::ready;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures::FutureExt;
use kube::Client;
use kube::config::{Config as ClientConfig, InferConfigError, Kubeconfig, KubeconfigError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::{DatabaseId, Spec};
use crate::freeze;
use crate::lease::{self, Callbacks, Candidate, ElectionTask};
use crate::limits::Limits;
use crate::monitor::Checking;
use crate::notice::{self, Recorder};
use crate::publish::{Cluster, Supervisor};
use crate::reload::{self, ConfigFile};
use crate::{admin, api, clock, event, monitor, publish};

/// Where a Pod finds the name of its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// What `run` was asked for besides the config.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub dry_run: bool,
    pub listen: SocketAddr,
    pub limits: Limits,
    pub rate: publish::RateLimit,
    /// When nothing is taken out, because so many targets fail together.
    pub freeze: freeze::Rules,
    /// The Lease by which one of several replicas writes; none for the only one.
    pub lease: Option<lease::Name>,
    /// Where the config is from.
    pub config: ConfigFile,
}

/// Runs until SIGTERM or SIGINT. What is published then stays as it is. Each `hangup` has the config read at once.
pub(crate) async fn run(spec: Spec, options: Options, hangup: Signal) -> anyhow::Result<()> {
    let mut ends = ShutdownSignals::new()?;
    let listener = admin::bind(options.listen).with_context(|| {
        format!("can't listen on {}; choose another address with --listen", options.listen)
    })?;
    info!(address = %listener.local_addr()?, "admin listening");

    let (teller, news) =
        if options.dry_run { (Recorder::default(), None) } else { event_channel() };
    // What needs no cluster need not wait for one.
    let (monitor, checking) = monitor::start(&spec, options.limits, options.freeze, &teller)
        .context("can't start a thread for the checks")?;
    let cluster = tokio::select! {
        cluster = connect(options.dry_run) => cluster.map(Some),
        name = ends.next() => {
            info!(signal = name, "ending");
            Ok(None)
        }
    };
    let cluster = match cluster {
        Ok(Some(cluster)) => cluster,
        nothing => {
            // What has been started for checks is not left behind.
            checking.shutdown().await;
            return nothing.map(drop);
        }
    };
    let (lease, candidate) = candidate(options.lease, &cluster)?;
    let publishes = publish::Options { rate: options.rate, recorder: teller.clone() };
    let (publish, mut publishing) = publish::start(&spec, &cluster, &monitor, &lease, &publishes);
    let keeping =
        candidate.map(|candidate| start_election(candidate, &cluster, &monitor, &publish));
    let events = start_events(&mut publishing, &cluster, &publish, &lease, news);
    info!(databases = spec.databases.len(), dry_run = options.dry_run, "checking");
    let config = reload::start(options.config, spec, teller, hangup);
    let sources = admin::AppState { monitor, publish, lease, config: config.clone(), events };

    let mut parts = Parts { keeping, publishing, checking, config };
    let outcome = tokio::select! {
        name = ends.next() => {
            info!(signal = name, "ending; what is published stays as it is");
            Ok(())
        }
        never = admin::serve(listener, sources) => match never {},
        ended = parts.ended() => Err(ended),
    };
    // A second signal waits for nothing.
    tokio::select! {
        () = parts.shutdown() => {}
        _ = ends.next() => {}
    }
    outcome
}

/// All that runs until the daemon ends.
struct Parts {
    keeping: Option<ElectionTask>,
    publishing: Supervisor,
    checking: Checking,
    config: reload::Handle,
}

/// How long the end waits for the checks: longer than they take when all is well.
const CHECKS_END_TIMEOUT: Duration = Duration::from_secs(5);

impl Parts {
    /// Waits until one of them ends by itself, which it should not, and says why it did.
    async fn ended(&mut self) -> anyhow::Error {
        tokio::select! {
            why = self.checking.ended() => anyhow!("checking ended by itself: {why}"),
            why = follow(&mut self.publishing, &mut self.config) => anyhow!("publishing ended by itself: {why}"),
            why = lease_task_ended(&mut self.keeping) => anyhow!("the lease is no longer kept: {why}"),
        }
    }

    /// Ends them all. Supervisor first, so that nothing is written while checks are being ended; and before that the lease is
    /// given up, which waits for the last write.
    async fn shutdown(self) {
        let _no_more_writes = match self.keeping {
            Some(keeping) => keeping.release().await,
            None => None,
        };
        self.publishing.shutdown().await;
        if tokio::time::timeout(CHECKS_END_TIMEOUT, self.checking.shutdown()).await.is_err() {
            let time = humantime::format_duration(CHECKS_END_TIMEOUT);
            warn!("the checks did not end within {time}; the daemon ends without them");
        }
    }
}

/// Goes by each new config, until publishing ends, which it should not.
async fn follow(publishing: &mut Supervisor, config: &mut reload::Handle) -> String {
    loop {
        let spec = tokio::select! {
            spec = config.next() => spec,
            why = publishing.task_failure() => return why,
        };
        publishing.reload(&spec).await;
        info!(databases = spec.databases.len(), "the new config is in force");
    }
}

/// The lease as this daemon needs it, and what may compete for it if there is one.
fn candidate(
    name: Option<lease::Name>,
    cluster: &Cluster,
) -> anyhow::Result<(lease::Handle, Option<Candidate>)> {
    Ok(match (cluster, name) {
        (Cluster::Write(client), Some(name)) => {
            let (lease, candidate) =
                lease::candidate(client.clone(), name).context("can't tell who this replica is")?;
            (lease, Some(candidate))
        }
        (Cluster::Write(_), None) => (lease::Handle::alone(), None),
        (Cluster::Read(_) | Cluster::None, _) => (lease::Handle::dry_run(), None),
    })
}

/// Starts to compete for the lease.
fn start_election(
    candidate: Candidate,
    cluster: &Cluster,
    monitor: &monitor::Handle,
    publish: &publish::Handle,
) -> ElectionTask {
    let (monitor, publish, cluster) = (monitor.clone(), publish.clone(), cluster.clone());
    candidate.start(Callbacks {
        checks: Box::new(move || monitor.check_facts()),
        installation: Box::new(move || match &cluster {
            Cluster::Write(client) => publish.installation(client),
            Cluster::Read(_) | Cluster::None => {
                ready(Err("there is no cluster to write to".to_owned())).boxed()
            }
        }),
    })
}

/// Waits for the task that keeps the lease, which should never end.
async fn lease_task_ended(keeping: &mut Option<ElectionTask>) -> String {
    match keeping {
        Some(keeping) => keeping.ended().await,
        None => std::future::pending().await,
    }
}

/// The Lease of daemons that are told of none.
pub(crate) fn default_lease() -> lease::Name {
    // Why there may be no namespace has been told with the config, whose databases are in it too.
    let namespace = own_namespace().unwrap_or_else(|_| "default".to_owned());
    lease::Name { namespace, name: "external-endpoints".to_owned() }
}

/// Asks the daemon that runs in the cluster to let a database's preferred tier serve again.
pub(crate) async fn ask_failback(id: &DatabaseId) -> anyhow::Result<()> {
    let client =
        client().await.map_err(|why| anyhow::anyhow!("no cluster: {why}; set KUBECONFIG"))?;
    publish::ask_failback(client, id, clock::to_wall_clock(clock::now()))
        .await
        .map_err(anyhow::Error::msg)
}

fn event_channel() -> (Recorder, Option<notice::Receiver>) {
    let (teller, listener) = notice::channel();
    (teller, Some(listener))
}

/// Starts to publish news as Events, where they go to a cluster.
fn start_events(
    publishing: &mut Supervisor,
    cluster: &Cluster,
    publish: &publish::Handle,
    lease: &lease::Handle,
    listener: Option<notice::Receiver>,
) -> event::Counts {
    let (Cluster::Write(client), Some(listener)) = (cluster, listener) else {
        return event::Counts::default();
    };
    let events = event::EventWriter::new(client.clone(), publish.clone(), lease.clone(), listener);
    let counts = events.counts();
    publishing.spawn(events.run());
    counts
}

/// The signals that end the daemon.
struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// How long it may take to get credentials, from a command that the kubeconfig names for instance.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(30);

/// Finds the cluster: by the Pod's ServiceAccount, or by the kubeconfig.
async fn connect(dry_run: bool) -> anyhow::Result<Cluster> {
    match (client().await, dry_run) {
        (Ok(client), false) => Ok(Cluster::Write(client)),
        (Ok(client), true) => Ok(check_reachable(client).await),
        (Err(why), false) => {
            bail!(
                "no cluster: {why}; run in a Pod with a ServiceAccount, or set KUBECONFIG, or use --dry-run to do without one"
            )
        }
        (Err(ClientError::Unusable(why)), true) => {
            warn!(reason = why, "dry run without a cluster");
            Ok(Cluster::None)
        }
        (Err(ClientError::NotConfigured), true) => {
            info!("dry run without a cluster");
            Ok(Cluster::None)
        }
    }
}

/// A dry run shows differences where a cluster answers, and does without them elsewhere.
async fn check_reachable(client: Client) -> Cluster {
    let deadline = Duration::from_secs(5);
    let why = match tokio::time::timeout(deadline, client.apiserver_version()).await {
        Ok(Ok(_)) => return Cluster::Read(client),
        Ok(Err(error)) => api::error_message(&error),
        Err(_) => format!("no answer in {}", humantime::format_duration(deadline)),
    };
    warn!(reason = why, "dry run without a cluster: the one that is configured can't be read");
    Cluster::None
}

/// Why there is no client.
enum ClientError {
    /// Nothing names a cluster.
    NotConfigured,
    /// One is named, but.
    Unusable(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NotConfigured => f.write_str("there is no kubeconfig, and this is no Pod"),
            ClientError::Unusable(why) => f.write_str(why),
        }
    }
}

fn infer_error(error: &InferConfigError) -> ClientError {
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(KubeconfigError::ReadConfig(io, path)) if io.kind() == ErrorKind::NotFound => {
            match std::env::var_os("KUBECONFIG") {
                Some(_) => {
                    ClientError::Unusable(format!("there is no kubeconfig {}", path.display()))
                }
                None => ClientError::NotConfigured,
            }
        }
        Some(error) => ClientError::Unusable(format!("the kubeconfig is not good: {error}")),
        None => ClientError::Unusable(error.to_string()),
    }
}

async fn client() -> Result<Client, ClientError> {
    let mut config = ClientConfig::infer().await.map_err(|error| infer_error(&error))?;
    config.connect_timeout = Some(Duration::from_secs(3));
    // Longer than a watch may be silent: the server ends each after 60 s.
    config.read_timeout = Some(Duration::from_secs(75));
    config.reset_reader_on_write = true;
    // Publishers decide themselves when to try again, on the newest plan.
    config.default_retry = false;
    // Blocks while a command that the kubeconfig names runs.
    let client = tokio::task::spawn_blocking(move || api::client(config));
    match tokio::time::timeout(CREDENTIALS_TIMEOUT, client).await {
        Ok(Ok(Ok(client))) => Ok(client),
        Ok(Ok(Err(error))) => Err(ClientError::Unusable(api::error_message(&error))),
        Ok(Err(panicked)) => Err(ClientError::Unusable(panicked.to_string())),
        Err(_) => {
            let time = humantime::format_duration(CREDENTIALS_TIMEOUT);
            Err(ClientError::Unusable(format!(
                "the kubeconfig's credentials did not come in {time}"
            )))
        }
    }
}

/// The namespace of databases that name none: the Pod's own, else the kubeconfig's, else `default`. An error tells why the
/// kubeconfig that KUBECONFIG names has none to give.
pub(crate) fn own_namespace() -> Result<String, String> {
    let of_pod = std::fs::read_to_string(NAMESPACE_FILE).ok().map(|name| name.trim().to_owned());
    if let Some(name) = of_pod.filter(|name| !name.is_empty()) {
        return Ok(name);
    }
    match Kubeconfig::read() {
        Ok(config) => Ok(context_namespace(config).unwrap_or_else(|| "default".to_owned())),
        Err(error) if std::env::var_os("KUBECONFIG").is_some() => Err(error.to_string()),
        Err(_) => Ok("default".to_owned()),
    }
}

fn context_namespace(config: Kubeconfig) -> Option<String> {
    let current = config.current_context?;
    let context = config.contexts.into_iter().find(|context| context.name == current)?;
    context.context?.namespace
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::signal::unix::{SignalKind, signal};

    use super::*;
    use crate::config;

    /// All parts of a dry run, but for the checks.
    fn parts(checking: Checking) -> Parts {
        let spec = Spec::default();
        let limits = Limits { max_in_flight: 1, max_execs: 1 };
        let (monitor, _) =
            monitor::start(&spec, limits, freeze::Rules::default(), &Recorder::default())
                .expect("threads");
        let lease = lease::Handle::dry_run();
        let (_, publishing) =
            publish::start(&spec, &Cluster::None, &monitor, &lease, &publish::Options::default());
        let (source, _) = ConfigFile::read("config.yaml".into(), config::Options::default())
            .expect("descriptors");
        let hangup = signal(SignalKind::hangup()).expect("a handler");
        let config = reload::start(source, spec, Recorder::default(), hangup);
        Parts { keeping: None, publishing, checking, config }
    }

    #[tokio::test]
    async fn the_end_after_dead_checks_says_why_and_is_quiet() {
        let mut failed = parts(Checking::that_ends(|| Err(io::Error::other("epoll is gone"))));
        assert_eq!(failed.ended().await.to_string(), "checking ended by itself: epoll is gone");
        failed.shutdown().await;
        let mut panicked = parts(Checking::that_ends(|| panic!("a panic of this test")));
        let why = "checking ended by itself: its thread panicked; the log says where";
        assert_eq!(panicked.ended().await.to_string(), why);
        panicked.shutdown().await;
    }
}
