//! Shared fixtures: checks with every key at its default, servers that each misbehave in one way,
//! and timed probes.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use external_endpoints::config::{
    Check, CheckKind, DatabaseId, ExecCheck, HttpCheck, Scheme, TcpCheck, Tls, ValueSource,
};
use external_endpoints::health::{Thresholds, Verdict};
use external_endpoints::probe::{Prober, Target};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A timeout that is long enough for any answer on a busy machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(10);
/// A timeout for servers that never answer.
pub(crate) const SHORT: Duration = Duration::from_millis(500);

/// Waits until a check has this verdict.
pub(crate) async fn expect_verdict(kind: CheckKind, expected: Verdict) {
    let start = Instant::now();
    loop {
        let verdict = probe_once(kind.clone(), PATIENT).await;
        if verdict == expected {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{verdict:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn pass() -> Verdict {
    Verdict::Pass
}

pub(crate) fn fail(reason: impl Into<String>) -> Verdict {
    Verdict::Fail(reason.into())
}

pub(crate) fn inconclusive(reason: impl Into<String>) -> Verdict {
    Verdict::Inconclusive(reason.into())
}

pub(crate) fn literal(text: &str) -> ValueSource {
    ValueSource::Literal(text.into())
}

pub(crate) fn tcp(port: u16) -> TcpCheck {
    TcpCheck { port, tls: None, send: None, expect: None, accept: false }
}

pub(crate) fn http(port: u16) -> HttpCheck {
    HttpCheck {
        port,
        path: "/".into(),
        scheme: Scheme::Http,
        method: "GET".into(),
        host: None,
        headers: Vec::new(),
        expected_statuses: vec![200..=399],
        expected_body: None,
        http2: false,
        tls: Tls::default(),
    }
}

pub(crate) fn exec(command: &[&str]) -> ExecCheck {
    ExecCheck {
        command: command.iter().map(|word| word.to_string()).collect(),
        env: Vec::new(),
        working_directory: None,
        inconclusive_statuses: Vec::new(),
    }
}

pub(crate) fn target(ip: IpAddr) -> Target {
    Target {
        database: DatabaseId { namespace: "prod".into(), service: "orders".into() },
        ip,
        name: None,
        hostname: None,
        port: 5432,
    }
}

pub(crate) fn prober(kind: CheckKind, timeout: Duration) -> Prober {
    prober_for(kind, timeout, target(LOCAL))
}

pub(crate) fn prober_for(kind: CheckKind, timeout: Duration, target: Target) -> Prober {
    let thresholds = Thresholds { healthy: 2, unhealthy: 3 };
    let (interval, recheck_interval) = (Duration::from_secs(5), Duration::from_secs(1));
    let check = Check { kind, interval, timeout, recheck_interval, thresholds };
    Prober::new(Arc::new(check), target)
}

/// Probes the local host once. The probe must end soon after its timeout.
pub(crate) async fn probe_once(kind: CheckKind, timeout: Duration) -> Verdict {
    timed(&prober(kind, timeout), timeout).await
}

pub(crate) async fn timed(prober: &Prober, timeout: Duration) -> Verdict {
    let start = Instant::now();
    let verdict = prober.probe().await;
    let took = start.elapsed();
    assert!(
        took < timeout + Duration::from_secs(2),
        "{verdict:?} took {took:?} with a time-out of {timeout:?}"
    );
    verdict
}

/// A server on a port of its own, which ends when it is dropped.
pub(crate) struct Server {
    pub port: u16,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a server that handles each connection by `serve`.
    pub(crate) async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream));
            }
        });
        Self { port, accepted, task }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Starts a server that accepts and sends nothing.
    pub(crate) async fn silent() -> Self {
        Self::start(|stream| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        })
        .await
    }

    /// Starts a server that sends one byte of an endless answer every second.
    pub(crate) async fn drip() -> Self {
        Self::start(|mut stream| async move {
            while stream.write_all(b"H").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
        .await
    }

    /// Starts a server that resets the connection after the client's first bytes.
    pub(crate) async fn reset() -> Self {
        Self::start(|mut stream| async move {
            let _ = stream.read(&mut [0; 1]).await;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        })
        .await
    }

    /// Starts a server that reads everything and closes in an orderly way after the client's first
    /// bytes.
    pub(crate) async fn closes() -> Self {
        Self::start(|mut stream| async move {
            let _ = stream.read(&mut [0; 65536]).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await
    }

    /// Starts a server that sends this after the client's first bytes, and waits.
    pub(crate) async fn says(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |mut stream| {
            let answer = answer.clone();
            async move {
                let _ = stream.read(&mut [0; 65536]).await;
                let _ = stream.write_all(&answer).await;
                std::future::pending::<()>().await;
            }
        })
        .await
    }

    /// Puts TLS in front of this server. Answers, closes and resets pass through it.
    pub(crate) async fn in_tls(self, acceptor: TlsAcceptor) -> Self {
        Self::in_tls_of(&Arc::new(self), b"", 0, b"", acceptor).await
    }

    /// Puts a server in front of one that reads first, which makes it answer at once.
    pub(crate) async fn nudging(server: &Arc<Self>) -> Self {
        let inner = server.clone();
        Self::start(move |mut outer| {
            let inner = inner.clone();
            async move {
                let mut stream = TcpStream::connect((LOCAL, inner.port)).await.unwrap();
                let _ = stream.write_all(b"?").await;
                if tokio::io::copy_bidirectional(&mut outer, &mut stream).await.is_err() {
                    SockRef::from(&outer).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
        })
        .await
    }

    /// Puts TLS in front of a server, which begins after a greeting, a request of so many bytes and
    /// a grant.
    pub(crate) async fn in_tls_of(
        server: &Arc<Self>,
        greeting: &'static [u8],
        request: usize,
        grant: &'static [u8],
        acceptor: TlsAcceptor,
    ) -> Self {
        let inner = server.clone();
        Self::start(move |mut stream| {
            let (acceptor, inner) = (acceptor.clone(), inner.clone());
            async move {
                let _ = stream.write_all(greeting).await;
                if stream.read_exact(&mut vec![0; request]).await.is_err() {
                    return;
                }
                let _ = stream.write_all(grant).await;
                let Ok(mut outer) = acceptor.accept(stream).await else {
                    return;
                };
                let mut stream = TcpStream::connect((LOCAL, inner.port)).await.unwrap();
                if tokio::io::copy_bidirectional(&mut outer, &mut stream).await.is_err() {
                    SockRef::from(outer.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
        })
        .await
    }

    /// Starts a server that sends the head, and then the words again and again after each pause.
    pub(crate) async fn drips(head: &'static str, words: &'static str, pause: Duration) -> Self {
        Self::start(move |mut stream| async move {
            let _ = stream.set_nodelay(true);
            let _ = stream.read(&mut [0; 65536]).await;
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(words.as_bytes()).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        })
        .await
    }

    /// Starts a server that sends the head, and then the rest without end.
    pub(crate) async fn endless(head: &'static str, rest: &'static str) -> Self {
        Self::start(move |mut stream| async move {
            let _ = stream.read(&mut [0; 65536]).await;
            let _ = stream.write_all(head.as_bytes()).await;
            let rest = rest.repeat(4096);
            while stream.write_all(rest.as_bytes()).await.is_ok() {}
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port that refuses connections: bound, so that no other program gets it, but not listening.
pub(crate) struct Refusing(socket2::Socket);

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::new(LOCAL, 0).into()).unwrap();
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().as_socket().unwrap().port()
    }
}

/// A port whose queue is full, so that the kernel drops every SYN, as for a dead host.
pub(crate) struct BlackHole {
    listener: socket2::Socket,
    _queued: std::net::TcpStream,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&std::net::SocketAddr::new(LOCAL, 0).into()).unwrap();
        // A queue of length zero holds one connection.
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        Self { _queued: std::net::TcpStream::connect(address).unwrap(), listener }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().as_socket().unwrap().port()
    }
}

/// Waits until the condition holds, as long as a busy machine may take.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(20), "not so after 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits like [`eventually`], for a condition that takes a while to find out.
pub(crate) async fn eventually_async(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < Duration::from_secs(60), "not so after 60 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the number of half-open probes, out of this many, whose connection a server may accept
/// nevertheless. The kernel delays the last packet of the handshake for some 40 ms, and a busy
/// machine may suspend a probe for longer between the connect and the close.
pub(crate) fn late(probes: usize) -> usize {
    probes / 50
}
