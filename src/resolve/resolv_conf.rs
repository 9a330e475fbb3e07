//! The DNS servers of `/etc/resolv.conf`, which is read again every 5 s.
//!
//! Search domains and options are not used, because a name in the config means the same everywhere.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

/// The file of the system.
pub(crate) const PATH: &str = "/etc/resolv.conf";

/// The time between two reads.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The most servers of the file that are used. The C library uses three too.
const MAX_SERVERS: usize = 3;

/// The most bytes of the file that are read.
const MAX_FILE_SIZE: u64 = 64 << 10;

const DNS_PORT: u16 = 53;

/// The servers of the file, or the reason why it can't be read.
pub(super) type ReadResult = Result<Vec<SocketAddr>, String>;

/// Watches a file. The receiver holds none until it was read once. The watch ends when the receiver
/// is dropped.
pub(super) fn watch(path: PathBuf) -> watch::Receiver<Option<ReadResult>> {
    let (results, receiver) = watch::channel(None);
    tokio::spawn(async move {
        while !results.is_closed() {
            let path = path.clone();
            // A file on a dead mount must not block the other tasks. It holds up one thread.
            if let Ok(result) = tokio::task::spawn_blocking(move || read(&path)).await {
                results.send_if_modified(|newest| {
                    let result = Some(result);
                    let differs = *newest != result;
                    *newest = result;
                    differs
                });
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = results.closed() => {}
            }
        }
    });
    receiver
}

/// Reads the servers of a file. A FIFO or a device is an error, and is not waited for.
pub(super) fn read(path: &Path) -> ReadResult {
    let read = || -> io::Result<String> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is no file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_SIZE).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map(|text| parse(&text)).map_err(|error| error.to_string())
}

/// Returns the servers that a file lists.
fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()).flatten()
        })
        .filter_map(parse_address)
        .take(MAX_SERVERS)
        .collect()
}

/// Parses an address of `resolv.conf`. An IPv6 address may have an interface, by name or by number.
fn parse_address(word: &str) -> Option<SocketAddr> {
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, DNS_PORT));
    }
    let (ip, scope) = word.split_once('%')?;
    let index = match scope.parse::<u32>() {
        Ok(index) => index,
        Err(_) => interface_index(scope)?,
    };
    Some(SocketAddrV6::new(ip.parse().ok()?, DNS_PORT, 0, index).into())
}

/// Returns the number of a network interface.
fn interface_index(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// Parses a DNS server of the command line: an IP, or an IP with a port.
pub(crate) fn parse_server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| parse_address(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_nameservers_of_resolv_conf_are_read() {
        let text = "search prod.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n\
                    # nameserver 10.0.0.9\nnameserver fd00::a\nnameserver nonsense\nnameserver\n";
        assert_eq!(parse(text), [address("10.96.0.10:53"), address("[fd00::a]:53")]);
        assert_eq!(parse(""), []);
        assert_eq!(parse(&"nameserver 10.0.0.1\n".repeat(9)).len(), MAX_SERVERS);
    }

    #[test]
    fn an_interface_may_be_a_number_or_a_name() {
        let servers = parse("nameserver fe80::1%7\nnameserver fe80::1%lo\n");
        let texts: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(texts, ["[fe80::1%7]:53", "[fe80::1%1]:53"]);
        assert_eq!(parse("nameserver fe80::1%no-such-interface\n"), []);
    }

    #[test]
    fn a_server_of_the_command_line_may_have_a_port() {
        assert_eq!(parse_server("10.0.0.1"), Some(address("10.0.0.1:53")));
        assert_eq!(parse_server("10.0.0.1:5353"), Some(address("10.0.0.1:5353")));
        assert_eq!(parse_server("fd00::a"), Some(address("[fd00::a]:53")));
        assert_eq!(parse_server("[fd00::a]:5353"), Some(address("[fd00::a]:5353")));
        assert_eq!(parse_server("dns.example"), None);
    }

    #[test]
    fn no_file_is_waited_for_or_read_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("resolv.conf");
        assert!(read(&path).is_err_and(|error| error.contains("No such file")));
        std::fs::write(&path, [0xff; 1 << 20]).expect("a file");
        assert_eq!(read(&path), Ok(vec![]));
        std::fs::remove_file(&path).expect("a file");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success());
        assert!(read(&path).is_err_and(|error| error.contains("is no file")));
        assert!(read(folder.path()).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_known_after_5_s() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("resolv.conf");
        let mut results = watch(path.clone());
        let newest = results.wait_for(Option::is_some).await.expect("a watcher").clone();
        assert!(newest.is_some_and(|result| result.is_err()));
        std::fs::write(&path, "nameserver 10.0.0.1").expect("a file");
        results.changed().await.expect("a watcher");
        assert_eq!(*results.borrow(), Some(Ok(vec![address("10.0.0.1:53")])));
    }
}
