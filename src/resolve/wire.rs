//! The wire format of a question and its reply. Pure.
//!
//! The `domain` crate reads and writes the messages. This module decides what a reply says about a
//! question (RFC 1035, 2181, 2308, 6891).

use std::net::IpAddr;

use domain::base::iana::{Class, OptRcode, Rtype};
use domain::base::message_builder::MessageBuilder;
use domain::base::name::{Name, ToName};
use domain::base::wire::ParseError;
use domain::base::{Message, ParsedName};
use domain::rdata::{A, Aaaa, Cname, Srv};

/// A name in wire format, compared without regard to case.
pub(super) type WireName = Name<Vec<u8>>;

/// The most aliases that are followed for one question, in one reply and over several.
pub(super) const MAX_ALIASES: usize = 8;

/// The largest UDP reply that a query asks for. It fits into one IPv6 packet (DNS flag day 2020).
const EDNS_PAYLOAD_SIZE: u16 = 1232;

/// The kind of record that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum RecordKind {
    A,
    Aaaa,
    Srv,
}

impl RecordKind {
    fn rtype(self) -> Rtype {
        match self {
            Self::A => Rtype::A,
            Self::Aaaa => Rtype::AAAA,
            Self::Srv => Rtype::SRV,
        }
    }
}

/// One name, and the kind of record that is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub name: WireName,
    pub kind: RecordKind,
}

/// The use of EDNS in a query. A server that does not know it is asked once more without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edns {
    Offered,
    Omitted,
}

/// One SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SrvRecord {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: WireName,
}

/// The records in a usable reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Records {
    Addresses(Vec<IpAddr>),
    Services(Vec<SrvRecord>),
}

/// A reply that gives neither records nor their absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ServerFailure {
    ServFail,
    Refused,
    /// Another response code.
    Code(u16),
    /// A message that can't be read.
    Garbage,
    /// Too many messages that are no reply to the question.
    Flood,
    /// A server that neither knows the name nor asks others (RFC 1035, 4.3.1).
    Referral,
    /// More aliases than [`MAX_ALIASES`], or a circle of them.
    TooManyAliases,
}

/// The meaning of a message for a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// The reply to another question, or no reply at all. The wait continues.
    Unrelated,
    /// The reply did not fit. The question is asked again over TCP.
    Truncated,
    /// The server does not know EDNS. The question is asked again without it.
    EdnsRejected,
    /// Records, the smallest TTL in seconds of all records that led to them, and the aliases.
    Records {
        records: Records,
        ttl: u32,
        aliases: Vec<WireName>,
    },
    /// The name is an alias, and the reply has no records of the last alias.
    Alias {
        aliases: Vec<WireName>,
        ttl: u32,
    },
    /// The name exists, and has no record of this kind.
    NoRecords,
    /// NXDOMAIN.
    NoSuchName,
    Failed(ServerFailure),
}

/// A reply with a record that can't be read.
struct Malformed;

impl From<ParseError> for Malformed {
    fn from(_: ParseError) -> Self {
        Self
    }
}

impl Question {
    /// Returns the query to send.
    pub(super) fn to_bytes(&self, id: u16, edns: Edns) -> Vec<u8> {
        let mut message = MessageBuilder::new_vec();
        message.header_mut().set_id(id);
        message.header_mut().set_rd(true);
        let mut message = message.question();
        message.push((&self.name, self.kind.rtype())).expect("a name fits into a message");
        if edns == Edns::Omitted {
            return message.finish();
        }
        let mut message = message.additional();
        message
            .opt(|opt| {
                opt.set_udp_payload_size(EDNS_PAYLOAD_SIZE);
                Ok(())
            })
            .expect("an empty option record fits into a message");
        message.finish()
    }

    /// Returns the meaning of a message for this question, which was sent with this ID.
    pub(super) fn read(&self, bytes: &[u8], id: u16, edns: Edns) -> Reply {
        let Ok(message) = Message::from_octets(bytes) else { return Reply::Unrelated };
        let header = message.header();
        if !header.qr() || header.id() != id || header.opcode().to_int() != 0 {
            return Reply::Unrelated;
        }
        let code = message.opt_rcode();
        if edns == Edns::Offered
            && matches!(code, OptRcode::FORMERR | OptRcode::NOTIMP | OptRcode::BADVERS)
        {
            // Such a server may leave the question out.
            return Reply::EdnsRejected;
        }
        if !self.is_repeated_in(&message) {
            return Reply::Unrelated;
        }
        if header.tc() {
            return Reply::Truncated;
        }
        match code {
            OptRcode::NOERROR => {
                self.records(&message).unwrap_or(Reply::Failed(ServerFailure::Garbage))
            }
            OptRcode::NXDOMAIN => Reply::NoSuchName,
            OptRcode::SERVFAIL => Reply::Failed(ServerFailure::ServFail),
            OptRcode::REFUSED => Reply::Failed(ServerFailure::Refused),
            other => Reply::Failed(ServerFailure::Code(other.to_int())),
        }
    }

    fn is_repeated_in(&self, message: &Message<&[u8]>) -> bool {
        message.sole_question().is_ok_and(|question| {
            question.qname().name_eq(&self.name)
                && question.qtype() == self.kind.rtype()
                && question.qclass() == Class::IN
        })
    }

    /// Follows the aliases within the reply to the records at their end.
    fn records(&self, message: &Message<&[u8]>) -> Result<Reply, Malformed> {
        let mut aliases: Vec<WireName> = Vec::new();
        let mut smallest_ttl = u32::MAX;
        loop {
            let owner = aliases.last().unwrap_or(&self.name);
            if let Some((records, ttl)) = self.records_of(message, owner)? {
                return Ok(Reply::Records { records, ttl: smallest_ttl.min(ttl), aliases });
            }
            match alias_of(message, owner)? {
                Some(_) if aliases.len() == MAX_ALIASES => {
                    return Ok(Reply::Failed(ServerFailure::TooManyAliases));
                }
                Some((target, ttl)) => {
                    aliases.push(target);
                    smallest_ttl = smallest_ttl.min(ttl);
                }
                None if aliases.is_empty() => {
                    let header = message.header();
                    let knows = header.aa() || header.ra();
                    let referral = Reply::Failed(ServerFailure::Referral);
                    return Ok(if knows { Reply::NoRecords } else { referral });
                }
                None => return Ok(Reply::Alias { aliases, ttl: smallest_ttl }),
            }
        }
    }

    /// Returns the records of this kind that belong to the owner, with their smallest TTL.
    fn records_of(
        &self,
        message: &Message<&[u8]>,
        owner: &WireName,
    ) -> Result<Option<(Records, u32)>, Malformed> {
        let mut ttl = u32::MAX;
        let mut addresses: Vec<IpAddr> = Vec::new();
        let mut services = Vec::new();
        for record in message.answer()? {
            let record = record?;
            if record.class() != Class::IN
                || record.rtype() != self.kind.rtype()
                || !record.owner().name_eq(owner)
            {
                continue;
            }
            ttl = ttl.min(effective_ttl(record.ttl().as_secs()));
            match self.kind {
                RecordKind::A => {
                    let record = record.to_record::<A>()?.ok_or(Malformed)?;
                    addresses.push(record.data().addr().into());
                }
                RecordKind::Aaaa => {
                    let record = record.to_record::<Aaaa>()?.ok_or(Malformed)?;
                    addresses.push(record.data().addr().into());
                }
                RecordKind::Srv => {
                    let record = record.to_record::<Srv<ParsedName<_>>>()?.ok_or(Malformed)?;
                    let data = record.data();
                    services.push(SrvRecord {
                        priority: data.priority(),
                        weight: data.weight(),
                        port: data.port(),
                        target: data.target().to_vec(),
                    });
                }
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        services.sort_unstable();
        services.dedup();
        Ok(match (addresses.is_empty(), services.is_empty()) {
            (true, true) => None,
            (false, _) => Some((Records::Addresses(addresses), ttl)),
            (true, false) => Some((Records::Services(services), ttl)),
        })
    }
}

/// Returns the target of the owner's CNAME record with its TTL, if there is one.
fn alias_of(
    message: &Message<&[u8]>,
    owner: &WireName,
) -> Result<Option<(WireName, u32)>, Malformed> {
    for record in message.answer()? {
        let record = record?;
        if record.class() != Class::IN || record.rtype() != Rtype::CNAME {
            continue;
        }
        if record.owner().name_eq(owner) {
            let record = record.to_record::<Cname<ParsedName<_>>>()?.ok_or(Malformed)?;
            let ttl = effective_ttl(record.ttl().as_secs());
            return Ok(Some((record.data().cname().to_vec(), ttl)));
        }
    }
    Ok(None)
}

/// Returns the TTL to use. One with the top bit set is a large one (RFC 8767).
fn effective_ttl(seconds: u32) -> u32 {
    seconds.min(i32::MAX as u32)
}

#[cfg(test)]
mod tests;
