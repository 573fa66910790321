//! Conversion of columns to types. Values were checked when they were written, so an invalid one is a fault.

use policy::{Allowlist, Scopes};
use serde::de::DeserializeOwned;

use super::sql::{Column, Row, SqlError};
use crate::store::{Metadata, StoreError};

/// A column that holds JSON.
pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> Result<T, SqlError> {
    serde_json::from_str(row.text(at)?).map_err(|error| SqlError::invalid_column(at, error))
}

/// A column whose text is parsed into a type.
pub(crate) fn parsed<T: std::str::FromStr>(row: &Row<'_>, at: usize) -> Result<T, SqlError> {
    row.text(at)?.parse().map_err(|_| SqlError::invalid_column(at, "its text has another format"))
}

/// An allowlist: NULL means any address.
pub(crate) fn allowlist(row: &Row<'_>, at: usize) -> Result<Allowlist, SqlError> {
    match row.column(at)? {
        Column::Null => Ok(Allowlist::Any),
        Column::Integer(_) | Column::Text(_) | Column::Blob(_) => json(row, at),
    }
}

pub(crate) fn scopes_text(scopes: &Scopes) -> Result<String, StoreError> {
    serialized(serde_json::to_string(scopes))
}

pub(crate) fn metadata_text(metadata: &Metadata) -> Result<String, StoreError> {
    serialized(serde_json::to_string(metadata))
}

pub(crate) fn allowlist_text(allowlist: &Allowlist) -> Result<Option<String>, StoreError> {
    match allowlist {
        Allowlist::Any => Ok(None),
        Allowlist::Only(_) => serialized(serde_json::to_string(allowlist)).map(Some),
    }
}

fn serialized(text: serde_json::Result<String>) -> Result<String, StoreError> {
    text.map_err(|error| StoreError::Fault(error.to_string()))
}
