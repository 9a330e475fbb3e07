//! The wire format of MySQL: packets to send, and those that a check reads.

use crate::probe::conversation::MAX_MESSAGE;

/// The packet that ends a session in good order.
pub(super) const QUIT: &[u8] = b"\x01\0\0\0\x01";

/// The length of the random bytes that a login is made with.
pub(super) const SCRAMBLE_LENGTH: usize = 20;

/// Properties of a connection, of which each side has a set.
pub(super) mod capability {
    pub(crate) const LONG_PASSWORD: u32 = 0x1;
    pub(crate) const PROTOCOL_41: u32 = 0x200;
    pub(crate) const SSL: u32 = 0x800;
    pub(crate) const SECURE_CONNECTION: u32 = 0x8000;
    pub(crate) const PLUGIN_AUTH: u32 = 0x8_0000;
}

/// The number of the character set utf8mb3, which all versions have.
const UTF8: u8 = 33;

/// The largest packet that a client promises to take, as most clients have it.
const MAX_PACKET: u32 = 1 << 24;

/// A packet of the server: its sequence number and its content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub sequence: u8,
    pub body: &'a [u8],
}

/// The input is no packet of a sensible length.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    Empty,
    TooLong,
}

/// Takes a packet from the front of the input. Returns none, and takes nothing, if it is not
/// complete.
pub(super) fn take_packet<'a>(input: &mut &'a [u8]) -> Result<Option<Packet<'a>>, Malformed> {
    let Some((&[a, b, c, sequence], rest)) = input.split_first_chunk() else { return Ok(None) };
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    match length {
        0 => return Err(Malformed::Empty),
        1..=MAX_MESSAGE => {}
        _ => return Err(Malformed::TooLong),
    }
    let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    *input = rest;
    Ok(Some(Packet { sequence, body }))
}

/// Appends a packet.
pub(super) fn write_packet(output: &mut Vec<u8>, sequence: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    output.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
    output.push(sequence);
    parts.iter().for_each(|part| output.extend_from_slice(part));
}

/// The first packet of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub version: String,
    pub capabilities: u32,
    pub scramble: [u8; SCRAMBLE_LENGTH],
    pub plugin: Vec<u8>,
}

impl Greeting {
    /// Reads a greeting of protocol 10. Returns none if it is another packet.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut rest = body.strip_prefix(b"\x0a")?;
        let version = take_text(&mut rest)?;
        // The number of the connection, and the first part of the scramble with a zero byte.
        let (_, rest) = rest.split_at_checked(4)?;
        let (&first, rest) = rest.split_first_chunk::<8>()?;
        let (_, rest) = rest.split_at_checked(1)?;
        let (&low, rest) = rest.split_first_chunk::<2>()?;
        // The character set and the status.
        let (_, rest) = rest.split_at_checked(3)?;
        let (&high, rest) = rest.split_first_chunk::<2>()?;
        // The length of the scramble, and reserved bytes.
        let (_, rest) = rest.split_at_checked(11)?;
        let (&second, rest) = rest.split_first_chunk::<12>()?;
        let mut rest = rest.strip_prefix(b"\0")?;
        let mut scramble = [0; SCRAMBLE_LENGTH];
        scramble[..8].copy_from_slice(&first);
        scramble[8..].copy_from_slice(&second);
        // The end of the name is missing in versions before 5.5.10.
        let plugin = take_text(&mut rest).unwrap_or(rest);
        Some(Self {
            version: String::from_utf8_lossy(version).into_owned(),
            capabilities: u32::from_le_bytes([low[0], low[1], high[0], high[1]]),
            scramble,
            plugin: plugin.to_vec(),
        })
    }

    /// Returns whether the server speaks TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.capabilities & capability::SSL != 0
    }
}

/// The login of a client.
pub(super) struct Login<'a> {
    pub capabilities: u32,
    pub user: &'a [u8],
    pub answer: &'a [u8],
    pub plugin: &'a [u8],
}

impl Login<'_> {
    /// Appends the login as a packet.
    pub(super) fn write(&self, output: &mut Vec<u8>, sequence: u8) {
        let head = login_head(self.capabilities);
        let length = [self.answer.len() as u8];
        let parts: [&[u8]; 7] = [&head, self.user, &[0], &length, self.answer, self.plugin, &[0]];
        write_packet(output, sequence, &parts);
    }
}

/// Appends the request for TLS.
pub(super) fn write_tls_request(output: &mut Vec<u8>, sequence: u8, capabilities: u32) {
    write_packet(output, sequence, &[&login_head(capabilities)]);
}

/// Returns the part of a login that is also the request for TLS.
fn login_head(capabilities: u32) -> [u8; 32] {
    let mut head = [0; 32];
    head[..4].copy_from_slice(&capabilities.to_le_bytes());
    head[4..8].copy_from_slice(&MAX_PACKET.to_le_bytes());
    head[8] = UTF8;
    head
}

/// An error of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerError<'a> {
    pub code: u16,
    pub text: &'a [u8],
}

impl<'a> ServerError<'a> {
    /// Reads an error packet. Returns none if it is another packet.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (&[marker, low, high], text) = body.split_first_chunk()?;
        if marker != 0xff {
            return None;
        }
        // The SQLSTATE is missing in errors before the login.
        let text = match text {
            [b'#', rest @ ..] => rest.get(5..).unwrap_or_default(),
            text => text,
        };
        Some(Self { code: u16::from_le_bytes([low, high]), text })
    }
}

/// Returns whether a packet ends a list of columns or rows.
pub(super) fn is_end(body: &[u8]) -> bool {
    body.first() == Some(&0xfe) && body.len() < 9
}

/// Returns the name of a column from its definition.
pub(super) fn column_name(mut body: &[u8]) -> Option<&[u8]> {
    // Catalogue, schema, table and the table's own name come first.
    for _ in 0..4 {
        take_value(&mut body)?;
    }
    take_value(&mut body)
}

/// The bytes before the values of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RowHead {
    /// The packet is no row.
    None,
    /// The first byte of the packet's content has not come.
    Incomplete,
    Length(usize),
}

/// Takes the head of a packet that is a row. Takes nothing if it is none, or not complete.
pub(super) fn take_row_head(input: &mut &[u8]) -> RowHead {
    let Some((&[a, b, c, _], rest)) = input.split_first_chunk() else { return RowHead::Incomplete };
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    match rest.first() {
        _ if length == 0 => return RowHead::None,
        None => return RowHead::Incomplete,
        Some(0xff) => return RowHead::None,
        Some(0xfe) if length < 9 => return RowHead::None,
        Some(_) => {}
    }
    *input = rest;
    RowHead::Length(length)
}

/// Takes a text that ends with a zero byte.
pub(super) fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = input.iter().position(|byte| *byte == 0)?;
    let (text, rest) = (&input[..end], &input[end + 1..]);
    *input = rest;
    Some(text)
}

/// The bytes before a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ValueHead {
    Null,
    Length(usize),
    Malformed,
}

/// Takes the head of a value. Returns none, and takes nothing, if it is not complete.
pub(super) fn take_value_head(input: &mut &[u8]) -> Option<ValueHead> {
    let (&first, rest) = input.split_first()?;
    let (head, rest) = match first {
        0xfb => (ValueHead::Null, rest),
        0xfc => {
            let (&[a, b], rest) = rest.split_first_chunk()?;
            (ValueHead::Length(u16::from_le_bytes([a, b]).into()), rest)
        }
        0xfd => {
            let (&[a, b, c], rest) = rest.split_first_chunk()?;
            (ValueHead::Length(u32::from_le_bytes([a, b, c, 0]) as usize), rest)
        }
        // Values of 16 MiB and more, of which a check reads none, and no value at all.
        0xfe.. => (ValueHead::Malformed, rest),
        length => (ValueHead::Length(length.into()), rest),
    };
    *input = rest;
    Some(head)
}

/// Takes a value with its head. Returns none if it is NULL or malformed.
fn take_value<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let ValueHead::Length(length) = take_value_head(input)? else { return None };
    let (value, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(value)
}
