//! The check of a target and the newest write of a database, as the status shows them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Time;
use crate::config::Check;
use crate::publish::LastWrite;

/// The check of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckStatus {
    /// The check in a few words, without what may be secret.
    pub summary: String,
    /// The time between two tries, in seconds.
    pub interval_seconds: f64,
    /// The time to the next try after a verdict that disagrees with the health, in seconds.
    pub recheck_seconds: f64,
    /// The time that one try may take, in seconds.
    pub timeout_seconds: f64,
    /// Passes in a row that make the target up.
    pub healthy_threshold: u32,
    /// Failures in a row that make the target down.
    pub unhealthy_threshold: u32,
}

impl CheckStatus {
    pub(super) fn new(check: &Check, ip: IpAddr) -> Self {
        Self {
            summary: check.kind.summary(ip),
            interval_seconds: check.interval.as_secs_f64(),
            recheck_seconds: check.recheck_interval.as_secs_f64(),
            timeout_seconds: check.timeout.as_secs_f64(),
            healthy_threshold: check.thresholds.healthy,
            unhealthy_threshold: check.thresholds.unhealthy,
        }
    }
}

/// A write of members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteStatus {
    /// The kind and the name of the object.
    pub object: String,
    /// The version that the object got by it.
    pub resource_version: String,
    /// The time of the answer.
    pub at: Time,
}

impl WriteStatus {
    pub(super) fn new(write: &LastWrite) -> Self {
        let LastWrite { object, resource_version, at } = write.clone();
        Self { object, resource_version, at: at.into() }
    }
}
