//! Records the time of each check at its arrival, even if no `accept()` sees it.
//!
//! The ring of the packet socket has room for a whole run, so nothing wakes up and nothing is lost
//! meanwhile.

#![allow(unsafe_code, reason = "a packet ring is memory that is shared with the kernel")]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::slice;

use anyhow::{Context as _, Result, bail, ensure};

use crate::filter::{self, set_option};
use crate::machine::{self, MILLI, SECOND};
use crate::timing::Arrival;

/// The kernel's header, a link address, and the head of a packet.
const FRAME: usize = 128;
const BLOCK: usize = 1 << 20;
const PER_BLOCK: usize = BLOCK / FRAME;
const IGNORE_OUTGOING: i32 = 23;

pub(crate) struct Capture {
    socket: OwnedFd,
    ring: *mut u8,
    blocks: usize,
    /// The difference of the wall clock, which the timestamps use. If the clock was set meanwhile,
    /// they are useless.
    wall_ahead: i128,
}

impl Capture {
    /// Starts recording the checks that arrive at this port, up to this many.
    pub(crate) fn open(port: u16, room: usize) -> Result<Self> {
        let blocks = room.div_ceil(PER_BLOCK);
        // SAFETY: the descriptor is new, and nothing else owns it.
        let socket = unsafe {
            // Without a protocol it receives nothing before it has its filter.
            let number = libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            ensure!(number >= 0, "packet socket: {}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(number)
        };
        filter::attach(&socket, &filter::openings(port))?;
        // Each packet passes the loopback interface twice, out and in.
        set_option(&socket, libc::SOL_PACKET, IGNORE_OUTGOING, &1)
            .context("PACKET_IGNORE_OUTGOING")?;
        let version = libc::tpacket_versions::TPACKET_V2 as i32;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)
            .context("PACKET_VERSION")?;
        let request = libc::tpacket_req {
            tp_block_size: u32::try_from(BLOCK)?,
            tp_block_nr: u32::try_from(blocks)?,
            tp_frame_size: u32::try_from(FRAME)?,
            tp_frame_nr: u32::try_from(blocks * PER_BLOCK)?,
        };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
            .context("PACKET_RX_RING")?;
        // SAFETY: a new mapping of the ring that was just made, at an address of the kernel's
        // choice.
        let ring = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                ptr::null_mut(),
                blocks * BLOCK,
                access,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        ensure!(ring != libc::MAP_FAILED, "mapping the ring: {}", io::Error::last_os_error());
        let capture = Self { socket, ring: ring.cast(), blocks, wall_ahead: wall_ahead() };
        // SAFETY: all zeroes is a valid address of this kind.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET)?;
        address.sll_protocol = u16::try_from(libc::ETH_P_IP)?.to_be();
        // SAFETY: the kernel reads an address of this size.
        let bound = unsafe {
            libc::bind(
                capture.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        ensure!(bound == 0, "binding the packet socket: {}", io::Error::last_os_error());
        Ok(capture)
    }

    /// Returns everything that has arrived.
    pub(crate) fn close(self) -> Result<Vec<Arrival>> {
        let moved = (wall_ahead() - self.wall_ahead).unsigned_abs();
        if moved > u128::from(MILLI) {
            bail!("the machine's clock was set by {moved} ns meanwhile; try again");
        }
        let mut arrivals = Vec::new();
        for number in 0..self.blocks * PER_BLOCK {
            // SAFETY: a frame lies within the mapping. The kernel writes only frames that it owns,
            // which aren't read.
            let frame = unsafe { self.ring.add(number * FRAME) };
            // SAFETY: a frame begins with this header, at an aligned address.
            let header = unsafe { frame.cast::<libc::tpacket2_hdr>().read_volatile() };
            if header.tp_status & libc::TP_STATUS_USER == 0 {
                return Ok(arrivals);
            }
            // SAFETY: the kernel says where in this frame the packet begins; the filter accepted
            // its first 20 bytes.
            let packet =
                unsafe { slice::from_raw_parts(frame.add(usize::from(header.tp_net)), 20) };
            arrivals.push(Arrival {
                at: u64::from(header.tp_sec) * SECOND + u64::from(header.tp_nsec),
                target: Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]),
            });
        }
        bail!("more checks arrived than the ring holds ({})", arrivals.len());
    }
}

fn wall_ahead() -> i128 {
    i128::from(machine::wall()) - i128::from(machine::now())
}

impl Drop for Capture {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.ring.cast(), self.blocks * BLOCK) };
    }
}
