//! The targets: one epoll program whose sockets on 0.0.0.0 answer for every address of the benchmark's network.

use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::{filter, machine};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
const GARBAGE: &[u8] = b"\x00\xff\x16\x03\xfe\x80 \r\r\n\n\n: :\x7f\x00";
/// Between two bytes of a drip.
const DRIP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How the targets of one port behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Accepts, and reads until the other side has gone.
    Drain,
    /// Answers a request with a short page, and closes.
    Http,
    /// Accepts, and never says a word.
    Silent,
    /// Sends an endless header, one byte at a time.
    Drip,
    /// Accepts, and resets at once.
    Reset,
    /// Says what no protocol knows, and closes.
    Garbage,
}

/// Targets on one port that can stop; they never accept, which a quiet check doesn't ask for.
pub struct Stoppable(OwnedFd);

impl Stoppable {
    pub fn listen(port: u16) -> Result<Self> {
        Ok(Self(listen(port)?))
    }

    /// From now on, connections are refused.
    pub fn refuse(self) {
        drop(self.0);
    }

    /// From now on every packet vanishes, as from a machine that lost its power.
    pub fn swallow(&self) -> Result<()> {
        filter::attach(&self.0, &filter::NOTHING)
    }
}

/// What the targets did, as they saw it.
#[derive(Default)]
pub struct Counts {
    /// Requests answered.
    pub answered: AtomicU64,
    /// Connections that the targets' program saw.
    pub accepted: AtomicU64,
}

/// Starts a thread that serves these ports for as long as the program lives.
pub fn start(cpu: usize, ports: &[(u16, Manner)]) -> Result<Arc<Counts>> {
    let counts = Arc::new(Counts::default());
    let mut server = Server {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        listeners: Vec::new(),
        connections: Vec::new(),
        dripping: Vec::new(),
        counts: Arc::clone(&counts),
    };
    for (port, manner) in ports {
        let socket = listen(*port)?;
        let data = epoll::EventData::new_u64(LISTENER | server.listeners.len() as u64);
        epoll::add(&server.epoll, &socket, data, epoll::EventFlags::IN)?;
        server.listeners.push((socket, *manner));
    }
    thread::Builder::new().name("targets".into()).spawn(move || {
        machine::pin(cpu).expect("a CPU for the targets");
        server.serve().expect("the targets serve");
    })?;
    Ok(counts)
}

fn listen(port: u16) -> Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    net::bind(&socket, &address).with_context(|| address.to_string())?;
    net::listen(&socket, 65535)?;
    Ok(socket)
}

/// Marks an event as that of a listener; others carry the descriptor of a connection.
const LISTENER: u64 = 1 << 63;

struct Server {
    epoll: OwnedFd,
    listeners: Vec<(OwnedFd, Manner)>,
    /// By descriptor.
    connections: Vec<Option<(OwnedFd, Manner)>>,
    dripping: Vec<RawFd>,
    counts: Arc<Counts>,
}

impl Server {
    fn serve(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(1024);
        let mut buffer = Vec::with_capacity(16 << 10);
        loop {
            let wait = (!self.dripping.is_empty()).then_some(&DRIP);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), wait) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let data = event.data.u64();
                if data & LISTENER == 0 {
                    self.hear(data as usize, &mut buffer);
                } else {
                    self.accept((data ^ LISTENER) as usize)?;
                }
            }
            if wait.is_some() {
                self.drip();
            }
        }
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        loop {
            let (socket, manner) = &self.listeners[listener];
            let manner = *manner;
            let connection =
                match net::accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    Ok(connection) => connection,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::CONNABORTED | Errno::INTR) => continue,
                    Err(error) => return Err(error).context("accept"),
                };
            self.counts.accepted.fetch_add(1, Ordering::Relaxed);
            match manner {
                Manner::Reset => {
                    sockopt::set_socket_linger(&connection, Some(std::time::Duration::ZERO))?
                }
                Manner::Garbage => drop(net::send(&connection, GARBAGE, SendFlags::NOSIGNAL)),
                Manner::Drain | Manner::Http | Manner::Silent | Manner::Drip => {
                    self.keep(connection, manner)?
                }
            }
        }
    }

    fn keep(&mut self, connection: OwnedFd, manner: Manner) -> Result<()> {
        let number = connection.as_raw_fd();
        let at = usize::try_from(number)?;
        epoll::add(
            &self.epoll,
            &connection,
            epoll::EventData::new_u64(at as u64),
            epoll::EventFlags::IN,
        )?;
        if self.connections.len() <= at {
            self.connections.resize_with(at + 1, || None);
        }
        self.connections[at] = Some((connection, manner));
        if manner == Manner::Drip {
            let (connection, _) = self.connections[at].as_ref().context("kept just now")?;
            let _ = net::send(connection, b"HTTP/1.1 200 OK\r\nX-Drip: ", SendFlags::NOSIGNAL);
            self.dripping.push(number);
        }
        Ok(())
    }

    /// The other side spoke or went.
    fn hear(&mut self, at: usize, buffer: &mut Vec<u8>) {
        let Some((connection, manner)) = &self.connections[at] else { return };
        buffer.clear();
        let read = net::recv(connection.as_fd(), spare_capacity(buffer), RecvFlags::empty())
            .map(|(read, _)| read);
        let done = match (read, manner) {
            (Err(Errno::AGAIN | Errno::INTR), _) => false,
            (Err(_) | Ok(0), _) => true,
            // A checker's request comes in one piece.
            (Ok(_), Manner::Http) if buffer.ends_with(b"\r\n\r\n") => {
                if net::send(connection.as_fd(), ANSWER, SendFlags::NOSIGNAL).is_ok() {
                    self.counts.answered.fetch_add(1, Ordering::Relaxed);
                }
                true
            }
            (Ok(_), _) => false,
        };
        if done {
            self.connections[at] = None;
        }
    }

    fn drip(&mut self) {
        let connections = &self.connections;
        // A descriptor may have gone to another connection since: then that one gets a byte, or none if it doesn't drip.
        self.dripping.retain(|number| match &connections[number.cast_unsigned() as usize] {
            Some((connection, Manner::Drip)) => {
                net::send(connection, b"x", SendFlags::NOSIGNAL).is_ok()
            }
            _ => false,
        });
    }
}
