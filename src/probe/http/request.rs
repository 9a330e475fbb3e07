//! The request of an HTTP check.

use std::net::IpAddr;

use hyper::Method;
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::http::uri::{Authority, PathAndQuery};

use crate::config::{HttpCheck, Scheme, ValueSource};
use crate::probe::phase::{Phase, ProbeResult};
use crate::probe::target::Target;
use crate::probe::text::quote;
use crate::probe::value;

/// The User-Agent of the daemon.
pub(crate) const AGENT: &str = concat!("external-endpoints/", env!("CARGO_PKG_VERSION"));

/// The parts of the request that are the same at each probe.
pub(crate) struct RequestTemplate {
    pub method: Method,
    pub path: PathAndQuery,
    /// The host that the request names.
    pub authority: Authority,
    headers: Vec<(HeaderName, ValueSource)>,
}

impl RequestTemplate {
    /// Fails with the part of the config that is not valid in HTTP.
    pub(crate) fn new(check: &HttpCheck, target: &Target) -> Result<Self, String> {
        let usual = match check.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let default_host = || match (&target.name, target.ip) {
            (Some(name), _) => name.to_string(),
            (None, IpAddr::V6(ip)) => format!("[{ip}]"),
            (None, IpAddr::V4(ip)) => ip.to_string(),
        };
        let host = match &check.host {
            Some(host) => host.clone(),
            None if check.port == usual => default_host(),
            None => format!("{}:{}", default_host(), check.port),
        };
        let header = |(name, value): &(String, ValueSource)| match HeaderName::try_from(name) {
            Ok(header) => Ok((header, value.clone())),
            Err(_) => Err(invalid_for_http("header", name)),
        };
        Ok(Self {
            method: Method::from_bytes(check.method.as_bytes())
                .map_err(|_| invalid_for_http("method", &check.method))?,
            path: PathAndQuery::try_from(check.path.as_str())
                .map_err(|_| invalid_for_http("path", &check.path))?,
            authority: Authority::try_from(host.as_str())
                .map_err(|_| invalid_for_http("host", &host))?,
            headers: check.headers.iter().map(header).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn has_header(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|(own, _)| own == name)
    }

    /// Reads all headers but Host. Each configured value is marked as sensitive, so that nothing
    /// prints it.
    pub(crate) async fn headers(&self) -> ProbeResult<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 4);
        for (name, value) in &self.headers {
            let bytes = value::read_trimmed(value, Phase::Http).await?;
            let Ok(mut value) = HeaderValue::from_bytes(&bytes) else {
                return Err(Phase::Http.inconclusive(format_args!(
                    "the value of header {name} is not valid in HTTP"
                )));
            };
            value.set_sensitive(true);
            headers.append(name, value);
        }
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        // There is no second request, so the server may forget the connection at once. hyper drops
        // the header for HTTP/2, which forbids it.
        headers.entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
        Ok(headers)
    }

    /// Returns the whole request as it goes on the wire, or `None` if it differs between probes or
    /// frames itself.
    pub(crate) fn to_wire(&self) -> Option<Vec<u8>> {
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

    pub(crate) fn host(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(self.authority.as_str()).ok()
    }
}

/// Returns the error for a part of the config that can't be in a request.
pub(crate) fn invalid_for_http(key: &str, what: &str) -> String {
    format!("{key} {} is not valid in HTTP", quote(what, 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    #[test]
    fn the_default_host_has_a_port_that_is_not_usual() {
        let host = |scheme: Scheme, port: u16, name: Option<&str>, ip: &str| {
            let target = Target {
                name: name.map(Into::into),
                ip: ip.parse().expect("an IP"),
                ..Target::local()
            };
            let check = HttpCheck {
                port,
                path: "/".into(),
                scheme,
                method: "GET".into(),
                host: None,
                headers: Vec::new(),
                expected_statuses: vec![200..=399],
                expected_body: None,
                http2: false,
                tls: Tls::default(),
            };
            let template = RequestTemplate::new(&check, &target).expect("a valid request");
            template.authority.to_string()
        };
        let (http, https, name) = (Scheme::Http, Scheme::Https, Some("_db.corp.example"));
        assert_eq!(host(http, 80, name, "10.0.0.1"), "_db.corp.example");
        assert_eq!(host(https, 443, name, "10.0.0.1"), "_db.corp.example");
        assert_eq!(host(https, 80, name, "10.0.0.1"), "_db.corp.example:80");
        assert_eq!(host(http, 8008, None, "10.0.0.1"), "10.0.0.1:8008");
        assert_eq!(host(http, 80, None, "10.0.0.1"), "10.0.0.1");
        assert_eq!(host(http, 80, None, "2001:db8::1"), "[2001:db8::1]");
        assert_eq!(host(https, 80, None, "2001:db8::1"), "[2001:db8::1]:80");
    }
}
