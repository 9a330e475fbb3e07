//! Packet filters in the kernel's classic BPF.

#![allow(unsafe_code, reason = "no crate has this socket option")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context as _, Result};

const fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_BYTE_AT_X: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const LOAD_HALF_AT_X: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
/// X = the length of the IP header at this offset.
const HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Accepts no packet.
pub(crate) const NOTHING: [libc::sock_filter; 1] = [op(RETURN, 0, 0, 0)];

/// Accepts the head of the first packet of each connection to this port, on a socket that receives
/// IPv4 packets.
pub(crate) fn openings(port: u16) -> [libc::sock_filter; 10] {
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        op(LOAD_BYTE, 9, 0, 0),
        op(EQUAL, libc::IPPROTO_TCP.cast_unsigned(), 0, 7),
        op(HEADER_LENGTH, 0, 0, 0),
        op(LOAD_HALF_AT_X, 2, 0, 0),
        op(EQUAL, port as u32, 0, 4),
        op(LOAD_BYTE_AT_X, 13, 0, 0),
        op(AND, SYN | ACK, 0, 0),
        op(EQUAL, SYN, 0, 1),
        op(RETURN, 20, 0, 0),
        op(RETURN, 0, 0, 0),
    ]
}

pub(crate) fn attach(socket: &impl AsFd, filter: &[libc::sock_filter]) -> Result<()> {
    let program =
        libc::sock_fprog { len: u16::try_from(filter.len())?, filter: filter.as_ptr().cast_mut() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
        .context("SO_ATTACH_FILTER")
}

/// Sets a socket option whose value is a struct of the kernel.
pub(crate) fn set_option<T>(
    socket: &impl AsFd,
    level: i32,
    name: i32,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as `value` has, while it is borrowed.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            size_of::<T>() as u32,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
