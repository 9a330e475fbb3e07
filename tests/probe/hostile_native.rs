//! One table of hostile servers for all checks in a database's own protocol, with and without TLS.

use std::sync::Arc;
use std::time::Duration;

use external_endpoints::config::{CheckKind, Tls};
use external_endpoints::health::Verdict;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::*;
use crate::fixtures::*;

/// A kind of check of a port, plain or over TLS.
pub(crate) type Kind<'a> = &'a dyn Fn(u16, Option<Tls>) -> CheckKind;

/// The end of a connection.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Close,
    Reset,
}

/// Starts a server that reads once, sends a text and then ends the connection.
async fn ending(text: Vec<u8>, end: End) -> Server {
    Server::start(move |mut stream| {
        let text = text.clone();
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&text).await;
            if end == End::Reset {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            } else {
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    })
    .await
}

/// Probes a server plain and behind TLS, and checks that both have a failure that begins so.
async fn expect(
    name: &str,
    server: Server,
    timeout: Duration,
    (words, kind): (&Words, Kind<'_>),
    starts: &[&str],
) {
    let authority = Authority::new();
    let server = Arc::new(server);
    let front = words.plain_of(&server).await;
    let plain = front.as_ref().map_or(server.port, |front| front.port);
    let verdict = probe_once(kind(plain, None), timeout).await;
    let acceptor = acceptor(&authority.sign(&["127.0.0.1"]), Clients::All, ALL, &[]);
    let (request, grant) = (words.tls_request, words.tls_grant);
    let front = Server::in_tls_of(&server, words.tls_greeting, request, grant, acceptor).await;
    let secure = probe_once(kind(front.port, Some(authority.trusted())), timeout).await;
    for (verdict, way) in [(verdict, "plain"), (secure, "TLS")] {
        let Verdict::Fail(reason) = &verdict else { panic!("{name}, {way}: {verdict:?}") };
        // Behind the greeting, the login is what a hostile server answers to.
        let is_late = way == "TLS" && !words.tls_greeting.is_empty();
        let begins = starts.iter().any(|start| reason.starts_with(start))
            || (is_late && reason.starts_with("auth: "));
        assert!(begins, "{name}, {way}: {reason}, not {starts:?}");
    }
}

/// The words of a protocol.
pub(crate) struct Words {
    /// The first phase.
    pub phase: &'static str,
    pub product: &'static str,
    /// The length of the request for TLS, and the bytes that grant it.
    pub tls_request: usize,
    pub tls_grant: &'static [u8],
    /// The greeting of a server that speaks first, before the request for TLS.
    pub tls_greeting: &'static [u8],
}

impl Words {
    /// Puts a server that answers at once in front of one that reads first, if the protocol's
    /// server speaks first.
    async fn plain_of(&self, server: &Arc<Server>) -> Option<Server> {
        if self.tls_greeting.is_empty() { None } else { Some(Server::nudging(server).await) }
    }

    /// Probes a server without TLS.
    async fn probe(&self, server: Server, kind: Kind<'_>) -> Verdict {
        let server = Arc::new(server);
        let front = self.plain_of(&server).await;
        let port = front.as_ref().map_or(server.port, |front| front.port);
        probe_once(kind(port, None), PATIENT).await
    }
}

/// Checks the verdicts of a check on hostile servers. `good` is a whole answer that passes, whose
/// end is not read.
pub(crate) async fn judge(words: &Words, good: &[u8], unread: &[u8], kind: Kind<'_>) {
    let Words { phase, product, .. } = words;
    let both = (words, kind);
    let no_answer = format!("{phase}: no answer in 500ms");
    expect("silent", Server::silent().await, SHORT, both, &[&no_answer]).await;
    let not = format!("{phase}: not {product}: the answer begins ");
    for garbage in
        ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\0\0\0\0\0\0\0\0\0"]
    {
        expect(garbage, Server::says(garbage).await, SHORT, both, &[&not]).await;
    }
    let over = [
        &not[..],
        "a message",
        &format!("{phase}: a message is over 16 KiB"),
        &format!("{phase}: the server sends messages without end"),
        &no_answer,
    ];
    for endless in
        ["y", "+", "-", "\0", "$1\r\na\r\n", "*1\r\n", "N\0\0\0\x04", "S\0\0\0\x08a\0b\0"]
    {
        expect(endless, Server::endless("", endless).await, PATIENT, both, &over).await;
    }
    let length = good.len() - unread.len();
    for at in 0..length {
        let plain = ending(good[..at].to_vec(), End::Close).await;
        let verdict = words.probe(plain, kind).await;
        let Verdict::Fail(reason) = &verdict else { panic!("close at {at}: {verdict:?}") };
        assert!(reason.ends_with(": connection closed"), "close at {at}: {reason}");
        let plain = ending(good[..at].to_vec(), End::Reset).await;
        let verdict = words.probe(plain, kind).await;
        let Verdict::Fail(reason) = &verdict else { panic!("reset at {at}: {verdict:?}") };
        assert!(reason.contains(": connection "), "reset at {at}: {reason}");
    }
    let whole = ending(good.to_vec(), End::Close).await;
    assert_eq!(words.probe(whole, kind).await, pass());
}
