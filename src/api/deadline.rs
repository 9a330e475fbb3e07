//! Until when a call may be sent: what it stands on travels with its task, and is asked again when the connection is ready.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use kube::client::Body as Inner;
use tower::BoxError;

use crate::clock::{self, Moment};

tokio::task_local! {
    static STANDS_ON: Deadline;
}

/// Until when a call may be sent. All copies end together.
#[derive(Debug, Clone)]
pub(crate) struct Deadline(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None: until it is ended.
    until: Option<Moment>,
    ended: AtomicBool,
}

impl Deadline {
    pub(crate) fn new(until: Option<Moment>) -> Self {
        Self(Arc::new(Shared { until, ended: AtomicBool::new(false) }))
    }

    pub(crate) fn left(&self) -> Duration {
        self.0.until.map_or(Duration::MAX, |until| until.saturating_duration_since(clock::moment()))
    }

    /// Lets nothing more be sent.
    pub(crate) fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn holds(&self) -> bool {
        !self.left().is_zero() && !self.0.ended.load(Ordering::Relaxed)
    }

    /// What the calls of this task stand on; most stand on nothing, and may always be sent.
    pub(crate) fn of_this_task() -> Option<Self> {
        STANDS_ON.try_with(Self::clone).ok()
    }

    /// Makes calls of the API that stand on this deadline.
    pub(crate) async fn bears<T>(self, calls: impl Future<Output = T>) -> T {
        STANDS_ON.scope(self, calls).await
    }
}

/// The body of a request, which is not to be had once the deadline has passed. The server then has the head of a request at
/// most, and does nothing with it.
pub(super) struct Guarded {
    body: Inner,
    basis: Option<Deadline>,
}

impl Guarded {
    pub(super) fn new(body: Inner, basis: Option<Deadline>) -> Self {
        Self { body, basis }
    }
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.basis.as_ref().is_some_and(|deadline| !deadline.holds()) {
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
            async { Guarded::new(Inner::from(b"members".to_vec()), Deadline::of_this_task()) };
        let body = deadline.clone().bears(body).await;
        body.collect().await.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_body_is_sent_until_the_deadline_and_not_after() {
        let soon = Deadline::new(Some(clock::moment() + Duration::from_secs(600)));
        assert_eq!(sent(&soon).await, Ok(Bytes::from_static(b"members")));
        soon.clone().end();
        assert!(sent(&soon).await.is_err(), "all copies end together");
        let past = Deadline::new(Some(clock::moment()));
        assert_eq!(sent(&past).await, Err("not sent, as the time for it had passed".to_owned()));
        assert!(sent(&Deadline::new(None)).await.is_ok(), "no deadline");
    }

    #[tokio::test]
    async fn a_deadline_that_passes_on_the_way_is_noticed() {
        let deadline = Deadline::new(None);
        let body = deadline.clone().bears(async {
            Guarded::new(Inner::from(b"members".to_vec()), Deadline::of_this_task())
        });
        let body = body.await;
        assert_eq!(body.size_hint().exact(), Some(7));
        deadline.end();
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn what_stands_on_nothing_is_always_sent() {
        let body = Guarded::new(Inner::from(b"members".to_vec()), Deadline::of_this_task());
        assert!(body.collect().await.is_ok());
    }
}
