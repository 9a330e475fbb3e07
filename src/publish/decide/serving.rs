//! The members that clients are sent to now, by Endpoints and by EndpointSlices. Pure.

use k8s_openapi::api::core::v1::Endpoints;

use crate::config::PublishMode;
use crate::endpoints;
use crate::plan::Members;
use crate::publish::cache::slices::SliceCache;

/// Returns the members that clients are sent to, by Endpoints or by slices.
pub(crate) fn serving(
    publish: PublishMode,
    endpoints: Option<&Endpoints>,
    slices: &SliceCache,
) -> Members {
    let in_endpoints = || endpoints.map(endpoints::members).unwrap_or_default();
    let in_slices: Members = slices.members().collect();
    // On the way from slices to Endpoints clients are sent by slices alone, until Endpoints have
    // members that are mirrored.
    let leaving_slices =
        endpoints.is_some_and(endpoints::we_set_skip_mirror) || in_endpoints().is_empty();
    if publish == PublishMode::Endpoints && !leaving_slices {
        return in_endpoints();
    }
    let mirrored = endpoints.is_some_and(|endpoints| !endpoints::skips_mirror(endpoints));
    if in_slices.is_empty() && mirrored { in_endpoints() } else { in_slices }
}

/// Returns all members that clients may be sent to, wherever they are published.
pub(crate) fn exposed(endpoints: Option<&Endpoints>, slices: &SliceCache) -> Members {
    let in_endpoints = endpoints.map(endpoints::members).unwrap_or_default();
    in_endpoints.iter().cloned().chain(slices.members()).collect()
}
