//! Keeps what the cluster holds: lists and watches of Services, Endpoints and EndpointSlices, and
//! the newest version of each object that a database needs.

pub(crate) mod orphans;
pub(crate) mod reflector;
pub(crate) mod slices;
