//! One question put to one DNS server, over UDP and, if the reply is truncated, over TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time;

use super::counts::Counts;
use super::wire::{Edns, Question, Reply, ServerFailure};

/// The time for a question over TCP, once a UDP reply was truncated.
const TCP_TIMEOUT: Duration = Duration::from_secs(2);

const MAX_MESSAGE_SIZE: usize = 65_535;

/// The most messages of one socket that are no reply to its question. More of them are a flood.
const MAX_UNRELATED: usize = 64;

/// The result of a question to one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    Replied(Reply),
    /// The reply was truncated, and there was none over TCP.
    TruncatedOnly,
    Unreachable(io::ErrorKind),
    /// This host has no socket for the question. The number is the error of the system.
    NoSocket(i32),
}

/// The means of all questions. It holds one buffer for all, because a message is read at once.
#[derive(Debug)]
pub(super) struct Transport {
    buffer: Mutex<Vec<u8>>,
    counts: Counts,
}

impl Transport {
    pub(super) fn new(counts: Counts) -> Self {
        Self { buffer: Mutex::new(vec![0; MAX_MESSAGE_SIZE]), counts }
    }

    /// Asks one server, and returns it with the result. Waits for as long as the server is silent.
    /// No more than one socket is open at a time. `queries` counts what is sent.
    pub(super) async fn attempt(
        &self,
        server: SocketAddr,
        question: &Question,
        queries: &AtomicUsize,
    ) -> (SocketAddr, Attempt) {
        let count = || queries.fetch_add(1, Ordering::Relaxed);
        count();
        let mut attempt = self.over_udp(server, question, Edns::Offered).await;
        if attempt == Attempt::Replied(Reply::EdnsRejected) {
            count();
            attempt = self.over_udp(server, question, Edns::Omitted).await;
        }
        if attempt == Attempt::Replied(Reply::Truncated) {
            count();
            attempt = match time::timeout(TCP_TIMEOUT, over_tcp(server, question)).await {
                Ok(Ok(reply)) => Attempt::Replied(reply),
                Ok(Err(_)) | Err(_) => Attempt::TruncatedOnly,
            };
        }
        (server, attempt)
    }

    /// Asks over a socket of its own.
    async fn over_udp(&self, server: SocketAddr, question: &Question, edns: Edns) -> Attempt {
        let local: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = match UdpSocket::bind((local, 0)).await {
            Ok(socket) => socket,
            Err(error) => return Attempt::NoSocket(error.raw_os_error().unwrap_or_default()),
        };
        match self.exchange(&socket, server, question, edns).await {
            Ok(reply) => Attempt::Replied(reply),
            Err(error) => Attempt::Unreachable(error.kind()),
        }
    }

    /// Sends a query, and receives its reply. The socket is connected, so that the kernel drops
    /// what comes from elsewhere and reports a closed port at once.
    async fn exchange(
        &self,
        socket: &UdpSocket,
        server: SocketAddr,
        question: &Question,
        edns: Edns,
    ) -> io::Result<Reply> {
        socket.connect(server).await?;
        let id = random_u16();
        socket.send(&question.to_bytes(id, edns)).await?;
        for _ in 0..MAX_UNRELATED {
            match self.receive(socket, question, id, edns).await? {
                Reply::Unrelated => self.counts.record_unrelated(),
                reply => return Ok(reply),
            }
        }
        Ok(Reply::Failed(ServerFailure::Flood))
    }

    async fn receive(
        &self,
        socket: &UdpSocket,
        question: &Question,
        id: u16,
        edns: Edns,
    ) -> io::Result<Reply> {
        loop {
            // "Port unreachable" is an error of the socket, and makes nothing readable.
            let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
            if ready.is_error() {
                let clear = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
                let _ = socket.try_io(Interest::ERROR, clear);
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
            }
            let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            match socket.try_recv(&mut buffer) {
                Ok(length) => return Ok(question.read(&buffer[..length], id, edns)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Question) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random_u16();
    let query = question.to_bytes(id, Edns::Omitted);
    let length = u16::try_from(query.len()).expect("a question is short").to_be_bytes();
    stream.write_all(&[&length[..], &query].concat()).await?;
    let length = stream.read_u16().await?;
    // The buffer grows with what comes, so a server that only promises much costs nothing.
    let mut reply = Vec::new();
    stream.take(length.into()).read_to_end(&mut reply).await?;
    if reply.len() < usize::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(match question.read(&reply, id, Edns::Omitted) {
        Reply::Truncated | Reply::Unrelated | Reply::EdnsRejected => {
            Reply::Failed(ServerFailure::Garbage)
        }
        reply => reply,
    })
}

/// Returns a random number. The ID of a query must not be guessed (RFC 5452).
pub(super) fn random_u16() -> u16 {
    let mut bytes = [0; 2];
    // It fails only on a kernel without the call, before Linux 3.17.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}
