//! The details of a server that a probe finds beside its verdict: role, lag and version.

use std::fmt;
use std::time::{Duration, Instant};

use super::phase::{Phase, ProbeResult};
use crate::config::Role;

/// The role of a server among those that hold the same data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerRole {
    /// Takes writes.
    Primary,
    /// Follows a primary.
    Replica,
    /// Holds no data of its own: a Redis Sentinel.
    Sentinel,
}

impl ServerRole {
    /// Returns the word for reasons and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            ServerRole::Primary => "primary",
            ServerRole::Replica => "replica",
            ServerRole::Sentinel => "sentinel",
        }
    }

    /// Checks that the role is the one that the config expects.
    pub(crate) fn check(self, expected: Role) -> ProbeResult<()> {
        let is_expected = match expected {
            Role::Any => true,
            Role::Primary => self == ServerRole::Primary,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// The server's role.
    pub role: Option<ServerRole>,
    /// The time by which a replica is behind its primary.
    pub lag: Option<Duration>,
    /// The server's product and version.
    pub product: Option<Box<str>>,
    /// A fact about the check that people should know.
    pub note: Option<&'static str>,
}

/// The words of a table, such as `replica, 4 s behind`. Empty if nothing is known.
impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.role.map(|role| role.as_str().to_owned());
        let lag = self.lag.map(|lag| {
            let seconds = lag.as_secs_f64();
            if lag.subsec_millis() == 0 {
                format!("{seconds:.0} s behind")
            } else {
                format!("{seconds:.1} s behind")
            }
        });
        let product = self.product.as_deref().map(str::to_owned);
        let parts: Vec<_> = role.into_iter().chain(lag).chain(product).collect();
        f.write_str(&parts.join(", "))
    }
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

    /// Checks the lag of a replica if that has a limit, and returns the most that it can be. The
    /// data of any other server counts as up to date.
    pub(crate) fn check_role(
        &mut self,
        role: ServerRole,
        lag: Lag,
        max_lag: Option<Duration>,
        now: Instant,
    ) -> ProbeResult<Option<Duration>> {
        match (role, max_lag) {
            (ServerRole::Replica, Some(max_lag)) => self.check(lag, max_lag, now).map(Some),
            _ => {
                self.set_current(now);
                Ok(None)
            }
        }
    }

    /// Checks the lag against its limit, and returns the most that it can be.
    fn check(&mut self, lag: Lag, max_lag: Duration, now: Instant) -> ProbeResult<Duration> {
        match lag {
            Lag::Known(lag) => self.fresh_at = now.checked_sub(lag),
            Lag::Unknown(_) => _ = self.fresh_at.get_or_insert(now),
        }
        let behind = match (lag, self.fresh_at) {
            (Lag::Known(lag), _) => lag,
            (Lag::Unknown(_), Some(fresh_at)) => now.saturating_duration_since(fresh_at),
            (Lag::Unknown(_), None) => Duration::ZERO,
        };
        if behind <= max_lag {
            return Ok(behind);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::health::Verdict;

    #[test]
    fn unknown_lag_ages_from_the_last_known() {
        let seconds = Duration::from_secs;
        let (start, limit) = (clock::now(), seconds(30));
        let mut fresh = Freshness::default();
        let mut check = |lag, after| fresh.check(lag, limit, start + seconds(after));
        assert_eq!(check(Lag::Known(seconds(4)), 100), Ok(seconds(4)));
        assert_eq!(check(Lag::NO_LINK, 126), Ok(seconds(30)));
        let late = "lag: unknown for 31s, more than 30s: no link to its primary";
        assert_eq!(check(Lag::NO_LINK, 127), Err(Verdict::Fail(late.into())));
        assert_eq!(check(Lag::Known(seconds(30)), 130), Ok(seconds(30)));
        let behind = "lag: 45s, more than 30s";
        assert_eq!(check(Lag::Known(seconds(45)), 140), Err(Verdict::Fail(behind.into())));
        assert_eq!(check(Lag::Known(seconds(0)), 150), Ok(seconds(0)));
    }

    #[test]
    fn at_the_first_probe_the_time_starts() {
        let (start, limit) = (clock::now(), Duration::from_secs(30));
        let mut fresh = Freshness::default();
        assert_eq!(fresh.check(Lag::NO_LINK, limit, start), Ok(Duration::ZERO));
        assert_eq!(fresh.check(Lag::NO_LINK, limit, start + limit), Ok(limit));
        assert!(fresh.check(Lag::NO_LINK, limit, start + 2 * limit).is_err());
        fresh.set_current(start + 2 * limit);
        assert_eq!(fresh.check(Lag::NO_LINK, limit, start + 3 * limit), Ok(limit));
    }

    #[test]
    fn an_observation_is_a_few_words() {
        let show = |role, lag| Observation { role, lag, ..Observation::default() }.to_string();
        assert_eq!(show(None, None), "");
        assert_eq!(show(Some(ServerRole::Primary), None), "primary");
        let lag = |ms| Some(Duration::from_millis(ms));
        assert_eq!(show(Some(ServerRole::Replica), lag(400)), "replica, 0.4 s behind");
        assert_eq!(show(Some(ServerRole::Replica), lag(3000)), "replica, 3 s behind");
        let product = Some("PostgreSQL 15.18".into());
        let observation =
            Observation { role: Some(ServerRole::Primary), product, ..Observation::default() };
        assert_eq!(observation.to_string(), "primary, PostgreSQL 15.18");
    }
}
