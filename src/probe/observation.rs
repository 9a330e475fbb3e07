//! The details of a server that a probe finds beside its verdict: role, lag and version.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::phase::{Phase, ProbeResult};
use crate::config::Role;

/// The role of a server among those that hold the same data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerRole {
    /// Takes writes.
    Primary,
    /// Follows a primary.
    Replica,
    /// Holds no data of its own: a Redis Sentinel.
    Sentinel,
    /// Holds no data of its own, and passes reads and writes on: a mongos of MongoDB.
    Router,
}

impl ServerRole {
    /// Returns the word for reasons and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            ServerRole::Primary => "primary",
            ServerRole::Replica => "replica",
            ServerRole::Sentinel => "sentinel",
            ServerRole::Router => "mongos",
        }
    }

    /// Checks that the role is the one that the config expects.
    pub(crate) fn check(self, expected: Role) -> ProbeResult<()> {
        let is_expected = match expected {
            Role::Any => true,
            Role::Primary => matches!(self, ServerRole::Primary | ServerRole::Router),
            Role::Replica => self == ServerRole::Replica,
        };
        if is_expected {
            return Ok(());
        }
        let (is, expected) = (self.as_str(), expected.as_str());
        Err(Phase::Role.fail(format_args!("{is}, not {expected}")))
    }
}

/// The details that a probe has found. Each is none if the probe did not ask for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Observation {
    /// The server's role.
    pub role: Option<ServerRole>,
    /// The time by which a replica is behind its primary.
    pub lag: Option<Duration>,
    /// The reason why a replica does not know its lag. `lag` is then the most that it can be.
    pub lag_unknown: Option<&'static str>,
    /// The server's product and version.
    pub product: Option<Box<str>>,
    /// A fact about the check that people should know.
    pub note: Option<&'static str>,
}

/// The words of a table, such as `replica, 4 s behind`. Empty if nothing is known.
impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.role.map(ServerRole::as_str);
        let lag = self.lag.map(|lag| lag.as_secs_f64());
        f.write_str(&describe(role, lag, self.lag_unknown, self.product.as_deref()))
    }
}

/// Returns the details of an observation in words. The lag is in seconds.
pub(crate) fn describe(
    role: Option<&str>,
    lag: Option<f64>,
    lag_unknown: Option<&str>,
    product: Option<&str>,
) -> String {
    let lag = lag.map(|lag| describe_lag(lag, lag_unknown));
    let parts = [role, lag.as_deref(), product];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Returns the lag of a replica in words. `unknown` is the reason why that is the most it can be.
fn describe_lag(seconds: f64, unknown: Option<&str>) -> String {
    let tenths = (seconds * 10.0).round() / 10.0;
    let digits = usize::from(tenths.fract() != 0.0);
    match unknown {
        None => format!("{tenths:.digits$} s behind"),
        Some(why) => format!("at most {tenths:.digits$} s behind ({why})"),
    }
}

/// An observation, and the time at which its probe started.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub at: Instant,
    pub observation: Arc<Observation>,
}

/// The most observations that targets share.
const MAX_SHARED: usize = 256;

/// The observations that targets share: thousands of servers differ in few ways.
static SHARED: LazyLock<Mutex<HashSet<Arc<Observation>>>> = LazyLock::new(Mutex::default);

/// Returns an observation that all targets share which have the same one.
fn share(observation: Observation) -> Arc<Observation> {
    // The next probe finds another lag.
    if observation.lag.is_some() {
        return Arc::new(observation);
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(same) = shared.get(&observation) {
        return same.clone();
    }
    let observation = Arc::new(observation);
    if shared.len() >= MAX_SHARED {
        shared.retain(|shared| Arc::strong_count(shared) > 1);
    }
    if shared.len() < MAX_SHARED {
        shared.insert(observation.clone());
    }
    observation
}

/// The lag of a replica, as far as one probe can know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lag {
    Known(Duration),
    /// The replica can't say how far it is behind, for this reason.
    Unknown(&'static str),
}

impl Lag {
    /// The lag of a replica that has lost its primary.
    pub(crate) const NO_LINK: Self = Lag::Unknown("no link to its primary");
}

/// The memory of what the probes of one target have found.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    freshness: Freshness,
    newest: Option<Observed>,
}

impl Observer {
    /// Keeps the details that the probe which started at `now` has found.
    pub(crate) fn record(&mut self, observation: Observation, now: Instant) {
        match &mut self.newest {
            Some(Observed { at, observation: newest }) if **newest == observation => *at = now,
            newest => *newest = Some(Observed { at: now, observation: share(observation) }),
        }
    }

    /// Keeps the details of a server whose role is known, and returns the verdict: that on the
    /// role, and then that on the lag of a replica if it has a limit. The data of any other server
    /// counts as up to date.
    pub(crate) fn check(
        &mut self,
        observation: Observation,
        role_verdict: ProbeResult<()>,
        (lag, max_lag): (Lag, Option<Duration>),
        now: Instant,
    ) -> ProbeResult<()> {
        let (Some(ServerRole::Replica), Some(max_lag)) = (observation.role, max_lag) else {
            self.freshness.set_current(now);
            self.record(observation, now);
            return role_verdict;
        };
        let behind = self.freshness.behind(lag, now);
        let lag_unknown = match lag {
            Lag::Known(_) => None,
            Lag::Unknown(why) => Some(why),
        };
        self.record(Observation { lag: Some(behind), lag_unknown, ..observation }, now);
        role_verdict.and_then(|()| check_lag(lag, behind, max_lag))
    }

    /// Returns the newest observation.
    pub(crate) fn newest(&self) -> Option<Observed> {
        self.newest.clone()
    }
}

/// Checks the most that a replica can be behind against the limit.
fn check_lag(lag: Lag, behind: Duration, max_lag: Duration) -> ProbeResult<()> {
    if behind <= max_lag {
        return Ok(());
    }
    // Rounded up, so that it never looks like the limit itself.
    let seconds = behind.as_secs() + u64::from(behind.subsec_nanos() > 0);
    let shown = humantime::format_duration(Duration::from_secs(seconds));
    let limit = humantime::format_duration(max_lag);
    Err(Phase::Lag.fail(match lag {
        Lag::Known(_) => format!("{shown}, more than {limit}"),
        Lag::Unknown(why) => format!("unknown for {shown}, more than {limit}: {why}"),
    }))
}

/// The memory of how fresh the data of one target is.
///
/// | lag     | verdict                                             | memory                      |
/// | ---     | ---                                                 | ---                         |
/// | known   | pass if it is at most the limit                     | fresh as of now less lag    |
/// | unknown | pass while now less the memory is at most the limit | stays; starts now if absent |
///
/// A replica whose primary has died does not know its lag. It is at most the last one it knew and
/// the time since. Failing it at once would empty the Service of the replicas whenever the primary
/// dies.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    fresh_at: Option<Instant>,
}

impl Freshness {
    /// Records that the data is up to date, as a primary's is.
    fn set_current(&mut self, now: Instant) {
        self.fresh_at = Some(now);
    }

    /// Returns the most that a replica with this lag can be behind.
    fn behind(&mut self, lag: Lag, now: Instant) -> Duration {
        match lag {
            Lag::Known(lag) => {
                self.fresh_at = now.checked_sub(lag);
                lag
            }
            Lag::Unknown(_) => now.saturating_duration_since(*self.fresh_at.get_or_insert(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::health::Verdict;

    /// Checks the lag of a replica, and returns also the seconds that are shown.
    fn check(
        observer: &mut Observer,
        lag: Lag,
        limit: Duration,
        now: Instant,
    ) -> (ProbeResult<()>, u64) {
        let replica = Observation { role: Some(ServerRole::Replica), ..Observation::default() };
        let result = observer.check(replica, Ok(()), (lag, Some(limit)), now);
        let observed = observer.newest().expect("an observation");
        assert_eq!(observed.at, now);
        assert_eq!(observed.observation.lag_unknown.is_some(), lag == Lag::NO_LINK);
        (result, observed.observation.lag.expect("a lag").as_secs())
    }

    #[test]
    fn unknown_lag_ages_from_the_last_known() {
        let seconds = Duration::from_secs;
        let (start, limit) = (clock::now(), seconds(30));
        let mut observer = Observer::default();
        let mut check = |lag, after| check(&mut observer, lag, limit, start + seconds(after));
        assert_eq!(check(Lag::Known(seconds(4)), 100), (Ok(()), 4));
        assert_eq!(check(Lag::NO_LINK, 126), (Ok(()), 30));
        let late = "lag: unknown for 31s, more than 30s: no link to its primary";
        assert_eq!(check(Lag::NO_LINK, 127), (Err(Verdict::Fail(late.into())), 31));
        assert_eq!(check(Lag::Known(seconds(30)), 130), (Ok(()), 30));
        let behind = "lag: 45s, more than 30s";
        assert_eq!(check(Lag::Known(seconds(45)), 140), (Err(Verdict::Fail(behind.into())), 45));
        assert_eq!(check(Lag::Known(seconds(0)), 150), (Ok(()), 0));
    }

    #[test]
    fn at_the_first_probe_the_time_starts() {
        let (start, limit) = (clock::now(), Duration::from_secs(30));
        let mut observer = Observer::default();
        assert_eq!(check(&mut observer, Lag::NO_LINK, limit, start), (Ok(()), 0));
        assert_eq!(check(&mut observer, Lag::NO_LINK, limit, start + limit), (Ok(()), 30));
        assert!(check(&mut observer, Lag::NO_LINK, limit, start + 2 * limit).0.is_err());
        let primary = Observation { role: Some(ServerRole::Primary), ..Observation::default() };
        let at = start + 2 * limit;
        let refused = Err(Verdict::Fail("role: primary, not replica".into()));
        let lag = (Lag::NO_LINK, Some(limit));
        assert_eq!(observer.check(primary.clone(), refused.clone(), lag, at), refused);
        let newest = observer.newest().expect("an observation");
        assert_eq!((newest.at, &*newest.observation), (at, &primary));
        assert_eq!(check(&mut observer, Lag::NO_LINK, limit, start + 3 * limit), (Ok(()), 30));
    }

    #[test]
    fn targets_share_a_bounded_number_of_observations() {
        let of = |product: usize| {
            let product = Some(format!("a product of this test {product}").into());
            Observation { product, ..Observation::default() }
        };
        let same = share(of(0));
        assert!(Arc::ptr_eq(&same, &share(of(0))));
        let others: Vec<_> = (1..2 * MAX_SHARED).map(|product| share(of(product))).collect();
        // Other tests may have dropped some of theirs meanwhile.
        assert!(SHARED.lock().unwrap().len() <= MAX_SHARED);
        assert_eq!(*others[2 * MAX_SHARED - 2], of(2 * MAX_SHARED - 1), "one of its own");
        drop(others);
        assert!(Arc::ptr_eq(&share(of(3 * MAX_SHARED)), &share(of(3 * MAX_SHARED))));
        let lag = |lag| Observation { lag: Some(Duration::from_secs(lag)), ..of(0) };
        assert!(!Arc::ptr_eq(&share(lag(1)), &share(lag(1))));
    }

    #[test]
    fn an_observation_is_a_few_words() {
        let show = |role, lag| Observation { role, lag, ..Observation::default() }.to_string();
        assert_eq!(show(None, None), "");
        assert_eq!(show(Some(ServerRole::Primary), None), "primary");
        let lag = |ms| Some(Duration::from_millis(ms));
        assert_eq!(show(Some(ServerRole::Replica), lag(400)), "replica, 0.4 s behind");
        assert_eq!(show(Some(ServerRole::Replica), lag(3000)), "replica, 3 s behind");
        assert_eq!(show(Some(ServerRole::Replica), lag(2999)), "replica, 3 s behind");
        let lost = Observation {
            role: Some(ServerRole::Replica),
            lag: lag(12_000),
            lag_unknown: Some("no link to its primary"),
            ..Observation::default()
        };
        let words = "replica, at most 12 s behind (no link to its primary)";
        assert_eq!(lost.to_string(), words);
        let product = Some("PostgreSQL 15.18".into());
        let observation =
            Observation { role: Some(ServerRole::Primary), product, ..Observation::default() };
        assert_eq!(observation.to_string(), "primary, PostgreSQL 15.18");
    }
}
