//! The environment a key is for: `live`, `test` and so on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name from the operator's list: `[a-z][a-z0-9]{0,9}`. It is part of the key's text and never changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Environment(String);

/// A text that can't name an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an environment is a lower-case letter and at most 9 lower-case letters or digits, like `live`")]
pub struct ParseEnvironmentError;

impl Environment {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self("live".to_owned())
    }
}

/// True for a valid environment in a key's text.
pub(crate) fn is_environment(name: &[u8]) -> bool {
    match name {
        [first, rest @ ..] => {
            first.is_ascii_lowercase()
                && rest.len() <= 9
                && rest.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        }
        [] => false,
    }
}

impl FromStr for Environment {
    type Err = ParseEnvironmentError;

    fn from_str(text: &str) -> Result<Self, ParseEnvironmentError> {
        if is_environment(text.as_bytes()) { Ok(Self(text.to_owned())) } else { Err(ParseEnvironmentError) }
    }
}

impl TryFrom<String> for Environment {
    type Error = ParseEnvironmentError;

    fn try_from(text: String) -> Result<Self, ParseEnvironmentError> {
        text.parse()
    }
}

impl From<Environment> for String {
    fn from(environment: Environment) -> Self {
        environment.0
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Environment;
    use crate::fixtures::test;

    #[test]
    fn names_are_short_and_lower_case() {
        for (name, fits) in [
            ("live", true),
            ("t", true),
            ("test2", true),
            ("abcdefghij", true),
            ("abcdefghijk", false),
            ("", false),
            ("2test", false),
            ("Live", false),
            ("li_ve", false),
            ("lïve", false),
        ] {
            assert_eq!(name.parse::<Environment>().is_ok(), fits, "{name:?}");
        }
    }
}
