//! The rows of the table: a check, all that a server says, and the verdict.

use super::*;

const REFUSED: &str = "?auth: refused (1045): is the password right?";
const NO_PASSWORD: &str = "?auth: refused (1045): does the user exist, and have no password?";
const ED25519: &str = "?auth: the server asks for client_ed25519, which is not spoken";
const UNNAMED: &str = "?auth: the server asks for an unknown way to log in, which is not spoken";
const CLEAR: &str = "?auth: the server asks for the password in clear; add tls: {}";
const COLD: &str = "?auth: caching_sha2_password needs TLS after a restart or a new password; \
                    add tls: {}, or fetchPublicKey: true";
const WANTS_TLS: &str = "?auth: the server wants TLS; add tls: {}";
const BLOCKED: &str =
    "greeting: this host is blocked (1129): FLUSH HOSTS on the server unblocks it";
const NOT_ALLOWED: &str =
    "?greeting: this host is not allowed (1130): create USER@'HOST' on the server";
const FOREIGN: &str = "greeting: not MySQL: the answer begins …";
pub(super) const MALFORMED: &str = "auth: the server's answer is malformed";
const DONOR: &str = "role: Galera node not synced (state 2, donor)";
const NO_RIGHT: &str =
    "?lag: the user lacks the right SLAVE MONITOR, or REPLICATION CLIENT before MariaDB 10.5";

pub(super) type Rows = Vec<(MysqlCheck, Vec<u8>, &'static str)>;

/// Returns checks with an answer and the reason of a failure or, after `?`, of an inconclusive
/// verdict. Empty is a pass.
pub(super) fn rows() -> Rows {
    [login_rows(), role_rows(), lag_rows(), nonsense_rows()].concat()
}

fn login_rows() -> Rows {
    let logged_in = || writable(&["0", "0", "0"]);
    let native = |rest: &[Vec<u8>]| (check(), [greeting(), rest.concat()].concat());
    let sha2 = |rest: &[Vec<u8>]| (check(), [sha2_greeting(), rest.concat()].concat());
    let no_password = || MysqlCheck { password: None, ..check() };
    let error = |code| error(code, "Access denied for user 'checker'@'x'");
    let row = |(check, wire), expected| (check, wire, expected);
    vec![
        row(native(&[ok(), logged_in()]), ""),
        row(native(&[error(1045)]), REFUSED),
        (no_password(), [greeting(), error(1045)].concat(), NO_PASSWORD),
        (no_password(), session(&[logged_in()]), ""),
        row(native(&[error(4151)]), "?auth: refused (4151): is the password right?"),
        row(native(&[error(3955)]), "?auth: refused (3955): is the password right?"),
        row(
            native(&[error(1524)]),
            "?auth: the server no longer has the user's way to log in (1524)",
        ),
        row(native(&[error(1040)]), "auth: full"),
        row(native(&[error(1203)]), "auth: full"),
        row(native(&[error(1053)]), "auth: stopping"),
        row(native(&[error(3032)]), "auth: offline mode"),
        row(native(&[error(6400)]), "auth: offline mode"),
        row(native(&[error(3159)]), WANTS_TLS),
        row(native(&[error(9999)]), "auth: error 9999"),
        row(native(&[switch("mysql_native_password"), ok(), logged_in()]), ""),
        row(native(&[switch("caching_sha2_password"), more(&[3]), ok(), logged_in()]), ""),
        row(native(&[switch("client_ed25519"), error(1045)]), ED25519),
        row(native(&[switch("client_ed25519")]), "auth: connection closed"),
        row(native(&[switch("\x1b[31malice"), error(1045)]), UNNAMED),
        row(native(&[switch("mysql_clear_password"), error(1045)]), CLEAR),
        row(native(&[switch("sha256_password"), error(1045)]), CLEAR),
        row(native(&[switch("mysql_clear_password"), prompt(), prompt(), error(1045)]), CLEAR),
        row(native(&[vec![switch("mysql_clear_password")], vec![prompt(); 30]].concat()), ENDLESS),
        // A user with two ways: the first can't be spoken, and the second can.
        row(
            native(&[switch("client_ed25519"), switch("mysql_native_password"), ok(), logged_in()]),
            "",
        ),
        row(native(&[packet(2, b"\xfe"), error(1045)]), OLD),
        row(native(&[short_switch(), error(1045)]), "auth: the server's scramble is malformed"),
        row(native(&[more(&[3])]), MALFORMED),
        row(native(&vec![switch("mysql_native_password"); 30]), ENDLESS),
        row(sha2(&[more(&[3]), ok(), logged_in()]), ""),
        row(sha2(&[ok(), logged_in()]), ""),
        row(sha2(&[more(&[4]), error(1045)]), COLD),
        row(sha2(&[more(&[4]), more(&[4])]), MALFORMED),
        row(sha2(&[more(&[3]), more(&[3])]), MALFORMED),
        row(sha2(&[error(1045)]), REFUSED),
        (check(), early(1040, "Too many connections"), "greeting: full: \"Too many connections\""),
        (check(), early(1129, "Host 'x' is blocked"), BLOCKED),
        (check(), early(1130, "Host 'x' is not allowed"), NOT_ALLOWED),
        (check(), early(1234, "\x1b[31mred"), "greeting: 1234 \"\\u{1b}[31mred\""),
    ]
}

/// Returns a question of PAM, which MariaDB sends after a wrong answer too.
fn prompt() -> Vec<u8> {
    packet(4, b"\x04Password: ")
}

/// Returns a request for another way to log in, with too few random bytes.
fn short_switch() -> Vec<u8> {
    packet(2, b"\xfemysql_native_password\0short\0")
}

const OLD: &str = "?auth: the server asks for mysql_old_password, which is not spoken";
const ENDLESS: &str = "auth: the server sends messages without end";

fn role_rows() -> Rows {
    let (primary, replica) = (|| of_role(Role::Primary), || of_role(Role::Replica));
    let strict = || MysqlCheck { donor: false, ..check() };
    let standing = |values: &[&str]| session(&[writable(values)]);
    let node = |state: &str| session(&[writable(&["0", "0", "1"]), galera(state)]);
    let with_rejects =
        |what: &str, state: &str| session(&[writable(&["0", "0", "1", what]), galera(state)]);
    let unknown = || error(1193, "Unknown system variable 'wsrep_on'");
    let old = |rest: &[Vec<u8>]| session(&[vec![unknown(); 2], rest.to_vec()].concat());
    vec![
        (primary(), standing(&["0", "0", "0"]), ""),
        (primary(), standing(&["1", "0", "0"]), "role: read-only, not primary"),
        (primary(), standing(&["0", "1", "0"]), "role: read-only, not primary"),
        (replica(), standing(&["1", "0", "0"]), ""),
        (replica(), standing(&["0", "0", "0"]), "role: writable, not replica"),
        (check(), standing(&["1", "1", "0"]), ""),
        (check(), node("4"), ""),
        (primary(), node("4"), ""),
        (replica(), node("4"), "role: writable, not replica"),
        (check(), node("2"), ""),
        (strict(), node("2"), DONOR),
        (strict(), node("4"), ""),
        (check(), node("0"), "role: Galera node not synced (state 0)"),
        (check(), node("1"), "role: Galera node not synced (state 1)"),
        (check(), node("3"), "role: Galera node not synced (state 3)"),
        (check(), node("NULL"), "role: Galera node not synced (state unknown)"),
        (check(), with_rejects("NONE", "4"), ""),
        (check(), with_rejects("ALL", "4"), REJECTS),
        (check(), with_rejects("ALL_KILL", "2"), REJECTS),
        (check(), with_rejects("ALL", "0"), "role: Galera node not synced (state 0)"),
        (primary(), old(&[writable(&["0", "0"])]), ""),
        (primary(), old(&[writable(&["0", "1"])]), "role: read-only, not primary"),
        (primary(), old(&[unknown(), writable(&["0"])]), ""),
        (replica(), old(&[unknown(), writable(&["1"])]), ""),
        (check(), old(&[unknown(), unknown()]), UNKNOWN_VARIABLE),
        (check(), session(&[error(1053, "Server shutdown in progress")]), STOPPING),
        (
            check(),
            session(&[error(1142, "denied to user 'checker'")]),
            "role: 1142 (its text names the user or the password)",
        ),
        (check(), session(&[error(1820, "You must reset")]), EXPIRED),
        (check(), session(&[writable(&["NULL", "0", "0"])]), "role: not MySQL: …"),
        (check(), session(&[ok()]), "role: not MySQL: the answer begins …"),
        (check(), session(&[packet(1, &[0xfb])]), "role: not MySQL: …"),
        (check(), session(&[packet(1, &[1]), packet(2, &[200])]), "role: not MySQL: …"),
        (check(), session(&[packet(1, &[1]), packet(2, b"\xfe\0\0")]), "role: not MySQL: …"),
        (check(), session(&[vec![0xff, 0xff, 0xff, 0]]), "role: a message is over 16 KiB"),
        (check(), session(&[packet(1, &[])]), "role: not MySQL: …"),
        (check(), session(&[table(&["a"], &[&["0", "0"]])]), "role: not MySQL: …"),
    ]
}

const REJECTS: &str = "role: Galera node takes no queries (wsrep_reject_queries)";
const UNKNOWN_VARIABLE: &str = "role: 1193 \"Unknown system variable 'wsrep_on'\"";
const STOPPING: &str = "role: 1053 \"Server shutdown in progress\"";
const EXPIRED: &str = "?role: the password has expired (1820)";

fn lag_rows() -> Rows {
    let any = || MysqlCheck { role: Role::Any, ..with_lag() };
    let read_only = || writable(&["1", "0", "0"]);
    let lag = |table: Vec<u8>| (with_lag(), session(&[read_only(), table]));
    let row = |(check, wire), expected| (check, wire, expected);
    let denied = || error(1227, "Access denied; you need the SLAVE MONITOR privilege");
    vec![
        row(lag(replication("Yes", "Yes", "30")), ""),
        row(lag(replication("Yes", "Yes", "31")), "lag: 31s, more than 30s"),
        row(lag(replication("Yes", "No", "NULL")), "lag: replay is stopped"),
        row(lag(replication("Connecting", "Yes", "NULL")), ""),
        row(lag(table(&["Slave_IO_Running"], &[])), ALONE),
        row(lag(denied()), NO_RIGHT),
        row(lag(error(1064, "You have an error")), "lag: 1064 \"You have an error\""),
        (any(), session(&[writable(&["0", "0", "0"])]), ""),
        (any(), session(&[read_only(), replication("Yes", "Yes", "31")]), LATE),
    ]
}

const ALONE: &str = "?lag: the server is no replica that tells a lag; in Group Replication and on \
                     Aurora, remove maxLag";
const LATE: &str = "lag: 31s, more than 30s";

fn nonsense_rows() -> Rows {
    let old = greeting_of("5.1.73", 0xf7ff, "");
    let cut = |length: usize| packet(0, &greeting()[4..length]);
    let rows: [(Vec<u8>, &'static str); 12] = [
        (Vec::new(), "greeting: connection closed"),
        (greeting()[..9].to_vec(), "greeting: connection closed"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), FOREIGN),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(), FOREIGN),
        (b"-ERR unknown command\r\n".to_vec(), FOREIGN),
        (b"R\0\0\0\x08\0\0\0\0".to_vec(), FOREIGN),
        (vec![0; 20], FOREIGN),
        (packet(0, b"\x095.0\0"), FOREIGN),
        // The notice of the X protocol.
        (b"\x05\0\0\0\x0b\x08\x05\x1a\0".to_vec(), FOREIGN),
        (cut(30), FOREIGN),
        (cut(50), FOREIGN),
        (old, "greeting: the server is older than MySQL 5.5"),
    ];
    rows.into_iter().map(|(wire, expected)| (check(), wire, expected)).collect()
}
