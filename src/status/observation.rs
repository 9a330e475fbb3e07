//! The details that a check in a database's own protocol has found, as the status shows them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::text::visible;
use crate::probe::{Observation, ServerRole, describe_observation};

/// The details that the newest try of a target has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservationStatus {
    /// The role of the server: `primary`, `replica` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Cow<'static, str>>,
    /// The time by which a replica is behind its primary, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// The reason why a replica does not know its lag. It then is the most that it can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_unknown: Option<Cow<'static, str>>,
    /// The product and version of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// A fact about the check that people should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Cow<'static, str>>,
}

impl ObservationStatus {
    pub(super) fn new(observation: &Observation) -> Self {
        Self {
            role: observation.role.map(ServerRole::as_str).map(Cow::from),
            lag_seconds: observation.lag.map(|lag| lag.as_secs_f64()),
            lag_unknown: observation.lag_unknown.map(Cow::from),
            product: observation.product.as_deref().map(str::to_owned),
            note: observation.note.map(Cow::from),
        }
    }

    /// Returns the details in words, such as `replica, 0.4 s behind`. Empty if none is known.
    pub(crate) fn describe(&self) -> String {
        let Self { role, lag_seconds, lag_unknown, product, .. } = self;
        let texts = [role.as_deref(), lag_unknown.as_deref(), product.as_deref()];
        let [role, lag_unknown, product] = texts.map(|text| text.map(visible));
        let lag_unknown = lag_unknown.as_deref();
        describe_observation(role.as_deref(), *lag_seconds, lag_unknown, product.as_deref())
    }
}
