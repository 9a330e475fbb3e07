//! The questions for role and lag, and their answers.
//!
//! | read_only and innodb_read_only | is        | shown as |
//! | ---                            | ---       | ---      |
//! | both off                       | writable  | primary  |
//! | any other                      | read-only | replica  |
//!
//! | Galera's state      | passes                |
//! | ---                 | ---                   |
//! | 4, in sync          | yes                   |
//! | 2, donor or desynced| with `donor: true`    |
//! | 0, 1, 3, others     | no, for any role      |
//! | any, with `wsrep_reject_queries` | no, for any role |
//!
//! | SQL thread | IO thread | seconds behind | lag                   |
//! | ---        | ---       | ---            | ---                   |
//! | not `Yes`  | any       | any            | replay is stopped     |
//! | `Yes`      | not `Yes` | any            | unknown               |
//! | `Yes`      | `Yes`     | a number       | that                  |
//! | `Yes`      | `Yes`     | NULL           | unknown               |
//!
//! A replica of several primaries has a row for each, and the worst one counts. A server without a
//! row is no replica that MySQL knows of. Neither are those of Group Replication, whose channels
//! have no lag in this table, and the readers of Aurora.

use std::time::Duration;

use super::table::Table;
use crate::probe::observation::Lag;

/// A question to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// The variables that tell whether it takes writes, and whether it is a node of Galera.
    Writable(Variables),
    /// The state of a Galera node.
    Galera,
    /// The state of replication, by the words of this server.
    Lag(ReplicaWord),
}

/// The variables that a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Variables {
    #[default]
    All,
    /// All but that for the queries that Galera rejects, in its first versions.
    WithoutRejected,
    /// All but Galera's.
    WithoutGalera,
    /// Only `read_only`, in MySQL 5.5.
    ReadOnlyAlone,
}

impl Variables {
    /// Returns the variables to try if one of these is unknown.
    pub(super) fn fewer(self) -> Option<Self> {
        match self {
            Variables::All => Some(Variables::WithoutRejected),
            Variables::WithoutRejected => Some(Variables::WithoutGalera),
            Variables::WithoutGalera => Some(Variables::ReadOnlyAlone),
            Variables::ReadOnlyAlone => None,
        }
    }
}

/// The word for a replica in statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplicaWord {
    Replica,
    /// MySQL before 8.0.22.
    Slave,
    /// MariaDB, which has a row for each primary only in this statement.
    AllSlaves,
}

impl Question {
    /// Returns the statement.
    pub(super) fn statement(self) -> &'static str {
        match self {
            Question::Writable(Variables::All) => {
                "SELECT @@global.read_only, @@global.innodb_read_only, @@global.wsrep_on, \
                 @@global.wsrep_reject_queries"
            }
            Question::Writable(Variables::WithoutRejected) => {
                "SELECT @@global.read_only, @@global.innodb_read_only, @@global.wsrep_on"
            }
            Question::Writable(Variables::WithoutGalera) => {
                "SELECT @@global.read_only, @@global.innodb_read_only"
            }
            Question::Writable(Variables::ReadOnlyAlone) => "SELECT @@global.read_only",
            Question::Galera => "SHOW GLOBAL STATUS LIKE 'wsrep_local_state'",
            Question::Lag(ReplicaWord::Replica) => "SHOW REPLICA STATUS",
            Question::Lag(ReplicaWord::Slave) => "SHOW SLAVE STATUS",
            Question::Lag(ReplicaWord::AllSlaves) => "SHOW ALL SLAVES STATUS",
        }
    }

    /// Returns the names of the columns that are needed. Empty if all are.
    pub(super) fn columns(self) -> &'static [&'static [u8]] {
        match self {
            Question::Lag(_) => &LAG_COLUMNS,
            Question::Writable(_) | Question::Galera => &[],
        }
    }
}

/// The columns of the state of replication that tell the lag, by the words of all servers.
const LAG_COLUMNS: [&[u8]; 7] =
    [APPLIER[0], APPLIER[1], RECEIVER[0], RECEIVER[1], SECONDS[0], SECONDS[1], CHANNEL];

const APPLIER: [&[u8]; 2] = [b"Replica_SQL_Running", b"Slave_SQL_Running"];
const RECEIVER: [&[u8]; 2] = [b"Replica_IO_Running", b"Slave_IO_Running"];
const SECONDS: [&[u8]; 2] = [b"Seconds_Behind_Source", b"Seconds_Behind_Master"];
const CHANNEL: &[u8] = b"Channel_Name";

/// The start of the names of the channels of Group Replication.
const GROUP_CHANNEL: &[u8] = b"group_replication_";

/// A server that takes writes or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub is_writable: bool,
    pub is_galera: bool,
    /// True for a Galera node that takes no queries, by an administrator's word.
    pub rejects_queries: bool,
}

/// Reads the answer for the variables. Returns none if it is none.
pub(super) fn standing(table: &Table) -> Option<Standing> {
    let [row] = &table.rows[..] else { return None };
    let values: Option<Vec<&[u8]>> = row.iter().map(Option::as_deref).collect();
    let (is_read_only, others) = match values?[..] {
        [read_only, ref others @ ..] if others.len() < 4 => (is_on(read_only), others.to_vec()),
        _ => return None,
    };
    let other = |index: usize| others.get(index).copied();
    Some(Standing {
        is_writable: !is_read_only && !other(0).is_some_and(is_on),
        is_galera: other(1).is_some_and(is_on),
        rejects_queries: other(2).is_some_and(|value| value != b"NONE"),
    })
}

/// Returns whether a variable has any value but off. New versions have more than two.
fn is_on(value: &[u8]) -> bool {
    !matches!(value, b"0" | b"OFF")
}

/// Reads the state of a Galera node. Returns none if there is none.
pub(super) fn galera_state(table: &Table) -> Option<u8> {
    let [row] = &table.rows[..] else { return None };
    let [_, Some(state)] = &row[..] else { return None };
    std::str::from_utf8(state).ok()?.parse().ok()
}

/// The state of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// The thread that applies changes has stopped, by a command or for an error.
    Stopped,
    Running(Lag),
    /// The server is no replica.
    None,
}

/// The lag of a replica that runs but does not say how far it is behind.
const UNTOLD: Lag = Lag::Unknown("the server does not say");

/// Reads the state of replication.
pub(super) fn replay(table: &Table) -> Replay {
    let column =
        |words: [&[u8]; 2]| table.names.iter().position(|name| words.contains(&name.as_slice()));
    let (applier, receiver, seconds) = (column(APPLIER), column(RECEIVER), column(SECONDS));
    let channel = column([CHANNEL; 2]);
    let mut worst = None;
    for row in &table.rows {
        let value = |column: Option<usize>| row.get(column?)?.as_deref();
        if value(channel).is_some_and(|name| name.starts_with(GROUP_CHANNEL)) {
            continue;
        }
        if value(applier) != Some(b"Yes") {
            return Replay::Stopped;
        }
        let seconds = value(seconds).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let lag = match (value(receiver), seconds) {
            (Some(b"Yes"), Some(seconds)) => Lag::Known(Duration::from_secs(seconds)),
            (Some(b"Yes"), None) => UNTOLD,
            _ => Lag::NO_LINK,
        };
        worst = Some(match (worst, lag) {
            (Some(Lag::Known(one)), Lag::Known(other)) => Lag::Known(one.max(other)),
            (Some(unknown @ Lag::Unknown(_)), _) => unknown,
            (_, lag) => lag,
        });
    }
    worst.map_or(Replay::None, Replay::Running)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str], rows: &[&[&str]]) -> Table {
        let value = |text: &&str| (*text != "NULL").then(|| text.as_bytes().to_vec());
        Table {
            names: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
            rows: rows.iter().map(|row| row.iter().map(value).collect()).collect(),
            ..Table::default()
        }
    }

    #[test]
    fn only_a_server_with_both_off_is_writable() {
        for (row, is_writable, is_galera) in [
            (&["0"][..], true, false),
            (&["1"], false, false),
            (&["OFF", "0"], true, false),
            (&["0", "1"], false, false),
            (&["NO_LOCK", "0"], false, false),
            (&["0", "0", "0"], true, false),
            (&["1", "0", "1"], false, true),
            (&["0", "0", "ON"], true, true),
            (&["0", "0", "ON", "NONE"], true, true),
            (&["0", "0", "ON", "ALL"], true, true),
        ] {
            let rejects_queries = row.last() == Some(&"ALL");
            let expected = Some(Standing { is_writable, is_galera, rejects_queries });
            assert_eq!(standing(&table(&[], &[row])), expected, "{row:?}");
        }
        let bad: [&[&[&str]]; 5] =
            [&[], &[&["0"], &["0"]], &[&[]], &[&["NULL"]], &[&["0", "0", "0", "NONE", "0"]]];
        for rows in bad {
            assert_eq!(standing(&table(&[], rows)), None, "{rows:?}");
        }
    }

    #[test]
    fn the_state_of_a_galera_node_is_a_number() {
        assert_eq!(galera_state(&table(&[], &[&["wsrep_local_state", "4"]])), Some(4));
        let bad: [&[&[&str]]; 4] = [&[], &[&["4"]], &[&["a", "NULL"]], &[&["a", "-1"]]];
        for rows in bad {
            assert_eq!(galera_state(&table(&[], rows)), None, "{rows:?}");
        }
    }

    #[test]
    fn the_lag_is_that_of_the_table() {
        let old = ["Slave_IO_State", "Slave_IO_Running", "Slave_SQL_Running"];
        let new = ["Replica_IO_State", "Replica_IO_Running", "Replica_SQL_Running"];
        let known = |seconds| Replay::Running(Lag::Known(Duration::from_secs(seconds)));
        for (names, seconds) in [(old, "Seconds_Behind_Master"), (new, "Seconds_Behind_Source")] {
            let names = [&names[..], &[seconds]].concat();
            let replay = |rows: &[&[&str]]| replay(&table(&names, rows));
            assert_eq!(replay(&[&["", "Yes", "Yes", "7"]]), known(7));
            assert_eq!(replay(&[&["", "Yes", "Yes", "7"], &["", "Yes", "Yes", "3"]]), known(7));
            assert_eq!(replay(&[&["", "Yes", "Yes", "NULL"]]), Replay::Running(UNTOLD));
            assert_eq!(replay(&[&["", "Connecting", "Yes", "0"]]), Replay::Running(Lag::NO_LINK));
            let mixed: [&[&str]; 2] = [&["", "No", "Yes", "NULL"], &["", "Yes", "Yes", "3"]];
            assert_eq!(replay(&mixed), Replay::Running(Lag::NO_LINK));
            assert_eq!(replay(&[&["", "Yes", "No", "NULL"]]), Replay::Stopped);
            assert_eq!(
                replay(&[&["", "Yes", "Yes", "7"], &["", "Yes", "No", ""]]),
                Replay::Stopped
            );
            assert_eq!(replay(&[&[]]), Replay::Stopped);
            assert_eq!(replay(&[]), Replay::None);
        }
        let names = [&new[..], &["Seconds_Behind_Source", "Channel_Name"]].concat();
        let group = ["", "No", "No", "NULL", "group_replication_recovery"];
        assert_eq!(replay(&table(&names, &[&group])), Replay::None);
        let other = ["", "Yes", "Yes", "7", "other"];
        assert_eq!(replay(&table(&names, &[&group, &other])), known(7));
    }
}
