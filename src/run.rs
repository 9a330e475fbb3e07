//! The daemon's life: it starts the parts, brings each new config to them, and shuts them down.
//!
//! | when | in this order |
//! | --- | --- |
//! | start | admin port, checks, DNS, cluster, lease, publishing, election, Events, config, pages |
//! | new config | watches of namespaces that change stop; checks; publishers and watches |
//! | shutdown | lease, after the last write; publishing with Events; checks |
//!
//! [`Tasks`] owns all that runs. A task that ends by itself ends the daemon with an error. A second
//! signal ends the daemon without waiting. Published members stay as they are in every case.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{info, warn};

use signals::ShutdownSignals;

use crate::api::UserAgent;
use crate::config::Spec;
use crate::freeze;
use crate::lease::{self, ElectionTask};
use crate::limits::Limits;
use crate::monitor::MonitorThread;
use crate::notice::{self, Receiver, Recorder};
use crate::publish::{Cluster, Supervisor};
use crate::reload::{self, ConfigFile};
use crate::resolve::ResolverTask;
use crate::{admin, event, monitor, publish, resolve};

mod cluster;
mod election;
pub(crate) mod rehearsal;
mod signals;

/// The settings of a run beside the config.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub mode: Mode,
    /// The address of the admin pages.
    pub listen: SocketAddr,
    pub limits: Limits,
    pub rate: publish::RateLimit,
    /// The DNS servers, and how often they are asked.
    pub dns: resolve::Settings,
    /// The rules that hold removals back while too many targets fail together.
    pub freeze: freeze::Rules,
    /// The Lease that decides which replica writes. None for a single replica.
    pub lease: Option<lease::Name>,
    pub config: ConfigFile,
}

/// The use of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Writes what is planned.
    Publish,
    /// Only shows what would be written.
    DryRun,
}

/// Runs the daemon until SIGTERM or SIGINT. Each `hangup` reloads the config at once.
pub(crate) async fn run(spec: Spec, options: Options, hangup: Signal) -> anyhow::Result<()> {
    let mut signals = ShutdownSignals::new()?;
    let listener = admin::bind(options.listen).with_context(|| {
        format!("can't listen on {}; choose another address with --listen", options.listen)
    })?;
    info!(address = %listener.local_addr()?, "admin listening");
    let (recorder, notices) = event_channel(options.mode);

    // The checks need no cluster, so they do not wait for one.
    let (monitor, checks, resolver) =
        start_checks(&spec, (options.limits, options.freeze), options.dns.clone(), &recorder)?;
    let agent = cluster::user_agent(options.mode);
    let cluster = match find_cluster(options.mode, &agent, &mut signals).await {
        Ok(Some(cluster)) => cluster,
        stopped => {
            checks.shutdown().await;
            return stopped.map(drop);
        }
    };

    let (lease, candidate) = election::candidate(options.lease, &cluster, &agent)?;
    let publishes = publish::Options { rate: options.rate, recorder: recorder.clone() };
    let (publish, mut publishing) = publish::start(&spec, &cluster, &monitor, &lease, &publishes);
    let election =
        candidate.map(|candidate| election::start(candidate, &cluster, &monitor, &publish));
    let events = start_events(&mut publishing, &cluster, (&publish, &monitor), &lease, notices);
    let dry_run = options.mode == Mode::DryRun;
    info!(databases = spec.databases.len(), dry_run, "checking");
    let config = reload::start(options.config, spec, recorder, hangup);
    let dns = resolver.counts();
    let pages = {
        let (monitor, config) = (monitor.clone(), config.clone());
        admin::AppState { monitor, publish, lease, config, events, dns }
    };
    let mut tasks = Tasks { election, publishing, checks, resolver, config, monitor };
    let outcome = tokio::select! {
        signal = signals.recv() => {
            info!(signal, "ending; what is published stays as it is");
            Ok(())
        }
        never = admin::serve(listener, pages) => match never {},
        error = tasks.supervise() => Err(error),
    };
    tokio::select! {
        () = tasks.shutdown() => {}
        // A second signal ends the daemon at once.
        _ = signals.recv() => {}
    }
    outcome
}

/// Finds the cluster. Returns none if a signal comes first.
async fn find_cluster(
    mode: Mode,
    agent: &UserAgent,
    signals: &mut ShutdownSignals,
) -> anyhow::Result<Option<Cluster>> {
    tokio::select! {
        cluster = cluster::connect(mode, agent.clone()) => cluster.map(Some),
        signal = signals.recv() => {
            info!(signal, "ending");
            Ok(None)
        }
    }
}

/// Starts the checks, and the resolver that delivers the addresses of names to them.
fn start_checks(
    spec: &Spec,
    (limits, freeze): (Limits, freeze::Rules),
    dns: resolve::Settings,
    recorder: &Recorder,
) -> anyhow::Result<(monitor::Handle, MonitorThread, ResolverTask)> {
    let (names, commands) = resolve::channel();
    let (monitor, checks) = monitor::start(spec, limits, freeze, recorder, names)
        .context("can't start a thread for the checks")?;
    let resolver = start_resolver(commands, dns, &monitor);
    Ok((monitor, checks, resolver))
}

/// Starts to ask for names, and to deliver the outcomes to the monitor.
fn start_resolver(
    commands: UnboundedReceiver<resolve::Command>,
    settings: resolve::Settings,
    monitor: &monitor::Handle,
) -> ResolverTask {
    let monitor = monitor.clone();
    resolve::start(commands, settings, move |key, outcome| {
        let monitor = monitor.clone();
        async move { monitor.apply_lookup(key, outcome).await }
    })
}

/// Returns both ends of the channel to the Events. A dry run writes none.
fn event_channel(mode: Mode) -> (Recorder, Option<Receiver>) {
    match mode {
        Mode::Publish => {
            let (recorder, receiver) = notice::channel();
            (recorder, Some(receiver))
        }
        Mode::DryRun => (Recorder::default(), None),
    }
}

/// Starts to write notices as Events, if there is a cluster to write to. They end with publishing.
fn start_events(
    publishing: &mut Supervisor,
    cluster: &Cluster,
    (publish, monitor): (&publish::Handle, &monitor::Handle),
    lease: &lease::Handle,
    notices: Option<Receiver>,
) -> event::Counts {
    let (Cluster::Write(client), Some(notices)) = (cluster, notices) else {
        return event::Counts::default();
    };
    let (publish, monitor) = (publish.clone(), monitor.clone());
    let writer = event::EventWriter::new(client.clone(), publish, monitor, lease.clone(), notices);
    let counts = writer.counts();
    publishing.spawn(writer.run());
    counts
}

/// The tasks and threads that run until the shutdown. Dropping it stops them without waiting.
struct Tasks {
    /// The election of the replica that writes; none for a single replica and a dry run.
    election: Option<ElectionTask>,
    /// The publishers, the watches and the writer of Events.
    publishing: Supervisor,
    /// The threads of the checks.
    checks: MonitorThread,
    /// The questions to DNS. Nobody waits for them.
    resolver: ResolverTask,
    config: reload::Handle,
    monitor: monitor::Handle,
}

/// The longest time that the shutdown waits for the checks. They usually take far less.
const CHECKS_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

impl Tasks {
    /// Brings each new config to its users, until a task ends by itself. Returns which one and why.
    async fn supervise(&mut self) -> anyhow::Error {
        let Self { election, publishing, checks, resolver, config, monitor } = self;
        tokio::select! {
            reason = checks.ended() => anyhow!("checking ended by itself: {reason}"),
            () = resolver.panicked() => {
                anyhow!("the task that asks DNS panicked; the log says where")
            }
            reason = apply_configs(config, monitor, publishing) => {
                anyhow!("publishing ended by itself: {reason}")
            }
            reason = election_ended(election) => {
                anyhow!("the lease is no longer kept: {reason}")
            }
        }
    }

    /// Shuts everything down. The lease goes first, because its release waits for the last write.
    /// Supervisor goes before the checks, so that nothing is written while checks are being ended.
    async fn shutdown(self) {
        let _writes_drained = match self.election {
            Some(election) => election.release().await,
            None => None,
        };
        self.publishing.shutdown().await;
        let checks = self.checks.shutdown();
        if tokio::time::timeout(CHECKS_SHUTDOWN_TIMEOUT, checks).await.is_err() {
            let timeout = humantime::format_duration(CHECKS_SHUTDOWN_TIMEOUT);
            warn!("the checks did not end within {timeout}; the daemon ends without them");
        }
    }
}

/// Puts each new config in force, until publishing ends. Returns why it ended.
async fn apply_configs(
    config: &mut reload::Handle,
    monitor: &monitor::Handle,
    publishing: &mut Supervisor,
) -> String {
    loop {
        let spec = tokio::select! {
            spec = config.next() => spec,
            reason = publishing.task_failure() => return reason,
        };
        apply_config(&spec, monitor, publishing).await;
        info!(databases = spec.databases.len(), "the new config is in force");
    }
}

/// Puts a new config in force. Databases that it does not change are checked and published without
/// interruption.
async fn apply_config(spec: &Arc<Spec>, monitor: &monitor::Handle, publishing: &mut Supervisor) {
    let pending = publishing.begin_reload(spec).await;
    monitor.reload(spec.clone()).await;
    publishing.finish_reload(pending);
}

/// Waits until the task of the election ends. Without one it waits forever.
async fn election_ended(election: &mut Option<ElectionTask>) -> String {
    match election {
        Some(election) => election.ended().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::signal::unix::{SignalKind, signal};

    use super::*;
    use crate::limits::DnsLimits;

    /// Returns the tasks of a dry run, with checks that end by themselves.
    fn tasks(checks: MonitorThread) -> Tasks {
        let spec = Spec::default();
        let limits = Limits { max_in_flight: 1, max_execs: 1 };
        let rules = freeze::Rules::default();
        let (names, commands) = resolve::channel();
        let (monitor, _) =
            monitor::start(&spec, limits, rules, &Recorder::default(), names).expect("threads");
        let dns = resolve::Settings {
            servers: resolve::ServerSource::Fixed(Vec::new()),
            qps: resolve::DEFAULT_QPS,
            limits: DnsLimits::current(),
        };
        let resolver = start_resolver(commands, dns, &monitor);
        let lease = lease::Handle::dry_run();
        let options = publish::Options::default();
        let (_, publishing) = publish::start(&spec, &Cluster::None, &monitor, &lease, &options);
        let hangup = signal(SignalKind::hangup()).expect("a handler");
        let config = reload::start(ConfigFile::missing(), spec, Recorder::default(), hangup);
        Tasks { election: None, publishing, checks, resolver, config, monitor }
    }

    #[tokio::test]
    async fn the_end_of_the_checks_is_an_error_and_shuts_down_quietly() {
        let mut failed =
            tasks(MonitorThread::ending_with(|| Err(io::Error::other("epoll is gone"))));
        assert_eq!(failed.supervise().await.to_string(), "checking ended by itself: epoll is gone");
        failed.shutdown().await;
        let mut panicked = tasks(MonitorThread::ending_with(|| panic!("a panic of this test")));
        let error = "checking ended by itself: its thread panicked; the log says where";
        assert_eq!(panicked.supervise().await.to_string(), error);
        panicked.shutdown().await;
    }
}
