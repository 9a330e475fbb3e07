//! A table of hostile web servers with the expected verdict on each.
//!
//! The tests of single checks and the test of the daemon among all of them share it.

/// A hostile server: it reads a request, sends a head and continues with [`Then`].
pub(crate) struct Row {
    pub name: &'static str,
    pub head: &'static str,
    pub then: Then,
    /// The verdict of a check that looks only at the status.
    pub status: Expected,
    /// The verdict of a check that searches the body for a text.
    pub body: Expected,
}

pub(crate) enum Then {
    /// Sends this text without end, as fast as possible.
    Endless(&'static str),
    /// Sends this text again and again, every few milliseconds.
    Slow(&'static str),
    /// Keeps the connection open.
    Silence,
}

/// A verdict: the check passes, or fails for this reason. `…` stands for any end of the reason, and
/// `500ms` for the check's time-out.
pub(crate) type Expected = Result<(), &'static str>;

/// A text that no body contains.
pub(crate) const TEXT: &str = "x";

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

const NO_ANSWER: Expected = Err("http: no answer in 500ms");
const INTERIM: Expected =
    Err("http: the head of the answer is over 64 KiB, interim answers (1xx) included");
const LONG_HEAD: Expected = Err("http: the head of the answer is over 64 KiB");
const ANY_HEAD: Expected = Err("http: the head of the answer …");
const NO_HTTP: Expected = Err("http: not HTTP: …");
const NO_TEXT: Expected = Err("http: the first 1 MiB of the body does not contain \"x\"");
const NO_END: Expected = Err("http: the body did not end in 500ms");
const TOO_MUCH: Expected = Err("http: the server has sent over 2112 KiB, more than a check reads");

pub(crate) fn rows() -> Vec<Row> {
    use Then::{Endless, Silence, Slow};
    // Both checks fail on a malformed head.
    let head = |name, head, then, verdict| Row { name, head, then, status: verdict, body: verdict };
    // Only a check that reads the body fails on a malformed body.
    let body = |name, head, then, verdict| Row { name, head, then, status: Ok(()), body: verdict };
    vec![
        head("silence", "", Silence, NO_ANSWER),
        head("endless 100", "", Endless(CONTINUE), INTERIM),
        head("endless 103", "", Endless(HINTS), INTERIM),
        head("slow 100", "", Slow(CONTINUE), NO_ANSWER),
        head("slow 103", "", Slow(HINTS), NO_ANSWER),
        head("endless blank lines", "", Endless("\r\n"), LONG_HEAD),
        head("slow blank lines", "", Slow("\n"), NO_ANSWER),
        head("endless reason", "HTTP/1.1 200 ", Endless("y"), LONG_HEAD),
        head("endless header", "HTTP/1.1 200 OK\r\nX: ", Endless("y"), LONG_HEAD),
        head("endless headers", "HTTP/1.1 200 OK\r\n", Endless("x: y\r\n"), ANY_HEAD),
        head("dripping header", "HTTP/1.1 200 OK\r\nX: ", Slow("y"), NO_ANSWER),
        head("dripping headers", "HTTP/1.1 200 OK\r\n", Slow("x: y\r\n"), NO_ANSWER),
        head("endless text", "", Endless("y"), NO_HTTP),
        head("dripping text", "", Slow("y"), NO_HTTP),
        body("endless body", OK, Endless("y"), NO_TEXT),
        body("endless chunks", CHUNKED, Endless("1\r\ny\r\n"), TOO_MUCH),
        body("endless chunk extension", CHUNKED, Endless("1;"), TOO_MUCH),
        body("endless trailers", [CHUNKED, "0\r\n"].concat().leak(), Endless("y: z\r\n"), TOO_MUCH),
        body("dripping body", OK, Slow("y"), NO_END),
        body("dripping chunks", CHUNKED, Slow("1\r\ny\r\n"), NO_END),
        body("dripping trailers", [CHUNKED, "0\r\n"].concat().leak(), Slow("y: z\r\n"), NO_END),
        body(
            "malformed chunk",
            [CHUNKED, "y\r\n"].concat().leak(),
            Silence,
            Err("http: not HTTP: invalid chunk size"),
        ),
        body("no body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Silence, NO_END),
        body(
            "vast body",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
            Silence,
            NO_END,
        ),
        body(
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
            Silence,
            Err("http: not HTTP: invalid content-length parsed"),
        ),
    ]
}
