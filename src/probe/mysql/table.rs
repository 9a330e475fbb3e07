//! Tables that answer a query, read as they come.
//!
//! The state of a replica is one row, which may hold long texts and sets of transactions. A check
//! needs none of them, so it reads a row value by value and keeps the beginning of a few.

use super::wire::{self, RowHead, ValueHead};

/// The most bytes that are kept of a value. None that a check knows is longer.
const MAX_KEPT: usize = 64;

/// The most columns that are kept.
const MAX_COLUMNS: usize = 8;

/// A table that answers a question: the names of the columns that are kept, and their values.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub names: Vec<Vec<u8>>,
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// True for each column that is kept.
    pub kept: Vec<bool>,
}

impl Table {
    /// Adds a column, which is kept if it is one of the wanted ones, or if all are.
    fn add_column(&mut self, name: &[u8], wanted: &[&[u8]]) {
        let is_wanted = wanted.is_empty() || wanted.contains(&name);
        let is_kept = is_wanted && self.names.len() < MAX_COLUMNS;
        if is_kept {
            self.names.push(name.to_vec());
        }
        self.kept.push(is_kept);
    }
}

/// The part of a table that has come.
pub(super) enum Answer {
    Head,
    /// The number of columns that are to come before the mark of their end.
    Columns(u64, Table),
    Rows(Table),
    Row(Row, Table),
}

/// The state of a table after a packet.
pub(super) enum Read {
    More(Answer),
    Whole(Table),
}

/// Reads the next packet of a table, which is no row. Returns none if it does not belong there.
pub(super) fn read(answer: Answer, body: &[u8], wanted: &[&[u8]]) -> Option<Read> {
    Some(match answer {
        Answer::Head => match *body {
            [count @ 1..=250] => Read::More(Answer::Columns(count.into(), Table::default())),
            _ => return None,
        },
        Answer::Columns(0, table) if wire::is_end(body) => Read::More(Answer::Rows(table)),
        Answer::Columns(left @ 1.., mut table) => {
            table.add_column(wire::column_name(body)?, wanted);
            Read::More(Answer::Columns(left - 1, table))
        }
        Answer::Rows(table) if wire::is_end(body) => Read::Whole(table),
        Answer::Columns(..) | Answer::Rows(_) | Answer::Row(..) => return None,
    })
}

/// The effect of more input on the rows of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RowRead {
    /// The next packet is no row.
    None,
    /// The rest of the row has not come. All input is taken but for a few bytes.
    Waiting,
    Whole,
    Malformed,
}

impl Answer {
    /// Takes as much of a row from the front of the input as has come.
    pub(super) fn read_row(&mut self, input: &mut &[u8]) -> RowRead {
        if let Answer::Rows(table) = self {
            match wire::take_row_head(input) {
                RowHead::None => return RowRead::None,
                RowHead::Incomplete => return RowRead::Waiting,
                RowHead::Length(length) => {
                    *self = Answer::Row(Row::new(length), std::mem::take(table));
                }
            }
        }
        let Answer::Row(row, table) = self else { return RowRead::None };
        let read = row.read(input, &table.kept);
        if read == RowRead::Whole {
            table.rows.push(std::mem::take(&mut row.values));
            *self = Answer::Rows(std::mem::take(table));
        }
        read
    }
}

/// The part of a row that has come.
pub(super) struct Row {
    /// The bytes of the packet that are to come.
    left: usize,
    /// The columns whose values have begun.
    columns: usize,
    /// The bytes of the newest value that are to come.
    value_left: usize,
    values: Vec<Option<Vec<u8>>>,
}

impl Row {
    fn new(length: usize) -> Self {
        Self { left: length, columns: 0, value_left: 0, values: Vec::new() }
    }

    fn read(&mut self, input: &mut &[u8], kept: &[bool]) -> RowRead {
        loop {
            self.take_value(input, kept);
            if self.value_left > 0 {
                return RowRead::Waiting;
            }
            match (self.left, self.columns < kept.len()) {
                (0, false) => return RowRead::Whole,
                (0, true) | (_, false) => return RowRead::Malformed,
                (_, true) => {}
            }
            let mut body = &input[..input.len().min(self.left)];
            let before = body.len();
            let Some(head) = wire::take_value_head(&mut body) else {
                return if before < self.left { RowRead::Waiting } else { RowRead::Malformed };
            };
            let taken = before - body.len();
            *input = &input[taken..];
            self.left -= taken;
            let length = match head {
                ValueHead::Null => None,
                ValueHead::Length(length) if length <= self.left => Some(length),
                ValueHead::Length(_) | ValueHead::Malformed => return RowRead::Malformed,
            };
            if kept[self.columns] {
                self.values.push(length.map(|_| Vec::new()));
            }
            self.columns += 1;
            self.value_left = length.unwrap_or(0);
        }
    }

    /// Takes the part of the newest value that has come.
    fn take_value(&mut self, input: &mut &[u8], kept: &[bool]) {
        let is_kept = self.columns.checked_sub(1).is_some_and(|column| kept[column]);
        let (part, rest) = input.split_at(input.len().min(self.value_left));
        if is_kept && let Some(Some(value)) = self.values.last_mut() {
            value.extend_from_slice(&part[..part.len().min(MAX_KEPT - value.len())]);
        }
        self.left -= part.len();
        self.value_left -= part.len();
        *input = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the wire form of a row, written after the protocol's description.
    fn written(row: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut body = Vec::new();
        for value in row {
            let length = value.as_ref().map_or(0, Vec::len);
            match value {
                None => body.push(0xfb),
                Some(_) if length < 251 => body.push(length as u8),
                Some(_) if length < 400 => {
                    body.extend([0xfc, length as u8, (length >> 8) as u8]);
                }
                // Longer than it must be, which readers take too.
                Some(_) => body.extend([0xfd, length as u8, (length >> 8) as u8, 0]),
            }
            body.extend(value.iter().flatten());
        }
        let length = body.len();
        [&[length as u8, (length >> 8) as u8, 0, 7], &body[..]].concat()
    }

    /// Returns the start of the rows of a table with so many columns, of which these are kept.
    fn rows(kept: &[bool]) -> Answer {
        Answer::Rows(Table { kept: kept.to_vec(), ..Table::default() })
    }

    /// Passes the pieces to the rows as they come. Returns the last state, and the values.
    fn read(answer: &mut Answer, pieces: &[&[u8]]) -> (RowRead, Vec<Vec<Option<Vec<u8>>>>) {
        let (mut rest, mut state) = (Vec::new(), RowRead::None);
        for piece in pieces {
            rest.extend_from_slice(piece);
            let mut input = &rest[..];
            state = answer.read_row(&mut input);
            rest = input.to_vec();
            assert!(rest.len() < 5, "{rest:?}");
            if state == RowRead::Malformed {
                break;
            }
        }
        let (Answer::Rows(table) | Answer::Row(_, table)) = answer else { panic!("no rows") };
        (state, std::mem::take(&mut table.rows))
    }

    #[test]
    fn a_row_that_lies_is_malformed() {
        for (body, is_malformed) in [
            (&b"\x01a\x01b"[..], false),
            (b"\x01a", true),
            (b"\x01a\x01", true),
            (b"\x01a\x02b", true),
            (b"\x01a\x01b\x01", true),
            (b"\x01a\xfc\x01", true),
            (b"\x01a\xfd\xff\xff\xff", true),
            (b"\x01a\xfe\x01\0\0\0\0\0\0\0b", true),
            (b"\x01a\xff", true),
            (b"\xfb\xfb", false),
            (b"\xfb\0", false),
        ] {
            let wire = [&[body.len() as u8, 0, 0, 1], body].concat();
            let mut answer = rows(&[true, true]);
            let (state, _) = read(&mut answer, &wire.chunks(1).collect::<Vec<_>>());
            let expected = if is_malformed { RowRead::Malformed } else { RowRead::Whole };
            assert_eq!(state, expected, "{body:?}");
        }
    }

    #[test]
    fn what_is_no_row_is_left() {
        for wire in
            [&b"\x05\0\0\x01\xfe\0\0\x02\0"[..], b"\x03\0\0\x01\xff\x01\x01", b"\0\0\0\x01\x01"]
        {
            let mut input = wire;
            assert_eq!(rows(&[true]).read_row(&mut input), RowRead::None);
            assert_eq!(input, wire);
            assert_eq!(Answer::Head.read_row(&mut input), RowRead::None);
        }
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_written(
            row in proptest::collection::vec(
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..500)), 1..6),
            kept in proptest::collection::vec(any::<bool>(), 6),
            size in 1..600_usize,
        ) {
            let wire = written(&row);
            let kept = &kept[..row.len()];
            let pieces: Vec<&[u8]> = wire.chunks(size).collect();
            let (state, read) = read(&mut rows(kept), &pieces);
            prop_assert_eq!(state, RowRead::Whole);
            let start = |value: &Vec<u8>| value[..value.len().min(MAX_KEPT)].to_vec();
            let expected: Vec<Option<Vec<u8>>> = row
                .iter()
                .zip(kept)
                .filter(|(_, is_kept)| **is_kept)
                .map(|(value, _)| value.as_ref().map(start))
                .collect();
            prop_assert_eq!(read, [expected]);
        }

        #[test]
        fn any_bytes_of_a_row_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            kept in proptest::collection::vec(any::<bool>(), 1..5),
            size in 1..300_usize,
        ) {
            let mut answer = rows(&kept);
            for piece in bytes.chunks(size) {
                let mut input = piece;
                let _ = answer.read_row(&mut input);
            }
        }
    }
}
