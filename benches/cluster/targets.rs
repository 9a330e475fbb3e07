//! A web server on every address. The health of each address can be changed, and the server records
//! the time of the deciding answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use crate::support::runtime;

/// The answers of a target to its checks.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Health {
    Up,
    Down,
}

/// A server that runs until it is dropped.
pub(crate) struct Targets {
    turned: Arc<Mutex<HashMap<IpAddr, Turned>>>,
    decisions: broadcast::Sender<(IpAddr, Health)>,
    task: JoinHandle<()>,
}

/// An address whose health was changed, with its answers since.
struct Turned {
    health: Health,
    threshold: u32,
    answers: u32,
    /// The time when the answer that reaches the threshold began.
    decisive: Option<Instant>,
}

impl Targets {
    /// Serves every address of the sandbox on this port. Each passes until it is changed.
    pub(crate) async fn start(port: u16) -> Targets {
        let listener = TcpListener::bind(("0.0.0.0", port)).await.expect("a port of our own");
        let turned: Arc<Mutex<HashMap<IpAddr, Turned>>> = Arc::default();
        let served = turned.clone();
        let (decisions, _) = broadcast::channel(1024);
        let decided = decisions.clone();
        let task = runtime().spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (turned, decided) = (served.clone(), decided.clone());
                // Errors concern only the client.
                runtime().spawn(async move {
                    let _ = answer(stream, &turned, &decided).await;
                });
            }
        });
        Targets { turned, decisions, task }
    }

    /// Changes the health of an address. The answer with the number `threshold` is the deciding
    /// one.
    pub(crate) fn turn(&self, ip: IpAddr, to: Health, threshold: u32) {
        lock(&self.turned).insert(ip, Turned { health: to, threshold, answers: 0, decisive: None });
    }

    /// Returns the deciding answers from now on.
    pub(crate) fn decisions(&self) -> broadcast::Receiver<(IpAddr, Health)> {
        self.decisions.subscribe()
    }

    /// Returns the time when the deciding answer to a change began.
    pub(crate) fn decisive(&self, ip: IpAddr) -> Option<Instant> {
        lock(&self.turned).get(&ip)?.decisive
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut stream: TcpStream,
    turned: &Mutex<HashMap<IpAddr, Turned>>,
    decided: &broadcast::Sender<(IpAddr, Health)>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let ip = stream.local_addr()?.ip();
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let status = if count(&mut lock(turned), ip, decided) { "200 OK" } else { "500 Down" };
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Counts an answer that begins now. Returns true if it is a passing one.
///
/// The time is taken before the first byte is sent, so no client can have its verdict earlier.
fn count(
    turned: &mut HashMap<IpAddr, Turned>,
    ip: IpAddr,
    decided: &broadcast::Sender<(IpAddr, Health)>,
) -> bool {
    let Some(turned) = turned.get_mut(&ip) else { return true };
    turned.answers += 1;
    if turned.answers == turned.threshold {
        turned.decisive = Some(Instant::now());
        // Nobody may listen.
        let _ = decided.send((ip, turned.health));
    }
    turned.health == Health::Up
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
