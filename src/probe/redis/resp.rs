//! The wire format of Redis (RESP2): commands to send, and the replies that a check reads.

use crate::probe::conversation::MAX_MESSAGE;

/// A reply, as far as a check reads it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// A status, such as `PONG`.
    Status(&'a [u8]),
    /// An error: a code in capitals, and a text.
    Error(&'a [u8]),
    /// A string of bytes, or none.
    Bulk(Option<&'a [u8]>),
    /// A number or the head of a list, which no command of a check is answered by.
    Other,
}

/// The input is not RESP, or not the reply that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotResp;

/// Appends a command, as a list of strings.
pub(super) fn write_command<'a>(
    output: &mut Vec<u8>,
    words: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
) {
    let words = words.into_iter();
    output.extend_from_slice(format!("*{}\r\n", words.clone().count()).as_bytes());
    for word in words {
        output.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        output.extend_from_slice(word);
        output.extend_from_slice(b"\r\n");
    }
}

/// Takes a reply from the front of the input. Returns none, and takes nothing, if it is not
/// complete.
pub(super) fn take_reply<'a>(input: &mut &'a [u8]) -> Result<Option<Reply<'a>>, NotResp> {
    let Some(&kind) = input.first() else { return Ok(None) };
    if !b"+-:$*".contains(&kind) {
        return Err(NotResp);
    }
    let Some((line, after)) = split_line(&input[1..]) else { return Ok(None) };
    let (reply, after) = match kind {
        b'+' => (Reply::Status(line), after),
        b'-' => (Reply::Error(line), after),
        b'$' => match length(line)? {
            None => (Reply::Bulk(None), after),
            Some(length) => match after.get(..length + 2) {
                None => return Ok(None),
                Some(bulk) => {
                    let bulk = bulk.strip_suffix(b"\r\n").ok_or(NotResp)?;
                    (Reply::Bulk(Some(bulk)), &after[length + 2..])
                }
            },
        },
        _ => (Reply::Other, after),
    };
    *input = after;
    Ok(Some(reply))
}

/// Takes the reply to ROLE: an error, or the first string of a list, which is the role.
pub(super) fn take_role<'a>(input: &mut &'a [u8]) -> Result<Option<Reply<'a>>, NotResp> {
    let mut rest = *input;
    let is_list = rest.first() == Some(&b'*');
    // A list that is none, and one without a role.
    if matches!(rest, [b'*', b'-' | b'0', ..]) {
        return Err(NotResp);
    }
    let Some(reply) = take_reply(&mut rest)? else { return Ok(None) };
    let reply = match (is_list, reply) {
        (true, _) => match take_reply(&mut rest)? {
            Some(role @ Reply::Bulk(_)) => role,
            Some(_) => return Err(NotResp),
            None => return Ok(None),
        },
        (false, error @ Reply::Error(_)) => error,
        _ => return Err(NotResp),
    };
    *input = rest;
    Ok(Some(reply))
}

/// Returns the code of an error, which is its first word.
pub(super) fn code(error: &[u8]) -> &[u8] {
    let is_code_byte = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let end = error.iter().take(20).take_while(|byte| is_code_byte(byte)).count();
    &error[..end]
}

fn split_line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&input[..end], &input[end + 2..]))
}

/// Reads the length of a string. None stands for the string that is no string.
fn length(line: &[u8]) -> Result<Option<usize>, NotResp> {
    if line == b"-1" {
        return Ok(None);
    }
    let is_number = (1..=9).contains(&line.len()) && line.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(line).ok().filter(|_| is_number).ok_or(NotResp)?;
    // A longer one would never fit, and is not waited for.
    text.parse().ok().filter(|length| *length <= MAX_MESSAGE).map(Some).ok_or(NotResp)
}
