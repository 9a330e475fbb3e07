//! The kind `redis`: PING, and on demand the role and the lag, in the protocol of Redis and Valkey.

use std::time::Duration;

use super::kind::{CheckContext, KindRecord};
use super::login;
use super::role::{self, LagResolution, MaxLag, Role};
use super::tls::{self, Tls, TlsKeys};
use crate::config::language::record::record;
use crate::config::language::scalars::PortNumber;
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::value::ValueSource;
use crate::config::problem::{Collector, Reported};

record! {
    /// A check of Redis or Valkey in their own protocol. It passes when the server answers PING,
    /// and has the role and the lag that are asked for.
    Redis requires [] {
        /// The port to connect to. Default: the database's first port.
        port: PortNumber,
        /// The role that the server must have. A Sentinel passes only `any`.
        role: Role = Role::Any,
        /// The longest time for which a replica may have heard nothing from its primary. At least
        /// `11s`, because a primary sends a ping only every 10 seconds.
        max_lag: MaxLag,
        /// The user to log in as. Default: the default user. Needs `password`.
        user: ValueSource,
        /// The password. Without it the check does not log in, and a server that wants a password
        /// passes if only `role: any` is asked for.
        password: ValueSource,
        /// Speak TLS on the connection. `{}` verifies the server with the system's certificates.
        tls: TlsKeys,
    }
}

/// A checked check of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisCheck {
    /// The port to connect to.
    pub port: u16,
    /// The role that the server must have.
    pub role: Role,
    /// The time by which a replica may be behind.
    pub max_lag: Option<Duration>,
    /// The user to log in as.
    pub user: Option<ValueSource>,
    /// The password to log in with.
    pub password: Option<ValueSource>,
    /// The TLS settings, if the check speaks TLS.
    pub tls: Option<Tls>,
}

/// The limit of what Redis can show: the time since a ping that comes every 10 seconds.
const RESOLUTION: LagResolution = LagResolution {
    lowest: Duration::from_secs(11),
    reason: "a Redis primary sends a ping to its replicas only every 10s, so that a good replica \
             may have heard nothing for so long",
};

impl KindRecord for Redis {
    type Check = RedisCheck;

    const EXAMPLE: &'static str = r#"databases:
- service: sessions
  port: 6379
  addresses: [10.20.0.31, 10.20.0.32]
  check:
    redis: {role: primary, password: {file: /etc/redis/password}}
"#;

    fn compile(
        written: &Spanned<Self>,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<RedisCheck, Reported> {
        let redis = &written.value;
        let port = context.port("redis", &redis.port, &written.location, problems);
        let max_lag = role::compile_max_lag(&redis.max_lag, &redis.role, &RESOLUTION, problems);
        if let (Some(user), true) = (redis.user.given(), redis.password.is_absent()) {
            let message = "`user` has no effect alone; write `password` beside it";
            problems.error_at_key(&user.location, message);
        }
        login::check(&redis.user, &redis.password, problems);
        let tls = match redis.tls.given() {
            Some(tls) => tls::compile(tls, problems).map(Some),
            None => redis.tls.optional().map(|_| None),
        };
        Ok(RedisCheck {
            port: port?,
            role: redis.role.or(Role::Any)?,
            max_lag: max_lag?,
            user: redis.user.optional()?,
            password: redis.password.optional()?,
            tls: tls?,
        })
    }

    fn explain(check: &RedisCheck) -> Self {
        Redis {
            port: Field::new(PortNumber(check.port)),
            role: Field::new(check.role),
            max_lag: Field::from_option(check.max_lag.map(MaxLag)),
            user: Field::from_option(check.user.clone()),
            password: Field::from_option(check.password.clone()),
            tls: Field::from_option(check.tls.as_ref().map(tls::explain)),
        }
    }

    fn summary(check: &RedisCheck, host: &str) -> String {
        let tls = if check.tls.is_some() { " with TLS" } else { "" };
        format!("redis {host}:{}{}{tls}", check.port, role::suffix(check.role))
    }

    fn values(check: &RedisCheck) -> Vec<&ValueSource> {
        check.user.iter().chain(&check.password).collect()
    }
}
