use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use rustix::event::{EventfdFlags, PollFlags};

use super::*;
use crate::config::{CheckKind, HttpCheck, Scheme, TcpCheck, Tls};
use crate::probe::conversation::{ConnectFailure, Conversation, Ending, Protocol, Transport};
use crate::probe::kind::PlainProtocol;
use crate::probe::observation::Observed;
use crate::probe::phase::{Phase, ProbeResult};
use crate::probe::target::Target;

const TIMEOUT: Duration = Duration::from_secs(5);

fn fast_check(check: &CheckKind) -> Arc<FastCheck> {
    let check = FastCheck::new(check, TIMEOUT, &Target::local());
    Arc::new(check.expect("a fast check"))
}

fn http(port: u16) -> Arc<FastCheck> {
    fast_check(&CheckKind::Http(HttpCheck {
        port,
        path: "/".into(),
        scheme: Scheme::Http,
        method: "GET".into(),
        host: None,
        headers: Vec::new(),
        expected_statuses: vec![200..=200],
        expected_body: None,
        http2: false,
        tls: Tls::default(),
    }))
}

/// Waits until all sockets have an event.
fn wait_until_ready(reactor: &Reactor, flags: PollFlags) {
    let mut sockets: Vec<_> =
        reactor.probes.iter().map(|probe| PollFd::new(&probe.socket, flags)).collect();
    while sockets.iter().any(|socket| socket.revents().is_empty()) {
        event::poll(&mut sockets, None).unwrap();
    }
}

#[test]
fn a_turn_reads_a_bounded_amount_and_the_next_the_rest() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reactor = Reactor::new().unwrap();
    let (now, mut ended) = (clock::now(), Vec::new());
    assert!(reactor.start(0, &http(listener.local_addr().unwrap().port()), now).is_none());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream
    });
    while !server.is_finished() {
        reactor.wait(Duration::from_millis(1)).unwrap();
        reactor.drain(now, |completion| ended.push(completion)).unwrap();
    }
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n", "y".repeat(60 << 10));
    let mut stream = server.join().unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let received = |reactor: &Reactor| {
        rustix::io::ioctl_fionread(&reactor.probes.iter().next().unwrap().socket).unwrap()
    };
    while received(&reactor) < head.len() as u64 {
        thread::yield_now();
    }
    let mut turns = 0;
    while ended.is_empty() {
        // No event ends any of these waits but the first.
        reactor.wait(TIMEOUT).unwrap();
        reactor.drain(now, |completion| ended.push(completion)).unwrap();
        turns += 1;
    }
    assert_eq!((&ended[0].verdict, turns), (&Verdict::Pass, 4));
    assert!(clock::now().saturating_duration_since(now) < TIMEOUT);
}

/// Starts an HTTP probe, and advances it in two turns without an event until it has asked.
fn asked() -> (Reactor, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reactor = Reactor::new().unwrap();
    let now = clock::now();
    assert!(reactor.start(0, &http(listener.local_addr().unwrap().port()), now).is_none());
    wait_until_ready(&reactor, PollFlags::OUT);
    for _ in 0..2 {
        reactor.wait(Duration::ZERO).unwrap();
        reactor.drain(now, |_| panic!("no answer has come")).unwrap();
    }
    let (mut stream, _) = listener.accept().unwrap();
    assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
    (reactor, stream)
}

fn is_watched(reactor: &Reactor) -> bool {
    reactor.probes.iter().all(|probe| probe.is_watched)
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn turns_that_do_not_block_need_no_epoll() {
    let (mut reactor, mut stream) = asked();
    stream.write_all(ANSWER).unwrap();
    wait_until_ready(&reactor, PollFlags::IN);
    assert!(!is_watched(&reactor));
    let mut verdicts = Vec::new();
    reactor.drain(clock::now(), |completion| verdicts.push(completion.verdict)).unwrap();
    assert_eq!(verdicts, [Verdict::Pass]);
}

#[test]
fn epoll_watches_what_has_nothing_to_do_in_the_next_turn() {
    let (mut reactor, mut stream) = asked();
    assert!(!is_watched(&reactor));
    reactor.drain(clock::now(), |_| panic!("no answer has come")).unwrap();
    assert!(is_watched(&reactor));
    stream.write_all(ANSWER).unwrap();
    let mut verdicts = Vec::new();
    while verdicts.is_empty() {
        reactor.wait(TIMEOUT).unwrap();
        reactor.drain(clock::now(), |completion| verdicts.push(completion.verdict)).unwrap();
    }
    assert_eq!(verdicts, [Verdict::Pass]);
}

#[test]
fn a_wait_that_blocks_ends_with_an_event_of_any_probe() {
    let (mut reactor, mut stream) = asked();
    let began = clock::now();
    stream.write_all(ANSWER).unwrap();
    let mut verdicts = Vec::new();
    while verdicts.is_empty() {
        reactor.wait(TIMEOUT).unwrap();
        reactor.drain(began, |completion| verdicts.push(completion.verdict)).unwrap();
    }
    assert!(clock::now().saturating_duration_since(began) < TIMEOUT);
}

// More probes have an event than one turn handles, and all deadlines have passed. Epoll watches all
// of them or, as no wait has blocked, none.
#[test]
fn an_answer_that_waits_behind_others_is_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, probes) = (listener.local_addr().unwrap().port(), MAX_EVENTS + 50);
    let check = fast_check(&CheckKind::Tcp(TcpCheck {
        port,
        tls: None,
        send: None,
        expect: None,
        accept: false,
    }));
    for wait in [TIMEOUT, Duration::ZERO] {
        let mut reactor = Reactor::new().unwrap();
        let before = clock::now() - 3 * TIMEOUT;
        for token in 0..probes {
            assert!(reactor.start(token, &check, before).is_none());
        }
        wait_until_ready(&reactor, PollFlags::OUT);
        let mut verdicts = Vec::new();
        reactor.wait(wait).unwrap();
        let late = before + 2 * TIMEOUT;
        reactor.drain(late, |completion| verdicts.push(completion.verdict)).unwrap();
        assert_eq!(verdicts, vec![Verdict::Pass; probes], "after a wait of {wait:?}");
        assert!(reactor.is_empty());
    }
}

#[test]
fn the_shortest_timeout_is_that_of_a_probe_in_flight() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let check = |timeout| {
        let address = listener.local_addr().unwrap();
        let protocol = Arc::new(Recording::default());
        Arc::new(FastCheck::native(PlainProtocol { address, protocol }, timeout))
    };
    let (mut reactor, now) = (Reactor::new().unwrap(), clock::now());
    assert_eq!(reactor.shortest_timeout(), None);
    for (token, timeout) in [2 * TIMEOUT, TIMEOUT, 3 * TIMEOUT].into_iter().enumerate() {
        assert!(reactor.start(token, &check(timeout), now).is_none());
    }
    assert_eq!(reactor.shortest_timeout(), Some(TIMEOUT));
    reactor.drain(now + TIMEOUT, |completion| assert_eq!(completion.token, 1)).unwrap();
    assert_eq!(reactor.shortest_timeout(), Some(2 * TIMEOUT));
}

/// A protocol that keeps the ends of its probes.
#[derive(Default)]
struct Recording(Mutex<Vec<String>>);

impl Recording {
    fn push(&self, end: String) {
        self.0.lock().unwrap().push(end);
    }
}

impl Protocol for Recording {
    fn start(self: Arc<Self>, _: Transport, _: Instant) -> ProbeResult<Box<dyn Conversation>> {
        Ok(Box::new(RecordingConversation(self)))
    }

    fn on_connect_failure(&self, failure: ConnectFailure, _: Instant) {
        self.push(format!("{failure:?}"));
    }

    fn observed(&self) -> Option<Observed> {
        None
    }
}

struct RecordingConversation(Arc<Recording>);

impl Conversation for RecordingConversation {
    fn begin(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"hello ");
    }

    fn advance(&mut self, _: &mut &[u8], _: &mut Vec<u8>) -> Option<ProbeResult<()>> {
        None
    }

    fn phase(&self) -> Phase {
        Phase::Hello
    }

    fn ending(&self) -> Ending {
        Ending::Farewell(b"bye")
    }

    fn on_failure(&mut self, verdict: &Verdict) {
        self.0.push(verdict.reason().unwrap_or_default().to_owned());
    }
}

#[test]
fn a_probe_that_epoll_refuses_ends_as_its_protocol_wants() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let protocol = Arc::new(Recording::default());
    let plain =
        PlainProtocol { address: listener.local_addr().unwrap(), protocol: protocol.clone() };
    let check = Arc::new(FastCheck::native(plain, TIMEOUT));
    let (mut reactor, now) = (Reactor::new().unwrap(), clock::now());
    assert!(reactor.start(0, &check, now).is_none());
    wait_until_ready(&reactor, PollFlags::OUT);
    for _ in 0..2 {
        reactor.wait(Duration::ZERO).unwrap();
        reactor.drain(now, |_| panic!("no answer has come")).unwrap();
    }
    assert!(reactor.start(1, &check, now).is_none());
    // No epoll instance takes any more sockets, as this descriptor is none.
    reactor.epoll = Arc::new(event::eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    reactor.watch_all();
    let mut ended = Vec::new();
    reactor.drain(now, |completion| ended.push((completion.token, completion.verdict))).unwrap();
    let reason = "connect: this host cannot reach this kind of address";
    let verdict = Verdict::Inconclusive(reason.into());
    assert_eq!(ended, [(0, verdict.clone()), (1, verdict)]);
    assert!(reactor.is_empty());
    assert_eq!(*protocol.0.lock().unwrap(), [reason, "Local"]);
    let mut received = Vec::new();
    // It ends with a reset.
    let _ = listener.accept().unwrap().0.read_to_end(&mut received);
    assert_eq!(received, b"hello bye");
}
