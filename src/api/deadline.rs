//! The deadline of a call: it travels with the task that makes the call, and is checked again when
//! the body is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use kube::client::Body as Inner;
use tower::BoxError;

use crate::clock::{self, BootInstant};

tokio::task_local! {
    static CURRENT_DEADLINE: Deadline;
}

/// The deadline until which a call may be sent. All copies end together.
#[derive(Debug, Clone)]
pub(crate) struct Deadline(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The time at which it passes; none if it passes only by [`Deadline::end`].
    expires_at: Option<BootInstant>,
    ended: AtomicBool,
}

impl Deadline {
    pub(crate) fn new(until: Option<BootInstant>) -> Self {
        Self(Arc::new(Shared { expires_at: until, ended: AtomicBool::new(false) }))
    }

    /// Returns the time until the deadline.
    pub(crate) fn remaining(&self) -> Duration {
        self.0
            .expires_at
            .map_or(Duration::MAX, |until| until.saturating_duration_since(clock::boot_now()))
    }

    /// Ends the deadline now.
    pub(crate) fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    /// Returns whether a call may still be sent.
    pub(crate) fn may_send(&self) -> bool {
        !self.remaining().is_zero() && !self.0.ended.load(Ordering::Relaxed)
    }

    /// Returns the deadline of the current task. Most tasks have none, and their calls may always
    /// be sent.
    pub(crate) fn current() -> Option<Self> {
        CURRENT_DEADLINE.try_with(Self::clone).ok()
    }

    /// Runs calls of the API with this deadline.
    pub(crate) async fn scope<T>(self, calls: impl Future<Output = T>) -> T {
        CURRENT_DEADLINE.scope(self, calls).await
    }
}

/// The body of a request, which fails once the deadline has passed. The server then has at most the
/// head of the request, and ignores it.
pub(super) struct DeadlineBody {
    body: Inner,
    deadline: Option<Deadline>,
}

impl DeadlineBody {
    pub(super) fn new(body: Inner, basis: Option<Deadline>) -> Self {
        Self { body, deadline: basis }
    }
}

impl Body for DeadlineBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.deadline.as_ref().is_some_and(|deadline| !deadline.may_send()) {
            return Poll::Ready(Some(Err("not sent, as the time for it had passed".into())));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn sent(deadline: &Deadline) -> Result<Bytes, String> {
        let body =
            async { DeadlineBody::new(Inner::from(b"members".to_vec()), Deadline::current()) };
        let body = deadline.clone().scope(body).await;
        body.collect().await.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_body_is_sent_until_the_deadline_and_not_after() {
        let soon = Deadline::new(Some(clock::boot_now() + Duration::from_secs(600)));
        assert_eq!(sent(&soon).await, Ok(Bytes::from_static(b"members")));
        soon.clone().end();
        assert!(sent(&soon).await.is_err(), "all copies end together");
        let past = Deadline::new(Some(clock::boot_now()));
        assert_eq!(sent(&past).await, Err("not sent, as the time for it had passed".to_owned()));
        assert!(sent(&Deadline::new(None)).await.is_ok(), "no deadline");
    }

    #[tokio::test]
    async fn a_deadline_that_passes_before_the_body_is_read_counts() {
        let deadline = Deadline::new(None);
        let body = deadline.clone().scope(async {
            DeadlineBody::new(Inner::from(b"members".to_vec()), Deadline::current())
        });
        let body = body.await;
        assert_eq!(body.size_hint().exact(), Some(7));
        deadline.end();
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_body_without_a_deadline_is_always_sent() {
        let body = DeadlineBody::new(Inner::from(b"members".to_vec()), Deadline::current());
        assert!(body.collect().await.is_ok());
    }
}
