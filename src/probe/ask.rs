//! What an HTTP check asks, what it takes for an answer, and its words for the lack of one, whichever way the request goes.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Method, StatusCode};

use super::text::{Finder, quote};
use super::{Phase, Step, value};
use crate::config::{HttpCheck, Scheme, ValueSource};

/// What the daemon calls itself.
const AGENT: &str = concat!("external-endpoints/", env!("CARGO_PKG_VERSION"));

/// How large an answer's head may be.
pub(super) const MOST_HEAD: usize = 64 << 10;
/// How much of a body is searched for the expected text.
pub(super) const MOST_BODY: usize = 1 << 20;

/// The parts of the request that stay the same.
pub(super) struct Ask {
    pub method: Method,
    pub path: PathAndQuery,
    /// What the request calls its host.
    pub authority: Authority,
    headers: Vec<(HeaderName, ValueSource)>,
}

impl Ask {
    /// Or which part of the config is not fit for HTTP.
    pub(super) fn new(check: &HttpCheck, address: SocketAddr) -> Result<Self, String> {
        let usual = match check.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let host = match &check.host {
            Some(host) => host.clone(),
            None if address.port() != usual => address.to_string(),
            None if address.is_ipv6() => format!("[{}]", address.ip()),
            None => address.ip().to_string(),
        };
        let header = |(name, value): &(String, ValueSource)| match HeaderName::try_from(name) {
            Ok(header) => Ok((header, value.clone())),
            Err(_) => Err(unfit("header", name)),
        };
        Ok(Self {
            method: Method::from_bytes(check.method.as_bytes())
                .map_err(|_| unfit("method", &check.method))?,
            path: PathAndQuery::try_from(check.path.as_str())
                .map_err(|_| unfit("path", &check.path))?,
            authority: Authority::try_from(host.as_str()).map_err(|_| unfit("host", &host))?,
            headers: check.headers.iter().map(header).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn has_header(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|(own, _)| own == name)
    }

    /// All headers but Host: the configured ones as they are now, each marked so that nothing prints its value.
    pub(super) async fn headers(&self) -> Step<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 4);
        for (name, value) in &self.headers {
            let bytes = value::read_word(value, Phase::Http).await?;
            let Ok(mut value) = HeaderValue::from_bytes(&bytes) else {
                return Err(Phase::Http
                    .inconclusive(format_args!("the value of header {name} is not fit for HTTP")));
            };
            value.set_sensitive(true);
            headers.append(name, value);
        }
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        // True, and lets the server forget the connection at once. HTTP/2 knows no such header, and hyper drops it.
        headers.entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
        Ok(headers)
    }

    /// The whole request as it goes on the wire; none if it is not the same at each try, or frames itself.
    pub(super) fn written(&self) -> Option<Vec<u8>> {
        let mut request = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        let mut line = |name: &HeaderName, value: &[u8]| {
            request.extend([name.as_str().as_bytes(), b": ", value, b"\r\n"].concat());
        };
        for (name, value) in &self.headers {
            let ValueSource::Literal(text) = value else { return None };
            if [CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE].contains(name)
                || HeaderValue::from_str(text).is_err()
            {
                return None;
            }
            line(name, text.as_bytes());
        }
        let host = self.authority.as_str();
        for (name, value) in
            [(ACCEPT, "*/*"), (USER_AGENT, AGENT), (CONNECTION, "close"), (HOST, host)]
        {
            if !self.has_header(&name) {
                line(&name, value.as_bytes());
            }
        }
        request.extend(b"\r\n");
        Some(request)
    }

    pub(super) fn host(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(self.authority.as_str()).ok()
    }
}

/// A part of the config that cannot go into a request.
pub(super) fn unfit(key: &str, what: &str) -> String {
    format!("{key} {} is not fit for HTTP", quote(what, 60))
}

/// Which answers pass.
pub(super) struct Wanted {
    statuses: Vec<RangeInclusive<u16>>,
    body: Option<String>,
}

impl Wanted {
    pub(super) fn new(check: &HttpCheck) -> Self {
        Self { statuses: check.expected_statuses.clone(), body: check.expected_body.clone() }
    }

    /// Judges the head of an answer; what must be in its body, if anything must, is left to the search.
    pub(super) fn judge(&self, status: StatusCode) -> Step<Option<Search<'_>>> {
        let status = status.as_u16();
        if !self.statuses.iter().any(|expected| expected.contains(&status)) {
            return Err(Phase::Http.fail(format_args!("status {status}")));
        }
        Ok(self.body.as_deref().map(|wanted| Search {
            wanted,
            finder: Finder::new(wanted.as_bytes()),
            seen: 0,
        }))
    }
}

/// The search of a body for the expected text.
pub(super) struct Search<'a> {
    wanted: &'a str,
    finder: Finder<'a>,
    seen: usize,
}

impl Search<'_> {
    /// Takes the next bytes; true once the text has gone by.
    pub(super) fn feed(&mut self, data: &[u8]) -> Step<bool> {
        let rest = &data[..data.len().min(MOST_BODY - self.seen)];
        self.seen += rest.len();
        if self.finder.feed(rest) {
            return Ok(true);
        }
        if self.seen == MOST_BODY {
            let wanted = quote(self.wanted, 60);
            return Err(Phase::Http
                .fail(format_args!("the first 1 MiB of the body does not contain {wanted}")));
        }
        Ok(false)
    }

    /// The verdict when the body ends first.
    pub(super) fn ended(self) -> Step<()> {
        Err(Phase::Http.fail(format_args!("body does not contain {}", quote(self.wanted, 60))))
    }
}
