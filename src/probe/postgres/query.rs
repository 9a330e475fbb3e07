//! The question for role and lag, and its answer.
//!
//! | in recovery | read only | is                                                     |
//! | ---         | ---       | ---                                                    |
//! | f           | off       | primary                                                |
//! | f           | on        | primary that is read-only; neither `primary` nor `replica` |
//! | t           | on        | replica                                                |
//!
//! | receives | received = replayed | lag                                          |
//! | ---      | ---                 | ---                                          |
//! | yes      | yes                 | none, however long nothing was written       |
//! | yes      | no                  | age of the last replayed commit; unknown if none |
//! | no       | has received before | unknown                                      |
//! | no       | never received      | age of the last replayed commit, of archives |

use std::time::Duration;

use crate::probe::observation::{Lag, ServerRole};

/// The role and the lag of a server.
#[derive(Debug, PartialEq)]
pub(super) struct Standing {
    pub role: ServerRole,
    pub is_read_only: bool,
    pub lag: Lag,
}

/// The lag of a replica that has replayed no commit since its start.
const NOTHING_REPLAYED: Lag = Lag::Unknown("nothing has been replayed");

const ROLE: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')";

/// Returns the query, with the lag if that has a limit. PostgreSQL 10 renamed the functions for
/// the lag.
pub(super) fn text(max_lag: Option<Duration>, version: Option<u32>) -> String {
    if max_lag.is_none() {
        return ROLE.to_owned();
    }
    let (log, place) = match version {
        Some(..10) => ("xlog", "location"),
        _ => ("wal", "lsn"),
    };
    format!(
        "{ROLE}, extract(epoch from now() - pg_last_xact_replay_timestamp()), \
         pg_last_{log}_receive_{place}() = pg_last_{log}_replay_{place}(), \
         pg_last_{log}_receive_{place}() IS NULL, \
         EXISTS (SELECT 1 FROM pg_stat_wal_receiver)"
    )
}

/// Reads the row that answers the query. Returns none if it is not such a row.
pub(super) fn read(row: &[Option<&[u8]>]) -> Option<Standing> {
    let [in_recovery, read_only, lag @ ..] = row else { return None };
    let role = if truth((*in_recovery)?)? { ServerRole::Replica } else { ServerRole::Primary };
    let is_read_only = match (*read_only)? {
        b"on" => true,
        b"off" => false,
        _ => return None,
    };
    let lag = match (role, lag) {
        (_, []) | (ServerRole::Primary, _) => Lag::NO_LINK,
        (_, [age, is_level, never_received, receives]) => {
            let age = match age {
                Some(text) => Some(seconds(text)?),
                None => None,
            };
            let is_level = is_level.map_or(Some(false), truth)?;
            match (truth((*receives)?)?, is_level, truth((*never_received)?)?) {
                (true, true, _) => Lag::Known(Duration::ZERO),
                (true, false, _) => age.map_or(NOTHING_REPLAYED, Lag::Known),
                (false, _, false) => Lag::NO_LINK,
                (false, _, true) => age.map_or(NOTHING_REPLAYED, Lag::Known),
            }
        }
        _ => return None,
    };
    Some(Standing { role, is_read_only, lag })
}

fn truth(text: &[u8]) -> Option<bool> {
    match text {
        b"t" => Some(true),
        b"f" => Some(false),
        _ => None,
    }
}

/// Reads an age in seconds. The clock of a primary that is ahead makes it negative.
fn seconds(text: &[u8]) -> Option<Duration> {
    let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(row: &[&str]) -> Option<Standing> {
        let columns: Vec<_> =
            row.iter().map(|text| (*text != "NULL").then_some(text.as_bytes())).collect();
        read(&columns)
    }

    #[test]
    fn the_role_is_that_of_the_table() {
        for (row, role, is_read_only) in [
            (["f", "off"], ServerRole::Primary, false),
            (["f", "on"], ServerRole::Primary, true),
            (["t", "on"], ServerRole::Replica, true),
        ] {
            let expected = Standing { role, is_read_only, lag: Lag::NO_LINK };
            assert_eq!(standing(&row), Some(expected), "{row:?}");
        }
        let bad: [&[&str]; 6] =
            [&["t"], &["x", "on"], &["NULL", "on"], &["t", "1"], &["t", "on", "1"], &[]];
        for row in bad {
            assert_eq!(standing(row), None, "{row:?}");
        }
    }

    #[test]
    fn the_lag_is_that_of_the_table() {
        let known = |ms| Lag::Known(Duration::from_millis(ms));
        for (row, lag) in [
            (["9", "t", "f", "t"], known(0)),
            (["9.5", "f", "f", "t"], known(9500)),
            (["NULL", "f", "f", "t"], NOTHING_REPLAYED),
            (["-0.5", "f", "f", "t"], known(0)),
            (["9", "t", "f", "f"], Lag::NO_LINK),
            (["9", "f", "f", "f"], Lag::NO_LINK),
            (["9", "NULL", "t", "f"], known(9000)),
            (["NULL", "NULL", "t", "f"], NOTHING_REPLAYED),
            (["9", "NULL", "t", "t"], known(9000)),
        ] {
            let row = [&["t", "on"][..], &row].concat();
            assert_eq!(standing(&row).map(|standing| standing.lag), Some(lag), "{row:?}");
        }
        for bad in [["x", "t", "f", "t"], ["inf", "t", "f", "t"], ["9", "t", "NULL", "t"]] {
            assert_eq!(standing(&[&["t", "on"][..], &bad].concat()), None, "{bad:?}");
        }
        let primary = standing(&["f", "off", "NULL", "NULL", "t", "f"]).unwrap();
        assert_eq!(primary.role, ServerRole::Primary);
    }

    #[test]
    fn old_servers_are_asked_by_their_names() {
        assert_eq!(text(None, Some(9)), ROLE);
        let with_lag = |version| text(Some(Duration::ZERO), version);
        assert!(with_lag(Some(9)).contains("pg_last_xlog_receive_location() IS NULL"));
        for version in [None, Some(10), Some(18)] {
            assert!(with_lag(version).contains("pg_last_wal_receive_lsn() IS NULL"));
        }
    }
}
