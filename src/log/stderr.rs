//! Standard error without a lock and without a buffer, so that a blocked write blocks nothing else.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, poll};

/// A duplicate of the descriptor of standard error.
pub(super) struct Stderr(File);

impl Stderr {
    /// Duplicates the descriptor.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(File::from(io::stderr().as_fd().try_clone_to_owned()?)))
    }

    #[cfg(test)]
    fn from_fd(fd: std::os::fd::OwnedFd) -> Self {
        Self(File::from(fd))
    }
}

impl Write for Stderr {
    /// Writes some of the bytes. Waits while there is no room, even if another process has made the
    /// descriptor non-blocking.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::thread;

    use super::*;

    #[test]
    fn a_write_waits_for_room_in_a_non_blocking_pipe() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&writer, true).expect("a flag");
        let mut stderr = Stderr::from_fd(writer.into());
        // More than the capacity of a pipe.
        let text = vec![b'a'; 1 << 20];
        let sent = text.clone();
        let thread = thread::spawn(move || stderr.write_all(&sent));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("all of it");
        thread.join().expect("no panic").expect("it is written");
        assert_eq!(read, text);
    }
}
