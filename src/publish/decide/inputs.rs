//! What is known of one database at one moment, and what of it is published.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;

use crate::config::PublishMode;
use crate::endpoints;
use crate::plan::{Members, Plan};
use crate::publish::cache::reflector::Observed;
use crate::publish::cache::slices::SliceCache;
use crate::publish::decide::next_step::Step;

/// What is known at one moment.
pub(crate) struct Inputs {
    pub seen: Observed,
    pub plan: Plan,
    /// The addresses that may answer, while the plan is to keep what is there.
    pub may_answer: Arc<[IpAddr]>,
    pub publish: PublishMode,
}

impl Inputs {
    pub(crate) fn endpoints(&self) -> Option<&Endpoints> {
        self.seen.endpoints.object.as_deref()
    }

    /// Whether all is known that a decision takes. SliceCache may have been published although only Endpoints are to be; where the
    /// right to see them is missing, they can't have been.
    pub(crate) fn synced(&self) -> bool {
        let endpoints = self.publish == PublishMode::Endpoints
            && !self.endpoints().is_some_and(endpoints::we_set_skip_mirror);
        let slices = self.seen.slices.synced || endpoints && self.seen.slices.fault.is_some();
        self.seen.service.synced && self.seen.endpoints.synced && slices
    }

    /// What clients are sent to, by Endpoints or by slices.
    pub(crate) fn held(&self) -> Members {
        held(self.publish, self.endpoints(), &self.seen.slices)
    }

    /// All that clients may be sent to, wherever it is published.
    pub(crate) fn published(&self) -> Members {
        published(self.endpoints(), &self.seen.slices)
    }

    /// Whether the Service may be another than the one seen: where the watch does not run, where something is to be created or
    /// deleted on account of it, and where Endpoints that are not under our label may tell of a change of the Service that is
    /// still on its way here.
    pub(crate) fn needs_fresh_service(&self, step: &Step) -> bool {
        let unlabelled =
            || self.endpoints().and_then(endpoints::managed_by) != Some(endpoints::FIELD_MANAGER);
        self.seen.service.fault.is_some()
            || match step {
                Step::Create(_) | Step::Write(_) => unlabelled(),
                Step::CreateSlice(_) | Step::DeleteSlice(_) => true,
                // Creating a Service that is there already changes nothing.
                Step::WriteSlice(_) | Step::CreateService(_) | Step::InSync | Step::Blocked(_) => {
                    false
                }
            }
    }
}

/// What clients are sent to, by Endpoints or by slices.
pub(crate) fn held(
    publish: PublishMode,
    endpoints: Option<&Endpoints>,
    slices: &SliceCache,
) -> Members {
    let in_endpoints = || endpoints.map(endpoints::members).unwrap_or_default();
    let in_slices: Members = slices.members().collect();
    // On the way from slices they are all that clients are sent by, until there are Endpoints.
    let leaving_slices =
        endpoints.is_some_and(endpoints::we_set_skip_mirror) || in_endpoints().is_empty();
    if publish == PublishMode::Endpoints && !leaving_slices {
        return in_endpoints();
    }
    let mirrored = endpoints.is_some_and(|endpoints| !endpoints::skips_mirror(endpoints));
    if in_slices.is_empty() && mirrored { in_endpoints() } else { in_slices }
}

/// All that clients may be sent to, wherever it is published.
pub(crate) fn published(endpoints: Option<&Endpoints>, slices: &SliceCache) -> Members {
    let in_endpoints = endpoints.map(endpoints::members).unwrap_or_default();
    in_endpoints.iter().cloned().chain(slices.members()).collect()
}
