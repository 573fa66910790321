//! A summary of a table's rows: their number, and a digest over all of them in order.

use std::fmt;

use policy::{ChainHash, Revision};

use crate::store::db::sql::Param;

/// A summary of one table's rows. Two summaries are equal if the tables have the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSummary {
    pub table: &'static str,
    pub count: u64,
    /// A chain of SHA-256: each hash covers the one before, the row's number and its values. Zeros for a table without
    /// rows.
    pub digest: TableDigest,
}

/// Displayed as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDigest(ChainHash);

impl fmt::Display for TableDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl TableSummary {
    pub(super) fn empty(table: &'static str) -> Self {
        Self { table, count: 0, digest: TableDigest(ChainHash([0; 32])) }
    }

    /// Adds a row. `buffer` is scratch space.
    pub(super) fn add(&mut self, row: &[Param<'_>], buffer: &mut Vec<u8>) {
        buffer.clear();
        for value in row {
            // Kind and length come first, so that different rows never encode to the same bytes.
            match value {
                Param::Null(_) => buffer.push(0),
                Param::Integer(number) => {
                    buffer.push(1);
                    buffer.extend_from_slice(&number.to_le_bytes());
                }
                Param::Text(text) => push_bytes(buffer, 2, text.as_bytes()),
                Param::Blob(bytes) => push_bytes(buffer, 3, bytes),
            }
        }
        self.count = self.count.saturating_add(1);
        self.digest = TableDigest(self.digest.0.then(Revision(self.count), buffer));
    }
}

fn push_bytes(buffer: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    buffer.push(kind);
    buffer.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::sql::Kind;

    fn of(rows: &[&[Param<'_>]]) -> TableSummary {
        let mut all = TableSummary::empty("keys");
        rows.iter().for_each(|row| all.add(row, &mut Vec::new()));
        all
    }

    #[test]
    fn rows_that_differ_have_different_digests() {
        use Param::{Blob, Integer, Null, Text};
        let rows = of(&[&[Integer(1), Text("a".into())], &[Integer(2), Text("b".into())]]);
        assert_eq!(rows, of(&[&[Integer(1), Text("a".into())], &[Integer(2), Text("b".into())]]));
        for (name, other) in [
            ("a value", of(&[&[Integer(1), Text("a".into())], &[Integer(2), Text("c".into())]])),
            ("a kind", of(&[&[Integer(1), Text("a".into())], &[Integer(2), Blob(b"b".into())]])),
            ("nothing", of(&[&[Integer(1), Text("a".into())], &[Integer(2), Null(Kind::Text)]])),
            ("the order", of(&[&[Integer(2), Text("b".into())], &[Integer(1), Text("a".into())]])),
            ("a row less", of(&[&[Integer(1), Text("a".into())]])),
        ] {
            assert_ne!(rows.digest, other.digest, "{name}");
        }
        assert_ne!(
            of(&[&[Text("ab".into()), Text("c".into())]]).digest,
            of(&[&[Text("a".into()), Text("bc".into())]]).digest,
            "text boundaries"
        );
    }
}
