//! The kind `mongodb`: the role and the lag of a server, in MongoDB's own protocol.

use std::time::Duration;

use super::kind::{CheckContext, KindRecord};
use super::role::{self, LagResolution, MaxLag, Role};
use super::tls::{self, Tls, TlsKeys};
use crate::config::language::record::record;
use crate::config::language::scalars::PortNumber;
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::value::ValueSource;
use crate::config::problem::{Collector, Reported};

record! {
    /// A check of MongoDB in its own protocol. It passes when the server takes reads or writes of
    /// clients, and has the role and the lag that are asked for. It needs no user and no password,
    /// because MongoDB tells its role before any login.
    Mongodb requires [] {
        /// The port to connect to. Default: the database's first port.
        port: PortNumber,
        /// The role that the server must have. A standalone server and a mongos pass `any` and
        /// `primary`. An arbiter, a hidden member and a member that starts or recovers pass none.
        role: Role = Role::Any,
        /// The longest time by which a secondary may be behind. At least `20s`, because an idle
        /// primary writes only every 10 seconds.
        max_lag: MaxLag,
        /// Speak TLS on the connection. `{}` verifies the server with the system's certificates.
        tls: TlsKeys,
    }
}

/// A checked check of MongoDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongodbCheck {
    /// The port to connect to.
    pub port: u16,
    /// The role that the server must have.
    pub role: Role,
    /// The time by which a secondary may be behind.
    pub max_lag: Option<Duration>,
    /// The TLS settings, if the check speaks TLS.
    pub tls: Option<Tls>,
}

/// The limit of what MongoDB can show: the age of a write that comes at least every 10 seconds.
const RESOLUTION: LagResolution = LagResolution {
    lowest: Duration::from_secs(20),
    reason: "an idle MongoDB primary writes only every 10s, so that a good secondary may seem \
             that far behind",
};

impl KindRecord for Mongodb {
    type Check = MongodbCheck;

    const EXAMPLE: &'static str = r#"databases:
- service: catalog
  port: 27017
  addresses: [10.20.0.41, 10.20.0.42, 10.20.0.43]
  check:
    mongodb: {role: primary}
"#;

    fn compile(
        written: &Spanned<Self>,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<MongodbCheck, Reported> {
        let mongodb = &written.value;
        let port = context.port("mongodb", &mongodb.port, &written.location, problems);
        let max_lag = role::compile_max_lag(&mongodb.max_lag, &mongodb.role, &RESOLUTION, problems);
        let tls = match mongodb.tls.given() {
            Some(tls) => tls::compile(tls, problems).map(Some),
            None => mongodb.tls.optional().map(|_| None),
        };
        Ok(MongodbCheck {
            port: port?,
            role: mongodb.role.or(Role::Any)?,
            max_lag: max_lag?,
            tls: tls?,
        })
    }

    fn explain(check: &MongodbCheck) -> Self {
        Mongodb {
            port: Field::new(PortNumber(check.port)),
            role: Field::new(check.role),
            max_lag: Field::from_option(check.max_lag.map(MaxLag)),
            tls: Field::from_option(check.tls.as_ref().map(tls::explain)),
        }
    }

    fn summary(check: &MongodbCheck, host: &str) -> String {
        let tls = if check.tls.is_some() { " with TLS" } else { "" };
        format!("mongodb {host}:{}{}{tls}", check.port, role::suffix(check.role))
    }

    fn values(_: &MongodbCheck) -> Vec<&ValueSource> {
        Vec::new()
    }
}
