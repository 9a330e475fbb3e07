//! The close of a connection whose check has passed: orderly for the server's program, and without
//! TIME_WAIT for both kernels.
//!
//! A server's program sees a FIN as the end of the conversation, and a reset as an error, which
//! many log. So a FIN is sent first. The reset follows, because otherwise the side that sent its
//! FIN first keeps the connection for a minute.
//!
//! All other connections end with a reset alone: [`socket`](super::connect::socket) sets that.
#![allow(unsafe_code, reason = "no crate has this socket option")]

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::{self, Shutdown, sockopt};
use tokio::net::TcpStream as TokioStream;

/// Closes a connection to a server that waits for its client to close.
///
/// The reset follows when the server's kernel has acknowledged the FIN. A reset at once would leave
/// a TIME_WAIT if the server closed in between, as a server on the same host does.
pub(crate) fn close_before_server(stream: TokioStream) {
    let Ok(stream) = stream.into_std() else { return };
    match stream.peek(&mut [0]) {
        // The server has closed first. It needs no FIN, and would keep a TIME_WAIT after one.
        Ok(0) => {}
        Err(_) if reset_after_fin(&stream) => {}
        // Linux would send a reset and no FIN, because there is unread data.
        _ => send_fin(&stream),
    }
}

/// Closes a connection to a server that closes it too, after its last message.
///
/// The reset follows at once: the two FINs may cross, and then only a reset leaves no TIME_WAIT.
pub(crate) fn close_with_server(stream: TokioStream) {
    let Ok(stream) = stream.into_std() else { return };
    if !matches!(stream.peek(&mut [0]), Ok(0)) {
        send_fin(&stream);
    }
}

/// Sends a FIN. The close of the socket then sends a reset.
///
/// A program that reads after both takes it as a close: Linux keeps the FIN before the reset.
pub(crate) fn send_fin(stream: impl AsFd) {
    // An error means that the connection is gone already.
    let _ = net::shutdown(stream, Shutdown::Write);
}

/// Makes the close send a FIN, and a reset instead of the state FIN_WAIT2. Returns false if the
/// kernel does not support it.
///
/// It is cheaper than a FIN and a reset at once: the server's answer to the FIN causes the reset.
/// Only for a server that has not closed, which would keep a TIME_WAIT.
pub(crate) fn reset_after_fin(stream: impl AsFd) -> bool {
    let never: c_int = -1;
    let size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `stream` is borrowed, and the kernel reads `size` bytes
    // of `never`. rustix has no TCP_LINGER2.
    let set = unsafe {
        libc::setsockopt(
            stream.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_LINGER2,
            (&raw const never).cast(),
            size,
        )
    };
    set == 0 && sockopt::set_socket_linger(stream, None).is_ok()
}
