//! The part of MongoDB's data format (BSON) that a check reads: the fields of one level.

/// A value, as far as a check reads it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Text(&'a [u8]),
    Bool(bool),
    /// A number of any kind, because servers differ in the kinds that they use.
    Number(f64),
    /// A time, in milliseconds since 1970.
    Time(i64),
    /// A document or a list.
    Document(&'a [u8]),
    /// A value that no check reads.
    Other,
}

/// The bytes are no document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The fields of a document, in their order. Documents inside it are skipped and not read.
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(document: &'a [u8]) -> Result<Self, Malformed> {
        let (length, fields) = document.split_first_chunk().ok_or(Malformed)?;
        if usize::try_from(i32::from_le_bytes(*length)) != Ok(document.len()) {
            return Err(Malformed);
        }
        fields.strip_suffix(&[0]).map(Self).ok_or(Malformed)
    }

    fn take_field(&mut self) -> Option<(&'a [u8], Value<'a>)> {
        let (&kind, rest) = self.0.split_first()?;
        let (name, rest) = split_at_nul(rest)?;
        let (value, rest) = split_value(kind, rest)?;
        self.0 = rest;
        Some((name, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(&'a [u8], Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.take_field().ok_or(Malformed);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Splits a value of a kind off the front of the bytes.
fn split_value(kind: u8, bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let other = |size: usize| bytes.get(size..).map(|rest| (Value::Other, rest));
    Some(match kind {
        0x01 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (Value::Number(f64::from_le_bytes(*number)), rest)
        }
        0x10 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (Value::Number(i32::from_le_bytes(*number).into()), rest)
        }
        0x12 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (Value::Number(i64::from_le_bytes(*number) as f64), rest)
        }
        0x09 => {
            let (time, rest) = bytes.split_first_chunk()?;
            (Value::Time(i64::from_le_bytes(*time)), rest)
        }
        0x08 => {
            let (value, rest) = bytes.split_first()?;
            (Value::Bool(*value != 0), rest)
        }
        // A text has its length before it, which counts the zero byte at its end.
        0x02 | 0x0d | 0x0e => {
            let (text, rest) = split_sized(bytes, 4)?;
            (Value::Text(text.get(4..)?.strip_suffix(&[0])?), rest)
        }
        // The length of a document counts itself.
        0x03 | 0x04 | 0x0f => {
            let (document, rest) = split_sized(bytes, 0)?;
            (if kind == 0x0f { Value::Other } else { Value::Document(document) }, rest)
        }
        // Bytes have their length and a byte for their kind before them.
        0x05 => (Value::Other, split_sized(bytes, 5)?.1),
        // A regular expression is two names.
        0x0b => (Value::Other, split_at_nul(split_at_nul(bytes)?.1)?.1),
        // A pointer is a text and an identifier.
        0x0c => (Value::Other, split_sized(bytes, 4)?.1.get(12..)?),
        0x06 | 0x0a | 0x7f | 0xff => other(0)?,
        0x07 => other(12)?,
        0x11 => other(8)?,
        0x13 => other(16)?,
        _ => return None,
    })
}

/// Splits off a value that begins with its length, which does not count so many bytes.
fn split_sized(bytes: &[u8], uncounted: usize) -> Option<(&[u8], &[u8])> {
    let length = bytes.first_chunk()?;
    let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
    bytes.split_at_checked(length.checked_add(uncounted)?)
}

/// Splits off the bytes before the first zero byte, and removes that.
fn split_at_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}
