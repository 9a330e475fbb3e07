//! The wire format of PostgreSQL (version 3): messages to send, and those that a check reads.

use crate::probe::conversation::MAX_MESSAGE;

/// A message of the server: its type and its content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub kind: u8,
    pub body: &'a [u8],
}

/// The input has no message of a sensible length.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The message that ends a session in good order.
pub(super) const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// The request for TLS, which a server answers by one byte.
pub(super) const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// Appends the first message, which names the user and the database.
pub(super) fn write_startup(output: &mut Vec<u8>, user: &[u8], database: &[u8]) {
    let words = [b"user", user, b"database", database];
    let length = 4 + 4 + words.iter().map(|word| word.len() + 1).sum::<usize>() + 1;
    output.extend_from_slice(&(length as u32).to_be_bytes());
    output.extend_from_slice(&[0, 3, 0, 0]);
    for word in words {
        output.extend_from_slice(word);
        output.push(0);
    }
    output.push(0);
}

/// Appends a message.
pub(super) fn write_message(output: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    output.push(kind);
    output.extend_from_slice(&(length as u32).to_be_bytes());
    parts.iter().for_each(|part| output.extend_from_slice(part));
}

/// Takes a message from the front of the input. Returns none, and takes nothing, if it is not
/// complete.
pub(super) fn take_message<'a>(input: &mut &'a [u8]) -> Result<Option<Message<'a>>, Malformed> {
    let Some((&[kind, a, b, c, d], rest)) = input.split_first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=MAX_MESSAGE).contains(&length) {
        return Err(Malformed);
    }
    let Some((body, rest)) = rest.split_at_checked(length - 4) else { return Ok(None) };
    *input = rest;
    Ok(Some(Message { kind, body }))
}

/// Takes a number of four bytes from the front of a body.
pub(super) fn take_u32(body: &mut &[u8]) -> Option<u32> {
    let (&bytes, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(u32::from_be_bytes(bytes))
}

/// An error of the server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServerError<'a> {
    /// The SQLSTATE. Empty if there is none.
    pub code: &'a [u8],
    /// The text, in the language of the server.
    pub text: &'a [u8],
}

impl<'a> ServerError<'a> {
    /// Reads the fields of an error.
    pub(super) fn new(body: &'a [u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|byte| *byte == 0) {
            match field {
                [b'C', code @ ..] if is_sqlstate(code) => error.code = code,
                [b'M', text @ ..] => error.text = text,
                _ => {}
            }
        }
        error
    }
}

fn is_sqlstate(code: &[u8]) -> bool {
    code.len() == 5 && code.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// Returns the columns of a row. A column is none if it is NULL. Returns none if the row is
/// malformed.
pub(super) fn columns(mut body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (&count, rest) = body.split_first_chunk()?;
    body = rest;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(count) {
        let length = take_u32(&mut body)?;
        if length == u32::MAX {
            columns.push(None);
            continue;
        }
        let (column, rest) = body.split_at_checked(length as usize)?;
        body = rest;
        columns.push(Some(column));
    }
    body.is_empty().then_some(columns)
}
