//! The start and the outcome of a TCP connect, and whose fault a failure is.
//!
//! | error | comes from | verdict |
//! | --- | --- | --- |
//! | at once, from `socket` or `connect` | this host: ports, routes, firewall | inconclusive |
//! | at once, refused | a reset over the loopback interface | fail |
//! | later, as `SO_ERROR` | the target, or ICMP from a router on the way | fail |
//!
//! A report of a router can never come at once. Linux locks the socket while `connect` sends the
//! SYN, keeps an ICMP error that arrives meanwhile as a soft error, and reports it at the first
//! retransmission, a second later. The error of a failed neighbour discovery (ARP), for an address
//! of the same subnet that no host has, comes later too.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpStream;

use crate::health::Verdict;
use crate::probe::phase::{Phase, ProbeResult};

/// Creates a non-blocking socket. Closing it sends a reset, at once and without TIME_WAIT on either
/// side.
pub(crate) fn socket(address: SocketAddr) -> ProbeResult<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, Some(net::ipproto::TCP))
        .map_err(local_error)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).map_err(local_error)?;
    Ok(socket)
}

/// Starts to connect.
pub(crate) fn start(socket: &OwnedFd, address: SocketAddr) -> ProbeResult<()> {
    match net::connect(socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(errno @ (Errno::CONNREFUSED | Errno::CONNRESET)) => {
            Err(Phase::Connect.io_error(&errno.into()))
        }
        Err(errno) => Err(local_error(errno)),
    }
}

/// Returns the outcome of a connect, once the socket is writable or has an error.
pub(crate) fn outcome(socket: impl AsFd) -> ProbeResult<()> {
    let outcome = sockopt::socket_error(socket).map_err(local_error)?;
    outcome.map_err(|errno| Phase::Connect.io_error(&errno.into()))
}

/// Rejects a connection of a socket with itself, as refused.
///
/// The kernel may assign to a socket the very local port that it connects to, if no program listens
/// on that port.
pub(crate) fn reject_self_connection(socket: impl AsFd, address: SocketAddr) -> ProbeResult<()> {
    let own = net::getsockname(socket).map_err(local_error)?;
    if own == net::SocketAddrAny::from(address) {
        return Err(Phase::Connect.io_error(&Errno::CONNREFUSED.into()));
    }
    Ok(())
}

/// Connects, for a check that is a task.
pub(crate) async fn connect(address: SocketAddr) -> ProbeResult<TcpStream> {
    connect_socket(socket(address)?, address).await
}

/// Connects like [`connect`], but the server's program learns of it only by the first data. If the
/// connection is closed before, the program never does.
pub(crate) async fn connect_unnoticed(address: SocketAddr) -> ProbeResult<TcpStream> {
    let socket = socket(address)?;
    delay_ack(&socket)?;
    connect_socket(socket, address).await
}

/// Makes Linux delay the last ACK of the handshake. The next packet takes its place: the first
/// data, or the reset of a close.
pub(crate) fn delay_ack(socket: &OwnedFd) -> ProbeResult<()> {
    sockopt::set_tcp_quickack(socket, false).map_err(local_error)
}

async fn connect_socket(socket: OwnedFd, address: SocketAddr) -> ProbeResult<TcpStream> {
    sockopt::set_tcp_nodelay(&socket, true).map_err(local_error)?;
    start(&socket, address)?;
    let stream =
        TcpStream::from_std(socket.into()).map_err(|error| Phase::Connect.local_error(&error))?;
    stream.writable().await.map_err(|error| Phase::Connect.local_error(&error))?;
    outcome(&stream)?;
    reject_self_connection(&stream, address)?;
    Ok(stream)
}

fn local_error(errno: Errno) -> Verdict {
    Phase::Connect.local_error(&io::Error::from(errno))
}
