//! One probe of a fast check where no reactor runs, as in `external-endpoints probe`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::check::{FastCheck, FastKind};
use super::reactor::Reactor;
use crate::clock;
use crate::health::Verdict;
use crate::probe::native;
use crate::probe::phase::{Phase, to_verdict};

/// Runs one probe, in a reactor of its own if it needs no file.
pub(crate) async fn run_once(check: &Arc<FastCheck>) -> Verdict {
    if let FastKind::Native(protocol) = &check.kind
        && protocol.needs_reading()
    {
        return to_verdict(native::probe_plain(check.address, protocol, check.timeout).await);
    }
    match run(check).await {
        Ok(verdict) => verdict,
        Err(error) => Phase::Connect.local_error(&error),
    }
}

async fn run(check: &Arc<FastCheck>) -> io::Result<Verdict> {
    let mut reactor = Reactor::new()?;
    // SAFETY: the `Arc` owns the descriptor, and nothing else closes it while it is registered.
    #[allow(unsafe_code, reason = "a descriptor that is registered with tokio must stay open")]
    let events = unsafe { AsyncFd::register_with_interest(reactor.epoll(), Interest::READABLE) }?;
    let now = clock::now();
    if let Some(completion) = reactor.start(0, check, now) {
        return Ok(completion.verdict);
    }
    let mut deadline = std::pin::pin!(tokio::time::sleep_until((now + check.timeout).into()));
    let mut verdict = None;
    // Epoll reports what is there already, too.
    reactor.watch_all();
    loop {
        reactor.wait(Duration::ZERO)?;
        reactor.drain(clock::now(), |completion| verdict = Some(completion.verdict))?;
        if let Some(verdict) = verdict {
            return Ok(verdict);
        }
        tokio::select! {
            () = tokio::task::yield_now(), if reactor.has_unread() => {}
            ready = events.readable() => ready?.clear_ready(),
            () = &mut deadline => {}
        }
    }
}
