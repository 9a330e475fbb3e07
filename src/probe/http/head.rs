//! The reader of an HTTP/1 head, as strict as hyper and with hyper's error texts.
//!
//! It reads the head in any pieces and visits each byte a bounded number of times. It drops interim
//! answers (1xx) once they are parsed, but their bytes count against the same limit.

use hyper::{Method, StatusCode};

use super::body::{BodyReader, Framing};
use super::expectation::MAX_HEAD;

/// The most header lines, as in hyper.
const MAX_HEADERS: usize = 100;

/// The head of the final answer.
#[derive(Debug, PartialEq)]
pub(super) struct Head {
    pub status: StatusCode,
    pub body: BodyReader,
}

/// The reason why a head is rejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum HeadError {
    TooLarge,
    /// The size includes interim answers.
    TooLargeWithInterim,
    TooManyHeaders,
    Malformed(&'static str),
}

#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// The beginning of a head that did not come in one piece.
    buffer: Vec<u8>,
    /// The length of the buffer that has been searched for the end of the head.
    searched: usize,
    /// The number of bytes read so far.
    taken: usize,
    has_interim: bool,
}

impl HeadReader {
    /// Reads a head from the beginning of the data. Uses up all data if the head is incomplete.
    pub(super) fn read(
        &mut self,
        data: &mut &[u8],
        method: &Method,
    ) -> Result<Option<Head>, HeadError> {
        loop {
            self.skip_blank_lines(data)?;
            if data.is_empty() {
                return Ok(None);
            }
            let parsed =
                if self.buffer.is_empty() { self.parse_whole(data)? } else { self.parse_on(data)? };
            let Some((status, framing)) = parsed else { return Ok(None) };
            // 101 ends the conversation in HTTP/1, so it is final.
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(Head { status, body: BodyReader::new(status, method, framing) }));
            }
            self.has_interim = true;
        }
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.taken == 0
    }

    /// Returns the memory that the reader holds.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.buffer.capacity()
    }

    /// Drops blank lines before a head.
    fn skip_blank_lines(&mut self, data: &mut &[u8]) -> Result<(), HeadError> {
        if self.buffer == b"\r" && !data.is_empty() {
            if data[0] != b'\n' {
                return Err(HeadError::Malformed(HEADER));
            }
            self.buffer.clear();
            self.take(data, 1)?;
        }
        while self.buffer.is_empty() {
            match data {
                [b'\r', b'\n', ..] => self.take(data, 2)?,
                [b'\n', ..] => self.take(data, 1)?,
                _ => break,
            }
        }
        Ok(())
    }

    fn parse_whole(
        &mut self,
        data: &mut &[u8],
    ) -> Result<Option<(StatusCode, Framing)>, HeadError> {
        match parse(data)? {
            Some((length, status, framing)) => {
                self.take(data, length)?;
                Ok(Some((status, framing)))
            }
            None => {
                self.buffer.extend_from_slice(data);
                self.searched = self.buffer.len();
                self.take(data, data.len())?;
                Ok(None)
            }
        }
    }

    /// Parses the buffer once the end of the head has come.
    fn parse_on(&mut self, data: &mut &[u8]) -> Result<Option<(StatusCode, Framing)>, HeadError> {
        let before = self.buffer.len();
        self.buffer.extend_from_slice(data);
        let Some(end) = end_of_head(&self.buffer, self.searched) else {
            self.searched = self.buffer.len();
            self.take(data, data.len())?;
            return Ok(None);
        };
        self.take(data, end - before)?;
        // An empty line ends a head that does not begin with one.
        let (_, status, framing) =
            parse(&self.buffer[..end])?.ok_or(HeadError::Malformed(HEADER))?;
        self.buffer.clear();
        self.searched = 0;
        Ok(Some((status, framing)))
    }

    fn take(&mut self, data: &mut &[u8], length: usize) -> Result<(), HeadError> {
        self.taken += length;
        *data = &data[length..];
        match (self.taken > MAX_HEAD, self.has_interim) {
            (false, _) => Ok(()),
            (true, false) => Err(HeadError::TooLarge),
            (true, true) => Err(HeadError::TooLargeWithInterim),
        }
    }
}

/// Returns the length of a head that ends with an empty line after `from`, or with the bytes just
/// before it.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.saturating_sub(2);
    while let Some(found) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let rest = &bytes[at + found + 1..];
        match rest {
            [b'\n', ..] => return Some(at + found + 2),
            [b'\r', b'\n', ..] => return Some(at + found + 3),
            _ => at += found + 1,
        }
    }
    None
}

const HEADER: &str = "invalid HTTP header parsed";
const STATUS: &str = "invalid HTTP status-code parsed";

/// Parses a head. Returns its length, status and framing, or `None` if it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<(usize, StatusCode, Framing)>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(httparse::Error::Version) => {
            return Err(HeadError::Malformed("invalid HTTP version parsed"));
        }
        Err(httparse::Error::Status) => return Err(HeadError::Malformed(STATUS)),
        Err(_) => return Err(HeadError::Malformed(HEADER)),
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(HeadError::Malformed(STATUS))?;
    Ok(Some((length, status, framing(response.version, response.headers))))
}

/// Returns the framing. The last encoding decides, and lengths must agree (RFC 9112, section 6.3).
fn framing(version: Option<u8>, headers: &[httparse::Header<'_>]) -> Framing {
    let values = |name: &'static str| {
        headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    if let Some(encodings) = values("transfer-encoding").next_back() {
        let last = encodings.rsplit(|byte| *byte == b',').next().unwrap_or_default();
        return match version {
            Some(0) => Framing::Invalid("unexpected transfer-encoding parsed"),
            // Odd bytes are no known encoding, as in hyper.
            _ if !encodings.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) => Framing::None,
            _ if last.trim_ascii().eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            _ => Framing::None,
        };
    }
    let mut length = None;
    for value in values("content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
        match decimal(value.trim_ascii()) {
            Some(number) if length.is_none_or(|before| before == number) => length = Some(number),
            _ => return Framing::Invalid("invalid content-length parsed"),
        }
    }
    length.map_or(Framing::None, Framing::Length)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let add = |number: u64, byte: &u8| number.checked_mul(10)?.checked_add(digit(byte)?);
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the status, read in pieces of this size at most.
    fn read(answer: &[u8], size: usize) -> Result<Option<StatusCode>, HeadError> {
        let mut reader = HeadReader::default();
        for mut piece in answer.chunks(size.max(1)) {
            if let Some(head) = reader.read(&mut piece, &Method::GET)? {
                return Ok(Some(head.status));
            }
            assert!(piece.is_empty());
        }
        Ok(None)
    }

    #[test]
    fn the_status_is_read_once_the_head_is_complete() {
        let whole = b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\nand more";
        for size in 1..=whole.len() {
            for length in 0..whole.len() - 8 {
                assert_eq!(read(&whole[..length], size), Ok(None), "{length} in pieces of {size}");
            }
            assert_eq!(read(whole, size), Ok(Some(StatusCode::NO_CONTENT)), "in pieces of {size}");
        }
        assert_eq!(read(b"HTTP/1.0 503 x\r\n\r\n", 99), Ok(Some(StatusCode::SERVICE_UNAVAILABLE)));
    }

    #[test]
    fn interim_answers_are_skipped_but_101_is_final() {
        let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n\r\n\n\
              HTTP/1.1 100 Continue\n\nHTTP/1.1 500 x\r\n\r\n";
        for size in 1..=interim.len() {
            assert_eq!(
                read(interim, size),
                Ok(Some(StatusCode::INTERNAL_SERVER_ERROR)),
                "in pieces of {size}"
            );
            assert_eq!(read(&interim[..40], size), Ok(None));
        }
        assert_eq!(read(b"HTTP/1.1 101 x\r\n\r\n", 99), Ok(Some(StatusCode::SWITCHING_PROTOCOLS)));
    }

    #[test]
    fn an_answer_that_is_not_http_is_rejected() {
        assert_eq!(
            read(b"SSH-2.0-OpenSSH_9.2\r\n", 1),
            Err(HeadError::Malformed("invalid HTTP version parsed"))
        );
        assert_eq!(read(b"HTTP/1.1 2x0 y\r\n", 99), Err(HeadError::Malformed(STATUS)));
        assert_eq!(read(b"\r\rHTTP/1.1 200 OK\r\n\r\n", 1), Err(HeadError::Malformed(HEADER)));
    }

    #[test]
    fn every_byte_of_a_head_counts_against_the_limit() {
        let long = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'y'; MAX_HEAD]].concat();
        let many =
            [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"x: y\r\n".repeat(MAX_HEADERS + 1), b"\r\n"]
                .concat();
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD / 25 + 1);
        let blank = b"\r\n".repeat(MAX_HEAD / 2 + 1);
        for size in [1, 7, 16 << 10, usize::MAX] {
            assert_eq!(read(&long, size), Err(HeadError::TooLarge), "in pieces of {size}");
            assert_eq!(read(&many, size), Err(HeadError::TooManyHeaders), "in pieces of {size}");
            assert_eq!(
                read(&interim, size),
                Err(HeadError::TooLargeWithInterim),
                "in pieces of {size}"
            );
            assert_eq!(read(&blank, size), Err(HeadError::TooLarge), "in pieces of {size}");
        }
    }

    #[test]
    fn the_headers_decide_how_the_body_ends() {
        let of = |headers: &str| {
            parse(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes()).unwrap().unwrap().2
        };
        assert_eq!(of(""), Framing::None);
        assert_eq!(of("content-length: 12\r\n"), Framing::Length(12));
        assert_eq!(of("Content-Length: 12, 12\r\nContent-Length: 12\r\n"), Framing::Length(12));
        assert_eq!(
            of("Content-Length: 12\r\nTransfer-Encoding: gzip, Chunked\r\n"),
            Framing::Chunked
        );
        assert_eq!(of("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"), Framing::None);
        for invalid in ["12, 13", "", "+1", "-1", "0x1", "18446744073709551616"] {
            let got = of(&format!("Content-Length: {invalid}\r\n"));
            assert_eq!(got, Framing::Invalid("invalid content-length parsed"), "{invalid:?}");
        }
        let old =
            parse(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().unwrap().2;
        assert_eq!(old, Framing::Invalid("unexpected transfer-encoding parsed"));
    }
}
