//! The kind `grpc`: the health of a service, by gRPC's own protocol for that.

use super::http::HostHeader;
use super::kind::{CheckContext, KindRecord};
use super::tls::{self, Tls, TlsKeys};
use crate::config::language::reader::FromNode as _;
use crate::config::language::record::{Record as _, record};
use crate::config::language::scalars::{PortNumber, scalar, text};
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::value::ValueSource;
use crate::config::problem::{Collector, Reported};

record! {
    /// A check by gRPC's health protocol (`grpc.health.v1.Health/Check`), as Kubernetes' own probes
    /// of this name are. It passes when the answer is `SERVING`.
    Grpc requires [] {
        /// The port to connect to. Default: the database's first port.
        port: PortNumber,
        /// The service to ask for, as the server names it. The empty name asks for the whole
        /// server.
        service: HealthService = HealthService(String::new()),
        /// The authority that the request names. Default: the host name or IP of the address, with
        /// the port.
        authority: HostHeader,
        /// Speak TLS on the connection. `{}` verifies the server with the system's certificates.
        tls: TlsKeys,
    }
}

/// A checked check by gRPC's health protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcCheck {
    /// The port to connect to.
    pub port: u16,
    /// The service to ask for. Empty for the whole server.
    pub service: String,
    /// The authority of the request, if it is not the address.
    pub authority: Option<String>,
    /// The TLS settings, if the check speaks TLS.
    pub tls: Option<Tls>,
}

/// The longest name of a service.
const MAX_SERVICE: usize = 1000;

scalar!(
    HealthService(String),
    "the name of a gRPC service",
    {"type": "string", "maxLength": 1000},
    |scalar, expected| {
        let service = text(scalar, expected)?;
        if service.chars().count() > MAX_SERVICE {
            return Err(format!("the name has more than {MAX_SERVICE} characters"));
        }
        Ok(HealthService(service.into()))
    }
);

impl KindRecord for Grpc {
    type Check = GrpcCheck;

    const EXAMPLE: &'static str = r#"databases:
- service: vectors
  port: 6334
  addresses: [10.20.0.51, 10.20.0.52]
  check:
    grpc: {}
"#;

    fn compile(
        written: &Spanned<Self>,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<GrpcCheck, Reported> {
        let grpc = written.value.overlay(&Grpc::built_in());
        let port = context.port("grpc", &grpc.port, &written.location, problems);
        let tls = match grpc.tls.given() {
            Some(tls) => tls::compile(tls, problems).map(Some),
            None => grpc.tls.optional().map(|_| None),
        };
        Ok(GrpcCheck {
            port: port?,
            service: grpc.service.required()?.0,
            authority: grpc.authority.optional()?.map(|authority| authority.0),
            tls: tls?,
        })
    }

    fn explain(check: &GrpcCheck) -> Self {
        Grpc {
            port: Field::new(PortNumber(check.port)),
            service: Field::new(HealthService(check.service.clone())),
            authority: Field::from_option(check.authority.clone().map(HostHeader)),
            tls: Field::from_option(check.tls.as_ref().map(tls::explain)),
        }
    }

    fn summary(check: &GrpcCheck, host: &str) -> String {
        let tls = if check.tls.is_some() { " with TLS" } else { "" };
        let service = match check.service.as_str() {
            "" => String::new(),
            service => format!(" {service}"),
        };
        format!("grpc {host}:{}{service}{tls}", check.port)
    }

    fn values(_: &GrpcCheck) -> Vec<&ValueSource> {
        Vec::new()
    }
}
