//! Columns to types: what a row holds was checked when it was written, so what doesn't fit is a fault.

use policy::{Allowlist, Scopes};
use rusqlite::Row;
use rusqlite::types::FromSqlError;
use serde::de::DeserializeOwned;

use super::{Metadata, StoreError};

/// A column that holds JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(at)?.as_str().map_err(|error| unfit(at, error))?;
    serde_json::from_str(text).map_err(|error| unfit(at, FromSqlError::Other(error.into())))
}

/// A column whose text has a type of its own.
pub(super) fn parsed<T: std::str::FromStr>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(at)?.as_str().map_err(|error| unfit(at, error))?;
    text.parse().map_err(|_| unfit(at, FromSqlError::InvalidType))
}

/// An allowlist: NULL is any address.
pub(super) fn allowlist(row: &Row<'_>, at: usize) -> rusqlite::Result<Allowlist> {
    match row.get_ref(at)? {
        rusqlite::types::ValueRef::Null => Ok(Allowlist::Any),
        _ => json(row, at),
    }
}

fn unfit(at: usize, error: FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, error.into())
}

pub(super) fn scopes_text(scopes: &Scopes) -> Result<String, StoreError> {
    written(serde_json::to_string(scopes))
}

pub(super) fn metadata_text(metadata: &Metadata) -> Result<String, StoreError> {
    written(serde_json::to_string(metadata))
}

pub(super) fn allowlist_text(allowlist: &Allowlist) -> Result<Option<String>, StoreError> {
    match allowlist {
        Allowlist::Any => Ok(None),
        Allowlist::Only(_) => written(serde_json::to_string(allowlist)).map(Some),
    }
}

fn written(text: serde_json::Result<String>) -> Result<String, StoreError> {
    text.map_err(|error| StoreError::Fault(error.to_string()))
}
