//! Parameters and columns: the few kinds of value that both engines have.

use std::fmt;

use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// The kinds of value. Instants and booleans are integers, as in SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Text,
    Blob,
}

/// A parameter's value, borrowed. PostgreSQL needs the kind of a null, too.
#[derive(Clone, Copy)]
pub(crate) enum Param<'a> {
    Null(Kind),
    Integer(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// A parameter's value, owned, for statements that are built at run time.
#[derive(Clone)]
pub(crate) enum Value {
    Null(Kind),
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// Shows only the kind: a value may be a digest, and the client library logs parameters.
impl fmt::Debug for Param<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(formatter)
    }
}

impl Param<'_> {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Null(kind) => kind,
            Self::Integer(_) => Kind::Integer,
            Self::Text(_) => Kind::Text,
            Self::Blob(_) => Kind::Blob,
        }
    }
}

/// A type that can be a parameter.
pub(crate) trait ToParam {
    /// The kind of a null of this type.
    const KIND: Kind;

    fn to_param(&self) -> Param<'_>;
}

/// A list of parameters, each borrowed: `params![id.as_bytes(), name]`.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::store::db::sql::ToParam::to_param(&$value)),*] as &[$crate::store::db::sql::Param<'_>] };
}
pub(crate) use params;

/// A row of owned values: `values![id.as_bytes(), name]`.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::db::sql::Value::of(&$value)),*] };
}
pub(crate) use values;

macro_rules! integers {
    ($($integer:ty),*) => { $(
        impl ToParam for $integer {
            const KIND: Kind = Kind::Integer;

            fn to_param(&self) -> Param<'_> {
                Param::Integer(i64::from(*self))
            }
        }
    )* };
}
integers!(i64, i32, u32, u16, u8, bool);

impl ToParam for str {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        Param::Text(self)
    }
}

impl ToParam for String {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        Param::Text(self)
    }
}

impl ToParam for [u8] {
    const KIND: Kind = Kind::Blob;

    fn to_param(&self) -> Param<'_> {
        Param::Blob(self)
    }
}

impl<const N: usize> ToParam for [u8; N] {
    const KIND: Kind = Kind::Blob;

    fn to_param(&self) -> Param<'_> {
        Param::Blob(self)
    }
}

impl ToParam for Vec<u8> {
    const KIND: Kind = Kind::Blob;

    fn to_param(&self) -> Param<'_> {
        Param::Blob(self)
    }
}

impl<T: ToParam + ?Sized> ToParam for &T {
    const KIND: Kind = T::KIND;

    fn to_param(&self) -> Param<'_> {
        (*self).to_param()
    }
}

impl<T: ToParam> ToParam for Option<T> {
    const KIND: Kind = T::KIND;

    fn to_param(&self) -> Param<'_> {
        self.as_ref().map_or(Param::Null(T::KIND), T::to_param)
    }
}

impl Value {
    /// An owned copy of a parameter's value.
    pub(crate) fn of(value: impl ToParam) -> Self {
        match value.to_param() {
            Param::Null(kind) => Self::Null(kind),
            Param::Integer(number) => Self::Integer(number),
            Param::Text(text) => Self::Text(text.to_owned()),
            Param::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    fn as_param(&self) -> Param<'_> {
        match self {
            Self::Null(kind) => Param::Null(*kind),
            Self::Integer(number) => Param::Integer(*number),
            Self::Text(text) => Param::Text(text),
            Self::Blob(bytes) => Param::Blob(bytes),
        }
    }
}

impl rusqlite::ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null(_) => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(number),
            // LIKE would stop at this character, and so match everything.
            Self::Text(text) if text.contains('\0') => return Ok(ToSqlOutput::from(text.replace('\0', "\u{fffd}"))),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Kind {
    pub(crate) fn postgres_type(self) -> Type {
        match self {
            Self::Integer => Type::INT8,
            Self::Text => Type::TEXT,
            Self::Blob => Type::BYTEA,
        }
    }
}

impl ToSql for Param<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match *self {
            Self::Null(_) => Ok(IsNull::Yes),
            Self::Integer(number) => number.to_sql(of, out),
            // A text in PostgreSQL can't contain this character. No stored text does, but a search may.
            Self::Text(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").to_sql(of, out),
            Self::Text(text) => text.to_sql(of, out),
            Self::Blob(bytes) => bytes.to_sql(of, out),
        }
    }

    fn accepts(of: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(of)
    }

    to_sql_checked!();
}

/// A column's value, borrowed from its row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl<'a> Column<'a> {
    /// `None` for a kind that none of our columns has.
    pub(super) fn of_sqlite(value: rusqlite::types::ValueRef<'a>) -> Option<Self> {
        use rusqlite::types::ValueRef;
        match value {
            ValueRef::Null => Some(Self::Null),
            ValueRef::Integer(number) => Some(Self::Integer(number)),
            ValueRef::Text(text) => std::str::from_utf8(text).ok().map(Self::Text),
            ValueRef::Blob(bytes) => Some(Self::Blob(bytes)),
            ValueRef::Real(_) => None,
        }
    }
}

impl<'a> FromSql<'a> for Column<'a> {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        match *of {
            Type::INT8 => i64::from_sql(of, raw).map(Self::Integer),
            Type::INT4 => i32::from_sql(of, raw).map(|number| Self::Integer(number.into())),
            Type::BOOL => bool::from_sql(of, raw).map(|is| Self::Integer(is.into())),
            Type::BYTEA => Ok(Self::Blob(raw)),
            _ => <&str>::from_sql(of, raw).map(Self::Text),
        }
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(of: &Type) -> bool {
        [Type::INT8, Type::INT4, Type::BOOL, Type::BYTEA].contains(of) || <&str as FromSql<'_>>::accepts(of)
    }
}

/// A type that can be read from a column; `None` if the value doesn't fit.
pub(crate) trait FromColumn: Sized {
    fn from_column(column: Column<'_>) -> Option<Self>;
}

macro_rules! from_integers {
    ($($integer:ty),*) => { $(
        impl FromColumn for $integer {
            fn from_column(column: Column<'_>) -> Option<Self> {
                if let Column::Integer(number) = column { Self::try_from(number).ok() } else { None }
            }
        }
    )* };
}
from_integers!(i64, u32, u16, u8);

impl FromColumn for bool {
    fn from_column(column: Column<'_>) -> Option<Self> {
        if let Column::Integer(number) = column { Some(number != 0) } else { None }
    }
}

impl FromColumn for String {
    fn from_column(column: Column<'_>) -> Option<Self> {
        if let Column::Text(text) = column { Some(text.to_owned()) } else { None }
    }
}

impl FromColumn for Vec<u8> {
    fn from_column(column: Column<'_>) -> Option<Self> {
        if let Column::Blob(bytes) = column { Some(bytes.to_vec()) } else { None }
    }
}

impl<const N: usize> FromColumn for [u8; N] {
    fn from_column(column: Column<'_>) -> Option<Self> {
        if let Column::Blob(bytes) = column { bytes.try_into().ok() } else { None }
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(column: Column<'_>) -> Option<Self> {
        if let Column::Null = column { Some(None) } else { T::from_column(column).map(Some) }
    }
}

/// Values as parameters.
pub(crate) fn as_params(values: &[Value]) -> Vec<Param<'_>> {
    values.iter().map(Value::as_param).collect()
}
