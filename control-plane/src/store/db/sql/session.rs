//! One connection to PostgreSQL, with prepared statements in the syntax that both engines share.

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;

use postgres::Client;
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::{ToSql, Type};

use crate::store::db::sql::{Kind, Param, SqlError};

/// The most statements to keep prepared. Usually there are fewer, but the filters of a list combine in many ways.
const MAX_PREPARED: usize = 256;

/// A connection. The thread that waits for an answer also drives the connection, which needs no thread of its own.
/// An async thread must not do so.
pub(crate) struct Session {
    /// `None` once it is dropped.
    client: RefCell<Option<Client>>,
    /// By the statement in our syntax.
    prepared: RefCell<HashMap<String, Vec<Prepared>>>,
}

/// A statement, for parameters of these kinds.
type Prepared = (Vec<Kind>, postgres::Statement);

impl Session {
    pub(crate) fn new(client: Client) -> Self {
        Self { client: RefCell::new(Some(client)), prepared: RefCell::default() }
    }

    pub(crate) fn execute(&self, statement: &str, params: &[Param<'_>]) -> Result<usize, SqlError> {
        let (statement, mut client) = (self.prepared(statement, params)?, self.client()?);
        let written = client.execute(&statement, &values(params))?;
        Ok(usize::try_from(written).unwrap_or(usize::MAX))
    }

    pub(crate) fn query(&self, statement: &str, params: &[Param<'_>]) -> Result<Vec<postgres::Row>, SqlError> {
        let (statement, mut client) = (self.prepared(statement, params)?, self.client()?);
        Ok(client.query(&statement, &values(params))?)
    }

    /// Streams the rows: the server waits while `take` is busy.
    pub(crate) fn each<E: From<SqlError>>(
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

    pub(crate) fn execute_batch(&self, statements: &str) -> Result<(), SqlError> {
        Ok(self.client()?.batch_execute(statements)?)
    }

    /// Writes rows by a `COPY … FROM STDIN (FORMAT binary)` whose columns are of these kinds. `rows` passes each row to
    /// the function that it gets. All rows are written or none; memory doesn't grow with their number.
    pub(crate) fn copy_in<E>(
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
        let result = rows(&mut put);
        if result.is_ok() {
            writer.finish()?;
        }
        Ok(result)
    }

    /// Waits for notifications on the subscribed channels, for at most `timeout`. Passes the channel and payload of
    /// each to `take`.
    pub(crate) fn receive_notifications(
        &self,
        timeout: std::time::Duration,
        mut take: impl FnMut(&str, &str),
    ) -> Result<(), SqlError> {
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

    pub(crate) fn is_closed(&self) -> bool {
        self.client().map_or(true, |client| client.is_closed())
    }

    fn client(&self) -> Result<RefMut<'_, Client>, SqlError> {
        let client =
            self.client.try_borrow_mut().ok().and_then(|client| RefMut::filter_map(client, Option::as_mut).ok());
        client.ok_or(SqlError::Fault("a connection is used while it streams rows"))
    }

    fn prepared(&self, statement: &str, params: &[Param<'_>]) -> Result<postgres::Statement, SqlError> {
        let mut prepared = self.prepared.borrow_mut();
        let known =
            prepared.get(statement).and_then(|known| known.iter().find(|(kinds, _)| matches_kinds(params, kinds)));
        if let Some((_, statement)) = known {
            return Ok(statement.clone());
        }
        let kinds: Vec<_> = params.iter().map(|param| param.kind()).collect();
        let types: Vec<Type> = kinds.iter().map(|kind| kind.postgres_type()).collect();
        let new = self.client()?.prepare_typed(&translate_placeholders(statement), &types)?;
        if prepared.len() >= MAX_PREPARED {
            prepared.clear();
        }
        prepared.entry(statement.to_owned()).or_default().push((kinds, new.clone()));
        Ok(new)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Closing waits for the network, which must not block an async thread.
        if let Some(client) = self.client.take().filter(|_| tokio::runtime::Handle::try_current().is_ok()) {
            std::thread::spawn(move || drop(client));
        }
    }
}

fn matches_kinds(params: &[Param<'_>], kinds: &[Kind]) -> bool {
    params.len() == kinds.len() && params.iter().zip(kinds).all(|(param, kind)| param.kind() == *kind)
}

fn values<'a>(params: &'a [Param<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|param| param as &(dyn ToSql + Sync)).collect()
}

/// Translates a statement for PostgreSQL: `$1` for `?1`. Quoted texts stay as they are.
fn translate_placeholders(statement: &str) -> String {
    let mut is_quoted = false;
    let translated = statement.chars().map(|character| match character {
        '\'' => {
            is_quoted = !is_quoted;
            character
        }
        '?' if !is_quoted => '$',
        other => other,
    });
    translated.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_translated_and_quoted_texts_are_not() {
        for (ours, theirs) in [
            ("SELECT ?1, ?12", "SELECT $1, $12"),
            ("a = ?1 AND b = '?1' AND c = ?2", "a = $1 AND b = '?1' AND c = $2"),
            ("x LIKE ?1 ESCAPE '\\'", "x LIKE $1 ESCAPE '\\'"),
        ] {
            assert_eq!(translate_placeholders(ours), theirs);
        }
    }
}
