//! Statements for many rows: in batches on a server, one by one in a file.

use super::{Param, Row, Sql, SqlError, ToParam, Value};

/// The sizes of a batch, in rows. There are few, because a server keeps a prepared statement for each.
const BATCH_SIZES: [usize; 3] = [100, 10, 1];

impl Sql<'_> {
    /// Executes a statement with `VALUES (?1, …)`, which writes one row, for each of these rows. No two of them may
    /// conflict with each other. Returns the number of rows that were written.
    pub(crate) fn execute_each(
        self,
        statement: &str,
        rows: impl IntoIterator<Item = Vec<Value>>,
    ) -> Result<usize, SqlError> {
        let mut written = 0_usize;
        if let Self::Sqlite(_) = self {
            let mut one = self.prepare(statement)?;
            for row in rows {
                written = written.saturating_add(one.execute(&row)?);
            }
            return Ok(written);
        }
        let rows: Vec<_> = rows.into_iter().collect();
        for rows in batches(&rows) {
            let params: Vec<Param<'_>> = rows.iter().flatten().map(Param::borrowed).collect();
            let width = rows.first().map_or(0, Vec::len);
            written = written.saturating_add(self.execute(&with_rows(statement, width, rows.len()), &params)?);
        }
        Ok(written)
    }

    /// Passes each row that a statement with `IN (?1)` finds for these values to `take`.
    pub(crate) fn each_in<E: From<SqlError>>(
        self,
        statement: &str,
        values: impl IntoIterator<Item = impl ToParam>,
        mut take: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Self::Sqlite(_) = self {
            let mut one = self.prepare(statement)?;
            return values.into_iter().try_for_each(|value| one.each(&[value.to_param()], &mut take));
        }
        let values: Vec<_> = values.into_iter().collect();
        batches(&values).try_for_each(|values| {
            let params: Vec<_> = values.iter().map(ToParam::to_param).collect();
            self.prepare(&with_values(statement, values.len()))?.each(&params, &mut take)
        })
    }
}

/// Splits a slice into batches, the largest first.
fn batches<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = BATCH_SIZES.into_iter().find(|size| *size <= all.len())?;
        let (batch, rest) = all.split_at_checked(size)?;
        all = rest;
        Some(batch)
    })
}

/// The statement for `count` rows, each of `width` parameters.
fn with_rows(statement: &str, width: usize, count: usize) -> String {
    const VALUES: &str = "VALUES (";
    let parts = statement.split_once(VALUES).and_then(|(head, rest)| Some((head, rest.split_once(')')?)));
    let Some((head, (row, tail))) = parts.filter(|_| count > 1) else { return statement.to_owned() };
    let rows: Vec<_> = (0..count).map(|at| format!("({})", renumbered(row, width.saturating_mul(at)))).collect();
    format!("{head}VALUES {}{tail}", rows.join(", "))
}

/// The same placeholders, with their numbers increased by `by`.
fn renumbered(row: &str, by: usize) -> String {
    let mut parts = row.split('?');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at_checked(end).unwrap_or((part, ""));
        let number = number.parse::<usize>().unwrap_or_default().saturating_add(by);
        text.push_str(&format!("?{number}{rest}"));
    }
    text
}

/// The statement for `count` values.
fn with_values(statement: &str, count: usize) -> String {
    let all: Vec<_> = (1..=count).map(|number| format!("?{number}")).collect();
    statement.replace("(?1)", &format!("({})", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_of_one_row_becomes_one_of_many() {
        let one = "INSERT INTO t (a, b, c, d) VALUES (?1, 1, ?2, ?1) ON CONFLICT (a) DO NOTHING";
        assert_eq!(with_rows(one, 2, 1), one);
        assert_eq!(
            with_rows(one, 2, 3),
            "INSERT INTO t (a, b, c, d) VALUES (?1, 1, ?2, ?1), (?3, 1, ?4, ?3), (?5, 1, ?6, ?5) ON CONFLICT (a) DO NOTHING"
        );
        let one = "SELECT a FROM t WHERE a IN (?1) UNION ALL SELECT a FROM u WHERE a IN (?1)";
        assert_eq!(with_values(one, 1), one);
        assert_eq!(with_values(one, 2), one.replace("?1", "?1, ?2"));
    }

    #[test]
    fn batches_have_few_sizes_and_leave_no_row_out() {
        let all: Vec<_> = (0..327).collect();
        let sizes: Vec<_> = batches(&all).map(<[i32]>::len).collect();
        assert_eq!(sizes, [100, 100, 100, 10, 10, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(batches(&all).flatten().copied().collect::<Vec<_>>(), all);
    }
}
