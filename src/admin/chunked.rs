//! Pages of any length, made in chunks as their readers receive them.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;

use super::encoding::{Encoder, Encoding};
use crate::clock;

/// The size of a chunk in bytes.
const CHUNK: usize = 32 << 10;

/// The processor time that all pages together may take before they have to wait.
const BURST: Duration = Duration::from_millis(500);

/// The throttle of all pages. A page holds the lock while it makes a chunk, so that all pages
/// together keep at most one processor busy.
static THROTTLE: Mutex<Throttle> = Mutex::const_new(Throttle { idle_at: None });

/// A limit on the processor time of all pages: in the long run half of one processor, so that the
/// checks keep their share where there is only one. The algorithm is GCRA.
struct Throttle {
    /// The time at which pages will have used at most half of one processor.
    idle_at: Option<Instant>,
}

impl Throttle {
    /// Returns how long the next chunk has to wait.
    fn delay(&self, now: Instant) -> Duration {
        self.idle_at.map_or(Duration::ZERO, |idle_at| {
            idle_at.saturating_duration_since(now).saturating_sub(BURST)
        })
    }

    fn charge(&mut self, start: Instant, end: Instant) {
        let idle_at = self.idle_at.map_or(start, |idle_at| idle_at.max(start));
        self.idle_at = Some(idle_at + 2 * end.saturating_duration_since(start));
    }
}

/// Calls `make`, which makes a part of a page, as soon as the throttle permits it.
pub(super) async fn throttled<T>(make: impl FnOnce() -> T) -> T {
    let mut throttle = THROTTLE.lock().await;
    let delay = throttle.delay(clock::now());
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let start = clock::now();
    let part = make();
    throttle.charge(start, clock::now());
    part
}

/// Returns a page made of `parts`, compressed for a client that accepts it. Between two chunks the
/// task yields to other work. The compression counts as a part of making a chunk.
pub(super) fn chunked(
    content_type: &'static str,
    encoding: Encoding,
    parts: impl Iterator<Item = String> + Send + 'static,
) -> Response {
    let mut parts = parts.fuse();
    let mut encoder = Encoder::new(encoding);
    let chunks = std::iter::from_fn(move || encoder.encode(next_chunk(&mut parts)));
    let stream = futures::stream::unfold(chunks, async |mut chunks| {
        loop {
            tokio::task::yield_now().await;
            let chunk = throttled(|| chunks.next()).await?;
            // The compression keeps bytes back until there are many.
            if !chunk.is_empty() {
                return Some((Ok::<_, Infallible>(chunk), chunks));
            }
        }
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if encoding == Encoding::Gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    (headers, Body::from_stream(stream)).into_response()
}

/// Returns the next parts together, as many as fill a chunk.
fn next_chunk(parts: &mut impl Iterator<Item = String>) -> Option<String> {
    let mut chunk = parts.next()?;
    if chunk.len() < CHUNK {
        chunk.reserve(CHUNK);
    }
    while chunk.len() < CHUNK
        && let Some(part) = parts.next()
    {
        chunk.push_str(&part);
    }
    Some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_take_half_of_one_processor_after_a_burst() {
        let (mut throttle, mut now) = (Throttle { idle_at: None }, clock::now());
        let start = now;
        let chunk = Duration::from_millis(10);
        let mut free = 0;
        for number in 0..1000 {
            let delay = throttle.delay(now);
            if delay.is_zero() && free == number {
                free += 1;
            }
            now += delay;
            throttle.charge(now, now + chunk);
            now += chunk;
        }
        assert!((45..=55).contains(&free), "{free} chunks before the first had to wait");
        let (taken, passed) = (1000 * chunk, now - start);
        assert!(2 * taken - passed <= BURST + 2 * chunk, "{taken:?} of {passed:?}");
        // An occasional page never waits.
        now += Duration::from_secs(10);
        assert_eq!(throttle.delay(now), Duration::ZERO);
    }
}
