//! The HTTP check over TLS: one request through a reqwest client that keeps nothing between two tries but its settings.
//!
//! Two things differ from the other checks, as the socket is reqwest's own. A try may leave a TIME_WAIT on this side: a
//! minute's tries at most, and each keeps its port from its own target only. And a task of reqwest's closes the
//! connection, shortly after the try.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{HOST, HeaderMap, HeaderValue};
use reqwest::{Client, Request, Response, Url};
use rustls::ClientConfig;
use tower::util::MapFutureLayer;

use super::ask::{Ask, MOST_HEAD, Wanted, broken, unfit};
use super::notes::{self, Notes};
use super::trust::Trust;
use super::{Phase, Progress, Step};
use crate::config::HttpCheck;
use crate::health::Verdict;

/// The largest head that is read: what hyper takes over HTTP/1.1, where reqwest can't set it. Smaller ones are measured.
const MOST_TAKEN: u32 = 400 << 10;

pub(super) struct Https {
    ask: Result<(Ask, Route), String>,
    wanted: Wanted,
    trust: Arc<Trust>,
    /// The client of the last try, and the configuration it was built from.
    client: Mutex<Option<(Arc<ClientConfig>, Client)>>,
}

/// How reqwest is told to ask one address for one name.
struct Route {
    address: SocketAddr,
    /// The host of the URL is the name that TLS asks for. It is never looked up.
    url: Url,
    name: Option<String>,
    /// Set if the URL does not say the host that the request is to name. HTTP/2 has no other place for it than the
    /// URL, so that it is then not offered.
    host: Option<HeaderValue>,
}

impl Https {
    pub fn new(check: &HttpCheck, ip: IpAddr) -> Self {
        let address = SocketAddr::new(ip, check.port);
        let ask = Ask::new(check, address).and_then(|ask| {
            let route = Route::new(check.tls.server_name.as_deref(), address, &ask)?;
            Ok((ask, route))
        });
        Self { ask, wanted: Wanted::new(check), trust: Trust::of_url(&check.tls, ip), client: Mutex::default() }
    }

    pub async fn run(&self, progress: &Progress) -> Step<()> {
        let (ask, route) = self.ask.as_ref().map_err(|what| Phase::Http.inconclusive(what))?;
        let mut headers = ask.headers().await?;
        if let Some(host) = &route.host {
            headers.entry(HOST).or_insert(host.clone());
        }
        let client = self.client(route, self.trust.config().await?)?;
        let mut request = Request::new(ask.method.clone(), route.url.clone());
        *request.headers_mut() = headers;
        let notes = Notes::new(progress);
        progress.enter(Phase::Connect);
        let failed = |error| failed(&error, progress.phase(), &notes);
        notes.during(async { self.judge(client.execute(request).await.map_err(failed)?, progress, failed).await }).await
    }

    async fn judge(
        &self,
        mut answer: Response,
        progress: &Progress,
        failed: impl Fn(reqwest::Error) -> Verdict,
    ) -> Step<()> {
        if size(answer.headers()) > MOST_HEAD {
            return Err(Phase::Http.fail("the head of the answer is over 64 KiB"));
        }
        let Some(mut search) = self.wanted.judge(answer.status())? else {
            return Ok(());
        };
        progress.enter(Phase::Body);
        while let Some(data) = answer.chunk().await.map_err(&failed)? {
            if search.feed(&data)? {
                return Ok(());
            }
        }
        search.ended()
    }

    /// The client of the last try, unless the trust has changed since.
    fn client(&self, route: &Route, config: Arc<ClientConfig>) -> Step<Client> {
        let mut kept = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = kept.as_ref().filter(|(from, _)| Arc::ptr_eq(from, &config)) {
            return Ok(client.clone());
        }
        let client = route.client(&config).map_err(|error| Phase::Http.inconclusive(error))?;
        *kept = Some((config, client.clone()));
        Ok(client)
    }
}

impl Route {
    fn new(server_name: Option<&str>, address: SocketAddr, ask: &Ask) -> Result<Self, String> {
        // An IP is no name to ask for: the server is not told it, and only its certificate is compared with it.
        let name = server_name.filter(|name| name.parse::<IpAddr>().is_err());
        let host = match (name, address) {
            (Some(name), _) => name.to_owned(),
            (None, SocketAddr::V4(address)) => address.ip().to_string(),
            (None, SocketAddr::V6(address)) => format!("[{}]", address.ip()),
        };
        let whole = format!("{host}:{}", address.port());
        let said = ask.authority.as_str();
        // A URL without a port is asked at the given port if it has a name, and else at the usual one.
        let without_port = said.eq_ignore_ascii_case(&host) && (name.is_some() || address.port() == 443);
        let in_url = (without_port || said.eq_ignore_ascii_case(&whole)) && !ask.has_header(&HOST);
        let authority = if in_url { said } else { &whole };
        let url = Url::parse(&format!("https://{authority}{}", ask.path)).map_err(|_| unfit("host", authority))?;
        // A URL takes some names for an IP in disguise, and would lead elsewhere.
        let kept = match (name, url.host_str().unwrap_or_default()) {
            (Some(name), kept) => kept.eq_ignore_ascii_case(name),
            (None, kept) => kept.trim_matches(['[', ']']).parse() == Ok(address.ip()),
        };
        if !kept {
            return Err(unfit("host", authority));
        }
        let host = if in_url { None } else { ask.host() };
        Ok(Self { address, url, name: name.map(str::to_owned), host })
    }

    /// A client that connects anew for each request, to this address alone, and does nothing that it was not asked for.
    fn client(&self, config: &ClientConfig) -> reqwest::Result<Client> {
        let mut tls = config.clone();
        tls.alpn_protocols = match self.host {
            None => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Some(_) => vec![b"http/1.1".to_vec()],
        };
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .https_only(true)
            .pool_max_idle_per_host(0)
            // The deadline of the check is the only one.
            .tcp_keepalive(None::<Duration>)
            .tcp_user_timeout(None::<Duration>)
            .http2_max_header_list_size(MOST_TAKEN)
            .connector_layer(MapFutureLayer::new(connecting));
        if let Some(name) = &self.name {
            builder = builder.resolve_to_addrs(name, &[self.address]);
        }
        builder.build()
    }
}

/// The connect and the TLS handshake, the beginning of which rustls tells by itself.
async fn connecting<T, E>(connection: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let connection = connection.await?;
    notes::enter(Phase::Http);
    Ok(connection)
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

fn failed(error: &reqwest::Error, phase: Phase, notes: &Notes) -> Verdict {
    broken(phase, error, |error| match phase {
        Phase::Connect => phase.io(error),
        Phase::Tls => notes.asked().verdict(phase, error),
        _ => notes.asked().verdict(Phase::Http, error),
    })
}
