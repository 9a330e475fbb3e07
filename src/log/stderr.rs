//! Standard error without a lock and without a buffer, so that nothing else waits for whoever writes to it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, poll};

/// A descriptor of standard error that is its own.
pub(super) struct Stderr(File);

impl Stderr {
    /// Opens it.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(File::from(io::stderr().as_fd().try_clone_to_owned()?)))
    }

    #[cfg(test)]
    fn from_fd(fd: std::os::fd::OwnedFd) -> Self {
        Self(File::from(fd))
    }
}

impl Write for Stderr {
    /// Writes some of it. Waits for as long as there is no room, even where another process has made the descriptor
    /// non-blocking.
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
    fn a_full_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&writer, true).expect("a flag");
        let mut stderr = Stderr::from_fd(writer.into());
        // More than a pipe holds.
        let text = vec![b'a'; 1 << 20];
        let sent = text.clone();
        let thread = thread::spawn(move || stderr.write_all(&sent));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("all of it");
        thread.join().expect("no panic").expect("it is written");
        assert_eq!(read, text);
    }
}
