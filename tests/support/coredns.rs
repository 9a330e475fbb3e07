//! CoreDNS as kubeadm sets it up: the cache and the forwarder between a Pod and its name server.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::{TcpStream, UdpSocket};

use super::process::Process;
use super::{addresses, binaries, eventually, temp_dir, with_timeout};

/// A CoreDNS that runs until it is dropped.
pub(crate) struct CoreDns {
    pub ip: IpAddr,
    _process: Process,
}

impl CoreDns {
    /// Starts it on port 53 of an IP of its own. It forwards what its cache does not hold.
    pub(crate) async fn start(upstream: IpAddr) -> CoreDns {
        let ip = addresses::allocate_one();
        let folder = temp_dir("coredns");
        let path = folder.join("Corefile");
        fs::write(&path, corefile(ip, upstream)).expect("a file in the sandbox");
        let mut command = Command::new(binaries::coredns());
        command.arg("-conf").arg(path);
        let mut process = Process::start("coredns", command, &folder.join("coredns.log"));
        eventually(Duration::from_secs(30), "CoreDNS listens", async || {
            assert!(process.exit_status().is_none(), "{}", process.log_tail());
            TcpStream::connect(SocketAddr::from((ip, 53))).await.map(drop)
        })
        .await;
        CoreDns { ip, _process: process }
    }

    /// Asks for the IPv4 addresses of a name. Returns each with the TTL that is told.
    pub(crate) async fn lookup(&self, name: &str) -> Vec<(IpAddr, u32)> {
        let mut query = Message::query();
        let name = Name::from_ascii(format!("{name}.")).expect("a name");
        query.add_query(Query::query(name, RecordType::A));
        query.metadata.recursion_desired = true;
        let socket = UdpSocket::bind("0.0.0.0:0").await.expect("a port");
        let query = query.to_vec().expect("a query");
        socket.send_to(&query, (self.ip, 53)).await.expect("a sent query");
        let mut reply = [0; 512];
        let reply = with_timeout(Duration::from_secs(10), "CoreDNS answers", async {
            let length = socket.recv(&mut reply).await.expect("a reply");
            Message::from_vec(&reply[..length]).expect("a message")
        })
        .await;
        let records = reply.answers.iter();
        records.filter_map(|record| Some((record.data.ip_addr()?, record.ttl))).collect()
    }
}

/// Returns kubeadm's Corefile without the parts that serve the cluster's own names.
fn corefile(ip: IpAddr, upstream: IpAddr) -> String {
    format!(
        ".:53 {{
    bind {ip}
    errors
    forward . {upstream} {{
        max_concurrent 1000
    }}
    cache 30
    loadbalance
}}
"
    )
}
