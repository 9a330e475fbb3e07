//! The `Retry-After` header of the API, copied to where the client passes it on.

use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Bytes;
use hyper::{Response, StatusCode, header};
use kube::core::Status;
use kube::core::response::StatusDetails;
use tower::BoxError;

/// The greatest length of the body of an error, in bytes. The API sends no longer one.
const MAX_ERROR_BODY: usize = 64 << 10;

/// Copies the seconds of `Retry-After` into the body. An overloaded API server has them only in the
/// header, and kube passes on only the body.
pub(super) async fn retry_seconds_in_body<B>(
    answer: Response<B>,
) -> Result<Response<Either<Full<Bytes>, B>>, BoxError>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let Some(seconds) = retry_after(&answer) else { return Ok(answer.map(Either::Right)) };
    let (mut head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ERROR_BODY).collect().await?.to_bytes();
    head.headers.remove(header::CONTENT_LENGTH);
    let body = Bytes::from(with_retry_seconds(head.status, &body, seconds));
    Ok(Response::from_parts(head, Either::Left(Full::new(body))))
}

/// Returns the seconds for which the API asks to be left alone.
fn retry_after<B>(answer: &Response<B>) -> Option<u32> {
    if !matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// Returns the body as a Status with these seconds.
fn with_retry_seconds(code: StatusCode, body: &[u8], seconds: u32) -> Vec<u8> {
    let said = || String::from_utf8_lossy(body).trim().to_owned();
    let mut status: Status = serde_json::from_slice(body)
        .unwrap_or_else(|_| Status::failure(&said(), "TooManyRequests").with_code(code.as_u16()));
    let details = status.details.get_or_insert_with(|| {
        let (name, group, kind, uid) = Default::default();
        StatusDetails { name, group, kind, uid, causes: Vec::new(), retry_after_seconds: 0 }
    });
    if details.retry_after_seconds == 0 {
        details.retry_after_seconds = seconds;
    }
    serde_json::to_vec(&status).expect("plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn passed_on(code: u16, after: Option<&str>, body: &str) -> (u16, String) {
        let mut answer =
            Response::builder().status(code).header(header::CONTENT_LENGTH, body.len());
        if let Some(after) = after {
            answer = answer.header(header::RETRY_AFTER, after);
        }
        let answer =
            answer.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("an answer");
        let answer = retry_seconds_in_body(answer).await.expect("an answer");
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn the_seconds_are_in_the_body_and_its_message_is_kept() {
        for body in [
            "Too many requests, please try again later.\n",
            r#"{"kind":"Status","message":"busy","code":429}"#,
        ] {
            let (code, body) = passed_on(429, Some("7"), body).await;
            let status: Status = serde_json::from_str(&body).expect("a Status");
            assert_eq!((code, status.code), (429, 429), "{body}");
            assert_eq!(status.details.map(|details| details.retry_after_seconds), Some(7));
            assert!(
                ["Too many requests, please try again later.", "busy"].contains(&&*status.message),
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn other_answers_are_passed_on_unchanged() {
        for (code, after) in
            [(429, None), (200, Some("7")), (429, Some("Wed, 21 Oct 2026 07:28:00 GMT"))]
        {
            assert_eq!(passed_on(code, after, "as it is").await, (code, "as it is".to_owned()));
        }
    }
}
