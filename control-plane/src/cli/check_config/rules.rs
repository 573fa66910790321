//! Checks of rules: in routes' metadata, and against the operator's catalogue.

use policy::Config;
use policy::route::{Route, Routes};
use policy::rule::{Rule, RuleText};
use serde_json::Value;

use super::Finding;
use crate::cli::json::part;

/// The operator's `latchkey.toml`, with its environments and scopes.
pub(crate) struct Catalogue(pub crate::base::config::Config);

impl Catalogue {
    /// Checks that the environment and the scopes that the edge names exist.
    pub(crate) fn check(&self, place: &str, config: &Config, findings: &mut Vec<Finding>) {
        if !self.0.environments.contains(&config.environment) {
            let message =
                format!("`environment`: no key is made for `{}`, which is not in the catalogue", config.environment);
            findings.push(Finding::refused(place, message));
        }
        for (at, route) in config.routes.iter().enumerate() {
            let field = format!("`routes[{at}].rule`");
            self.check_rule(place, &field, route.rule.rule(), findings);
        }
    }

    fn check_rule(&self, place: &str, field: &str, rule: Rule<'_>, findings: &mut Vec<Finding>) {
        if let Rule::Scope { scope, .. } = rule
            && !self.0.scopes.iter().any(|own| own.as_str() == scope)
        {
            let message = format!("{field}: no key can have the scope `{scope}`, which is not in the catalogue");
            findings.push(Finding::refused(place, message));
        }
    }
}

/// Checks the rule in a route's metadata; false if the route states none.
pub(super) fn check_route(
    place: &str,
    route: &Value,
    catalogue: Option<&Catalogue>,
    findings: &mut Vec<Finding>,
) -> bool {
    let metadata = part(route, &["metadata", "filter_metadata", "latchkey"]);
    let place = format!("{place}.metadata.filter_metadata.latchkey");
    if metadata.is_null() {
        return false;
    }
    let (Some(rule), path) = (part(metadata, &["rule"]).as_str(), part(metadata, &["path"])) else {
        findings
            .push(Finding::refused(place, "`rule`: a text is expected; without one the route denies every request"));
        return true;
    };
    let text = match RuleText::try_from(rule.to_owned()) {
        Ok(text) => text,
        Err(error) => {
            findings
                .push(Finding::refused(place, format!("`rule` is `{rule}`: {error}; the route denies every request")));
            return true;
        }
    };
    if let Some(catalogue) = catalogue {
        catalogue.check_rule(&place, "`rule`", text.rule(), findings);
    }
    match path {
        Value::Null => {}
        Value::String(path) => {
            let route = Route { methods: Vec::new(), path: path.clone(), rule: text };
            if let Err(error) = Routes::compile(&[route]) {
                findings.push(Finding::refused(place, format!("`path`: {error}; the route denies every request")));
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            findings.push(Finding::refused(place, "`path`: a text is expected; the route denies every request"));
        }
    }
    true
}
