//! The reader of an HTTP/1 body, which ends by its length, by its last chunk, or with the
//! connection.

use hyper::{Method, StatusCode};

/// The way the headers say that the body ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Framing {
    Chunked,
    Length(u64),
    /// No header says it, so the body ends with the connection.
    None,
    Invalid(&'static str),
}

/// The state of a body that is read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum BodyReader {
    /// This many bytes are still to come.
    Length(u64),
    Chunked(ChunkState),
    UntilClose,
    /// The head is contradictory or malformed.
    Invalid(&'static str),
}

/// The next part of a chunked body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ChunkState {
    /// The first digit of a chunk's size. One must come.
    SizeStart,
    Size(u64),
    /// Blanks after the size.
    SizeEnd(u64),
    Extension(u64),
    SizeLineFeed(u64),
    Data(u64),
    DataReturn,
    DataLineFeed,
    /// The beginning of a line after the last chunk.
    Trailer,
    /// The rest of that line.
    TrailerRest,
    TrailerLineFeed,
    /// The end of the empty line that ends the body.
    EndLineFeed,
    End,
}

/// A part of the body's content, or its end.
#[derive(Debug, PartialEq)]
pub(super) enum BodyPart<'a> {
    Data(&'a [u8]),
    End,
}

impl BodyReader {
    pub(super) fn new(status: StatusCode, method: &Method, framing: Framing) -> Self {
        let tunnel = status == StatusCode::SWITCHING_PROTOCOLS
            || (*method == Method::CONNECT && status.is_success());
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *method == Method::HEAD;
        match framing {
            _ if tunnel || bodiless => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkState::SizeStart),
            Framing::None => Self::UntilClose,
            Framing::Invalid(what) => Self::Invalid(what),
        }
    }

    /// Reads a part from the beginning of the data. Returns `None` if the data is used up first.
    /// An error says what is not HTTP.
    pub(super) fn read<'a>(
        &mut self,
        data: &mut &'a [u8],
    ) -> Result<Option<BodyPart<'a>>, &'static str> {
        match self {
            Self::Invalid(what) => Err(what),
            Self::Length(0) => Ok(Some(BodyPart::End)),
            _ if data.is_empty() => Ok(None),
            Self::Length(remaining) => Ok(Some(BodyPart::Data(take(data, remaining)))),
            Self::UntilClose => Ok(Some(BodyPart::Data(std::mem::take(data)))),
            Self::Chunked(chunk) => chunk.read(data),
        }
    }

    /// Returns true if the connection may end here.
    pub(super) fn may_end(&self) -> bool {
        matches!(self, Self::UntilClose | Self::Length(0) | Self::Chunked(ChunkState::End))
    }

    /// Returns the least number of bytes that are still to come.
    pub(super) fn remaining(&self) -> u64 {
        match self {
            Self::Length(remaining) | Self::Chunked(ChunkState::Data(remaining)) => *remaining,
            _ => 0,
        }
    }
}

impl ChunkState {
    fn read<'a>(&mut self, data: &mut &'a [u8]) -> Result<Option<BodyPart<'a>>, &'static str> {
        loop {
            match self {
                Self::End => return Ok(Some(BodyPart::End)),
                Self::Data(remaining) if !data.is_empty() => {
                    let piece = take(data, remaining);
                    if *remaining == 0 {
                        *self = Self::DataReturn;
                    }
                    return Ok(Some(BodyPart::Data(piece)));
                }
                _ => {}
            }
            let Some((byte, rest)) = data.split_first() else { return Ok(None) };
            *self = self.after(*byte)?;
            *data = rest;
        }
    }

    /// Returns the part that follows this byte, which is not a chunk's data.
    fn after(self, byte: u8) -> Result<Self, &'static str> {
        Ok(match (self, byte) {
            (Self::SizeStart, _) => Self::Size(hex(byte).ok_or("invalid chunk size")?),
            (Self::Size(size) | Self::SizeEnd(size), b'\r') => Self::SizeLineFeed(size),
            (Self::Size(size) | Self::SizeEnd(size), b' ' | b'\t') => Self::SizeEnd(size),
            (Self::Size(size) | Self::SizeEnd(size), b';') => Self::Extension(size),
            (Self::Size(size), _) => {
                let digit = hex(byte).ok_or("invalid chunk size")?;
                Self::Size(size.checked_mul(16).ok_or("chunk size too large")? + digit)
            }
            (Self::Extension(size), b'\r') => Self::SizeLineFeed(size),
            (Self::Extension(_), b'\n') => return Err("invalid chunk extension"),
            (Self::Extension(_), _) => self,
            (Self::SizeLineFeed(0), b'\n') => Self::Trailer,
            (Self::SizeLineFeed(size), b'\n') => Self::Data(size),
            (Self::DataReturn, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::SizeStart,
            (Self::Trailer, b'\r') => Self::EndLineFeed,
            (Self::TrailerRest, b'\r') => Self::TrailerLineFeed,
            (Self::Trailer | Self::TrailerRest, _) => Self::TrailerRest,
            (Self::TrailerLineFeed, b'\n') => Self::Trailer,
            (Self::EndLineFeed, b'\n') => Self::End,
            _ => return Err("invalid chunk"),
        })
    }
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// Takes at most `remaining` bytes from the beginning of the data.
fn take<'a>(data: &mut &'a [u8], remaining: &mut u64) -> &'a [u8] {
    let length = usize::try_from(*remaining).unwrap_or(usize::MAX).min(data.len());
    let (piece, rest) = data.split_at(length);
    *remaining -= length as u64;
    *data = rest;
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the content, and true once it has ended; reads in pieces of this size.
    fn read(
        mut body: BodyReader,
        bytes: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, bool), &'static str> {
        let mut content = Vec::new();
        for mut data in bytes.chunks(size).chain([&[][..]]) {
            while let Some(piece) = body.read(&mut data)? {
                match piece {
                    BodyPart::Data(data) => content.extend_from_slice(data),
                    BodyPart::End => return Ok((content, true)),
                }
            }
        }
        Ok((content, false))
    }

    const CHUNKED: BodyReader = BodyReader::Chunked(ChunkState::SizeStart);

    #[test]
    fn each_kind_of_body_is_read_to_its_end() {
        let whole = b"4;a=b\r\nrunn\r\n0003 \t\r\ning\r\n0\r\nX: y\r\nZ: \r\n\r\nrest";
        for size in 1..=whole.len() {
            assert_eq!(
                read(BodyReader::Length(7), b"runningX", size),
                Ok((b"running".into(), true))
            );
            assert_eq!(
                read(BodyReader::Length(8), b"running", size),
                Ok((b"running".into(), false))
            );
            assert_eq!(
                read(BodyReader::UntilClose, b"running", size),
                Ok((b"running".into(), false))
            );
            assert_eq!(
                read(CHUNKED, whole, size),
                Ok((b"running".into(), true)),
                "in pieces of {size}"
            );
            assert_eq!(
                read(CHUNKED, &whole[..whole.len() - 5], size),
                Ok((b"running".into(), false))
            );
        }
        assert_eq!(read(BodyReader::Length(0), b"", 1), Ok((Vec::new(), true)));
        assert_eq!(read(CHUNKED, b"0\r\n\n", 1), Ok((Vec::new(), false)));
    }

    #[test]
    fn malformed_chunks_are_errors() {
        for bytes in [
            "\r\n", "g\r\n", "1\n", "1\r\nab", "1\r\na\n", "1 2\r\n", "1;\n", "1\rx", "0\r\n\rx",
            "-1\r\n",
        ] {
            assert!(read(CHUNKED, bytes.as_bytes(), 1).is_err(), "{bytes:?}");
        }
        assert_eq!(read(CHUNKED, b"fffffffffffffffff\r\n", 1), Err("chunk size too large"));
        assert_eq!(read(CHUNKED, b"ffffffffffffffff\r\nab", 1), Ok((b"ab".into(), false)));
    }

    #[test]
    fn some_answers_never_have_a_body() {
        let of = |status: u16, method: &Method| {
            BodyReader::new(StatusCode::from_u16(status).unwrap(), method, Framing::Length(9))
                == BodyReader::Length(0)
        };
        assert!(of(204, &Method::GET) && of(304, &Method::GET) && of(101, &Method::GET));
        assert!(of(200, &Method::HEAD) && of(503, &Method::HEAD) && of(200, &Method::CONNECT));
        assert!(!of(200, &Method::GET) && !of(503, &Method::OPTIONS) && !of(407, &Method::CONNECT));
    }
}
