//! A client that connects to one address all the time, and records where each connection went.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::runtime;

/// The result of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConnectOutcome {
    /// The connection reached the database with this IP, which the database itself sent.
    Reached(IpAddr),
    Refused,
    /// No connection or no data within a second.
    NoAnswer,
    /// The connection broke.
    Broken,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub started: Instant,
    /// The time when the outcome was known. Without an answer, that is a second after the start.
    pub ended: Instant,
    pub outcome: ConnectOutcome,
}

/// Traffic that runs until it is dropped.
pub(crate) struct Traffic {
    connections: Arc<Mutex<Vec<Connection>>>,
    task: JoinHandle<()>,
}

impl Traffic {
    /// Starts a connection at each interval, independently of earlier ones.
    pub(crate) fn start(ip: IpAddr, port: u16, every: Duration) -> Traffic {
        let connections = Arc::new(Mutex::new(Vec::new()));
        let seen = connections.clone();
        let task = runtime().spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut open = tokio::task::JoinSet::new();
            loop {
                ticks.tick().await;
                let seen = seen.clone();
                open.spawn(async move {
                    let started = Instant::now();
                    let outcome = connect(ip, port).await;
                    lock(&seen).push(Connection { started, ended: Instant::now(), outcome });
                });
                while open.try_join_next().is_some() {}
            }
        });
        Traffic { connections, task }
    }

    /// Returns every connection that has ended so far.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        lock(&self.connections).clone()
    }

    /// Counts the connections that started after an instant, by outcome.
    pub(crate) fn tally_since(&self, since: Instant) -> BTreeMap<ConnectOutcome, u64> {
        self.tally(|connection| connection.started >= since)
    }

    /// Counts the connections that ended after an instant, by outcome: what an observer can know
    /// now.
    pub(crate) fn tally_ended_since(&self, since: Instant) -> BTreeMap<ConnectOutcome, u64> {
        self.tally(|connection| connection.ended >= since)
    }

    /// Counts all connections that have ended, by outcome.
    pub(crate) fn tally_all(&self) -> BTreeMap<ConnectOutcome, u64> {
        self.tally(|_| true)
    }

    fn tally(&self, wanted: impl Fn(&Connection) -> bool) -> BTreeMap<ConnectOutcome, u64> {
        let mut tally = BTreeMap::new();
        for connection in lock(&self.connections).iter().filter(|connection| wanted(connection)) {
            *tally.entry(connection.outcome).or_insert(0) += 1;
        }
        tally
    }

    /// Returns when the last connection with this outcome started.
    pub(crate) fn last(&self, outcome: ConnectOutcome) -> Option<Instant> {
        let connections = lock(&self.connections);
        let of_it = connections.iter().filter(|connection| connection.outcome == outcome);
        of_it.map(|connection| connection.started).max()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes one connection and returns its outcome.
pub(crate) async fn connect(ip: IpAddr, port: u16) -> ConnectOutcome {
    tokio::time::timeout(Duration::from_secs(1), try_connect(ip, port))
        .await
        .unwrap_or(ConnectOutcome::NoAnswer)
}

async fn try_connect(ip: IpAddr, port: u16) -> ConnectOutcome {
    let stream = match TcpStream::connect(SocketAddr::from((ip, port))).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return ConnectOutcome::Refused;
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => return ConnectOutcome::NoAnswer,
        Err(_) => return ConnectOutcome::Broken,
    };
    let mut line = String::new();
    match BufReader::new(stream).read_line(&mut line).await {
        Ok(_) => line.trim().parse().map_or(ConnectOutcome::Broken, ConnectOutcome::Reached),
        Err(_) => ConnectOutcome::Broken,
    }
}

fn lock(connections: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}
