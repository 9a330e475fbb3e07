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
//!                          monitor ---- a check, when due ----> probe (tcp, http, exec)
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
//! - Nothing is published for a database before each of its targets has been checked. A restart
//!   alone changes nothing.
//! - A target changes its state only after several verdicts in a row, and a fault of this host is
//!   no verdict on a target.
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
//! Modules marked *pure* know no clock, no runtime and no Kubernetes; time comes in as an argument.
//!
//! | module | content |
//! | --- | --- |
//! | `clock` | the only reader of time |
//! | [`log`] | the log, and a writer that never blocks the daemon |
//! | [`health`] | the state of a target and its streak (*pure*) |
//! | `freeze` | the hold on removals while too many targets fail together (*pure*) |
//! | [`plan`] | the members to publish, by health and policy (*pure*) |
//! | `annotations` | what people ask for by annotations of a Service (*pure*) |
//! | [`endpoints`] | the values of Endpoints and EndpointSlices (*pure*) |
//! | [`config`] | the config file: from text to [`config::Spec`], with every mistake found |
//! | [`notice`] | one typed notice for a log line and its Event |
//! | `limits` | the limits of this process: descriptors, commands, connections |
//! | `api` | the HTTP client of the Kubernetes API, its deadlines and errors |
//! | `kubeconfig` | the cluster and the daemon's own namespace |
//! | `lease` | the election of the replica that writes |
//! | [`probe`] | the checks: one target in, one verdict out |
//! | `schedule` | the time at which each target is due (*pure*) |
//! | `monitor` | the loop that owns all health and makes the plans |
//! | [`publish`] | the only writer of Services, Endpoints and EndpointSlices |
//! | `event` | the writer of Kubernetes Events |
//! | `reload` | the watcher of the config file |
//! | `metrics` | the page for Prometheus |
//! | `admin` | the HTTP server of all pages |
//! | `init` | process 1 of a container |
//! | `run` | start, new config and shutdown of all parts |
//! | [`cli`] | the command line |

mod clock;

pub mod log;

pub mod health;

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

mod schedule;

mod monitor;

pub mod publish;

mod event;

mod reload;

mod metrics;

mod admin;

mod init;

mod run;

pub mod cli;
