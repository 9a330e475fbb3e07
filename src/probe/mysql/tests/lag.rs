//! The lag of replicas that lose their primary, that never had one, and whose state is long.

use super::*;

#[test]
fn a_lost_primary_ages_its_replicas() {
    let mysql = mysql(&with_lag());
    let start = clock::now();
    let probe = |table: Vec<u8>, after: u64| {
        let now = start + Duration::from_secs(after);
        let mut exchange = Exchange::new(mysql.clone().start(Transport::Plain, now).unwrap());
        exchange.receive(&session(&[writable(&["1", "0", "0"]), table])).expect("a result")
    };
    assert_eq!(probe(replication("Yes", "Yes", "8"), 100), Ok(()));
    assert_eq!(shown(&mysql), "replica, 8 s behind, MariaDB 10.11.19");
    // MySQL says 0 while nothing is received.
    assert_eq!(probe(replication("Connecting", "Yes", "0"), 122), Ok(()));
    let reason = "lag: unknown for 31s, more than 30s: no link to its primary";
    let lost = probe(replication("No", "Yes", "NULL"), 123);
    assert_eq!(lost, Err(Verdict::Fail(reason.into())));
    assert_eq!(probe(replication("Yes", "Yes", "0"), 124), Ok(()));
}

#[test]
fn only_a_server_that_was_in_replication_ages() {
    let start = clock::now();
    let probe = |mysql: &Arc<Mysql>, rest: &[Vec<u8>], after: u64| {
        let now = start + Duration::from_secs(after);
        let mut exchange = Exchange::new(mysql.clone().start(Transport::Plain, now).unwrap());
        exchange.receive(&session(rest)).expect("a result")
    };
    let alone = || [writable(&["1", "0", "0"]), table(&["Slave_IO_Running"], &[])];
    let replica = [writable(&["1", "0", "0"]), replication("Yes", "Yes", "0")];
    let no_replication = Phase::Lag.inconclusive(NO_REPLICATION);
    for primary in [&[writable(&["0", "0", "0"])][..], &replica] {
        let mysql = mysql(&MysqlCheck { role: Role::Any, ..with_lag() });
        for after in [0, 1000] {
            assert_eq!(probe(&mysql, &alone(), after), Err(no_replication.clone()));
            assert_eq!(shown(&mysql), "replica, MariaDB 10.11.19");
        }
        assert_eq!(probe(&mysql, primary, 1001), Ok(()));
        assert_eq!(probe(&mysql, &alone(), 1031), Ok(()));
        let late = Phase::Lag.fail("unknown for 31s, more than 30s: it has no primary");
        assert_eq!(probe(&mysql, &alone(), 1032), Err(late));
    }
    let role = MysqlCheck { role: Role::Primary, ..with_lag() };
    let verdict = probe(&mysql(&role), &alone(), 0);
    assert_eq!(verdict, Err(Phase::Role.fail("read-only, not primary")));
}

#[test]
fn a_long_state_of_a_replica_is_read_in_little_memory() {
    let mysql = mysql(&with_lag());
    let state = |length, rows| {
        let answer = session(&[writable(&["1", "0", "0"]), long_replication(length, rows)]);
        let mut exchange = exchange(&mysql, Transport::Plain);
        let result = answer.chunks(4096).find_map(|bytes| {
            let result = exchange.receive(bytes);
            assert!(exchange.unread() < 5, "{} bytes are kept", exchange.unread());
            result
        });
        result.unwrap_or_else(|| Err(exchange.on_close()))
    };
    for (length, rows) in [(250, 1), (251, 1), (20_000, 2), (70_000, 3), (300_000, 5)] {
        assert_eq!(state(length, rows), Ok(()), "{length}");
    }
    assert_eq!(state(1, 256), Ok(()), "the most primaries of a replica");
    let over = Phase::Lag.fail("the server has sent over 4096 KiB");
    assert_eq!(state(3_000_000, 1), Err(over));
    let role = session(&[table(&["a"], &[&[&"x".repeat(100_000)]])]);
    let over = Phase::Role.fail("the server has sent over 64 KiB");
    assert_eq!(run(&check(), &role.chunks(4096).collect::<Vec<_>>()).0, Err(over));
}

#[test]
fn a_long_row_may_come_in_two_pieces() {
    let answer = session(&[writable(&["1", "0", "0"]), long_replication(20_000, 1)]);
    let row = answer.windows(4).position(|head| head == b"\x51\x9c\0\x03").expect("a row");
    for at in 0..row + 20 {
        let (first, second) = answer.split_at(at);
        assert_eq!(run(&with_lag(), &[first, second]).0, Ok(()), "{at}");
    }
}

/// Returns the state of a replica with values as long as those of large servers.
fn long_replication(length: usize, rows: usize) -> Vec<u8> {
    let names = [
        "Slave_IO_Running",
        "Last_IO_Error",
        "Slave_SQL_Running",
        "Retrieved_Gtid_Set",
        "Executed_Gtid_Set",
        "Seconds_Behind_Master",
    ];
    let long = "b".repeat(length);
    table(&names, &vec![&["Yes", &long, "Yes", &long, "NULL", "7"][..]; rows])
}
