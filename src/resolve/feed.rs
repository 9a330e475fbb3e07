//! The DNS servers in force: those of the command line, or those of `/etc/resolv.conf`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time;
use tracing::{info, warn};

use super::exchange::server_text;
use super::resolv_conf::{self, ReadResult};
use super::servers::Servers;

/// The source of the servers to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerSource {
    /// A file in the format of `/etc/resolv.conf`, which is read again every 5 s.
    ResolvConf(PathBuf),
    Fixed(Vec<SocketAddr>),
}

/// The longest time that the first lookups wait for the file.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The servers in force, with the watch of the file.
#[derive(Debug)]
pub(super) struct ServerFeed {
    servers: Arc<Servers>,
    /// None for servers of the command line.
    file: Option<(PathBuf, watch::Receiver<Option<ReadResult>>)>,
}

impl ServerFeed {
    /// Returns the servers that are known within a second.
    pub(super) async fn start(source: &ServerSource) -> Self {
        match source {
            ServerSource::Fixed(servers) => {
                Self { servers: Arc::new(Servers::new(servers.clone())), file: None }
            }
            ServerSource::ResolvConf(path) => {
                let mut results = resolv_conf::watch(path.clone());
                let read = results.wait_for(Option::is_some);
                let is_read = time::timeout(FIRST_READ_TIMEOUT, read).await.is_ok();
                let servers = Arc::default();
                let mut feed = Self { servers, file: Some((path.clone(), results)) };
                if is_read {
                    feed.apply();
                } else {
                    warn!("{} is not read yet; no name is asked until then", path.display());
                }
                feed
            }
        }
    }

    pub(super) fn servers(&self) -> &Arc<Servers> {
        &self.servers
    }

    /// Waits until other servers are in force. Servers of the command line never change.
    pub(super) async fn changed(&mut self) {
        loop {
            let watching = match &mut self.file {
                Some((_, results)) => results.changed().await.is_ok(),
                None => false,
            };
            if !watching {
                std::future::pending::<()>().await;
            }
            let before = self.servers.clone();
            self.apply();
            if !Arc::ptr_eq(&before, &self.servers) {
                return;
            }
        }
    }

    /// Puts the newest content of the file in force. A file that can't be read, or that lists no
    /// server, leaves the last servers in force.
    fn apply(&mut self) {
        let Some((path, results)) = &mut self.file else { return };
        let path = path.display();
        let kept = match self.servers.addresses() {
            [] => "no name can be asked",
            _ => "the last DNS servers are still asked",
        };
        match results.borrow_and_update().as_ref() {
            None => {}
            Some(Err(error)) => warn!("{path} can't be read: {error}; {kept}"),
            Some(Ok(addresses)) if addresses.is_empty() => {
                warn!("{path} lists no nameserver; {kept}");
            }
            Some(Ok(addresses)) if addresses == self.servers.addresses() => {}
            Some(Ok(addresses)) => {
                let servers: Vec<String> = addresses.iter().map(server_text).collect();
                info!("DNS servers of {path}: {}", servers.join(", "));
                self.servers = Arc::new(Servers::new(addresses.clone()));
            }
        }
    }
}
