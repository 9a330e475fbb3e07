//! The check of MySQL and MariaDB: a login, and on demand role and lag.
//!
//! ```text
//!                           <--  greeting: version, scramble, a way to log in
//!  the request for TLS      -->  with `tls`, and the handshake
//!  user, answer             -->
//!                           <--  OK, an error, or another way to log in
//!  the question for the role -->
//!                           <--  a row
//!  the state of Galera, or of the replica
//!  QUIT                     -->  reset
//! ```
//!
//! There is no check without a login: MySQL counts it as an aborted connection, and after 100 of
//! them it refuses all clients of this host. So a login that can't be finished gets a wrong answer
//! and ends with the server's error, which does not count. For what counts in any case, such as a
//! server that hangs, there is a [`brake`].
//!
//! | server               | `any` | `primary` | `replica`      |
//! | ---                  | ---   | ---       | ---            |
//! | writable             | pass  | pass      | fail           |
//! | read-only            | pass  | fail      | pass, with lag |
//! | Galera, in sync      | pass  | pass      | fail           |
//! | Galera, not in sync  | fail  | fail      | fail           |

mod auth;
mod brake;
mod dialog;
mod query;
mod table;
mod verdicts;
mod wire;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::brake::{Attempt, BRAKES, Brakes, LastAttempt};
use self::dialog::Dialog;
use self::query::{Replay, ReplicaWord, Standing, Variables};
use super::conversation::{ConnectFailure, Conversation, Protocol, TlsStart, Transport};
use super::credentials::Credentials;
use super::kind::{CheckProber, NewProber};
use super::native::NativeProber;
use super::observation::{Lag, Observation, Observed, Observer, ServerRole};
use super::phase::{Phase, ProbeResult};
use super::target::Target;
use crate::config::{MysqlCheck, Role};

const PRODUCT: &str = "MySQL";

/// The longest version that is shown.
const MAX_VERSION_LENGTH: usize = 20;

/// The user and the password of a check.
type UserAndPassword = (Arc<[u8]>, Option<Arc<[u8]>>);

/// The protocol of one MySQL.
struct Mysql {
    address: SocketAddr,
    role: Role,
    max_lag: Option<Duration>,
    accepts_donor: bool,
    fetches_public_key: bool,
    credentials: Credentials,
    brakes: Arc<Brakes>,
    /// True while a probe connects that may ask the server, and is an attempt of the brake.
    is_admitted: AtomicBool,
    memory: Mutex<Memory>,
}

/// The part of earlier probes that the next one needs, or that people want to see.
#[derive(Default)]
struct Memory {
    observer: Observer,
    /// The variables that the server with this version has.
    variables: Variables,
    /// True if an earlier probe has found a primary, or a replica of one.
    was_in_replication: bool,
    /// A digest of the version, which is short.
    version: u64,
    last_attempt: LastAttempt,
}

impl NewProber for MysqlCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        let address = SocketAddr::new(target.ip, self.port);
        let protocol = Arc::new(Mysql::new(self, address, BRAKES.clone()));
        Box::new(NativeProber::new(address, protocol, self.tls.as_ref(), target))
    }
}

impl Protocol for Mysql {
    fn credentials(&self) -> Option<&Credentials> {
        Some(&self.credentials)
    }

    fn start(
        self: Arc<Self>,
        transport: Transport,
        now: Instant,
    ) -> ProbeResult<Box<dyn Conversation>> {
        let admitted = self.take_attempt();
        let login = self.login()?;
        let attempt = match admitted {
            Some(attempt) => attempt,
            None => self.brakes.admit_late(self.address, self.last_attempt(), now)?,
        };
        Ok(Box::new(Dialog::new(self, attempt, login, transport, now)))
    }

    fn tls_start(&self) -> TlsStart {
        TlsStart::OnRequest
    }

    fn server_speaks_first(&self, now: Instant) -> bool {
        // An attempt that never started would else be under way for ever.
        drop(self.take_attempt());
        // A server counts a greeting that gets no answer.
        if self.login().is_err() {
            return false;
        }
        let is_admitted = self.brakes.admit(self.address, self.last_attempt(), now);
        self.is_admitted.store(is_admitted, Ordering::Relaxed);
        is_admitted
    }

    fn on_connect_failure(&self, failure: ConnectFailure, _: Instant) {
        drop(self.take_attempt());
        self.brakes.on_connect_failure(self.address, failure);
    }

    fn observed(&self) -> Option<Observed> {
        self.memory().observer.newest()
    }
}

impl Drop for Mysql {
    fn drop(&mut self) {
        drop(self.take_attempt());
    }
}

impl Mysql {
    fn new(check: &MysqlCheck, address: SocketAddr, brakes: Arc<Brakes>) -> Self {
        Self {
            address,
            role: check.role,
            max_lag: check.max_lag,
            accepts_donor: check.donor,
            fetches_public_key: check.fetch_public_key,
            credentials: Credentials::new(Some(&check.user), check.password.as_ref()),
            brakes,
            is_admitted: AtomicBool::new(false),
            memory: Mutex::default(),
        }
    }

    /// Takes the attempt for which a connect has been admitted.
    fn take_attempt(&self) -> Option<Attempt> {
        let is_admitted = self.is_admitted.swap(false, Ordering::Relaxed);
        is_admitted.then(|| Attempt::new(self.brakes.clone(), self.address))
    }

    /// Returns the user and the password.
    fn login(&self) -> ProbeResult<UserAndPassword> {
        let user = self.credentials.user_without_nul()?.unwrap_or_default();
        Ok((user, self.credentials.password()?))
    }

    fn last_attempt(&self) -> LastAttempt {
        self.memory().last_attempt
    }

    fn set_last_attempt(&self, last: LastAttempt) {
        self.memory().last_attempt = last;
    }

    /// Returns the variables to ask a server of this version for.
    fn variables(&self, version: &str) -> Variables {
        let memory = self.memory();
        if memory.version == digest(version) { memory.variables } else { Variables::All }
    }

    /// Records that a server of this version has no more variables than these.
    fn set_variables(&self, version: &str, variables: Variables) {
        let mut memory = self.memory();
        (memory.version, memory.variables) = (digest(version), variables);
    }

    /// Returns whether the lag of such a server is asked for.
    fn asks_lag(&self, standing: Standing) -> bool {
        self.max_lag.is_some() && !standing.is_writable
    }

    /// Checks the role.
    fn check_role(&self, standing: Standing) -> ProbeResult<()> {
        match (self.role, standing.is_writable) {
            (Role::Primary, false) => Err(Phase::Role.fail("read-only, not primary")),
            (Role::Replica, true) => Err(Phase::Role.fail("writable, not replica")),
            _ => Ok(()),
        }
    }

    /// Checks that a Galera node is in sync, and takes queries.
    fn check_galera(
        &self,
        (state, rejects_queries): (Option<u8>, bool),
        version: &str,
        now: Instant,
    ) -> ProbeResult<()> {
        let problem = match state {
            Some(4 | 2) if rejects_queries => "takes no queries (wsrep_reject_queries)".into(),
            Some(4) => return Ok(()),
            Some(2) if self.accepts_donor => return Ok(()),
            Some(2) => "not synced (state 2, donor)".to_owned(),
            Some(state) => format!("not synced (state {state})"),
            None => "not synced (state unknown)".to_owned(),
        };
        self.memory().observer.record(observation(None, version), now);
        Err(Phase::Role.fail(format_args!("Galera node {problem}")))
    }

    /// Keeps what is known of a server, and checks its role and, of a replica, the lag.
    fn check(
        &self,
        standing: Standing,
        replay: Replay,
        version: &str,
        now: Instant,
    ) -> ProbeResult<()> {
        let role = if standing.is_writable { ServerRole::Primary } else { ServerRole::Replica };
        let observation = observation(Some(role), version);
        let mut memory = self.memory();
        if replay == Replay::None && !memory.was_in_replication {
            memory.observer.record(observation, now);
            return self.check_role(standing).and(Err(Phase::Lag.inconclusive(NO_REPLICATION)));
        }
        memory.was_in_replication = true;
        let (verdict, lag) = match (self.check_role(standing), replay) {
            (Ok(()), Replay::Stopped) => (Err(Phase::Lag.fail("replay is stopped")), STOPPED),
            (verdict, Replay::Stopped) => (verdict, STOPPED),
            (verdict, Replay::Running(lag)) => (verdict, lag),
            (verdict, Replay::None) => (verdict, NO_PRIMARY),
        };
        memory.observer.check(observation, verdict, (lag, self.max_lag), now)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lag of a server that was a primary, or had one, and is no replica.
const NO_PRIMARY: Lag = Lag::Unknown("it has no primary");

/// The reason of a server that has not been in any replication. Its lag would grow for ever.
const NO_REPLICATION: &str = "the server is no replica that tells a lag; in Group Replication and \
                              on Aurora, remove maxLag";

/// The lag of a replica that applies nothing.
const STOPPED: Lag = Lag::Unknown("replay is stopped");

fn observation(role: Option<ServerRole>, version: &str) -> Observation {
    Observation { role, product: product(version).map(Into::into), ..Observation::default() }
}

/// Returns a number that differs between versions.
fn digest(version: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    hasher.finish()
}

/// Returns whether a version is one of MariaDB.
fn is_mariadb(version: &str) -> bool {
    version.contains("MariaDB")
}

/// Returns the number of a version. MariaDB hides its own behind one of MySQL, for old replicas.
fn number(version: &str) -> &str {
    let version = version.strip_prefix("5.5.5-").filter(|_| is_mariadb(version)).unwrap_or(version);
    let is_number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let length = version.bytes().take(MAX_VERSION_LENGTH).take_while(|byte| is_number(*byte));
    &version[..length.count()]
}

/// Returns the product with its version, of which nothing but digits and dots is shown.
fn product(version: &str) -> Option<String> {
    let number = number(version);
    let name = if is_mariadb(version) { "MariaDB" } else { PRODUCT };
    (!number.is_empty()).then(|| format!("{name} {number}"))
}

/// Returns the word for a replica in the statements of a version.
fn replica_word(version: &str) -> ReplicaWord {
    let mut parts = number(version).split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let number = [(); 3].map(|()| parts.next().unwrap_or(0));
    match is_mariadb(version) {
        true if number >= [10, 0, 0] => ReplicaWord::AllSlaves,
        false if number >= [8, 0, 22] => ReplicaWord::Replica,
        _ => ReplicaWord::Slave,
    }
}

#[cfg(test)]
mod tests;
