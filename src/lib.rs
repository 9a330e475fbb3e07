//! Keeps only the healthy addresses of off-cluster databases in their Services' Endpoints.
//!
//! # Overview
//!
//! A Service without a selector gets no health checks from Kubernetes. This daemon reads a config
//! file that lists databases and their addresses, checks every address, and publishes the healthy
//! ones as the Service's Endpoints or EndpointSlices. Each verdict takes the same way:
//!
//! ```text
//! config file --> reload --> Spec
//!                             |
//!                             v
//!                          monitor ---- a check, when due ----> probe (tcp, http, …)
//!                             |    <--------- Verdict ---------
//!                             |  schedule: which target is checked when
//!                             |  health:   Verdict -> Unknown, Up or Down
//!                             |  freeze:   hold removals while too many targets fail together
//!                             |  plan:     health and policy -> the members to publish
//!                             v
//!                 a plan for each database
//!                             |
//!                             v
//!                          publish ---- writes, while the lease permits them ----> Kubernetes API
//!                             |    <-------------------- watches -----------------
//!                             v
//!  existing members and the Service's annotations, back to monitor
//!
//!  notice: from all parts to the log and to event, which writes Kubernetes Events
//!  admin:  /healthz /readyz /metrics /api/v1/status
//! ```
//!
//! # Guarantees
//!
//! - Nothing is published for a database before each of its targets has been tried, except those
//!   that are published already or in maintenance. A restart alone changes nothing.
//! - A target leaves Up or Down only when as many verdicts in a row as its threshold say so. An
//!   Unknown target takes the first one. An inconclusive verdict, for a fault of this host, changes
//!   no state.
//! - A write carries the resourceVersion that it was decided on, so no stale plan overwrites a
//!   newer one. Only the holder of the lease writes.
//! - A bad config file leaves the last good config in force, and a shutdown leaves the published
//!   members as they are.
//!
//! # Deliberate limits
//!
//! - No data passes through the daemon. It is not a proxy, and it never closes a client's
//!   connection.
//! - It creates a Service only where the config asks for it, and never writes Endpoints that
//!   another manager owns unless the config says `adopt`.
//! - It does not promote, fence or elect databases. Of two healthy writers of an `exactlyOne`
//!   database it never publishes both, and it reports them.
//! - It keeps no state on disk. The cluster and the config file are all that it remembers.
//!
//! # Modules
//!
//! Each module uses only those above it in this list, and `tests/layers.rs` holds the order.
//! Pure modules know no clock, no runtime and no client of the API; time comes in as an argument.
//!
//! | module | content |
//! | --- | --- |
//! | `clock` | the only reader of clocks; one of them also counts while the machine is suspended |
//! | [`log`] | lines on standard error, through a bounded queue that nobody waits for |
//! | [`health`] | the state machine of one target: thresholds and flap damping. Pure |
//! | [`names`] | the addresses of one name, from DNS answers and time. Pure |
//! | `freeze` | the hold on removals while too many targets fail together. Pure |
//! | [`plan`] | the decision for one database: the members to publish. Pure |
//! | `annotations` | names and grammar of the Service's annotations. Pure |
//! | [`endpoints`] | Endpoints and EndpointSlices as values. Pure |
//! | [`config`] | the config language: from YAML to a checked `Spec`, or to all mistakes |
//! | [`notice`] | one happening, as a typed value that becomes a log line and an Event |
//! | `limits` | how much may be in flight, from file descriptors and processors |
//! | `api` | calls to the Kubernetes API: deadlines, pauses, one type of error |
//! | `kubeconfig` | the client, and the daemon's own namespace |
//! | `lease` | leader election, and the permission to write |
//! | [`probe`] | one try of one check: `tcp`, `http`, `exec`, or a database's own protocol |
//! | `resolve` | DNS: asks for the addresses of names, again and again |
//! | `schedule` | the time at which each target is due. Pure |
//! | `monitor` | the loop that starts tries, owns all health, and decides plans |
//! | [`publish`] | the only writer of Services, Endpoints and EndpointSlices |
//! | `event` | notices as Events, aggregated, apart from all writes |
//! | `reload` | the config file, read again and again |
//! | `metrics` | the page for Prometheus |
//! | [`status`] | the state of the daemon as data, for programs and people |
//! | [`page`] | the page for people |
//! | `admin` | the HTTP server of all pages |
//! | `init` | the daemon as process 1 of a container |
//! | `run` | start, new config and end of all tasks |
//! | [`cli`] | the command line |

#![cfg_attr(
    test,
    allow(clippy::fn_params_excessive_bools, reason = "rows of truth tables have flags")
)]

mod clock;

pub mod log;

pub mod health;

pub mod names;

mod freeze;

pub mod plan;

mod annotations;

pub mod endpoints;

pub mod config;

pub mod notice;

mod limits;

mod api;

mod kubeconfig;

mod lease;

pub mod probe;

mod resolve;

mod schedule;

mod monitor;

pub mod publish;

mod event;

mod reload;

mod metrics;

pub mod status;

pub mod page;

mod admin;

mod init;

mod run;

pub mod cli;
