//! What a table's rows come to: how many there are, and a digest over all of them in their order.

use std::fmt;

use policy::{ChainHash, Revision};

use crate::store::sql::Param;

/// The rows of one table. Two tables have equal ones when they have the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    pub table: &'static str,
    pub count: u64,
    /// Each row's SHA-256, made of the one before, the row's number and its values; zeros without a row.
    pub digest: RowsDigest,
}

/// Is shown as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsDigest(ChainHash);

impl fmt::Display for RowsDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Rows {
    pub(super) fn none_of(table: &'static str) -> Self {
        Self { table, count: 0, digest: RowsDigest(ChainHash([0; 32])) }
    }

    /// One more row. `buffer` is used for it, and may hold anything.
    pub(super) fn add(&mut self, row: &[Param<'_>], buffer: &mut Vec<u8>) {
        buffer.clear();
        for value in row {
            // Kind and length first, so that no two rows are told by the same bytes.
            match value {
                Param::Null(_) => buffer.push(0),
                Param::Integer(number) => {
                    buffer.push(1);
                    buffer.extend_from_slice(&number.to_le_bytes());
                }
                Param::Text(text) => of_any_length(buffer, 2, text.as_bytes()),
                Param::Blob(bytes) => of_any_length(buffer, 3, bytes),
            }
        }
        self.count = self.count.saturating_add(1);
        self.digest = RowsDigest(self.digest.0.then(Revision(self.count), buffer));
    }
}

fn of_any_length(buffer: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    buffer.push(kind);
    buffer.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::Kind;

    fn of(rows: &[&[Param<'_>]]) -> Rows {
        let mut all = Rows::none_of("keys");
        rows.iter().for_each(|row| all.add(row, &mut Vec::new()));
        all
    }

    #[test]
    fn rows_that_differ_in_anything_have_another_digest() {
        use Param::{Blob, Integer, Null, Text};
        let rows = of(&[&[Integer(1), Text("a")], &[Integer(2), Text("b")]]);
        assert_eq!(rows, of(&[&[Integer(1), Text("a")], &[Integer(2), Text("b")]]));
        for (name, other) in [
            ("a value", of(&[&[Integer(1), Text("a")], &[Integer(2), Text("c")]])),
            ("a kind", of(&[&[Integer(1), Text("a")], &[Integer(2), Blob(b"b")]])),
            ("nothing", of(&[&[Integer(1), Text("a")], &[Integer(2), Null(Kind::Text)]])),
            ("the order", of(&[&[Integer(2), Text("b")], &[Integer(1), Text("a")]])),
            ("a row less", of(&[&[Integer(1), Text("a")]])),
        ] {
            assert_ne!(rows.digest, other.digest, "{name}");
        }
        assert_ne!(of(&[&[Text("ab"), Text("c")]]).digest, of(&[&[Text("a"), Text("bc")]]).digest, "where one ends");
    }
}
