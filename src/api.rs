//! The client of the Kubernetes API, which keeps to the deadlines of its calls, and its errors.

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::util::AndThenLayer;
use tower::{BoxError, ServiceBuilder, service_fn};

pub(crate) use call::{Call, DAEMON_ACCOUNT};
pub(crate) use deadline::Deadline;
use deadline::DeadlineBody;
pub(crate) use error::{ApiError, ErrorKind, error_message};
use retry_after::retry_seconds_in_body;
pub(crate) use user_agent::{ClientRole, UserAgent};

mod call;
mod deadline;
mod error;
mod retry_after;
mod user_agent;

/// The time after which the kernel stops retransmitting what the API server's host has not
/// acknowledged. Without it, a connection that was given up would go on for minutes.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Creates a client as [`Client::try_from`] does, but one that sends nothing for a call whose
/// deadline has passed, even if the call was delayed by its connection or because this process was
/// stopped. Each call has the `User-Agent` of `agent`.
pub(crate) fn client(config: Config, agent: UserAgent) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        // Its error says what to do about proxies.
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let http: Http<_, DeadlineBody> = Http::builder(TokioExecutor::new()).build(connector);
    let max_size = agent.max_answer_size();
    let service = ServiceBuilder::new()
        .layer(AndThenLayer::new(retry_seconds_in_body))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(service_fn(move |request: Request<Body>| {
            let (http, request) = (http.clone(), agent.stamp(request));
            // Runs in the task that makes the call, which has the deadline.
            async move {
                let basis = Deadline::current();
                let answer = http.request(request.map(|body| DeadlineBody::new(body, basis))).await;
                answer.map(|answer| answer.map(|body| bounded(body, max_size)))
            }
        }));
    Ok(Client::new(service, config.default_namespace))
}

/// Returns the body of an answer, which fails once it is larger than `max_size` bytes.
fn bounded<B>(body: B, max_size: usize) -> impl hyper::body::Body<Data = Bytes, Error = BoxError>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    Limited::new(body, max_size).map_err(move |error| match error.is::<LengthLimitError>() {
        true => {
            format!("the answer is larger than {} MiB; is this the API?", max_size >> 20).into()
        }
        false => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::join;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_answer_without_end_fails_at_its_limit() {
        let body = || http_body_util::Full::new(Bytes::from(vec![b'x'; 2 << 20]));
        let whole = bounded(body(), 2 << 20).collect().await.expect("a body").to_bytes();
        assert_eq!(whole.len(), 2 << 20);
        let error = bounded(body(), 1 << 20).collect().await.expect_err("too large");
        assert_eq!(error.to_string(), "the answer is larger than 1 MiB; is this the API?");
    }

    /// Makes a call with a deadline. Returns its outcome, and all that its server received.
    async fn call(deadline: Deadline) -> (Result<String, String>, String) {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", server.local_addr().expect("an address"));
        let config = Config::new(url.parse().expect("a URL"));
        let client = client(config, UserAgent::cli()).expect("a client");
        let request = Request::put("/members").body(b"198.51.100.1".to_vec()).expect("a request");
        let served = async {
            let (mut stream, _) = server.accept().await.expect("a connection");
            let mut got = Vec::new();
            while !got.ends_with(b"198.51.100.1")
                && stream.read_buf(&mut got).await.is_ok_and(|count| count > 0)
            {}
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            // The client may have gone.
            let _ = stream.write_all(answer).await;
            String::from_utf8(got).expect("text")
        };
        let called = deadline.scope(client.request_text(request));
        let (answer, got) = join!(called, served);
        (answer.map_err(|error| error_message(&error)), got)
    }

    #[tokio::test]
    async fn after_its_deadline_a_call_is_sent_without_its_body() {
        let (answer, got) = call(Deadline::new(None)).await;
        assert_eq!(answer.as_deref(), Ok("ok"));
        assert!(got.starts_with("PUT /members ") && got.ends_with("\r\n\r\n198.51.100.1"), "{got}");
        assert!(got.contains("user-agent: external-endpoints/") && got.contains("; cli)"), "{got}");

        let ended = Deadline::new(None);
        ended.end();
        let (answer, got) = call(ended).await;
        assert_eq!(answer, Err("not sent, as the time for it had passed".to_owned()));
        assert!(!got.contains("198.51.100.1"), "{got}");
    }
}
