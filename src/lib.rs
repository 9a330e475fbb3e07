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
//! news, from monitor and publish -> event -> Events on the Services
//! admin: /healthz /readyz /metrics /api/v1/status      lease: who may write, until when
//! ```
//!
//! Each module uses only those above it in this list, which tests/layers.rs checks.

pub mod clock;

pub mod log;

pub mod health;

pub mod freeze;

pub mod plan;

pub mod slice;

pub mod config;

pub mod news;

pub mod limits;

pub mod api;

pub mod lease;

pub mod probe;

pub mod schedule;

pub mod monitor;

pub mod publish;

pub mod event;

pub mod reload;

pub mod metrics;

pub mod admin;

pub mod footprint;

pub mod init;

pub mod run;

pub mod cli;
