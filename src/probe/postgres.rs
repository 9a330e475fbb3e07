//! The check of PostgreSQL: the beginning of a session, and on demand login, role and lag.
//!
//! ```text
//!  startup: user, database  -->
//!                           <--  R: a way to log in, or an error
//!      nothing else is asked: FIN and reset
//!  the login                -->
//!                           <--  Z: ready
//!  the query for the role   -->
//!                           <--  the row, Z
//!  X                        -->  reset
//! ```
//!
//! A server that answers with any way to log in takes sessions: the user need not exist. That needs
//! no password, and leaves nothing in the log as long as `pg_hba.conf` has a password rule for this
//! host.
//!
//! | answer                          | nothing asked | a role or a login asked |
//! | ---                             | ---           | ---                     |
//! | `R`, needs a password           | pass          | inconclusive without `password` |
//! | `R` 0, needs none               | pass, once it is ready | by the query    |
//! | 28xxx, 3D000: user or database  | pass          | inconclusive, or fail for 3D000 |
//! | 57P03, 57P01, 53300 and others  | fail          | fail                    |
//!
//! The end decides on what the server logs. A reset alone is a line. A FIN and a reset before the
//! login, or `X` and a reset after it, is none.

mod dialog;
mod query;
mod scram;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::dialog::Dialog;
use self::query::Standing;
use self::scram::{Challenge, Keys};
use super::conversation::{Conversation, Protocol, TlsStart, Transport};
use super::credentials::Credentials;
use super::kind::{CheckProber, NewProber};
use super::native::NativeProber;
use super::observation::{Observation, Observed, Observer};
use super::phase::{Phase, ProbeResult};
use super::target::Target;
use super::tls::Alpn;
use crate::config::{PostgresCheck, Role};

const PRODUCT: &str = "PostgreSQL";

/// The user that a check names if it names none. It need not exist.
const DEFAULT_USER: &[u8] = b"external-endpoints";

/// The protocol of one PostgreSQL.
struct Postgres {
    role: Role,
    max_lag: Option<Duration>,
    database: String,
    credentials: Credentials,
    memory: Mutex<Memory>,
}

/// The part of earlier probes that the next one needs, or that people want to see.
#[derive(Default)]
struct Memory {
    observer: Observer,
    login: Login,
}

/// The way in which a server lets the check log in.
#[derive(Default)]
enum Login {
    /// No login has come so far that the way is known.
    #[default]
    Unknown,
    /// The way needs no long computation.
    Quick,
    /// The keys of the last login. A server with one salt for a user has confirmed them in another
    /// login. Some proxies choose a new salt for each login, so that keys are of no use.
    Scram { keys: Arc<Keys>, is_confirmed: bool },
}

impl NewProber for PostgresCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        let address = SocketAddr::new(target.ip, self.port);
        let protocol = Arc::new(Postgres::new(self));
        Box::new(NativeProber::offering(
            Alpn::Postgres,
            address,
            protocol,
            self.tls.as_ref(),
            target,
        ))
    }
}

impl Protocol for Postgres {
    fn credentials(&self) -> Option<&Credentials> {
        Some(&self.credentials)
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.credentials.are_ready(now) && self.has_keys()
    }

    fn needs_reading(&self) -> bool {
        self.credentials.need_reading() || !self.has_keys()
    }

    fn start(
        self: Arc<Self>,
        transport: Transport,
        now: Instant,
    ) -> ProbeResult<Box<dyn Conversation>> {
        let user = self.credentials.user_without_nul()?.unwrap_or_else(|| Arc::from(DEFAULT_USER));
        let password = self.credentials.password()?;
        Ok(Box::new(Dialog::new(self, user, password, transport, now)))
    }

    fn tls_start(&self) -> TlsStart {
        TlsStart::OnRequest
    }

    fn observed(&self) -> Option<Observed> {
        self.memory().observer.newest()
    }
}

impl Postgres {
    fn new(check: &PostgresCheck) -> Self {
        Self {
            role: check.role,
            max_lag: check.max_lag,
            database: check.database.clone(),
            credentials: Credentials::new(check.user.as_ref(), check.password.as_ref()),
            memory: Mutex::default(),
        }
    }

    /// Returns whether more is asked than if the server takes sessions.
    fn needs_login(&self) -> bool {
        self.role != Role::Any || self.max_lag.is_some() || self.credentials.has_password()
    }

    /// Returns whether a login would need no long computation.
    fn has_keys(&self) -> bool {
        let Ok(Some(password)) = self.credentials.password() else { return true };
        match &self.memory().login {
            Login::Unknown => false,
            Login::Quick => true,
            Login::Scram { keys, is_confirmed } => *is_confirmed && keys.are_of(&password),
        }
    }

    /// Returns the kept keys if they are those that a login needs, and confirms them.
    fn confirm_keys(&self, password: &[u8], challenge: &Challenge) -> Option<Arc<Keys>> {
        match &mut self.memory().login {
            Login::Scram { keys, is_confirmed } if keys.fit(password, challenge) => {
                *is_confirmed = true;
                Some(keys.clone())
            }
            login => {
                *login = Login::Unknown;
                None
            }
        }
    }

    fn keep_keys(&self, keys: &Arc<Keys>) {
        self.memory().login = Login::Scram { keys: keys.clone(), is_confirmed: false };
    }

    fn set_quick(&self) {
        self.memory().login = Login::Quick;
    }

    /// Records that the server has let the user in without asking for the password.
    fn set_quick_if_unknown(&self) {
        let mut memory = self.memory();
        if matches!(memory.login, Login::Unknown) {
            memory.login = Login::Quick;
        }
    }

    /// Checks the role and, of a replica, the lag.
    fn check(&self, standing: &Standing, version: &str, now: Instant) -> ProbeResult<()> {
        let Standing { role, is_read_only, lag } = *standing;
        let role_verdict = role.check(self.role).and_then(|()| match self.role {
            Role::Primary if is_read_only => Err(Phase::Role.fail("primary, but read-only")),
            _ => Ok(()),
        });
        let product = (!version.is_empty()).then(|| format!("{PRODUCT} {version}").into());
        let observation = Observation { role: Some(role), product, ..Observation::default() };
        self.memory().observer.check(observation, role_verdict, (lag, self.max_lag), now)
    }

    /// Records that a server without a rule for the user logs each check.
    fn set_note(&self, now: Instant) {
        let note = Some(
            "PostgreSQL logs each check, because it lets the check's user or host not log in; see \
             docs/guides/native-checks.md",
        );
        self.memory().observer.record(Observation { note, ..Observation::default() }, now);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
