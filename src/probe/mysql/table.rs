//! Tables that answer a query, read packet by packet.

use super::wire;

/// A table that answers a question: the names of its columns, and its rows.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub names: Vec<Vec<u8>>,
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
}

/// The part of a table that has come.
pub(super) enum Answer {
    Head,
    /// The number of columns that are to come before the mark of their end.
    Columns(u64, Table),
    Rows(Table),
}

/// The state of a table after a packet.
pub(super) enum Read {
    More(Answer),
    Whole(Table),
}

/// Reads the next packet of a table. Returns none if it does not belong there.
pub(super) fn read(answer: Answer, body: &[u8]) -> Option<Read> {
    Some(match answer {
        Answer::Head => match *body {
            [count @ 1..=250] => Read::More(Answer::Columns(count.into(), Table::default())),
            _ => return None,
        },
        Answer::Columns(0, table) if wire::is_end(body) => Read::More(Answer::Rows(table)),
        Answer::Columns(left @ 1.., mut table) => {
            table.names.push(wire::column_name(body)?.to_vec());
            Read::More(Answer::Columns(left - 1, table))
        }
        Answer::Columns(..) => return None,
        Answer::Rows(table) if wire::is_end(body) => Read::Whole(table),
        Answer::Rows(mut table) => {
            let row = wire::row(body, table.names.len())?;
            table.rows.push(row.into_iter().map(|value| value.map(<[u8]>::to_vec)).collect());
            Read::More(Answer::Rows(table))
        }
    })
}
