//! The messages of gRPC's health protocol: the name of a service, and its state.
//!
//! ```text
//!  0, length: 1 and 4 bytes, big end first, before each message
//!  HealthCheckRequest { string service = 1; }
//!  HealthCheckResponse { ServingStatus status = 1; }
//! ```

use std::fmt;

/// The bytes before a message.
const PREFIX: usize = 5;

/// The state of a service, by its number in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServingStatus(u64);

impl ServingStatus {
    pub(super) const SERVING: Self = Self(1);
}

impl fmt::Display for ServingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("UNKNOWN"),
            1 => f.write_str("SERVING"),
            2 => f.write_str("NOT_SERVING"),
            3 => f.write_str("SERVICE_UNKNOWN"),
            other => write!(f, "status {other} of the service"),
        }
    }
}

/// Returns the request for the state of a service, with its prefix.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        write_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.append(&mut message);
    framed
}

/// Reads the only message of an answer. Returns none if it is not the message of the protocol.
pub(super) fn read_response(body: &[u8]) -> Option<ServingStatus> {
    let (prefix, message) = body.split_first_chunk::<PREFIX>()?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    // A compressed message has a 1 here. The request does not allow one.
    if prefix[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return None;
    }
    let (mut rest, mut status) = (message, ServingStatus(0));
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (0, _) => return None,
            (1, 0) => status = ServingStatus(take_varint(&mut rest)?),
            (_, 0) => _ = take_varint(&mut rest)?,
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = take_varint(&mut rest)?;
                rest = rest.get(usize::try_from(length).ok()?..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn write_varint(output: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        output.push(number as u8 | 0x80);
        number >>= 7;
    }
    output.push(number as u8);
}

/// Takes a number of at most ten bytes, each with seven bits, the lowest first.
fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for index in 0..10 {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        number |= u64::from(byte & 0x7f).wrapping_shl(7 * index);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
