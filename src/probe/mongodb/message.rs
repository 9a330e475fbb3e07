//! The messages of MongoDB's protocol (`OP_MSG`, since MongoDB 3.6): a command to send, and the
//! document that answers it.
//!
//! ```text
//!  length, request, answered request, 2013: 4 bytes each, little end first
//!  flags: 4 bytes
//!  0 and a document, once; 1, a length and documents, any number of times
//!  a checksum of 4 bytes, if bit 0 of the flags says so
//! ```

use super::bson::Fields;

/// The code of the only kind of message.
const OP_MSG: i32 = 2013;
const HEADER: usize = 16;
const FLAGS: usize = 4;
/// The bytes of the shortest document.
const MIN_DOCUMENT: usize = 5;
/// The most bytes that any server sends in one message.
const MAX_LENGTH: usize = 48_000_000;

/// The flag for a checksum at the end.
const CHECKSUM: u32 = 1;
/// The flags that a client must know to understand the message, but for the checksum and the one
/// that announces more messages.
const UNKNOWN_REQUIRED: u32 = 0xfffc;

/// The input is not an answer to the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotMessage;

/// Appends a command without arguments.
pub(super) fn write_command(output: &mut Vec<u8>, request: i32, command: &str) {
    let mut document = vec![0; 4];
    document.push(0x10);
    document.extend_from_slice(command.as_bytes());
    document.extend_from_slice(b"\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0");
    let length = document.len() as i32;
    document[..4].copy_from_slice(&length.to_le_bytes());
    let length = (HEADER + FLAGS + 1) as i32 + length;
    for word in [length, request, 0, OP_MSG, 0] {
        output.extend_from_slice(&word.to_le_bytes());
    }
    output.push(0);
    output.append(&mut document);
}

/// Takes the answer to a request from the front of the input, and returns its document. Returns
/// none, and takes nothing, if it is not complete.
pub(super) fn take_document<'a>(
    input: &mut &'a [u8],
    request: i32,
) -> Result<Option<&'a [u8]>, NotMessage> {
    let message = *input;
    let Some(length) = word_at(message, 0) else { return Ok(None) };
    let length = usize::try_from(length).map_err(|_| NotMessage)?;
    if !(HEADER + FLAGS + 1 + MIN_DOCUMENT..=MAX_LENGTH).contains(&length) {
        return Err(NotMessage);
    }
    if word_at(message, 8).is_some_and(|answered| answered != request)
        || word_at(message, 12).is_some_and(|code| code != OP_MSG)
    {
        return Err(NotMessage);
    }
    let Some(rest) = message.get(length..) else { return Ok(None) };
    let document = only_document(&message[HEADER..length]).ok_or(NotMessage)?;
    *input = rest;
    Ok(Some(document))
}

/// Returns the document of a message without its header.
fn only_document(body: &[u8]) -> Option<&[u8]> {
    let flags = word_at(body, 0)? as u32;
    if flags & UNKNOWN_REQUIRED != 0 {
        return None;
    }
    let checksum = if flags & CHECKSUM == 0 { 0 } else { 4 };
    let mut sections = body.get(FLAGS..body.len() - checksum)?;
    let mut document = None;
    while let Some((kind, rest)) = sections.split_first() {
        let length = usize::try_from(word_at(rest, 0)?).ok()?;
        let (section, rest) = rest.split_at_checked(length)?;
        match (kind, document) {
            (0, None) => document = Some(section),
            (1, _) if length > 4 => {}
            _ => return None,
        }
        sections = rest;
    }
    document.filter(|document| Fields::new(document).is_ok())
}

fn word_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().map(|word| i32::from_le_bytes(*word))
}
