//! A DNS server with every fault. Its messages are made by another codec than the daemon's, so that
//! no mistake is on both sides.
//!
//! ```ignore
//! let dns = NameServer::start().await;
//! dns.set("db.corp.example", Reply::addresses(["10.0.0.7"], 5));
//! dns.set("db.corp.example", Reply::NoSuchName);
//! dns.fail_all(Reply::Silence);
//! dns.recover();
//! assert_eq!(dns.count("db.corp.example"), 2);
//! ```

#![allow(dead_code, reason = "several programs include this module, and none uses all of it")]
#![allow(clippy::disallowed_methods, reason = "a test server has no clock of the daemon")]

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// The reply to all queries for one name. A `u32` is a TTL in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// Addresses of both families; a query gets those of its own.
    Addresses(Vec<IpAddr>, u32),
    /// One list of addresses after the other: each query gets the next of its family.
    Turns(Vec<Vec<IpAddr>>, u32),
    /// One reply for A records, another for AAAA records.
    ByFamily(Box<Reply>, Box<Reply>),
    /// An alias with the records of its target, as a recursor sends it.
    Alias(String, u32),
    /// An alias without any record of its target.
    BareAlias(String, u32),
    /// SRV records: priority, weight, port and target.
    Services(Vec<(u16, u16, u16, String)>, u32),
    /// NXDOMAIN.
    NoSuchName,
    /// NXDOMAIN with the zone's SOA record, of this TTL and negative TTL.
    NoSuchNameWithSoa(u32),
    /// The name exists, without a record of any kind.
    NoRecords,
    /// A response code: 1 is FORMERR, 2 SERVFAIL, 4 NOTIMP, 5 REFUSED.
    Code(u16),
    Silence,
    Late(Duration, Box<Reply>),
    /// Truncated over UDP; over TCP as given.
    Truncated(Box<Reply>),
    /// Truncated over UDP; over TCP the connection is closed.
    TruncatedWithoutTcp,
    /// FORMERR for a query with EDNS.
    WithoutEdns(Box<Reply>),
    /// These bytes after the query's ID.
    Garbage(Vec<u8>),
    /// First a false reply that does not fit the query, then this one.
    After(Mismatch, Box<Reply>),
    /// The letters of the name in the reply are all capitals.
    Capitals(Box<Reply>),
}

/// The way in which a false reply does not fit the query. It has the address 192.0.2.66.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Id,
    Question,
    /// The reply comes from another port.
    Port,
}

/// The address in a false reply.
pub(crate) const FALSE_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 66));

/// A query that the server has received.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    /// The name in lower case, without a dot at the end.
    pub name: String,
    pub kind: RecordType,
    pub transport: Transport,
    pub at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A server that serves until it is dropped.
pub(crate) struct NameServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    replies: HashMap<String, Reply>,
    /// The reply to all queries, in place of those by name.
    override_reply: Option<Reply>,
    /// The newest queries, at most [`MAX_QUERIES`].
    queries: Vec<Query>,
    /// All queries, by name and kind.
    counts: HashMap<(String, RecordType), usize>,
    /// The place in each list of turns.
    turns: HashMap<(String, RecordType), usize>,
}

/// The queries that are kept until they are taken.
const MAX_QUERIES: usize = 100_000;

impl Reply {
    /// Returns the reply with these addresses.
    pub(crate) fn addresses<T: TryInto<TextIp, Error: Debug>>(
        ips: impl IntoIterator<Item = T>,
        ttl: u32,
    ) -> Self {
        Self::Addresses(ips.into_iter().map(|ip| ip.try_into().expect("an IP").0).collect(), ttl)
    }

    /// Returns the reply after a time.
    pub(crate) fn late(self, by: Duration) -> Self {
        Self::Late(by, Box::new(self))
    }
}

/// An IP that a test gives as text or as a value.
pub(crate) struct TextIp(IpAddr);

impl TryFrom<&str> for TextIp {
    type Error = std::net::AddrParseError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<IpAddr> for TextIp {
    fn from(ip: IpAddr) -> Self {
        Self(ip)
    }
}

impl NameServer {
    /// Starts a server on a free port of 127.0.0.1.
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().expect("an address")).await
    }

    /// Starts a server on this address, as 198.51.100.53:53.
    pub(crate) async fn start_on(address: SocketAddr) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let (udp, tcp) = bind(address).await;
        let address = udp.local_addr().expect("an address");
        let mut server = Self { address, state, tasks: JoinSet::new() };
        server.serve(udp, tcp);
        server
    }

    fn serve(&mut self, udp: UdpSocket, tcp: TcpListener) {
        self.tasks.spawn(serve_udp(Arc::new(udp), self.state.clone()));
        self.tasks.spawn(serve_tcp(tcp, self.state.clone()));
    }

    /// Closes the ports: queries get "port unreachable". The replies are kept.
    pub(crate) async fn close(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Serves again on the same address.
    pub(crate) async fn reopen(&mut self) {
        self.tasks.shutdown().await;
        let (udp, tcp) = bind(self.address).await;
        self.serve(udp, tcp);
    }

    /// Sets the reply for a name, from the next query on. Names without one get NXDOMAIN.
    pub(crate) fn set(&self, name: &str, reply: Reply) {
        lock(&self.state).replies.insert(key(name), reply);
    }

    /// Sets the reply for all names, whatever [`Self::set`] says, until [`Self::recover`].
    /// [`Reply::Silence`] is a machine without power.
    pub(crate) fn fail_all(&self, reply: Reply) {
        lock(&self.state).override_reply = Some(reply);
    }

    /// Serves the replies by name again.
    pub(crate) fn recover(&self) {
        lock(&self.state).override_reply = None;
    }

    /// Returns the queries since the last call.
    pub(crate) fn take_queries(&self) -> Vec<Query> {
        std::mem::take(&mut lock(&self.state).queries)
    }

    /// Returns the number of queries for a name, of all kinds, since the start.
    pub(crate) fn count(&self, name: &str) -> usize {
        let name = key(name);
        let state = lock(&self.state);
        state.counts.iter().filter(|((of, _), _)| *of == name).map(|(_, count)| count).sum()
    }

    /// Returns the number of queries of one kind for a name since the start.
    pub(crate) fn count_of(&self, name: &str, kind: RecordType) -> usize {
        lock(&self.state).counts.get(&(key(name), kind)).copied().unwrap_or(0)
    }

    /// Returns the number of all queries since the start.
    pub(crate) fn total(&self) -> usize {
        lock(&self.state).counts.values().sum()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn fqdn(name: &str) -> Name {
    Name::from_str(&format!("{}.", name.trim_end_matches('.'))).expect("a name")
}

/// Binds both transports to one port.
async fn bind(address: SocketAddr) -> (UdpSocket, TcpListener) {
    let mut attempts = 0;
    loop {
        let udp = UdpSocket::bind(address).await.expect("a UDP port");
        let bound = udp.local_addr().expect("an address");
        // A free port of UDP may be in use over TCP.
        match TcpListener::bind(bound).await {
            Ok(tcp) => return (udp, tcp),
            Err(error) if attempts == 100 => panic!("a TCP port {bound}: {error}"),
            Err(_) => attempts += 1,
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut tasks = JoinSet::new();
    let mut buffer = [0; 4096];
    loop {
        // An error is of an earlier reply, whose port was closed.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        while tasks.try_join_next().is_some() {}
        let (query, socket, state) = (buffer[..length].to_vec(), socket.clone(), state.clone());
        tasks.spawn(async move {
            for packet in packets(&query, &state, Transport::Udp).await {
                let stranger = match packet.source {
                    Source::Server => None,
                    Source::Stranger => UdpSocket::bind((socket_ip(&socket), 0)).await.ok(),
                };
                let socket = stranger.as_ref().unwrap_or(&socket);
                let _ = socket.send_to(&packet.bytes, client).await;
            }
        });
    }
}

fn socket_ip(socket: &UdpSocket) -> IpAddr {
    socket.local_addr().expect("an address").ip()
}

async fn serve_tcp(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut tasks = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while tasks.try_join_next().is_some() {}
        tasks.spawn(serve_connection(stream, state.clone()));
    }
}

async fn serve_connection(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; length.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let packets = packets(&query, &state, Transport::Tcp).await;
        if packets.is_empty() {
            return;
        }
        for Packet { bytes, .. } in packets {
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            let _ = stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await;
        }
    }
}

/// A message to send.
struct Packet {
    bytes: Vec<u8>,
    source: Source,
}

enum Source {
    Server,
    /// Another port than the server's.
    Stranger,
}

impl From<Vec<u8>> for Packet {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, source: Source::Server }
    }
}

/// Returns the messages that a query gets, after the time that its reply takes.
async fn packets(query: &[u8], state: &Mutex<State>, transport: Transport) -> Vec<Packet> {
    let Ok(query) = Message::from_vec(query) else { return Vec::new() };
    let Some(question) = query.queries.first() else { return Vec::new() };
    let name = key(&question.name().to_string());
    let kind = question.query_type();
    let mut reply = lock(state).record(name, kind, transport);
    let mut packets = Vec::new();
    let mut owner = question.name().clone();
    loop {
        reply = match reply {
            Reply::Silence => return packets,
            Reply::TruncatedWithoutTcp if transport == Transport::Tcp => return packets,
            Reply::Truncated(_) | Reply::TruncatedWithoutTcp if transport == Transport::Udp => {
                packets.push(truncated(&query).into());
                return packets;
            }
            Reply::WithoutEdns(_) if query.edns.is_some() => {
                let id = query.metadata.id;
                let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
                packets.push(bytes(&error).into());
                return packets;
            }
            Reply::Garbage(tail) => {
                packets.push([&query.metadata.id.to_be_bytes()[..], &tail].concat().into());
                return packets;
            }
            Reply::Late(delay, then) => {
                tokio::time::sleep(delay).await;
                *then
            }
            Reply::Truncated(then) | Reply::WithoutEdns(then) => *then,
            Reply::ByFamily(a, aaaa) => *if kind == RecordType::AAAA { aaaa } else { a },
            Reply::After(mismatch, then) => {
                packets.push(false_reply(&query, mismatch));
                *then
            }
            Reply::Capitals(then) => {
                owner = fqdn(&owner.to_string().to_ascii_uppercase());
                *then
            }
            plain => {
                let mut message = response_to(&query, owner.clone());
                lock(state).answer(&mut message, owner, kind, &plain);
                packets.push(fitting(&query, &message, transport).into());
                return packets;
            }
        }
    }
}

fn response_to(query: &Message, name: Name) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    let mut question = query.queries[0].clone();
    question.set_name(name);
    reply.add_query(question);
    reply
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("a message")
}

fn truncated(query: &Message) -> Vec<u8> {
    let mut reply = response_to(query, query.queries[0].name().clone());
    reply.metadata.truncation = true;
    bytes(&reply)
}

/// Returns the message, truncated if it is larger than the query allows for UDP.
fn fitting(query: &Message, message: &Message, transport: Transport) -> Vec<u8> {
    let bytes = bytes(message);
    let limit = match transport {
        Transport::Udp => usize::from(query.max_payload()),
        Transport::Tcp => usize::from(u16::MAX),
    };
    if bytes.len() > limit { truncated(query) } else { bytes }
}

fn false_reply(query: &Message, mismatch: Mismatch) -> Packet {
    let name = match mismatch {
        Mismatch::Question => fqdn("other.example"),
        Mismatch::Id | Mismatch::Port => query.queries[0].name().clone(),
    };
    let mut reply = response_to(query, name.clone());
    if mismatch == Mismatch::Id {
        reply.metadata.id = reply.metadata.id.wrapping_add(1);
    }
    let kind = query.queries[0].query_type();
    add_addresses(&mut reply, &name, kind, &[FALSE_ADDRESS], 60);
    let source = if mismatch == Mismatch::Port { Source::Stranger } else { Source::Server };
    Packet { bytes: bytes(&reply), source }
}

impl State {
    /// Records a query, and returns its reply.
    fn record(&mut self, name: String, kind: RecordType, transport: Transport) -> Reply {
        *self.counts.entry((name.clone(), kind)).or_default() += 1;
        let reply = self.override_reply.as_ref().or_else(|| self.replies.get(&name));
        let reply = reply.cloned().unwrap_or(Reply::NoSuchName);
        if self.queries.len() < MAX_QUERIES {
            self.queries.push(Query { name, kind, transport, at: Instant::now() });
        }
        reply
    }

    /// Adds what a plain reply holds to a message.
    fn answer(&mut self, message: &mut Message, owner: Name, kind: RecordType, reply: &Reply) {
        match reply {
            Reply::Addresses(ips, ttl) => add_addresses(message, &owner, kind, ips, *ttl),
            Reply::Turns(lists, ttl) => {
                let turn = self.turns.entry((key(&owner.to_string()), kind)).or_default();
                add_addresses(message, &owner, kind, &lists[*turn % lists.len()], *ttl);
                *turn += 1;
            }
            Reply::Alias(target, ttl) | Reply::BareAlias(target, ttl) => {
                let target = fqdn(target);
                let alias = RData::CNAME(CNAME(target.clone()));
                message.add_answer(Record::from_rdata(owner, *ttl, alias));
                let next = self.replies.get(&key(&target.to_string())).cloned();
                // A circle of aliases ends after a few rounds.
                if let (Reply::Alias(..), Some(next)) = (reply, next)
                    && message.answers.len() < 30
                {
                    self.answer(message, target, kind, &next);
                }
            }
            Reply::Services(records, ttl) if kind == RecordType::SRV => {
                for (priority, weight, port, target) in records {
                    let data = SRV::new(*priority, *weight, *port, fqdn(target));
                    let record = Record::from_rdata(owner.clone(), *ttl, RData::SRV(data));
                    message.add_answer(record);
                }
            }
            Reply::NoSuchName => message.metadata.response_code = ResponseCode::NXDomain,
            Reply::NoSuchNameWithSoa(ttl) => {
                message.metadata.response_code = ResponseCode::NXDomain;
                let ttl = *ttl;
                let soa = SOA::new(fqdn("ns.example"), fqdn("admin.example"), 1, 60, 60, 60, ttl);
                message.add_authority(Record::from_rdata(fqdn("example"), ttl, RData::SOA(soa)));
            }
            Reply::Code(code) => {
                let [high, low] = code.to_be_bytes();
                message.metadata.response_code = ResponseCode::from(high, low);
            }
            _ => {}
        }
    }
}

fn add_addresses(message: &mut Message, owner: &Name, kind: RecordType, ips: &[IpAddr], ttl: u32) {
    for ip in ips {
        let data = match (ip, kind) {
            (IpAddr::V4(ip), RecordType::A) => RData::A(A(*ip)),
            (IpAddr::V6(ip), RecordType::AAAA) => RData::AAAA(AAAA(*ip)),
            _ => continue,
        };
        message.add_answer(Record::from_rdata(owner.clone(), ttl, data));
    }
}
