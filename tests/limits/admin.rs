//! The clients of the admin port: whatever they do, the kubelet's probes are answered at once, and
//! the checks continue.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::daemon::{Daemon, eventually, program};
use crate::{config, in_own_network, slow_server};

/// The timeout of the kubelet's probes, as in deploy/.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of failures in a row after which the kubelet kills a Pod.
const FAILURE_THRESHOLD: u32 = 3;

/// Half of the memory of a Pod, as in deploy/.
const MEMORY: u64 = 64 << 20;

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn connect(address: SocketAddr, from: impl Into<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from.into(), 0).into())?;
    socket.connect_timeout(&address.into(), PROBE_TIMEOUT)?;
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(PROBE_TIMEOUT))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = connect(address, Ipv4Addr::LOCALHOST)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A client that requests /healthz all the time.
struct Kubelet {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Kubelet {
    fn start(daemon: &Daemon) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, address) = (stop.clone(), daemon.pages());
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            let mut failed = 0;
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                let answer = ask(address, "/healthz");
                let is_good =
                    answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "));
                failed = if is_good { 0 } else { failed + 1 };
                assert!(failed < FAILURE_THRESHOLD, "{answer:?}");
                longest = longest.max(start.elapsed());
                thread::sleep(Duration::from_millis(20));
            }
            longest
        });
        Self { stop, thread }
    }

    /// Stops the client. Returns the longest wait for an answer.
    fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("each of its probes was answered")
    }
}

/// Returns the number of open connections to a port of this network.
fn connections(port: u16) -> usize {
    let port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_open = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&port) && fields[3] == "01"
    };
    table.lines().skip(1).filter(is_open).count()
}

/// Starts a daemon with a check that passes, and raises the descriptor limit of the test.
fn daemon(targets: usize, within: &[&str]) -> (TempDir, Daemon) {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let folder = config(targets, slow_server(), "{http: {}, interval: 1s, timeout: 1s}");
    let daemon = Daemon::start(within, &folder.path().join("config.yaml"), &[]);
    (folder, daemon)
}

/// Attacks a daemon for some rounds of its checks, and checks that nothing else suffers. The
/// clients stay connected meanwhile.
fn withstands(targets: usize, within: &[&str], attack: impl FnOnce(&Daemon) -> Vec<TcpStream>) {
    let (_folder, daemon) = daemon(targets, within);
    eventually("each has passed", || {
        (daemon.metric("checks_total", "pass") >= targets as f64).then_some(())
    });
    let kubelet = Kubelet::start(&daemon);
    let clients = attack(&daemon);
    let passed = daemon.metric("checks_total", "pass");
    eventually("checks go on", || {
        (daemon.metric("checks_total", "pass") >= passed + 3.0 * targets as f64).then_some(())
    });
    let waited = kubelet.end();
    drop(clients);
    let (memory, log) = (daemon.peak_memory(), daemon.log());
    println!("waited {waited:?} for /healthz; {memory} bytes of memory");
    assert!(waited < PROBE_TIMEOUT, "/healthz took {waited:?}");
    assert!(memory < MEMORY, "{memory} bytes of memory");
    assert_eq!(daemon.metric("checks_total", "fail"), 0.0, "{log}");
    assert_eq!(daemon.metric("checks_total", "inconclusive"), 0.0, "{log}");
    assert_eq!(daemon.metric("config_last_load_successful", ""), 1.0, "{log}");
}

#[test]
fn unfinished_heads_of_380_kilobytes_take_no_memory() {
    in_own_network("admin::unfinished_heads_here");
}

#[test]
#[ignore = "run by unfinished_heads_of_380_kilobytes_take_no_memory"]
fn unfinished_heads_here() {
    withstands(10, &[], |daemon| {
        let head = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(380_000));
        let open = || {
            let mut stream = connect(daemon.pages(), ATTACKER).expect("a connection");
            // The daemon refuses it before its end.
            let _ = stream.write_all(head.as_bytes());
            stream
        };
        (0..600).map(|_| open()).collect()
    });
}

#[test]
fn thousands_of_half_requests_block_no_client() {
    in_own_network("admin::half_requests_here");
}

#[test]
#[ignore = "run by thousands_of_half_requests_block_no_client"]
fn half_requests_here() {
    withstands(10, &[], |daemon| {
        // From many addresses, the kubelet's included.
        let open = |number: u32| {
            let from = Ipv4Addr::from_bits(ATTACKER.to_bits() - 1 + number % 200);
            let mut stream = connect(daemon.pages(), from).expect("a connection");
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n");
            stream
        };
        (0..3000).map(open).collect()
    });
}

#[test]
fn idle_connections_take_no_descriptor_from_a_check() {
    in_own_network("admin::idle_connections_here");
}

#[test]
#[ignore = "run by idle_connections_take_no_descriptor_from_a_check"]
fn idle_connections_here() {
    withstands(100, &["prlimit", "--nofile=256:256"], |daemon| {
        let clients =
            (0..400).map(|_| connect(daemon.pages(), ATTACKER).expect("a connection")).collect();
        let descriptors = daemon.descriptors();
        assert!(descriptors < 200, "{descriptors} descriptors are open");
        clients
    });
}

#[test]
fn readers_that_stall_hold_little_and_are_dropped() {
    in_own_network("admin::stalled_readers_here");
}

#[test]
#[ignore = "run by readers_that_stall_hold_little_and_are_dropped"]
fn stalled_readers_here() {
    withstands(1000, &[], |daemon| {
        let open = |number: u32| {
            let paths = ["/metrics", "/api/v1/status", "/", "/databases/b/a"];
            let path = paths[number as usize % paths.len()];
            let encoding = if number % 8 > 3 { "gzip" } else { "identity" };
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            // A small buffer, so that the kernel does not take the whole page.
            socket.set_recv_buffer_size(4096).unwrap();
            socket.bind(&SocketAddr::new(ATTACKER.into(), 0).into()).unwrap();
            socket.connect(&daemon.pages().into()).unwrap();
            let mut stream = TcpStream::from(socket);
            let head = format!("Host: a\r\nAccept: text/html\r\nAccept-Encoding: {encoding}");
            write!(stream, "GET {path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
            stream
        };
        let mut clients: Vec<TcpStream> = (0..10).map(open).collect();
        // The daemon accepts them, and frees their slots when they have read nothing for 10 s.
        let mut first = clients.swap_remove(0);
        let mut more = (0..200).map(open).collect();
        clients.append(&mut more);
        let busy = eventually("there is no more place", || {
            let answer = ask(daemon.pages(), "/metrics").unwrap();
            answer.starts_with("HTTP/1.1 503 ").then_some(answer)
        });
        assert!(busy.contains("\r\nretry-after: 1\r\n"), "{busy}");
        // A connection of the kubelet's client may be open.
        eventually("they are dropped", || (connections(daemon.pages().port()) <= 1).then_some(()));
        assert!(ask(daemon.pages(), "/metrics").unwrap().starts_with("HTTP/1.1 200 "));
        let mut page = Vec::new();
        let _ = first.read_to_end(&mut page);
        let start = String::from_utf8_lossy(&page[..page.len().min(200)]);
        let length = page.len();
        assert!(!page.ends_with(b"0\r\n\r\n"), "it got its whole page of {length}: {start}");
        clients
    });
}

#[test]
fn a_compressed_page_is_the_page() {
    in_own_network("admin::compressed_pages_here");
}

#[test]
#[ignore = "run by a_compressed_page_is_the_page"]
fn compressed_pages_here() {
    let (_folder, daemon) = daemon(1000, &[]);
    for (path, end, target) in [
        ("/metrics", "\n", "198.18.3.250"),
        ("/api/v1/status", "]}", "\"address\":\"198.18.3.250\""),
        ("/", "</html>\n", ">198.18.3.250<"),
    ] {
        // HTTP/1.0 has no chunks.
        let request = |more: &str| {
            format!("GET {path} HTTP/1.0\r\nHost: a\r\nAccept: text/html\r\n{more}\r\n")
        };
        let get = |more: &str| {
            let mut stream = connect(daemon.pages(), ATTACKER).unwrap();
            stream.write_all(request(more).as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let end = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
            let body = answer.split_off(end + 4);
            (String::from_utf8(answer).unwrap(), body)
        };
        let (head, plain) = get("");
        assert!(head.contains("\r\nvary: accept-encoding\r\n"), "{head}");
        assert!(!head.contains("content-encoding"), "{head}");
        let (head, body) = get("Accept-Encoding: br, gzip\r\n");
        assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
        assert!(body.len() * 6 < plain.len(), "{} of {} bytes", body.len(), plain.len());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
        assert!(text.ends_with(end), "it has no end: {:?}", &text[text.len() - 100..]);
        let targets = |page: &str| page.matches(target).count();
        assert!(targets(&text) > 0);
        assert_eq!(targets(&text), targets(&String::from_utf8(plain).unwrap()));
    }
}

/// Sends this, and returns the answer until the connection is closed, with the time it took.
fn exchange(daemon: &Daemon, sent: &str) -> (String, Duration) {
    let mut stream = connect(daemon.pages(), ATTACKER).unwrap();
    let start = Instant::now();
    stream.write_all(sent.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The connection may be reset.
    let _ = stream.read_to_end(&mut answer);
    (String::from_utf8(answer).unwrap(), start.elapsed())
}

#[test]
fn each_connection_is_bounded_in_time_and_size() {
    in_own_network("admin::bounds_here");
}

#[test]
#[ignore = "run by each_connection_is_bounded_in_time_and_size"]
fn bounds_here() {
    let (_folder, daemon) = daemon(1, &[]);
    for (sent, answers) in [
        ("", 0),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n", 0),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET", 2),
        ("POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n", 1),
    ] {
        let (answer, time) = exchange(&daemon, sent);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), answers, "{sent:?}: {answer}");
        assert!(time < Duration::from_secs(15), "{sent:?} was waited on for {time:?}");
        assert!(
            answers > 0 || time >= Duration::from_secs(4),
            "{sent:?} got {time:?} for its head"
        );
    }
    let head = |length| {
        format!("GET /healthz HTTP/1.1\r\nConnection: close\r\nA: {}\r\n\r\n", "a".repeat(length))
    };
    assert!(exchange(&daemon, &head(15 << 10)).0.starts_with("HTTP/1.1 200 "));
    assert!(exchange(&daemon, &head(17 << 10)).0.starts_with("HTTP/1.1 431 "));
}

#[test]
fn a_shortage_of_descriptors_is_no_bad_config() {
    let folder = config(1, 1, "{exec: {command: [/bin/true]}, interval: 1s, timeout: 1s}");
    let mut daemon = Daemon::start(&[], &folder.path().join("config.yaml"), &[]);
    eventually("it checks", || (daemon.metric("checks_total", "pass") >= 1.0).then_some(()));
    let id = rustix::process::Pid::from_raw(daemon.id().cast_signed());
    let before = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), maximum: before.maximum };
    // No file can be opened any more, and no connection accepted.
    rustix::process::prlimit(id, Resource::Nofile, none).unwrap();
    let mut waiting = connect(daemon.pages(), ATTACKER).unwrap();
    write!(waiting, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    eventually("both are on the log", || {
        let log = daemon.log();
        (log.contains("config.yaml: can't be read now: Too many open files")
            && log.contains("can't be accepted"))
        .then_some(())
    });
    assert_eq!(daemon.exit_status(), None);
    rustix::process::prlimit(id, Resource::Nofile, before).unwrap();
    let mut page = String::new();
    waiting.read_to_string(&mut page).unwrap();
    assert!(page.contains("\nexternal_endpoints_config_last_load_successful 1\n"), "{page}");
    let log = daemon.log();
    assert!(!log.contains("bad"), "{log}");
    assert_eq!(log.matches("can't be").count(), 2, "it is logged once: {log}");
}

#[test]
fn a_start_without_descriptors_says_so() {
    let folder = config(1, 1, "{tcp: {}}");
    // From the config's first descriptor to more than the daemon itself has open.
    for few in 10..24 {
        let mut command = program(&["prlimit", &format!("--nofile={few}:{few}")]);
        command
            .args(["run", "--dry-run", "--listen=127.0.0.1:0", "--config"])
            .arg(folder.path().join("config.yaml"));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
            said += &(line + "\n");
            if said.contains("checking databases=1") {
                let _ = child.kill();
            }
        }
        let status = child.wait().unwrap();
        assert!(!said.contains("panicked"), "{few}: {said}");
        match status.code() {
            Some(1) => assert!(said.contains("Too many open files"), "{few}: {said}"),
            code => assert_eq!(code, None, "{few}: {said}"),
        }
    }
}
