//! The targets: one epoll program whose sockets on 0.0.0.0 answer for every address of the
//! benchmark's network.

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

use crate::protocol::Protocol;
use crate::{filter, machine};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
const GARBAGE: &[u8] = b"\x00\xff\x16\x03\xfe\x80 \r\r\n\n\n: :\x7f\x00";
/// The delay between two bytes of [`Behavior::Drip`].
const DRIP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The behavior of the targets of one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behavior {
    /// Accepts, and reads until the client closes.
    Drain,
    /// Answers a request with a short page and closes.
    Http,
    /// Accepts and sends nothing.
    Silent,
    /// Sends an endless header, one byte at a time.
    Drip,
    /// Accepts and resets.
    Reset,
    /// Sends bytes of no protocol and closes.
    Garbage,
    /// Speaks the protocol of a database.
    Native(Protocol),
}

/// Targets on one port that can stop. They never accept, as half-open checks don't need it.
pub(crate) struct Stoppable(OwnedFd);

impl Stoppable {
    pub(crate) fn listen(port: u16) -> Result<Self> {
        Ok(Self(listen(port)?))
    }

    /// Refuses connections from now on.
    pub(crate) fn refuse(self) {
        drop(self.0);
    }

    /// Loses every packet from now on, like a machine without power.
    pub(crate) fn black_hole(&self) -> Result<()> {
        filter::attach(&self.0, &filter::NOTHING)
    }
}

/// Counts of what the targets have served.
#[derive(Default)]
pub(crate) struct Counts {
    /// Requests answered.
    pub answered: AtomicU64,
    /// Connections that the targets' program saw.
    pub accepted: AtomicU64,
}

/// Starts a thread that serves these ports for the lifetime of the program.
pub(crate) fn start(cpu: usize, ports: &[(u16, Behavior)]) -> Result<Arc<Counts>> {
    let counts = Arc::new(Counts::default());
    let mut server = Server {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        listeners: Vec::new(),
        connections: Vec::new(),
        dripping: Vec::new(),
        counts: Arc::clone(&counts),
    };
    for (port, behavior) in ports {
        let socket = listen(*port)?;
        let data = epoll::EventData::new_u64(LISTENER | server.listeners.len() as u64);
        epoll::add(&server.epoll, &socket, data, epoll::EventFlags::IN)?;
        server.listeners.push((socket, *behavior));
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

/// Marks the events of listeners. Other events carry the descriptor of a connection.
const LISTENER: u64 = 1 << 63;

struct Server {
    epoll: OwnedFd,
    listeners: Vec<(OwnedFd, Behavior)>,
    /// The connections by descriptor.
    connections: Vec<Option<(OwnedFd, Behavior)>>,
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
                    self.on_readable(data as usize, &mut buffer);
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
            let (socket, behavior) = &self.listeners[listener];
            let behavior = *behavior;
            let connection =
                match net::accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    Ok(connection) => connection,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::CONNABORTED | Errno::INTR) => continue,
                    Err(error) => return Err(error).context("accept"),
                };
            self.counts.accepted.fetch_add(1, Ordering::Relaxed);
            match behavior {
                Behavior::Reset => {
                    sockopt::set_socket_linger(&connection, Some(std::time::Duration::ZERO))?
                }
                Behavior::Garbage => drop(net::send(&connection, GARBAGE, SendFlags::NOSIGNAL)),
                Behavior::Drain | Behavior::Http | Behavior::Silent | Behavior::Drip => {
                    self.keep(connection, behavior)?
                }
                Behavior::Native(protocol) => {
                    let greeting = protocol.greeting();
                    if !greeting.is_empty() {
                        let _ = net::send(&connection, greeting, SendFlags::NOSIGNAL);
                    }
                    self.keep(connection, behavior)?
                }
            }
        }
    }

    fn keep(&mut self, connection: OwnedFd, behavior: Behavior) -> Result<()> {
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
        self.connections[at] = Some((connection, behavior));
        if behavior == Behavior::Drip {
            let (connection, _) = self.connections[at].as_ref().context("kept just now")?;
            let _ = net::send(connection, b"HTTP/1.1 200 OK\r\nX-Drip: ", SendFlags::NOSIGNAL);
            self.dripping.push(number);
        }
        Ok(())
    }

    /// Handles data or the end of a connection.
    fn on_readable(&mut self, at: usize, buffer: &mut Vec<u8>) {
        let Some((connection, behavior)) = &self.connections[at] else { return };
        buffer.clear();
        let read = net::recv(connection.as_fd(), spare_capacity(buffer), RecvFlags::empty())
            .map(|(read, _)| read);
        let done = match (read, behavior) {
            (Err(Errno::AGAIN | Errno::INTR), _) => false,
            (Err(_) | Ok(0), _) => true,
            // A checker's request comes in one piece.
            (Ok(_), Behavior::Http) if buffer.ends_with(b"\r\n\r\n") => {
                if net::send(connection.as_fd(), ANSWER, SendFlags::NOSIGNAL).is_ok() {
                    self.counts.answered.fetch_add(1, Ordering::Relaxed);
                }
                true
            }
            (Ok(_), Behavior::Native(protocol)) => match protocol.answer(buffer) {
                Some(answer) => {
                    let sent = net::send(connection.as_fd(), &answer, SendFlags::NOSIGNAL);
                    self.counts.answered.fetch_add(u64::from(sent.is_ok()), Ordering::Relaxed);
                    sent.is_err()
                }
                None => true,
            },
            (Ok(_), _) => false,
        };
        if done {
            self.connections[at] = None;
        }
    }

    fn drip(&mut self) {
        let connections = &self.connections;
        // The descriptor may belong to another connection by now. That one gets a byte, or none if
        // it doesn't drip.
        self.dripping.retain(|number| match &connections[number.cast_unsigned() as usize] {
            Some((connection, Behavior::Drip)) => {
                net::send(connection, b"x", SendFlags::NOSIGNAL).is_ok()
            }
            _ => false,
        });
    }
}
