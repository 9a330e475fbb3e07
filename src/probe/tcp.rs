//! The TCP check that has something to say: connects, and as asked speaks TLS, sends a text and waits for another.

use std::io;
use std::net::{IpAddr, SocketAddr};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::kind::{CheckProber, NewProber, Workload};
use super::phase::{Phase, Progress, Step};
use super::stream::close::close_first;
use super::stream::connect::connect;
use super::target::Target;
use super::text::{Finder, quote_expected};
use super::tls::{self, Alpn};
use super::value;
use crate::config::{ExpectedContent, TcpCheck, ValueSource};
use crate::health::Verdict;

/// How much of an answer is searched for the expected text.
const MOST_READ: usize = 64 << 10;

struct Tcp {
    address: SocketAddr,
    tls: Option<tls::Connector>,
    send: Option<ValueSource>,
    expect: Option<ExpectedContent>,
}

impl NewProber for TcpCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        Box::new(Tcp::new(self, target.ip))
    }
}

impl CheckProber for Tcp {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, Step<()>> {
        self.run(progress).boxed()
    }

    fn workload(&self) -> Workload {
        if self.tls.is_some() { Workload::Cpu } else { Workload::Network }
    }
}

impl Tcp {
    fn new(check: &TcpCheck, ip: IpAddr) -> Self {
        Self {
            address: SocketAddr::new(ip, check.port),
            tls: check.tls.as_ref().map(|tls| tls::Connector::new(tls, ip, Alpn::None)),
            send: check.send.clone(),
            expect: check.expect.clone(),
        }
    }

    async fn run(&self, progress: &Progress) -> Step<()> {
        let text = match &self.send {
            Some(text) => Some(value::read(text, Phase::Send).await?),
            None => None,
        };
        let session = match &self.tls {
            Some(tls) => Some(tls.prepare().await?),
            None => None,
        };
        progress.enter(Phase::Connect);
        let mut stream = connect(self.address).await?;
        let Some(session) = session else {
            self.speak(&mut stream, text.as_deref(), progress, &|phase, error| phase.io(error))
                .await?;
            close_first(stream);
            return Ok(());
        };
        progress.enter(Phase::Tls);
        let mut tls = session.handshake(stream).await?;
        let asked = tls.asked.clone();
        self.speak(&mut tls.stream, text.as_deref(), progress, &|phase, error| {
            asked.verdict(phase, error)
        })
        .await?;
        if self.expect.is_none() {
            progress.enter(Phase::Settle);
            tls.settle().await?;
        }
        close_first(tls.end());
        Ok(())
    }

    async fn speak<S>(
        &self,
        stream: &mut S,
        text: Option<&[u8]>,
        progress: &Progress,
        judge: Judge<'_>,
    ) -> Step<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(text) = text {
            progress.enter(Phase::Send);
            let sent = async {
                stream.write_all(text).await?;
                stream.flush().await
            };
            sent.await.map_err(|error| judge(Phase::Send, &error))?;
        }
        if let Some(wanted) = &self.expect {
            progress.enter(Phase::Expect);
            expect(stream, wanted, progress, judge).await?;
        }
        Ok(())
    }
}

/// Who gives the verdict on an I/O error: over TLS, the error may hold what the server said.
type Judge<'a> = &'a (dyn Fn(Phase, &io::Error) -> Verdict + Sync);

/// Reads until the text has come, the connection ends, or enough was read.
async fn expect<S>(
    stream: &mut S,
    wanted: &ExpectedContent,
    progress: &Progress,
    judge: Judge<'_>,
) -> Step<()>
where
    S: AsyncRead + Unpin,
{
    let mut finder = Finder::new(wanted.as_bytes());
    let mut buffer = vec![0; 4096];
    let mut seen = 0;
    loop {
        let read = match stream.read(&mut buffer).await {
            Ok(read) => read,
            // A peer that ends TLS without saying so has closed the connection all the same.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(judge(Phase::Expect, &error)),
        };
        if finder.feed(&buffer[..read]) {
            return Ok(());
        }
        if read == 0 {
            let wanted = quote_expected(wanted);
            return Err(Phase::Expect.fail(format_args!("connection closed before {wanted}")));
        }
        progress.enter(Phase::Answer);
        seen += read;
        if seen >= MOST_READ {
            let wanted = quote_expected(wanted);
            return Err(Phase::Expect.fail(format_args!("no {wanted} in the first 64 KiB")));
        }
    }
}
