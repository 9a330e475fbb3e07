//! The way to the Kubernetes API: a client that keeps to the deadlines that its calls stand on, and what went wrong, in words.

use std::error::Error;
use std::time::Duration;

use hyper::Request;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{AuthError, Body, ConfigExt};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder, service_fn};

pub use deadline::Deadline;
use deadline::{Basis, Guarded};

mod deadline;

/// What the API server's host has not acknowledged for this long is no longer sent: a connection that was given up would go
/// on trying for minutes.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// A client as [`Client::try_from`] makes it, but that sends nothing for a call whose deadline has passed, however the call
/// was held up on its way: by its connection, or because this process was stopped.
pub fn client(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        // Says what to do about proxies.
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let http: Http<_, Guarded> = Http::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(service_fn(move |request: Request<Body>| {
            let http = http.clone();
            // Runs in the task that makes the call, which knows what it stands on.
            async move {
                let basis = Basis::of_this_task();
                http.request(request.map(|body| Guarded::new(body, basis))).await
            }
        }));
    Ok(Client::new(service, config.default_namespace))
}

/// What went wrong, in the words of the innermost cause: `connection refused` rather than `service error`.
pub fn words(error: &kube::Error) -> String {
    let mut cause: &(dyn Error + 'static) = error;
    loop {
        if let Some(AuthError::AuthExecRun { out, .. }) = cause.downcast_ref() {
            // Its arguments and its output may hold a secret.
            return format!("the command that the kubeconfig has for credentials ended with {}", out.status);
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None => break,
        }
    }
    let text = cause.to_string();
    match text.as_str() {
        // What the client says when it could not connect in the time that it was given.
        "deadline has elapsed" => "no connection in the time there is for one".to_owned(),
        closed if closed.contains("close_notify") => "the connection was closed".to_owned(),
        _ => text,
    }
}
