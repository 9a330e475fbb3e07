//! The checks against real sockets, processes and databases: each verdict, its reason, and the time
//! it took.

#![allow(clippy::disallowed_methods, reason = "a test of timeouts needs a clock")]

#[path = "support/binaries.rs"]
#[allow(dead_code, reason = "the cluster tests use the rest")]
mod binaries;
#[path = "probe/certificates.rs"]
mod certificates;
#[path = "probe/exec.rs"]
mod exec;
#[path = "probe/fixtures.rs"]
mod fixtures;
#[path = "probe/floods.rs"]
mod floods;
#[path = "probe/grpc.rs"]
mod grpc;
#[path = "probe/hostile.rs"]
mod hostile;
#[path = "support/hostile_http.rs"]
mod hostile_http;
#[path = "probe/hostile_native.rs"]
mod hostile_native;
#[path = "probe/http.rs"]
mod http;
#[path = "probe/https.rs"]
mod https;
#[path = "probe/leaks.rs"]
mod leaks;
#[path = "probe/mongodb.rs"]
mod mongodb;
#[path = "probe/mysql.rs"]
mod mysql;
#[path = "probe/mysql_servers.rs"]
mod mysql_servers;
#[path = "probe/mysql_tls.rs"]
mod mysql_tls;
#[path = "probe/mysql_traces.rs"]
mod mysql_traces;
#[path = "probe/names.rs"]
mod names;
#[path = "probe/postgres.rs"]
mod postgres;
#[path = "probe/postgres_servers.rs"]
mod postgres_servers;
#[path = "probe/postgres_tls.rs"]
mod postgres_tls;
#[path = "probe/redis.rs"]
mod redis;
#[path = "probe/router.rs"]
mod router;
#[path = "probe/servers.rs"]
mod servers;
#[path = "probe/tcp.rs"]
mod tcp;
#[path = "probe/tls.rs"]
mod tls;
#[path = "probe/tls_proxy.rs"]
mod tls_proxy;
