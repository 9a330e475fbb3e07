//! The kind `postgres`: the beginning of a session, and on demand login, role and lag, in the
//! protocol of PostgreSQL.

use std::time::Duration;

use super::kind::{CheckContext, KindRecord};
use super::login;
use super::role::{self, LagResolution, MaxLag, Role};
use super::tls::{self, Tls, TlsKeys};
use crate::config::language::record::record;
use crate::config::language::scalars::{PortNumber, Text};
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::value::ValueSource;
use crate::config::problem::{Collector, Reported};

record! {
    /// A check of PostgreSQL in its own protocol. Without `password` and `role`, it passes when the
    /// server takes sessions: any answer that offers a way to log in.
    Postgres requires [] {
        /// The port to connect to. Default: the database's first port.
        port: PortNumber,
        /// The role that the server must have. Any but `any` needs a login.
        role: Role = Role::Any,
        /// The longest time by which a replica may be behind its primary. Needs a login.
        max_lag: MaxLag,
        /// The user to name and to log in as. It needs no rights. Without a login it need not
        /// exist. Default: `external-endpoints`.
        user: ValueSource,
        /// The password. Without it the check logs in only where the server asks for none.
        password: ValueSource,
        /// The database to name and to log in to.
        database: Text = Text("postgres".into()),
        /// Speak TLS on the connection. `{}` verifies the server with the system's certificates.
        tls: TlsKeys,
    }
}

/// A checked check of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresCheck {
    /// The port to connect to.
    pub port: u16,
    /// The role that the server must have.
    pub role: Role,
    /// The time by which a replica may be behind.
    pub max_lag: Option<Duration>,
    /// The user to name, if it is not the built-in one.
    pub user: Option<ValueSource>,
    /// The password to log in with.
    pub password: Option<ValueSource>,
    /// The database to name.
    pub database: String,
    /// The TLS settings, if the check speaks TLS.
    pub tls: Option<Tls>,
}

/// PostgreSQL tells the age of the newest commit exactly.
const RESOLUTION: LagResolution = LagResolution { lowest: Duration::ZERO, reason: "" };

impl KindRecord for Postgres {
    type Check = PostgresCheck;

    const EXAMPLE: &'static str = r#"databases:
- service: orders
  port: 5432
  addresses: [10.20.1.21, 10.20.1.22]
  check:
    postgres: {role: primary, user: checker, password: {file: /etc/checker/password}}
"#;

    fn compile(
        written: &Spanned<Self>,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<PostgresCheck, Reported> {
        let postgres = &written.value;
        let port = context.port("postgres", &postgres.port, &written.location, problems);
        let (max_lag, role) = (&postgres.max_lag, &postgres.role);
        let max_lag = role::compile_max_lag(max_lag, role, &RESOLUTION, problems);
        login::check(&postgres.user, &postgres.password, problems);
        login::check_not_empty(&postgres.password, problems);
        let tls = match postgres.tls.given() {
            Some(tls) => tls::compile(tls, problems).map(Some),
            None => postgres.tls.optional().map(|_| None),
        };
        let database = postgres.database.or(Text("postgres".into()))?.0;
        if let (true, Some(given)) = (database.contains('\0'), postgres.database.given()) {
            problems.error_at(&given.location, "has a NUL character; remove it");
        }
        Ok(PostgresCheck {
            port: port?,
            role: postgres.role.or(Role::Any)?,
            max_lag: max_lag?,
            user: postgres.user.optional()?,
            password: postgres.password.optional()?,
            database,
            tls: tls?,
        })
    }

    fn explain(check: &PostgresCheck) -> Self {
        Postgres {
            port: Field::new(PortNumber(check.port)),
            role: Field::new(check.role),
            max_lag: Field::from_option(check.max_lag.map(MaxLag)),
            user: Field::from_option(check.user.clone()),
            password: Field::from_option(check.password.clone()),
            database: Field::new(Text(check.database.clone())),
            tls: Field::from_option(check.tls.as_ref().map(tls::explain)),
        }
    }

    fn summary(check: &PostgresCheck, host: &str) -> String {
        let tls = if check.tls.is_some() { " with TLS" } else { "" };
        format!("postgres {host}:{}{}{tls}", check.port, role::suffix(check.role))
    }

    fn values(check: &PostgresCheck) -> Vec<&ValueSource> {
        check.user.iter().chain(&check.password).collect()
    }
}
