//! The media type of a page for people: HTML for browsers, and plain text for all others.
//!
//! Every browser asks for `text/html` by name. `curl` and `wget` ask for `*/*`, and `kubectl get
//! --raw` for JSON before anything else. They print to a terminal, so they get the text.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::{self, HeaderMap};
use axum::http::request::Parts;

use super::encoding::parse_weight;

/// The media type of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MediaType {
    Html,
    Text,
}

impl MediaType {
    /// Returns HTML if `Accept` names it and does not prefer plain text (RFC 9110, section 12.5.1).
    fn negotiate(headers: &HeaderMap) -> Self {
        let (mut html, mut text) = (0.0_f32, 0.0_f32);
        let values = headers.get_all(header::ACCEPT).iter();
        let ranges =
            values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        for range in ranges {
            let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
            let parameter = parameters
                .split(';')
                .find(|parameter| parameter.trim_start().starts_with(['q', 'Q']));
            let weight = parse_weight(parameter.unwrap_or_default()).unwrap_or(0.0);
            match name.trim().to_ascii_lowercase().as_str() {
                "text/html" | "application/xhtml+xml" => html = html.max(weight),
                "text/plain" => text = text.max(weight),
                _ => {}
            }
        }
        if html > 0.0 && html >= text { Self::Html } else { Self::Text }
    }
}

impl<S: Sync> FromRequestParts<S> for MediaType {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::negotiate(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_for_clients_that_ask_for_it_by_name() {
        let negotiated = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, value.parse().expect("a header"));
            }
            MediaType::negotiate(&headers)
        };
        for values in [
            &["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"][..],
            &["text/html"],
            &["TEXT/HTML; charset=utf-8; Q=0.5", "*/*"],
            &["text/plain;q=0.5, text/html;q=0.5"],
        ] {
            assert_eq!(negotiated(values), MediaType::Html, "{values:?}");
        }
        for values in [
            &[][..],
            &["*/*"],
            &["text/plain"],
            &["text/plain, text/html;q=0.9"],
            &["application/json, */*"],
            &["text/html;q=0"],
            &["text/html;q=high"],
            &["text/htmlx"],
        ] {
            assert_eq!(negotiated(values), MediaType::Text, "{values:?}");
        }
    }
}
