//! Sets of paths, as far as Envoy's matchers and templates can be compared.

use serde_json::Value;

use crate::cli::json::{part, string};

/// The paths that a route matches, or that an upstream reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathSet {
    Exact(String),
    /// All paths with this prefix.
    Below(String),
    /// This path, and what is below it.
    Segments(String),
    /// A set that can't be compared, such as that of a regular expression.
    Unknown,
}

impl PathSet {
    pub(super) fn all() -> Self {
        Self::Below("/".to_owned())
    }

    pub(super) fn of_match(matched: &Value) -> Self {
        let text = |name: &str| part(matched, &[name]).as_str().map(str::to_owned);
        if let Some(path) = text("path") {
            return Self::Exact(path);
        }
        if let Some(prefix) = text("prefix") {
            return Self::Below(if prefix.is_empty() { "/".to_owned() } else { prefix });
        }
        text("path_separated_prefix")
            .map_or(Self::Unknown, |prefix| Self::Segments(prefix.trim_end_matches('/').to_owned()))
    }

    pub(super) fn of_template(template: &str) -> Self {
        match template.split_once('{') {
            None => Self::Exact(template.to_owned()),
            Some((literal, rest)) if rest.starts_with('*') && literal.len() > 1 => {
                Self::Segments(literal.trim_end_matches('/').to_owned())
            }
            Some((literal, _)) => Self::Below(literal.to_owned()),
        }
    }

    /// What the upstream reads after the route's action has rewritten the path.
    pub(super) fn rewritten_by(&self, action: &Value) -> Option<Self> {
        if ["regex_rewrite", "path_rewrite_policy", "path_rewrite"].iter().any(|name| action.get(name).is_some()) {
            return None;
        }
        let rewrite = string(action, "prefix_rewrite");
        if rewrite.is_empty() {
            return Some(self.clone());
        }
        Some(match self {
            Self::Exact(_) => Self::Exact(rewrite.to_owned()),
            Self::Below(_) => Self::Below(rewrite.to_owned()),
            Self::Segments(_) if rewrite == "/" => Self::all(),
            Self::Segments(_) => Self::Segments(rewrite.trim_end_matches('/').to_owned()),
            Self::Unknown => return None,
        })
    }

    pub(super) fn is_all(&self) -> bool {
        matches!(self, Self::Below(text) if text == "/") || matches!(self, Self::Segments(text) if text.is_empty())
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Segments(text) if text.is_empty() => "/",
            Self::Exact(text) | Self::Below(text) | Self::Segments(text) => text,
            Self::Unknown => "",
        }
    }

    /// True if it contains every path of `other`, compared as written.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if self.is_all() {
            return true;
        }
        match (self, other) {
            (_, Self::Unknown) | (Self::Unknown, _) => false,
            (Self::Exact(own), Self::Exact(other)) => own == other,
            (Self::Exact(_), Self::Below(_) | Self::Segments(_)) => false,
            (Self::Below(own), _) => other.text().starts_with(own.as_str()),
            (Self::Segments(own), Self::Below(other)) => other.starts_with(&format!("{own}/")),
            (Self::Segments(own), Self::Exact(other) | Self::Segments(other)) => {
                other.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }

    /// True if some path may be in both.
    pub(super) fn may_intersect(&self, other: &Self) -> bool {
        *self == Self::Unknown || *other == Self::Unknown || self.covers(other) || other.covers(self)
    }

    /// The set in lower case, as a case-insensitive upstream reads it.
    pub(super) fn to_lowercase(&self) -> Self {
        match self {
            Self::Exact(text) => Self::Exact(text.to_lowercase()),
            Self::Below(text) => Self::Below(text.to_lowercase()),
            Self::Segments(text) => Self::Segments(text.to_lowercase()),
            Self::Unknown => Self::Unknown,
        }
    }

    /// A path of this set that the upstream reads as one of `target`; `sent` is what the upstream reads for this set.
    pub(super) fn path_to(&self, sent: &Self, target: &Self) -> Option<Self> {
        let rest = target.text().strip_prefix(sent.text())?;
        // Paths below a segment begin with a slash, which a rewrite to `/` removes.
        let is_joined = rest.is_empty() || rest.starts_with('/') || self.text().ends_with('/');
        let slash = if matches!(self, Self::Segments(_)) && !is_joined { "/" } else { "" };
        let text = format!("{}{slash}{rest}", self.text());
        Some(match (self, target) {
            (Self::Exact(_), _) => self.clone(),
            (_, Self::Below(_)) => Self::Below(text),
            (_, Self::Segments(_)) => Self::Segments(text),
            (_, Self::Exact(_) | Self::Unknown) => Self::Exact(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::PathSet::{self, Below, Exact, Segments, Unknown};

    fn owned(make: fn(String) -> PathSet, text: &str) -> PathSet {
        make(text.to_owned())
    }

    #[test]
    fn one_set_covers_another() {
        for (own, other, expected) in [
            (owned(Below, "/"), owned(Segments, "/v1"), true),
            (owned(Below, "/"), Unknown, true),
            (owned(Segments, ""), owned(Exact, "/v1"), true),
            (owned(Segments, "/v1"), owned(Exact, "/v1"), true),
            (owned(Segments, "/v1"), owned(Segments, "/v1/reviews"), true),
            (owned(Segments, "/v1"), owned(Exact, "/v10"), false),
            (owned(Segments, "/v1"), owned(Below, "/v1"), false),
            (owned(Below, "/v1"), owned(Exact, "/v10"), true),
            (owned(Exact, "/v1"), owned(Segments, "/v1"), false),
            (owned(Segments, "/v1"), owned(Below, "/"), false),
        ] {
            assert_eq!(own.covers(&other), expected, "{own:?} {other:?}");
        }
    }

    #[test]
    fn a_rewritten_path_is_followed() {
        let (own, sent) = (owned(Segments, "/static"), PathSet::all());
        assert_eq!(own.path_to(&sent, &owned(Segments, "/v1/webhooks")), Some(owned(Segments, "/static/v1/webhooks")));
        let own = owned(Below, "/static/");
        assert_eq!(own.path_to(&sent, &owned(Segments, "/v1/webhooks")), Some(owned(Segments, "/static/v1/webhooks")));
    }
}
