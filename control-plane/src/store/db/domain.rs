//! How the domain's types are stored: each as a parameter, and as a column of the same kind.

use std::net::IpAddr;

use policy::protocol::usage::SecretMark;
use policy::{
    AdminTokenId, Allowlist, ChainHash, Digest, EdgeTokenId, Environment, Epoch, KeyId, Revision, Scopes, UnixSeconds,
    WorkspaceId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sql::{Column, FromColumn, Kind, Param, Row, SqlError, ToParam};
use crate::base::secret::LastCharacters;
use crate::store::Metadata;

/// Ids are stored as their 16 bytes.
macro_rules! ids {
    ($($id:ty),*) => { $(
        impl ToParam for $id {
            const KIND: Kind = Kind::Blob;

            fn to_param(&self) -> Param<'_> {
                self.as_bytes().to_param()
            }
        }

        impl FromColumn for $id {
            fn from_column(column: Column<'_>) -> Result<Self, String> {
                FromColumn::from_column(column).map(Self::from_bytes)
            }
        }
    )* };
}
ids!(AdminTokenId, EdgeTokenId, Epoch, KeyId, WorkspaceId);

/// Types around one value are stored as that value.
macro_rules! newtypes {
    ($($newtype:ident: $kind:ident),*) => { $(
        impl ToParam for $newtype {
            const KIND: Kind = Kind::$kind;

            fn to_param(&self) -> Param<'_> {
                self.0.to_param()
            }
        }

        impl FromColumn for $newtype {
            fn from_column(column: Column<'_>) -> Result<Self, String> {
                FromColumn::from_column(column).map(Self)
            }
        }
    )* };
}
newtypes!(ChainHash: Blob, Digest: Blob, LastCharacters: Text, SecretMark: Blob, UnixSeconds: Integer);

/// The database's integers have a sign. A larger revision, which only a client can name, becomes the largest, which no
/// history reaches.
impl ToParam for Revision {
    const KIND: Kind = Kind::Integer;

    fn to_param(&self) -> Param<'_> {
        Param::Integer(i64::try_from(self.0).unwrap_or(i64::MAX))
    }
}

/// The database has none below 0.
impl FromColumn for Revision {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        i64::from_column(column).map(|number| Self(u64::try_from(number).unwrap_or_default()))
    }
}

impl ToParam for Environment {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        self.as_str().to_param()
    }
}

impl FromColumn for Environment {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        column.text()?.parse().map_err(|_| "its text has another format".to_owned())
    }
}

impl ToParam for IpAddr {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        Param::Text(self.to_string().into())
    }
}

/// An address that was stored for information. One that isn't an address is left out.
pub(crate) fn address(row: &Row<'_>, at: usize) -> Result<Option<IpAddr>, SqlError> {
    Ok(row.get::<Option<String>>(at)?.and_then(|address| address.parse().ok()))
}

impl ToParam for Scopes {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        json_param(self)
    }
}

impl FromColumn for Scopes {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        from_json(column)
    }
}

impl ToParam for Metadata {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        json_param(self)
    }
}

impl FromColumn for Metadata {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        from_json(column)
    }
}

/// NULL means any address.
impl ToParam for Allowlist {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        match self {
            Self::Any => Param::Null(Kind::Text),
            Self::Only(_) => json_param(self),
        }
    }
}

impl FromColumn for Allowlist {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        match column {
            Column::Null => Ok(Self::Any),
            Column::Integer(_) | Column::Text(_) | Column::Blob(_) => from_json(column),
        }
    }
}

/// A value as JSON. Our types can always be written as such; if one couldn't, the empty text would be refused when it
/// is read.
pub(crate) fn json_param(value: &impl Serialize) -> Param<'static> {
    Param::Text(serde_json::to_string(value).unwrap_or_default().into())
}

/// A column that holds JSON.
pub(crate) fn from_json<T: DeserializeOwned>(column: Column<'_>) -> Result<T, String> {
    serde_json::from_str(column.text()?).map_err(|error| error.to_string())
}
