//! Keeps only the healthy addresses of off-cluster databases in their Services' Endpoints.
//!
//! ```text
//! file -> Raw -> Spec   reload: the file again, whenever it says something else
//!                 |
//!              monitor ---- one task a try -------> probe::{tcp,http,exec} -> Verdict
//!                 |  (the single owner of all health, on a thread of its own; verdicts come back over one channel)
//!                 |  schedule: who is tried when  (pure)
//!                 |  health::observe  (pure)
//!                 |  freeze           (pure)
//!                 |  plan::decide     (pure)
//!                 v
//!        watch<Plan> per database -> publish -> Kubernetes API
//!                 ^                     |
//!                 +- seen, published ---+   (what the cluster held at first sight, and holds by decision)
//!                 +------- asked -------+   (what people ask for by annotations of the Service)
//! notices, from monitor and publish -> event -> Events on the Services
//! admin: /healthz /readyz /metrics /api/v1/status      lease: who may write, until when
//! ```
//!
//! Each module uses only those above it in this list, which tests/layers.rs checks.

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
