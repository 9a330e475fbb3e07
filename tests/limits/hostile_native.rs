//! The daemon with few descriptors, among servers that are hostile in a database's own protocol: it
//! checks all other targets in time, needs little memory, and shows no secret and no control
//! character.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::daemon::{Daemon, eventually};
use super::hostile::{Config, assert_is_well, have_passed, memory, probes, server};
use super::in_own_network;

/// The password of all checks.
const SECRET: &str = "hunter2-hunter2";

/// A text that would do harm in a terminal, a log or a page, and that has the password.
const TEXT: &str = "\x1b[31m\x07\r\nlevel=ERROR <script>\u{202e}\u{9b}31m hunter2-hunter2";

/// The number of targets of each friendly service.
const FRIENDLY: usize = 100;

/// A kind of check and the words of its servers.
struct Kind {
    name: &'static str,
    check: String,
    /// A message of the protocol that answers nothing.
    message: Vec<u8>,
    /// The beginning of a long message.
    unfinished: Vec<u8>,
    /// An error with the text.
    error: Vec<u8>,
}

/// The behavior of a hostile server, once it has read the client's first bytes or waited for them
/// in vain.
#[derive(Clone)]
enum Behavior {
    Silent,
    /// Words that are sent again and again.
    Endless(Vec<u8>),
    /// Words that are sent a byte at a time.
    Slow(Vec<u8>),
    /// Words, and nothing more.
    Once(Vec<u8>),
    /// The words of the client.
    Echo,
}

fn kinds() -> Vec<Kind> {
    let text = TEXT.as_bytes();
    let packet = |sequence: u8, body: &[u8]| {
        let length = (body.len() as u32).to_le_bytes();
        [&length[..3], &[sequence], body].concat()
    };
    let frame = |kind: u8, body: &[u8]| {
        let length = (body.len() as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], body].concat()
    };
    let login = format!("user: hunter, password: {SECRET}");
    let notice = b"N\0\0\0\x0cSNOTICE\0";
    let fields = [b"SFATAL\0C53300\0M", text, b"\0\0"].concat();
    let length = (fields.len() as u32 + 4).to_be_bytes();
    let reply = [&[40, 0, 0, 0][..], &[0; 8], &[0xdd, 7, 0, 0], &[0; 24]].concat();
    vec![
        Kind {
            name: "postgres",
            check: format!("postgres: {{role: primary, {login}}}"),
            message: notice.to_vec(),
            unfinished: [&b"N\0\0\x3f\0"[..], &[b'x'; 16000]].concat(),
            error: [&b"E"[..], &length, &fields].concat(),
        },
        Kind {
            name: "mysql",
            check: format!("mysql: {{{login}}}"),
            message: packet(0, b"\x0a8.0.36\0"),
            unfinished: [&b"\xff\x3f\0\0\x0a"[..], &[b'8'; 16000]].concat(),
            error: packet(0, &[b"\xff\x10\x04", text].concat()),
        },
        Kind {
            name: "redis",
            check: format!("redis: {{role: primary, {login}}}"),
            message: b"+OK\r\n".to_vec(),
            unfinished: [&b"+"[..], &[b'x'; 16000]].concat(),
            error: [b"+OK\r\n-ERR ", &text[..6], SECRET.as_bytes(), b"\r\n"].concat(),
        },
        Kind {
            name: "mongodb",
            check: "mongodb: {}".to_owned(),
            message: reply,
            unfinished: [&[0, 0x3f, 0, 0][..], &[0; 8], &[0xdd, 7, 0, 0], &[0; 15000]].concat(),
            error: text.to_vec(),
        },
        Kind {
            name: "grpc",
            check: "grpc: {}".to_owned(),
            message: [frame(4, b""), frame(6, &[0; 8])].concat(),
            unfinished: [&frame(4, b"")[..], &b"\0\x3f\0\x01\0\0\0\0\x01"[..], &[0; 16000]]
                .concat(),
            error: [frame(4, b""), frame(7, &[&[0; 8], text].concat())].concat(),
        },
    ]
}

fn behaviors(kind: &Kind) -> Vec<Behavior> {
    let page = format!("HTTP/1.1 400 Bad Request\r\nX: {TEXT}\r\n\r\n").into_bytes();
    vec![
        Behavior::Silent,
        Behavior::Echo,
        Behavior::Endless(kind.message.clone()),
        Behavior::Endless(vec![0xff]),
        Behavior::Slow(kind.message.clone()),
        Behavior::Once(kind.unfinished.clone()),
        Behavior::Once(kind.error.clone()),
        Behavior::Once(page),
    ]
}

fn hostile(behavior: Behavior) -> u16 {
    server(move |mut stream| {
        let _ = stream.set_nodelay(true);
        // MySQL's client waits for the server.
        let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
        let mut buffer = [0; 4096];
        let received = stream.read(&mut buffer).unwrap_or_default();
        let _ = stream.set_read_timeout(None);
        let _ = speak(&mut stream, &behavior, &buffer[..received]);
        // Until the client closes.
        while stream.read(&mut buffer).is_ok_and(|received| received > 0) {}
    })
}

fn speak(stream: &mut TcpStream, behavior: &Behavior, received: &[u8]) -> std::io::Result<()> {
    match behavior {
        Behavior::Silent => Ok(()),
        Behavior::Once(words) => stream.write_all(words),
        Behavior::Echo => stream.write_all(received),
        Behavior::Endless(words) => {
            let words = words.repeat(16384 / words.len() + 1);
            loop {
                stream.write_all(&words)?;
            }
        }
        Behavior::Slow(words) => loop {
            for byte in words {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(5));
            }
        },
    }
}

fn friendly() -> u16 {
    server(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"+PONG\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
        let _ = stream.read(&mut [0; 1]);
    })
}

#[test]
fn servers_hostile_in_their_own_protocol_delay_nobody() {
    in_own_network("hostile_native::all_at_once_here");
}

#[test]
#[ignore = "run by servers_hostile_in_their_own_protocol_delay_nobody"]
fn all_at_once_here() {
    let mut config = Config::new();
    let mut services = Vec::new();
    for kind in kinds() {
        for (index, behavior) in behaviors(&kind).into_iter().enumerate() {
            let service = format!("hostile-{}-{index}", kind.name);
            let check = format!("{{{}, interval: 2s, timeout: 1s}}", kind.check);
            config.add(&service, hostile(behavior), 1, &check);
            services.push(service);
        }
    }
    let port = friendly();
    let when = "interval: 2s, timeout: 10s";
    config.add("friendly-redis", port, FRIENDLY, &format!("{{redis: {{role: primary}}, {when}}}"));
    config.add("friendly-tcp", port, FRIENDLY, &format!("{{tcp: {{}}, {when}}}"));
    let folder = config.write();
    let within = ["prlimit", "--nofile=256:256"];
    let mut daemon = Daemon::start(&within, &folder.path().join("config.yaml"), &[]);
    eventually("all have had their tries", || {
        assert_is_well(&daemon);
        let failed = |service: &String| probes(&daemon, service, "fail") >= vec![3.0];
        let passed = |service: &&str| have_passed(&daemon, service, FRIENDLY, 5.0);
        let friendly = ["friendly-redis", "friendly-tcp"];
        (services.iter().all(failed) && friendly.iter().all(passed)).then_some(())
    });
    for service in &services {
        assert_eq!(probes(&daemon, service, "pass"), [0.0], "{service}");
    }
    for service in ["friendly-redis", "friendly-tcp"] {
        for result in ["fail", "inconclusive"] {
            let sum: f64 = probes(&daemon, service, result).iter().sum();
            assert_eq!(sum, 0.0, "{service} {result}");
        }
    }
    eventually("four seconds in which no probe starts late", || {
        let late = daemon.metric("checks_late_total", "");
        thread::sleep(Duration::from_secs(4));
        (daemon.metric("checks_late_total", "") == late).then_some(())
    });
    let peak = memory(&daemon, "VmHWM:");
    assert!(peak < 64 << 10, "{peak} KiB");
    assert_shows_no_harm(&daemon);
    assert!(daemon.terminate().is_some(), "SIGTERM does not end it");
}

/// Checks that the log and the pages have neither the password nor what a terminal would obey.
fn assert_shows_no_harm(daemon: &Daemon) {
    let pages = ["/", "/metrics", "/api/v1/status"].map(|page| daemon.get(page));
    for text in [&daemon.log(), &pages[0], &pages[1], &pages[2]] {
        assert!(text.contains("hostile-redis-6"), "{text}");
        for part in [SECRET, "hunter"] {
            let line = text.lines().find(|line| line.contains(part));
            assert_eq!(line, None, "{part}");
        }
        let is_harmful =
            |char: &char| char.is_control() && !"\r\n\t".contains(*char) || *char == '\u{202e}';
        assert_eq!(text.chars().find(is_harmful), None);
    }
}
