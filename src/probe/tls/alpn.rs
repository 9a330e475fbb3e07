//! The application protocols that a client offers in the TLS handshake.

/// The protocols that the client offers in the handshake (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Alpn {
    None,
    Http1,
    /// HTTP/2, and HTTP/1.1 for servers that don't have it.
    Http2,
    /// HTTP/2 alone.
    Http2Only,
    /// The protocol of PostgreSQL, which servers from version 17 on know.
    Postgres,
}

impl Alpn {
    /// Returns the reason of a failure of a server that takes none of them.
    pub(super) fn refused(self) -> &'static str {
        match self {
            Alpn::Http1 => {
                "the server supports none of the offered HTTP versions; if it supports only \
                 HTTP/2, set `http2: true`"
            }
            Alpn::Http2 => "the server supports none of the offered HTTP versions",
            Alpn::Http2Only => "the server does not support HTTP/2",
            Alpn::Postgres => "the server does not support the protocol `postgresql` (ALPN)",
            Alpn::None => "the server wants a protocol to be named (ALPN), and none was",
        }
    }

    pub(super) fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Alpn::None => Vec::new(),
            Alpn::Http1 => vec![b"http/1.1".to_vec()],
            Alpn::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Alpn::Http2Only => vec![b"h2".to_vec()],
            Alpn::Postgres => vec![b"postgresql".to_vec()],
        }
    }
}
