//! A route of the printed configuration, and its rule.

use std::fmt;
use std::str::FromStr;

use super::quoted;
use crate::cli::rule_strictness::is_rule_as_strict;

/// `--route PATH=RULE`.
#[derive(Clone)]
pub(super) struct RouteFlag {
    pub(super) path: String,
    pub(super) rule: String,
}

impl FromStr for RouteFlag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.rsplit_once('=') {
            Some((path, rule)) if path.starts_with('/') && !rule.is_empty() => {
                Ok(Self { path: path.to_owned(), rule: rule.to_owned() })
            }
            _ => Err("expected a path and a rule: /v1/reviews=reviews"),
        }
    }
}

impl RouteFlag {
    /// The path before the first parameter, without a trailing slash.
    pub(super) fn prefix(&self) -> &str {
        let literal = self.path.split_once('{').map_or(self.path.as_str(), |(literal, _)| literal);
        literal.trim_end_matches('/')
    }

    /// The same as a template of the plugin configuration.
    pub(super) fn template(&self) -> String {
        if self.path.contains('{') { self.path.clone() } else { format!("{}/{{*rest}}", self.prefix()) }
    }

    /// True if this route takes paths below it, including those of `other` that Envoy doesn't recognize as `other`'s.
    fn covers(&self, other: &Self) -> bool {
        other.prefix().strip_prefix(self.prefix()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// True if every request that passes here would also pass `other`.
    fn is_as_strict_as(&self, other: &Self) -> bool {
        let binds = |route: &Self| route.path.split('/').any(|segment| segment == "{workspace}");
        is_rule_as_strict(&self.rule, &other.rule) && (binds(self) || !binds(other) || self.rule == "deny")
    }
}

/// An Envoy route, as YAML.
impl fmt::Display for RouteFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, rule) = (self.prefix(), quoted(&self.rule));
        let path = if self.path.contains('{') { format!(", path: {}", quoted(&self.path)) } else { String::new() };
        let matched = match prefix {
            "" => "prefix: /".to_owned(),
            prefix => format!("path_separated_prefix: {}", quoted(prefix)),
        };
        writeln!(f, "              - match: {{{matched}}}")?;
        writeln!(f, "                metadata: {{filter_metadata: {{latchkey: {{rule: {rule}{path}}}}}}}")?;
        write!(f, "                route: {{cluster: upstream}}")
    }
}

/// The first two of which the less specific one would let requests for the other pass. A spelling that only the
/// upstream reads as the other's path would bypass its rule.
pub(super) fn find_bypass(routes: &[RouteFlag]) -> Option<(&RouteFlag, &RouteFlag)> {
    routes.iter().find_map(|own| {
        let weaker = |other: &&RouteFlag| own.covers(other) && !own.is_as_strict_as(other);
        routes.iter().find(weaker).map(|other| (own, other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_above_a_stricter_route_bypasses_it() {
        for (own, other, is_bypass) in [
            ("/=public", "/v1/webhooks=webhooks", true),
            ("/=public", "/v1/webhooks=public", false),
            ("/=public", "/v1/webhooks=deny", true),
            ("/=deny", "/v1/webhooks=webhooks", false),
            ("/v1=key", "/v1/webhooks=webhooks", true),
            ("/v1=reviews", "/v1/webhooks=webhooks", true),
            ("/v1=reviews", "/v1/webhooks=key", false),
            ("/v1=reviews:read", "/v1/reviews=reviews", true),
            ("/v1=reviews:write", "/v1/reviews=reviews", false),
            ("/v1=reviews", "/v1/reviews=reviews:write", true),
            ("/v1=reviews", "/v1/reviews=reviews:read", false),
            ("/v1=reviews:write", "/v1/reviews=reviews:read", false),
            ("/v1=workspaces", "/v1/workspaces/{workspace}/{*rest}=workspaces", true),
            ("/v1/{workspace}/{*rest}=workspaces", "/v1/a/{workspace}/{*rest}=workspaces", false),
            ("/healthz=public", "/v1/webhooks=webhooks", false),
            ("/v1/web=public", "/v1/webhooks=webhooks", false),
            ("/v1/webhooks=webhooks", "/v1/webhooks/open=public", false),
        ] {
            let routes: Vec<RouteFlag> = [other, own].iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(find_bypass(&routes).is_some(), is_bypass, "{own} and {other}");
        }
    }
}
