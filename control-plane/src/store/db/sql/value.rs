//! Parameters and columns: the few kinds of value that both engines have.

use std::borrow::Cow;
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

/// A parameter's value, borrowed if its type has it in this form. PostgreSQL needs the kind of a null, too.
#[derive(Clone)]
pub(crate) enum Param<'a> {
    Null(Kind),
    Integer(i64),
    Text(Cow<'a, str>),
    Blob(Cow<'a, [u8]>),
}

/// A parameter's value, owned, for statements that are built at run time.
pub(crate) type Value = Param<'static>;

/// Shows only the kind: a value may be a digest, and the client library logs parameters.
impl fmt::Debug for Param<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(formatter)
    }
}

impl Param<'_> {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Null(kind) => *kind,
            Self::Integer(_) => Kind::Integer,
            Self::Text(_) => Kind::Text,
            Self::Blob(_) => Kind::Blob,
        }
    }

    /// The same value, without a copy of its bytes.
    pub(crate) fn borrowed(&self) -> Param<'_> {
        match self {
            Self::Null(kind) => Param::Null(*kind),
            Self::Integer(number) => Param::Integer(*number),
            Self::Text(text) => Param::Text(Cow::Borrowed(text)),
            Self::Blob(bytes) => Param::Blob(Cow::Borrowed(bytes)),
        }
    }
}

/// A type that can be a parameter. Those of the domain are in `db/domain.rs`, or beside their definition.
pub(crate) trait ToParam {
    /// The kind of a null of this type.
    const KIND: Kind;

    fn to_param(&self) -> Param<'_>;
}

/// A list of parameters, each borrowed: `params![id, name]`.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::store::db::sql::ToParam::to_param(&$value)),*] as &[$crate::store::db::sql::Param<'_>] };
}
pub(crate) use params;

/// A row of owned values: `values![id, name]`.
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
        Param::Text(self.into())
    }
}

impl ToParam for String {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        Param::Text(self.into())
    }
}

impl ToParam for [u8] {
    const KIND: Kind = Kind::Blob;

    fn to_param(&self) -> Param<'_> {
        Param::Blob(self.into())
    }
}

impl<const N: usize> ToParam for [u8; N] {
    const KIND: Kind = Kind::Blob;

    fn to_param(&self) -> Param<'_> {
        Param::Blob(self.as_slice().into())
    }
}

impl ToParam for Vec<u8> {
    const KIND: Kind = Kind::Blob;

    fn to_param(&self) -> Param<'_> {
        Param::Blob(self.into())
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
            Param::Text(text) => Self::Text(text.into_owned().into()),
            Param::Blob(bytes) => Self::Blob(bytes.into_owned().into()),
        }
    }
}

impl rusqlite::ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null(_) => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
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
        match self {
            Self::Null(_) => Ok(IsNull::Yes),
            Self::Integer(number) => number.to_sql(of, out),
            // A text in PostgreSQL can't contain this character. No stored text does, but a search may.
            Self::Text(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").to_sql(of, out),
            Self::Text(text) => text.as_ref().to_sql(of, out),
            Self::Blob(bytes) => bytes.as_ref().to_sql(of, out),
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
    pub(crate) fn text(self) -> Result<&'a str, String> {
        if let Self::Text(text) = self { Ok(text) } else { Err("it is not text".to_owned()) }
    }

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

/// A type that can be read from a column. Those of the domain are in `db/domain.rs`, or beside their definition.
///
/// Values were checked when they were written, so one that doesn't fit is a fault. The error describes it.
pub(crate) trait FromColumn: Sized {
    fn from_column(column: Column<'_>) -> Result<Self, String>;
}

fn other_type<T>() -> Result<T, String> {
    Err("it has another type".to_owned())
}

macro_rules! from_integers {
    ($($integer:ty),*) => { $(
        impl FromColumn for $integer {
            fn from_column(column: Column<'_>) -> Result<Self, String> {
                let Column::Integer(number) = column else { return other_type() };
                Self::try_from(number).or_else(|_| other_type())
            }
        }
    )* };
}
from_integers!(u32, u16, u8);

impl FromColumn for i64 {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        if let Column::Integer(number) = column { Ok(number) } else { other_type() }
    }
}

impl FromColumn for bool {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        i64::from_column(column).map(|number| number != 0)
    }
}

impl FromColumn for String {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        if let Column::Text(text) = column { Ok(text.to_owned()) } else { other_type() }
    }
}

impl FromColumn for Vec<u8> {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        if let Column::Blob(bytes) = column { Ok(bytes.to_vec()) } else { other_type() }
    }
}

impl<const N: usize> FromColumn for [u8; N] {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        let Column::Blob(bytes) = column else { return other_type() };
        bytes.try_into().or_else(|_| other_type())
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        if let Column::Null = column { Ok(None) } else { T::from_column(column).map(Some) }
    }
}
