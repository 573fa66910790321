//! What a route requires of a key, in one word.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::scope::{Level, is_scope};

/// What a route requires of a request. Borrows the scope's name from the parsed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule<'a> {
    /// Passes without a key.
    Public,
    /// Never passes.
    Deny,
    /// Any valid key.
    AnyKey,
    /// A key with this scope.
    Scope {
        /// A valid name of a scope. If the catalogue lacks it, no key has it.
        scope: &'a str,
        /// The level of that scope that the key must have.
        level: NeededLevel,
    },
}

/// The level of a scope that a rule requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeededLevel {
    /// By the request's method: see [`Level::of_method`].
    ByMethod,
    /// The same for all methods, as in `reviews:read`.
    Fixed(Level),
}

impl NeededLevel {
    /// The level that a request with this method needs.
    pub fn for_method(self, method: &[u8]) -> Level {
        match self {
            Self::ByMethod => Level::of_method(method),
            Self::Fixed(level) => level,
        }
    }
}

/// A text that isn't a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rule is `public`, `deny`, `key`, a scope, or a scope with `:read` or `:write`")]
pub struct ParseRuleError;

impl<'a> Rule<'a> {
    /// Parses one word. Allocates nothing, so that a rule in route metadata can be read on each request.
    pub fn parse(text: &'a str) -> Result<Self, ParseRuleError> {
        match text {
            "public" => return Ok(Self::Public),
            "deny" => return Ok(Self::Deny),
            "key" => return Ok(Self::AnyKey),
            _ => {}
        }
        let (scope, level) = match text.split_once(':') {
            None => (text, NeededLevel::ByMethod),
            Some((scope, "read")) => (scope, NeededLevel::Fixed(Level::Read)),
            Some((scope, "write")) => (scope, NeededLevel::Fixed(Level::Write)),
            Some(_) => return Err(ParseRuleError),
        };
        if is_scope(scope) { Ok(Self::Scope { scope, level }) } else { Err(ParseRuleError) }
    }
}

/// The text of a rule that was checked once, in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleText(String);

impl RuleText {
    /// The rule.
    pub fn rule(&self) -> Rule<'_> {
        // The text was parsed when this value was made. If it no longer parses, it denies.
        Rule::parse(&self.0).unwrap_or(Rule::Deny)
    }
}

impl TryFrom<String> for RuleText {
    type Error = ParseRuleError;

    fn try_from(text: String) -> Result<Self, ParseRuleError> {
        Rule::parse(&text)?;
        Ok(Self(text))
    }
}

impl From<RuleText> for String {
    fn from(text: RuleText) -> Self {
        text.0
    }
}

impl fmt::Display for RuleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::test;

    #[test]
    fn a_rule_is_one_word() {
        let scope = |level| Ok(Rule::Scope { scope: "reviews", level });
        for (text, expected) in [
            ("public", Ok(Rule::Public)),
            ("deny", Ok(Rule::Deny)),
            ("key", Ok(Rule::AnyKey)),
            ("reviews", scope(NeededLevel::ByMethod)),
            ("reviews:read", scope(NeededLevel::Fixed(Level::Read))),
            ("reviews:write", scope(NeededLevel::Fixed(Level::Write))),
            ("", Err(ParseRuleError)),
            ("Public", Err(ParseRuleError)),
            (" public", Err(ParseRuleError)),
            ("public:read", Err(ParseRuleError)),
            ("reviews:", Err(ParseRuleError)),
            ("reviews:admin", Err(ParseRuleError)),
            ("reviews:read:write", Err(ParseRuleError)),
            ("reviews webhooks", Err(ParseRuleError)),
        ] {
            assert_eq!(Rule::parse(text), expected, "{text:?}");
        }
    }
}
