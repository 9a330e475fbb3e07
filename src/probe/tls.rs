//! TLS over the connection of a probe: configuration, handshake, and the verdicts on errors.

mod alpn;
mod client_auth;
mod config;
mod end_point;
mod errors;
mod handshake;
mod verifier;

pub(crate) use alpn::Alpn;
pub(crate) use end_point::end_point_hash;
pub(crate) use handshake::{Connector, PreparedHandshake, TlsConnection};
