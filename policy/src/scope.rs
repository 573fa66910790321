//! Areas of the API, and how much of each a key may use.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much of an area: write includes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Enough for GET, HEAD and OPTIONS where the rule leaves the level to the method.
    Read,
    /// Enough for every method.
    Write,
}

impl Level {
    /// True when holding this level is enough for `needed`.
    pub fn includes(self, needed: Self) -> bool {
        match (self, needed) {
            (Self::Write, _) | (Self::Read, Self::Read) => true,
            (Self::Read, Self::Write) => false,
        }
    }

    /// The word: `read` or `write`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// The level that a request method needs: GET, HEAD and OPTIONS read, all others write.
    pub fn of_method(method: &[u8]) -> Self {
        match method {
            b"GET" | b"HEAD" | b"OPTIONS" => Self::Read,
            _ => Self::Write,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An area of the API in the operator's catalogue: `[a-z][a-z0-9_]{0,38}`, except the words that rules use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

/// A text that can't name a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a scope is a lower-case letter and at most 38 lower-case letters, digits or `_`, and not `public`, `deny` or `key`"
)]
pub struct ParseScopeError;

impl Scope {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// True for a valid name of a scope.
pub(crate) fn is_scope(name: &str) -> bool {
    let word = match name.as_bytes() {
        [first, rest @ ..] => {
            first.is_ascii_lowercase()
                && rest.len() <= 38
                && rest.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
        }
        [] => false,
    };
    word && !matches!(name, "public" | "deny" | "key")
}

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        if is_scope(text) { Ok(Self(text.to_owned())) } else { Err(ParseScopeError) }
    }
}

impl TryFrom<String> for Scope {
    type Error = ParseScopeError;

    fn try_from(text: String) -> Result<Self, ParseScopeError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

impl Borrow<str> for Scope {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key may do: a level for each scope it has. As JSON `{"reviews": "read", "webhooks": "write"}`.
pub type Scopes = BTreeMap<Scope, Level>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::test;

    #[test]
    fn write_includes_read_and_nothing_else_is_included() {
        assert!(Level::Write.includes(Level::Read));
        assert!(Level::Write.includes(Level::Write));
        assert!(Level::Read.includes(Level::Read));
        assert!(!Level::Read.includes(Level::Write));
    }

    #[test]
    fn only_safe_methods_read() {
        for (method, level) in [
            ("GET", Level::Read),
            ("HEAD", Level::Read),
            ("OPTIONS", Level::Read),
            ("POST", Level::Write),
            ("DELETE", Level::Write),
            ("get", Level::Write),
            ("QUERY", Level::Write),
            ("", Level::Write),
        ] {
            assert_eq!(Level::of_method(method.as_bytes()), level, "{method:?}");
        }
    }

    #[test]
    fn scope_names_are_lower_case_and_not_words_of_rules() {
        for (name, fits) in [
            ("reviews", true),
            ("security_scans", true),
            ("a2", true),
            (&"a".repeat(39), true),
            (&"a".repeat(40), false),
            ("", false),
            ("_a", false),
            ("2a", false),
            ("Reviews", false),
            ("reviews:read", false),
            ("public", false),
            ("deny", false),
            ("key", false),
            ("keys", true),
        ] {
            assert_eq!(name.parse::<Scope>().is_ok(), fits, "{name:?}");
        }
    }
}
