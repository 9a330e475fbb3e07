//! `run`: turns the arguments into options, prepares the process, and runs the daemon.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::{
    AllowedCidrs, DnsServers, parse_dns_qps, parse_duration, parse_lease, parse_listen,
    parse_max_exec, parse_percentage,
};
use super::console::{Console, Reported};
use crate::config::{self, Spec};
use crate::freeze;
use crate::lease;
use crate::limits::{DnsLimits, Limits, ReservedUses};
use crate::log::{self, Format};
use crate::publish::RateLimit;
use crate::reload::ConfigFile;
use crate::run::Mode;
use crate::{init, kubeconfig, resolve, run};

#[derive(clap::Args)]
pub(super) struct Run {
    /// The config file. It is loaded again when its content changes, and at once on SIGHUP
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check for real and show what would be published, but write nothing. Needs no cluster
    #[arg(long)]
    dry_run: bool,
    /// Serve the status page, /healthz, /readyz, /metrics and /api/v1/status on this address
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value = "0.0.0.0:8080",
        value_parser = parse_listen
    )]
    listen: SocketAddr,
    /// Run at most this many commands of exec checks at once [default: 4 for each core]
    #[arg(long, value_name = "N", value_parser = parse_max_exec)]
    max_exec: Option<NonZeroUsize>,
    /// Repair at most this many outside changes per second. Writes of changed members may be ten
    /// times as many
    #[arg(
        long,
        value_name = "N",
        default_value_t = RateLimit::default().qps,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    api_qps: u32,
    /// Repair at most this many outside changes at once after a quiet time. Writes of changed
    /// members may be ten times as many
    #[arg(
        long,
        value_name = "N",
        default_value_t = RateLimit::default().burst,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    api_burst: u32,
    #[command(flatten)]
    allowed: AllowedCidrs,
    #[command(flatten)]
    dns_servers: DnsServers,
    /// Ask DNS at most this many questions per second, over all names. Two for each lookup of a
    /// name, or one if its Service has one IP family
    #[arg(
        long,
        value_name = "N",
        default_value_t = resolve::DEFAULT_QPS,
        value_parser = parse_dns_qps
    )]
    dns_qps: NonZeroU32,
    /// The Lease that decides which replica writes [default: external-endpoints in the daemon's own
    /// namespace]
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = parse_lease)]
    lease: Option<lease::Name>,
    /// Write without a Lease. For a single replica only: two would undo each other's writes
    #[arg(long, conflicts_with = "lease")]
    no_leader_election: bool,
    /// Freeze removals when more than this share of all published addresses would be removed within
    /// 30 s; 100% never freezes
    #[arg(long, value_name = "PERCENT", default_value = "60%", value_parser = parse_percentage)]
    max_unhealthy: u8,
    /// End a freeze after this time and remove the addresses all the same; at most 365d, 0s never
    /// freezes
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    freeze_timeout: Duration,
    /// The format of the log's lines
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "human")]
    log_format: Format,
}

impl Run {
    /// Runs the daemon until it is stopped by a signal.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        self.become_daemon()?;
        let console = Console::new(self.log_format);
        let runtime = super::runtime(console)?;
        // From here on SIGHUP does not end the process, even before the config has been loaded.
        let hangup = handle_signals(&runtime)
            .map_err(|error| console.fail(&anyhow!("can't handle signals: {error}")))?;
        let options = config::Options {
            // One wrong address must not stop the databases beside it.
            skip_rejected: true,
            ..console.config_options(&self.allowed)
        };
        let (config, spec) = console.load(&self.config, options)?;
        let options = self.options(config, &spec);
        let outcome = runtime.block_on(run::run(spec, options, hangup));
        // Blocking work, such as reading a file on a dead mount, must not delay the exit.
        runtime.shutdown_background();
        outcome.map(|()| ExitCode::SUCCESS).map_err(|error| console.fail(&error))
    }

    /// Leaves process 1 to an init process, then starts the log. The order matters: the log starts
    /// a thread, and only a process of one thread can fork safely.
    fn become_daemon(&self) -> Result<(), Reported> {
        let console = Console::Stderr;
        init::run_as_init()
            .map_err(|error| console.fail(&anyhow!("process 1 can't fork: {error}")))?;
        log::start(self.log_format)
            .map_err(|error| console.fail(&anyhow!("can't start the log: {error}")))
    }

    fn options(self, config: ConfigFile, spec: &Spec) -> run::Options {
        let namespaces: BTreeSet<&str> =
            spec.databases.iter().map(|database| database.id.namespace.as_str()).collect();
        let names = spec.databases.iter().map(|database| database.names.len()).sum();
        let uses = ReservedUses { namespaces: namespaces.len(), names };
        run::Options {
            mode: if self.dry_run { Mode::DryRun } else { Mode::Publish },
            listen: self.listen,
            limits: Limits::raise(self.max_exec, uses),
            dns: resolve::Settings {
                servers: self.dns_servers.source(),
                qps: self.dns_qps,
                limits: DnsLimits::current(),
            },
            rate: RateLimit { qps: self.api_qps, burst: self.api_burst },
            freeze: freeze::Rules {
                max_unhealthy: self.max_unhealthy,
                timeout: self.freeze_timeout,
            },
            lease: (!self.no_leader_election).then(|| self.lease.unwrap_or_else(default_lease)),
            config,
        }
    }
}

/// Handles the signals that must not end the daemon. Returns SIGHUP, which reloads the config.
fn handle_signals(runtime: &Runtime) -> std::io::Result<Signal> {
    let _inside = runtime.enter();
    // With a handler, a write beyond the limit of a file's size fails as on a full disk.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
    // The daemon does not use these. Without a handler they would end it without a word.
    drop(signal(SignalKind::user_defined1())?);
    drop(signal(SignalKind::user_defined2())?);
    signal(SignalKind::hangup())
}

fn default_lease() -> lease::Name {
    // An error has been reported with the config, whose databases have the same namespace.
    let namespace =
        kubeconfig::own_namespace().unwrap_or_else(|_| kubeconfig::DEFAULT_NAMESPACE.to_owned());
    lease::Name { namespace, name: lease::DEFAULT_NAME.to_owned() }
}
