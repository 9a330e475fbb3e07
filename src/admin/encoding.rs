//! The content encoding of a page: gzip for clients that accept it, as Prometheus and browsers do.

use std::convert::Infallible;
use std::io::Write as _;

use axum::extract::FromRequestParts;
use axum::http::header::{self, HeaderMap};
use axum::http::request::Parts;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The effort of the compression. On a metrics page of 8 MB, this level takes 9 ms for a 22nd of
/// the size. The next one takes half as long again for an eighth less, and level 1 saves nothing.
const LEVEL: Compression = Compression::new(2);

/// The encoding that the client of a request accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    /// Returns gzip if `Accept-Encoding` permits it and does not prefer the plain text (RFC 9110,
    /// section 12.5.3).
    fn negotiate(headers: &HeaderMap) -> Self {
        let (mut gzip, mut any, mut identity) = (None, None, None);
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let words =
            values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        for word in words {
            let (name, parameter) = word.split_once(';').unwrap_or((word, ""));
            let weight = parse_weight(parameter);
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => gzip = weight,
                "*" => any = weight,
                "identity" => identity = weight,
                _ => {}
            }
        }
        let gzip = gzip.or(any).unwrap_or(0.0);
        if gzip > 0.0 && gzip >= identity.unwrap_or(0.0) { Self::Gzip } else { Self::Identity }
    }
}

/// Returns the weight of a parameter such as `q=0.5`: 1 for none, and 0 for any other text.
pub(super) fn parse_weight(parameter: &str) -> Option<f32> {
    let parameter = parameter.trim().to_ascii_lowercase();
    if parameter.is_empty() {
        return Some(1.0);
    }
    let weight = parameter.strip_prefix("q=").and_then(|weight| weight.trim().parse().ok());
    Some(weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0))
}

impl<S: Sync> FromRequestParts<S> for Encoding {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::negotiate(&parts.headers))
    }
}

/// The encoder of one page.
pub(super) enum Encoder {
    Identity,
    // The state is about 300 kB, which a page needs only while it is sent.
    Gzip(Box<GzEncoder<Vec<u8>>>),
    /// The end of the page has been encoded.
    Ended,
}

impl Encoder {
    pub(super) fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Identity => Self::Identity,
            Encoding::Gzip => Self::Gzip(Box::new(GzEncoder::new(Vec::new(), LEVEL))),
        }
    }

    /// Encodes the next part of the page, or its end. Returns the bytes that are ready, which may
    /// be none for a part; none at all after the end.
    pub(super) fn encode(&mut self, part: Option<String>) -> Option<Vec<u8>> {
        match (part, self) {
            (Some(part), Self::Identity) => Some(part.into_bytes()),
            (Some(part), Self::Gzip(encoder)) => {
                encoder.write_all(part.as_bytes()).expect("a Vec takes all");
                Some(std::mem::take(encoder.get_mut()))
            }
            (None, encoder) => match std::mem::replace(encoder, Self::Ended) {
                Self::Gzip(encoder) => Some(encoder.finish().expect("a Vec takes all")),
                Self::Identity | Self::Ended => None,
            },
            (Some(_), Self::Ended) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn negotiated(values: &[&str]) -> Encoding {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, value.parse().expect("a header"));
        }
        Encoding::negotiate(&headers)
    }

    #[test]
    fn gzip_is_for_clients_that_accept_it() {
        for values in [
            &["gzip"][..],
            &["deflate, gzip;q=0.5, br"],
            &["GZIP ; Q=1.0"],
            &["identity;q=0.5, gzip"],
            &["x-gzip"],
            &["*"],
            &["br", "gzip"],
            &["gzip;q=0.001"],
        ] {
            assert_eq!(negotiated(values), Encoding::Gzip, "{values:?}");
        }
        for values in [
            &[][..],
            &[""],
            &["identity"],
            &["br, zstd"],
            &["gzip;q=0"],
            &["gzip;q=0, *"],
            &["*;q=0"],
            &["identity, gzip;q=0.5"],
            &["gzip;q=high"],
            &["gzip;q=NaN"],
            &["gzip;q=-1"],
            &["gzip2"],
        ] {
            assert_eq!(negotiated(values), Encoding::Identity, "{values:?}");
        }
    }

    #[test]
    fn an_encoded_page_is_the_page() {
        let parts: Vec<String> =
            (0..50).map(|number| format!("line {number}\n").repeat(number)).collect();
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let mut encoder = Encoder::new(encoding);
            let ends = parts.iter().cloned().map(Some).chain([None]);
            let bytes: Vec<u8> = ends.filter_map(|part| encoder.encode(part)).flatten().collect();
            assert_eq!(encoder.encode(None), None, "it has ended");
            let mut page = String::new();
            match encoding {
                Encoding::Identity => page = String::from_utf8(bytes).expect("UTF-8"),
                Encoding::Gzip => {
                    let mut decoder = flate2::read::GzDecoder::new(&bytes[..]);
                    decoder.read_to_string(&mut page).expect("gzip");
                }
            }
            assert_eq!(page, parts.concat());
        }
    }
}
