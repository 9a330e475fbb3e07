//! The kind `tcp`: a TCP connection, over which the check may speak TLS, send data and expect an
//! answer.

use super::kind::{CheckContext, KindRecord};
use super::tls::{self, Tls, TlsKeys};
use crate::config::language::bytes::{ExpectedContent, Payload};
use crate::config::language::record::record;
use crate::config::language::scalars::{Bool, PortNumber};
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::value::ValueSource;
use crate::config::problem::{Collector, Reported};

record! {
    /// A check over a TCP connection. It passes when the connection is accepted, or, with `expect`,
    /// when the answer contains the data.
    Tcp requires [] {
        /// The port to connect to. Default: the database's first port.
        port: PortNumber,
        /// Speak TLS on the connection. `{}` verifies the server with the system's certificates.
        tls: TlsKeys,
        /// The data to send when the connection is up.
        send: Payload,
        /// The text or the bytes that the first 64 KiB of the answer must contain.
        expect: ExpectedContent,
        /// Complete the TCP handshake, so that the database sees the connection. Without it the
        /// connection ends before the database notices it. `tls`, `send` and `expect` imply it.
        accept: Bool = Bool(false),
    }
}

/// A checked check over a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpCheck {
    /// The port to connect to.
    pub port: u16,
    /// The TLS settings, if the check speaks TLS.
    pub tls: Option<Tls>,
    /// The data to send.
    pub send: Option<ValueSource>,
    /// The data that the answer must contain.
    pub expect: Option<ExpectedContent>,
    /// Completes the handshake, so that the target's accept() returns. Implied by the three above.
    pub accept: bool,
}

impl KindRecord for Tcp {
    type Check = TcpCheck;

    const EXAMPLE: &'static str = r#"databases:
- service: redis
  port: 6379
  addresses: [10.20.0.31, 10.20.0.32]
  check:
    tcp: {send: "PING\r\n", expect: "+PONG"}
"#;

    fn compile(
        written: &Spanned<Self>,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<TcpCheck, Reported> {
        let tcp = &written.value;
        let port = context.port("tcp", &tcp.port, &written.location, problems);
        let exchanges_data =
            !(tcp.tls.is_absent() && tcp.send.is_absent() && tcp.expect.is_absent());
        let accept = tcp.accept.or(Bool(exchanges_data))?.0;
        if let (true, false, Some(accept)) = (exchanges_data, accept, tcp.accept.given()) {
            let message =
                "`tls`, `send` and `expect` need the whole handshake; remove `accept: false`";
            problems.error_at(&accept.location, message);
        }
        let tls = match tcp.tls.given() {
            Some(tls) => tls::compile(tls, problems).map(Some),
            None => tcp.tls.optional().map(|_| None),
        };
        Ok(TcpCheck {
            port: port?,
            tls: tls?,
            send: tcp.send.optional()?.map(|payload| payload.0),
            expect: tcp.expect.optional()?,
            accept,
        })
    }

    fn explain(check: &TcpCheck) -> Self {
        Tcp {
            port: Field::new(PortNumber(check.port)),
            tls: Field::from_option(check.tls.as_ref().map(tls::explain)),
            send: Field::from_option(check.send.clone().map(Payload)),
            expect: Field::from_option(check.expect.clone()),
            accept: Field::new(Bool(check.accept)),
        }
    }

    fn summary(check: &TcpCheck, host: &str) -> String {
        let tls = if check.tls.is_some() { " with TLS" } else { "" };
        format!("tcp {host}:{}{tls}", check.port)
    }

    fn values(check: &TcpCheck) -> Vec<&ValueSource> {
        check.send.iter().collect()
    }
}
