//! One connection to PostgreSQL: statements in our one spelling, prepared once.

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;

use postgres::Client;
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::{ToSql, Type};

use crate::store::sql::{Kind, Param, SqlError};

/// Statements that are kept prepared. There are fewer; a list's filters can be put together in many ways.
const PREPARED: usize = 256;

/// A connection. The thread that waits for an answer drives it, so it costs no other thread; it must not be an async one.
pub(in crate::store) struct Session {
    /// `None` once it is dropped.
    client: RefCell<Option<Client>>,
    /// By our spelling.
    prepared: RefCell<HashMap<String, Vec<Prepared>>>,
}

/// A statement, for parameters of these kinds.
type Prepared = (Vec<Kind>, postgres::Statement);

impl Session {
    pub(super) fn new(client: Client) -> Self {
        Self { client: RefCell::new(Some(client)), prepared: RefCell::default() }
    }

    pub(in crate::store) fn execute(&self, statement: &str, params: &[Param<'_>]) -> Result<usize, SqlError> {
        let (statement, mut client) = (self.prepared(statement, params)?, self.client()?);
        let written = client.execute(&statement, &values(params))?;
        Ok(usize::try_from(written).unwrap_or(usize::MAX))
    }

    pub(in crate::store) fn query(
        &self,
        statement: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<postgres::Row>, SqlError> {
        let (statement, mut client) = (self.prepared(statement, params)?, self.client()?);
        Ok(client.query(&statement, &values(params))?)
    }

    /// Rows are taken as they come: the server waits while they aren't.
    pub(in crate::store) fn each<E: From<SqlError>>(
        &self,
        statement: &str,
        params: &[Param<'_>],
        mut take: impl FnMut(&postgres::Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let (statement, mut client) = (self.prepared(statement, params)?, self.client()?);
        let mut rows = client.query_raw(&statement, values(params)).map_err(SqlError::from)?;
        while let Some(row) = rows.next().map_err(SqlError::from)? {
            take(&row)?;
        }
        Ok(())
    }

    pub(in crate::store) fn execute_batch(&self, statements: &str) -> Result<(), SqlError> {
        Ok(self.client()?.batch_execute(statements)?)
    }

    /// Writes rows by a `COPY … FROM STDIN (FORMAT binary)` whose columns are of these kinds: `rows` gives them, one by one, to
    /// what it is given. None is there unless all are; memory doesn't grow with them.
    pub(in crate::store) fn copy_in<E>(
        &self,
        statement: &str,
        kinds: &[Kind],
        rows: impl FnOnce(&mut dyn FnMut(&[Param<'_>]) -> Result<(), SqlError>) -> Result<(), E>,
    ) -> Result<Result<(), E>, SqlError> {
        let types: Vec<Type> = kinds.iter().map(|kind| kind.postgres_type()).collect();
        let mut client = self.client()?;
        let mut writer = BinaryCopyInWriter::new(client.copy_in(statement)?, &types);
        let mut put = |row: &[Param<'_>]| {
            if row.len() != types.len() {
                return Err(SqlError::Fault("a row has another number of columns"));
            }
            Ok(writer.write_raw(row)?)
        };
        let given = rows(&mut put);
        if given.is_ok() {
            writer.finish()?;
        }
        Ok(given)
    }

    /// Waits until somebody has said something on a channel that is listened to, or `timeout` has passed. Gives all that was
    /// said to `take`: the channel and the payload.
    pub(super) fn hears(&self, timeout: std::time::Duration, mut take: impl FnMut(&str, &str)) -> Result<(), SqlError> {
        let mut client = self.client()?;
        let mut notifications = client.notifications();
        let Some(first) = notifications.timeout_iter(timeout).next()? else { return Ok(()) };
        take(first.channel(), first.payload());
        let mut more = notifications.iter();
        while let Some(next) = more.next()? {
            take(next.channel(), next.payload());
        }
        Ok(())
    }

    pub(in crate::store) fn is_closed(&self) -> bool {
        self.client().map_or(true, |client| client.is_closed())
    }

    fn client(&self) -> Result<RefMut<'_, Client>, SqlError> {
        let client =
            self.client.try_borrow_mut().ok().and_then(|client| RefMut::filter_map(client, Option::as_mut).ok());
        client.ok_or(SqlError::Fault("a connection is used while it gives rows"))
    }

    fn prepared(&self, statement: &str, params: &[Param<'_>]) -> Result<postgres::Statement, SqlError> {
        let mut prepared = self.prepared.borrow_mut();
        let known = prepared.get(statement).and_then(|known| known.iter().find(|(kinds, _)| is_of(params, kinds)));
        if let Some((_, statement)) = known {
            return Ok(statement.clone());
        }
        let kinds: Vec<_> = params.iter().map(|param| param.kind()).collect();
        let types: Vec<Type> = kinds.iter().map(|kind| kind.postgres_type()).collect();
        let made = self.client()?.prepare_typed(&spelled(statement), &types)?;
        if prepared.len() >= PREPARED {
            prepared.clear();
        }
        prepared.entry(statement.to_owned()).or_default().push((kinds, made.clone()));
        Ok(made)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Closing waits for the network, which no async thread may.
        if let Some(client) = self.client.take().filter(|_| tokio::runtime::Handle::try_current().is_ok()) {
            std::thread::spawn(move || drop(client));
        }
    }
}

fn is_of(params: &[Param<'_>], kinds: &[Kind]) -> bool {
    params.len() == kinds.len() && params.iter().zip(kinds).all(|(param, kind)| param.kind() == *kind)
}

fn values<'a>(params: &'a [Param<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|param| param as &(dyn ToSql + Sync)).collect()
}

/// A statement as PostgreSQL spells it: `$1` for `?1`. Texts in quotes stay as they are.
fn spelled(statement: &str) -> String {
    let mut is_quoted = false;
    let spelled = statement.chars().map(|character| match character {
        '\'' => {
            is_quoted = !is_quoted;
            character
        }
        '?' if !is_quoted => '$',
        other => other,
    });
    spelled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_spelled_and_quoted_texts_stay() {
        for (ours, theirs) in [
            ("SELECT ?1, ?12", "SELECT $1, $12"),
            ("a = ?1 AND b = '?1' AND c = ?2", "a = $1 AND b = '?1' AND c = $2"),
            ("x LIKE ?1 ESCAPE '\\'", "x LIKE $1 ESCAPE '\\'"),
        ] {
            assert_eq!(spelled(ours), theirs);
        }
    }
}
