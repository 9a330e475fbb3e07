//! Servers that flood a check over HTTP/2, and all hostile web servers at once over TLS: each has
//! its verdict and costs next to nothing.
//!
//! The probes run in a process of their own, so that its descriptors and memory are only theirs and
//! their servers'.

use std::sync::Arc;
use std::time::Duration;

use external_endpoints::config::{CheckKind, HttpCheck, Scheme, Tls};
use external_endpoints::health::Verdict;
use external_endpoints::probe::Prober;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::*;
use crate::fixtures::*;
use crate::hostile;
use crate::hostile_http::{self, Then};
use crate::leaks::{alone, descriptors};

/// The number of probes of each flood, and the number after which no more memory may be needed.
const ROUNDS: usize = 30;
const WARM: usize = 10;
/// The timeout of each probe. Some floods last as long as they may.
const SOON: Duration = Duration::from_millis(200);

const OVER_HEAD: &str = "http: the head of the answer is over 64 KiB";
const OVER_BODY: &str = "http: the answer is over 1 MiB";

/// A flood: the bytes that a server sends after the request, and the bytes that it repeats.
struct Flood {
    first: Vec<u8>,
    rest: Vec<u8>,
    /// True for a server that reads from the client meanwhile.
    reads: bool,
    expected_body: bool,
    /// The verdict: a pass, or the beginning of a failure's reason.
    expected: Result<(), &'static str>,
}

impl Flood {
    fn new(first: Vec<u8>, rest: Vec<u8>) -> Self {
        // The server's SETTINGS, and its acknowledgement of the client's.
        let first = [frame(4, 0, 0, b""), frame(4, 1, 0, b""), first].concat();
        let rest = rest.repeat(16384 / rest.len() + 1);
        Self { first, rest, reads: true, expected_body: false, expected: Err(OVER_HEAD) }
    }

    fn unread(self) -> Self {
        Self { reads: false, ..self }
    }

    fn searched(self) -> Self {
        Self { expected_body: true, ..self }
    }

    fn ends(self, reason: &'static str) -> Self {
        Self { expected: Err(reason), ..self }
    }

    fn passes(self) -> Self {
        Self { expected: Ok(()), ..self }
    }

    async fn serve(self: &Arc<Self>, pair: &Pair) -> Server {
        let (acceptor, flood) = (acceptor(pair, Clients::All, ALL, &["h2"]), self.clone());
        Server::start(move |stream| {
            let (acceptor, flood) = (acceptor.clone(), flood.clone());
            async move {
                let Ok(mut tls) = acceptor.accept(stream).await else {
                    return;
                };
                let _ = tls.read(&mut [0; 65536]).await;
                let (mut reader, mut writer) = tokio::io::split(tls);
                let writing = async {
                    let mut sent = writer.write_all(&flood.first).await;
                    while sent.is_ok() {
                        sent = writer.write_all(&flood.rest).await;
                    }
                };
                let reading = async {
                    let mut buffer = vec![0; 4096];
                    while flood.reads && reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    }
                };
                tokio::join!(writing, reading);
            }
        })
        .await
    }

    fn prober(&self, port: u16, tls: Tls, timeout: Duration) -> Prober {
        let expected_body = self.expected_body.then(|| "never".into());
        let check =
            HttpCheck { scheme: Scheme::Https, http2: true, expected_body, tls, ..http(port) };
        prober(CheckKind::Http(check), timeout)
    }

    /// Returns the fault of a verdict, if it has one.
    fn wrong(&self, name: &str, verdict: &Verdict) -> Option<String> {
        let right = match (self.expected, verdict) {
            (Ok(()), Verdict::Pass) => true,
            (Err(expected), Verdict::Fail(reason)) => {
                reason.starts_with(expected) && reason.len() < 200
            }
            _ => false,
        };
        (!right).then(|| format!("{name}: {verdict:?}, not {:?}", self.expected))
    }
}

/// Returns a frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns a header block: status 103 and these bytes of HPACK.
fn interim(more: &[u8]) -> Vec<u8> {
    frame(1, 4, 1, &[b"\x08\x03103", more].concat())
}

fn floods() -> Vec<(&'static str, Flood)> {
    let ping = || frame(6, 0, 0, b"12345678");
    let settings = || frame(4, 0, 0, b"");
    // A header of one byte, and as many references to it as fit in a frame.
    let bomb = interim(&[b"\x40\x01x\x01y".as_slice(), &b"\xbe".repeat(11_000)].concat());
    // References to a static header of 60 bytes.
    let static_bomb = interim(&b"\x90".repeat(1_000));
    let ok = || frame(1, 4, 1, b"\x88");
    let evil = b"\x1b[31mEvil\r\n2026 ERROR all fine, token=AAAA ".repeat(300);
    let go_away = frame(7, 0, 0, &[b"\0\0\0\0\0\0\0\x0b".as_slice(), &evil].concat());
    let promise = frame(5, 4, 1, b"\0\0\0\x02\x82\x87\x84");
    let headers_without_end = frame(1, 0, 1, b"\x88");
    let padded = frame(0, 8, 1, &[b"\xff".as_slice(), &[0; 255]].concat());
    let broken = "http: the server violated HTTP/2 (";
    vec![
        ("PING", Flood::new(vec![], ping())),
        ("PING, none read", Flood::new(vec![], ping()).unread()),
        ("SETTINGS", Flood::new(vec![], settings())),
        ("SETTINGS, none read", Flood::new(vec![], settings()).unread()),
        ("interim heads", Flood::new(vec![], interim(b""))),
        ("interim heads, none read", Flood::new(vec![], interim(b"")).unread()),
        ("interim heads of references", Flood::new(vec![], bomb).ends(broken)),
        ("interim heads of static references", Flood::new(vec![], static_bomb)),
        (
            "CONTINUATION",
            Flood::new(headers_without_end.clone(), frame(9, 0, 1, &b"\0\x01a\x01b".repeat(100)))
                .ends(broken),
        ),
        ("empty CONTINUATION", Flood::new(headers_without_end, frame(9, 0, 1, b"")).ends(broken)),
        (
            "GOAWAY with a text",
            Flood::new(go_away, ping())
                .ends("http: the server closed the connection (ENHANCE_YOUR_CALM)"),
        ),
        ("PUSH_PROMISE", Flood::new(vec![], promise).ends(broken)),
        ("PRIORITY", Flood::new(vec![], frame(2, 0, 1, b"\0\0\0\0\x10"))),
        ("WINDOW_UPDATE", Flood::new(vec![], frame(8, 0, 0, b"\0\0\0\0")).ends(broken)),
        ("small WINDOW_UPDATE", Flood::new(vec![], frame(8, 0, 0, b"\0\0\0\x01"))),
        ("unknown frames", Flood::new(vec![], frame(99, 0, 0, &[7; 100]))),
        (
            "RST_STREAM",
            Flood::new(vec![], frame(3, 0, 1, b"\0\0\0\x07"))
                .ends("http: the server refused the request (REFUSED_STREAM)"),
        ),
        (
            "HTTP/1.1 wanted",
            Flood::new(vec![], frame(3, 0, 1, b"\0\0\0\x0d"))
                .ends("http: the server requires HTTP/1.1; remove `http2: true`"),
        ),
        ("a body that nobody wants", Flood::new(ok(), frame(0, 0, 1, &[b'z'; 1000])).passes()),
        (
            "a body",
            Flood::new(ok(), frame(0, 0, 1, &[b'z'; 1000]))
                .searched()
                .ends("http: the first 1 MiB of the body"),
        ),
        ("empty DATA", Flood::new(ok(), frame(0, 0, 1, b"")).searched().ends(broken)),
        ("padded DATA", Flood::new(ok(), padded).searched().ends(broken)),
        ("PING after the head", Flood::new(ok(), ping()).searched().ends(OVER_BODY)),
        ("trailers", Flood::new(ok(), frame(1, 4, 1, b"\0\x01a\x01b")).searched().ends(broken)),
        ("garbage", Flood::new(b"\x1b[31mgarbage".to_vec(), b"garbage".to_vec()).ends(broken)),
    ]
}

#[tokio::test]
async fn each_flood_has_its_verdict() {
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let mut wrong = Vec::new();
    for (name, flood) in floods() {
        let flood = Arc::new(flood);
        let server = flood.serve(&pair).await;
        let prober = flood.prober(server.port, authority.trusted(), PATIENT);
        wrong.extend(flood.wrong(name, &timed(&prober, PATIENT).await));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn floods_leave_no_descriptor_and_take_little_memory() {
    alone("floods::many_floods_here");
}

#[tokio::test]
#[ignore = "run by floods_leave_no_descriptor_and_take_little_memory"]
async fn many_floods_here() {
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let mut servers = Vec::new();
    let mut probers = Vec::new();
    for (_, flood) in floods() {
        let flood = Arc::new(flood);
        let server = flood.serve(&pair).await;
        probers.push(flood.prober(server.port, authority.trusted(), SOON));
        servers.push(server);
    }
    // A silent server never learns that its client has gone, and keeps its end open.
    for row in hostile_http::rows().into_iter().filter(|row| !matches!(row.then, Then::Silence)) {
        let server =
            hostile::serve(&row).await.in_tls(acceptor(&pair, Clients::All, ALL, &[])).await;
        let expected_body = Some(hostile_http::TEXT.into());
        let check = HttpCheck {
            scheme: Scheme::Https,
            expected_body,
            tls: authority.trusted(),
            ..http(server.port)
        };
        probers.push(prober(CheckKind::Http(check), SOON));
        servers.push(server);
    }
    let (mut open, mut resident) = (0, 0);
    for round in 1..=ROUNDS {
        // All at once, so more of them time out than alone.
        let verdicts = join_all(probers.iter().map(Prober::probe)).await;
        for verdict in verdicts {
            assert!(matches!(verdict, Verdict::Pass | Verdict::Fail(_)), "{verdict:?}");
        }
        if round == WARM {
            eventually("the servers have let go", || descriptors() < 2 * servers.len() + 20).await;
            (open, resident) = (descriptors(), kib("VmRSS"));
        }
    }
    eventually("no more descriptors than before", || descriptors() <= open).await;
    let (now, peak) = (kib("VmRSS"), kib("VmHWM"));
    println!("{open} descriptors, {resident} KiB, then {now} KiB, and {peak} KiB at the most");
    assert!(now < resident + 8_000, "{resident} KiB, then {now} KiB");
    assert!(peak < 100_000, "{peak} KiB at the most");
}

/// Returns a field of this process's status, in KiB.
fn kib(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
