//! What a route requires of a request, and which of two requirements is weaker.

use policy::route::Route;
use serde_json::Value;

use crate::cli::json::part;
use crate::cli::rule_strictness::is_rule_as_strict;

/// A rule, and the template that binds a workspace, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    rule: String,
    workspace: Option<String>,
}

impl Requirement {
    pub(crate) fn deny() -> Self {
        Self { rule: "deny".to_owned(), workspace: None }
    }

    pub(crate) fn key() -> Self {
        Self { rule: "key".to_owned(), workspace: None }
    }

    /// The requirement that a route's metadata states. One that can't be read denies, as in the filter.
    pub(crate) fn stated(metadata: &Value) -> Self {
        let Some(rule) = part(metadata, &["rule"]).as_str() else { return Self::deny() };
        Self::new(rule, part(metadata, &["path"]).as_str().unwrap_or_default())
    }

    pub(crate) fn of_line(line: &Route) -> Self {
        Self::new(&line.rule.to_string(), &line.path)
    }

    fn new(rule: &str, path: &str) -> Self {
        let binds = path.contains("{workspace}");
        Self { rule: rule.to_owned(), workspace: binds.then(|| path.to_owned()) }
    }

    pub(crate) fn rule(&self) -> &str {
        &self.rule
    }

    pub(crate) fn is_public(&self) -> bool {
        self.rule == "public"
    }

    /// True if a request without a key passes.
    pub(crate) fn is_open(&self) -> bool {
        self.is_public() || self.rule == "optional"
    }

    pub(crate) fn is_deny(&self) -> bool {
        self.rule == "deny"
    }

    /// True if every request that passes here also passes `other`.
    pub(crate) fn is_as_strong_as(&self, other: &Self) -> bool {
        if self.is_deny() || other.is_public() {
            return true;
        }
        let binds_as_much = other.workspace.is_none() || other.workspace == self.workspace || other.is_open();
        is_rule_as_strict(&self.rule, &other.rule) && binds_as_much
    }
}

#[cfg(test)]
mod tests {
    use super::Requirement;

    #[test]
    fn requirements_are_compared_by_what_they_let_pass() {
        let requirement = |rule: &str| Requirement::new(rule, "");
        for (own, other, expected) in [
            ("deny", "reviews", true),
            ("reviews", "deny", false),
            ("public", "public", true),
            ("public", "optional", false),
            ("public", "key", false),
            ("optional", "optional", true),
            ("optional", "key", false),
            ("key", "optional", true),
            ("key", "key", true),
            ("key", "reviews:read", false),
            ("reviews", "key", true),
            ("reviews", "reviews:read", true),
            ("reviews:write", "reviews", true),
            ("reviews:read", "reviews", false),
            ("reviews", "reviews:write", false),
            ("reviews:write", "webhooks:read", false),
        ] {
            assert_eq!(requirement(own).is_as_strong_as(&requirement(other)), expected, "{own} {other}");
        }
        let bound = Requirement::new("key", "/v1/workspaces/{workspace}");
        assert!(
            !requirement("key").is_as_strong_as(&bound)
                && bound.is_as_strong_as(&requirement("key"))
                && bound.is_as_strong_as(&bound)
        );
    }
}
