//! The kind `mysql`: a login, and on demand role and lag, in the protocol of MySQL and MariaDB.

use std::time::Duration;

use super::kind::{CheckContext, KindRecord};
use super::login;
use super::role::{self, LagResolution, MaxLag, Role};
use super::tls::{self, Tls, TlsKeys};
use crate::config::language::record::record;
use crate::config::language::scalars::{Bool, PortNumber};
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::value::ValueSource;
use crate::config::problem::{Collector, Reported};

record! {
    /// A check of MySQL or MariaDB in their own protocol. It passes when the server lets the user
    /// log in, and has the role and the lag that are asked for. A Galera node must be in sync.
    Mysql requires [] {
        /// The port to connect to. Default: the database's first port.
        port: PortNumber,
        /// The role that the server must have. A server that is read-only is no `primary`, and one
        /// that takes writes is no `replica`.
        role: Role = Role::Any,
        /// The longest time by which a replica may be behind its primary. Needs the right
        /// REPLICATION CLIENT, or SLAVE MONITOR in MariaDB from 10.5 on.
        max_lag: MaxLag,
        /// The user to log in as, which is required. It needs no other rights. Without a login
        /// each check would count as an aborted connection, and after 100 of them the server
        /// refuses all clients of this host.
        user: ValueSource,
        /// The password. Without it the user must have none.
        password: ValueSource,
        /// Pass a Galera node that is a donor or desynced.
        donor: Bool = Bool(true),
        /// Take the server's RSA key for the password where there is no TLS. Anyone who can answer
        /// in the server's place then gets the password.
        fetch_public_key: Bool = Bool(false),
        /// Speak TLS on the connection. `{}` verifies the server with the system's certificates.
        tls: TlsKeys,
    }
}

/// A checked check of MySQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MysqlCheck {
    /// The port to connect to.
    pub port: u16,
    /// The role that the server must have.
    pub role: Role,
    /// The time by which a replica may be behind.
    pub max_lag: Option<Duration>,
    /// The user to log in as.
    pub user: ValueSource,
    /// The password to log in with.
    pub password: Option<ValueSource>,
    /// True if a Galera node that is a donor passes.
    pub donor: bool,
    /// True if the server's RSA key is taken for the password.
    pub fetch_public_key: bool,
    /// The TLS settings, if the check speaks TLS.
    pub tls: Option<Tls>,
}

/// MySQL tells the lag in seconds.
const RESOLUTION: LagResolution = LagResolution { lowest: Duration::ZERO, reason: "" };

const NO_USER: &str = "`mysql` needs a `user`: without a login each try counts as an aborted \
                       connection, and after 100 of them the server refuses all clients of this \
                       host; write `user: NAME`, or check with `tcp: {}`";

impl KindRecord for Mysql {
    type Check = MysqlCheck;

    const EXAMPLE: &'static str = r#"databases:
- service: billing
  port: 3306
  addresses: [10.20.0.11, 10.20.0.12]
  check:
    mysql: {role: primary, user: checker, password: {file: /etc/checker/password}}
"#;

    fn compile(
        written: &Spanned<Self>,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<MysqlCheck, Reported> {
        let mysql = &written.value;
        let port = context.port("mysql", &mysql.port, &written.location, problems);
        let max_lag = role::compile_max_lag(&mysql.max_lag, &mysql.role, &RESOLUTION, problems);
        let user = match &mysql.user {
            Field::Absent => Err(problems.error_at_key(context.blame(&written.location), NO_USER)),
            given => given.required(),
        };
        login::check(&mysql.user, &mysql.password, problems);
        let tls = match mysql.tls.given() {
            Some(tls) => tls::compile(tls, problems).map(Some),
            None => mysql.tls.optional().map(|_| None),
        };
        let fetches_key = mysql.fetch_public_key.or(Bool(false))?.0;
        if let (Some(given), true, true) =
            (mysql.fetch_public_key.given(), fetches_key, mysql.tls.given().is_some())
        {
            let message = "`fetchPublicKey` has no effect with `tls`, which protects the password; \
                           remove it";
            problems.error_at_key(&given.location, message);
        }
        Ok(MysqlCheck {
            port: port?,
            role: mysql.role.or(Role::Any)?,
            max_lag: max_lag?,
            user: user?,
            password: mysql.password.optional()?,
            donor: mysql.donor.or(Bool(true))?.0,
            fetch_public_key: fetches_key,
            tls: tls?,
        })
    }

    fn explain(check: &MysqlCheck) -> Self {
        Mysql {
            port: Field::new(PortNumber(check.port)),
            role: Field::new(check.role),
            max_lag: Field::from_option(check.max_lag.map(MaxLag)),
            user: Field::new(check.user.clone()),
            password: Field::from_option(check.password.clone()),
            donor: Field::new(Bool(check.donor)),
            fetch_public_key: Field::new(Bool(check.fetch_public_key)),
            tls: Field::from_option(check.tls.as_ref().map(tls::explain)),
        }
    }

    fn summary(check: &MysqlCheck, host: &str) -> String {
        let tls = if check.tls.is_some() { " with TLS" } else { "" };
        format!("mysql {host}:{}{}{tls}", check.port, role::suffix(check.role))
    }

    fn values(check: &MysqlCheck) -> Vec<&ValueSource> {
        std::iter::once(&check.user).chain(&check.password).collect()
    }
}
