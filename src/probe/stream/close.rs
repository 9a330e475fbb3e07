//! The end of a connection whose check has passed: an orderly one for the server's program, and none that is kept in
//! TIME_WAIT for the kernels.
//!
//! A server's program sees a FIN as the end of what is read, and a reset as an error, which many log. So a FIN is sent
//! first. The reset follows, for without it the side that sent its FIN first keeps the connection for a minute.
//!
//! All other connections end with a reset alone, as [`connect`](super::connect::connect) has made them.

#![expect(unsafe_code, reason = "no crate has this socket option")]

use std::ffi::c_int;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;

use rustix::net::sockopt;
use tokio::net::TcpStream as TokioStream;

/// Ends a connection to a server that waits for its client. The reset follows when the server's kernel has acknowledged
/// the FIN: one at once would leave a TIME_WAIT if the server closed in between, as one on the same host does.
pub(crate) fn close_before_server(stream: TokioStream) {
    let Ok(stream) = stream.into_std() else { return };
    match stream.peek(&mut [0]) {
        // It has closed first. It needs no FIN, and would keep a TIME_WAIT after one.
        Ok(0) => {}
        Err(_) if reset_when_acknowledged(&stream) => {}
        // Linux sends no FIN for what has not been read, unless it is told to.
        _ => finish(&stream),
    }
}

/// Ends a connection to a server that closes it too, after its last word. The reset follows at once: the two FINs may
/// cross, and only a reset leaves no TIME_WAIT then.
pub(crate) fn close_with_server(stream: TokioStream) {
    let Ok(stream) = stream.into_std() else { return };
    if !matches!(stream.peek(&mut [0]), Ok(0)) {
        finish(&stream);
    }
}

fn finish(stream: &TcpStream) {
    // A connection that is gone needs no end.
    let _ = stream.shutdown(Shutdown::Write);
}

/// Makes the close send a FIN, and a reset in place of the state FIN_WAIT2. False if the kernel has no such thing.
fn reset_when_acknowledged(stream: &TcpStream) -> bool {
    let never: c_int = -1;
    let size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `stream` is borrowed, and the kernel reads `size` bytes of `never`.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_LINGER2,
            (&raw const never).cast(),
            size,
        )
    };
    set == 0 && sockopt::set_socket_linger(stream, None).is_ok()
}
