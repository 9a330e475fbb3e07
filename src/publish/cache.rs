//! The cache of the cluster: lists and watches of Services, Endpoints and EndpointSlices, and the
//! newest version of each object that a database needs.

pub(crate) mod object;
pub(crate) mod observed;
pub(crate) mod orphans;
pub(crate) mod reflector;
pub(crate) mod slices;
pub(crate) mod watch_state;
