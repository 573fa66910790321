//! The guard: the RBAC filter that lets nothing pass without the filter's verdict on the route that Envoy took.

use serde_json::{Map, Value, json};

use super::reference::ReferenceConfig;
use crate::cli::json::{is_true, part};

pub(super) const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";

/// What to do about a guard that isn't the shipped one.
pub(super) const USE_SHIPPED_GUARD: &str = "take the filter `latchkey-guard` from what `latchkey envoy-config` prints";

/// What this RBAC filter lets pass beyond the shipped guard; `None` if it is as strict.
pub(super) fn fault(rbac: &Value, shipped: &ReferenceConfig) -> Option<String> {
    let rules = part(rbac, &["rules"]);
    if rbac.get("matcher").is_some_and(|matcher| !matcher.is_null()) {
        return Some(
            "has a `matcher`, which is taken in place of `rules` and can't be compared with the shipped guard"
                .to_owned(),
        );
    }
    if !rules.is_object() {
        let shadow = ["shadow_rules", "shadow_matcher"].iter().any(|name| rbac.get(name).is_some());
        let what = if shadow {
            "has `shadow_rules` only, which deny nothing"
        } else {
            "has no `rules`: it lets everything pass"
        };
        return Some(what.to_owned());
    }
    match part(rules, &["action"]) {
        Value::Null => {}
        Value::String(action) if action == "ALLOW" => {}
        Value::Number(action) if action.as_u64() == Some(0) => {}
        Value::String(action) if action == "LOG" => return Some("has `action: LOG`, which denies nothing".to_owned()),
        Value::String(action) if action == "DENY" => {
            return Some("has `action: DENY`, which lets pass what its policies don't name".to_owned());
        }
        other => return Some(format!("has `action: {other}`, and only ALLOW denies what has no verdict")),
    }
    let own = policies(rbac);
    if own.is_empty() {
        return Some("has no policy: it denies every request".to_owned());
    }
    own.iter().find(|(_, policy)| !shipped.policies.contains(policy)).map(|(name, policy)| {
        format!("has a policy `{name}` that the shipped guard has not: {}", difference(policy, shipped))
    })
}

/// The policies of an RBAC filter by name, each in a form that can be compared.
pub(super) fn policies(rbac: &Value) -> Vec<(&str, Value)> {
    let Some(policies) = part(rbac, &["rules", "policies"]).as_object() else { return Vec::new() };
    policies.iter().map(|(name, policy)| (name.as_str(), comparable(policy))).collect()
}

/// What a policy lets pass that the shipped one doesn't, in words.
fn difference(policy: &Value, shipped: &ReferenceConfig) -> &'static str {
    let same = |field: &str| shipped.policies.iter().any(|own| own.get(field) == policy.get(field));
    let principals = part(policy, &["principals"]);
    let matches_all = part(principals, &[]).as_array().is_some_and(|all| all.iter().any(|one| is_true(one, "any")));
    if matches_all {
        "it lets any request pass, decided or not"
    } else if !same("principals") {
        "it takes other verdicts than `allowed` and `public`"
    } else if !same("condition") {
        "its condition doesn't compare `wasm.latchkey_rule` with the route's rule as the shipped one does"
    } else {
        "it differs in what it permits"
    }
}

/// The policy in a normal form: alternatives sorted, defaults removed, nested lists flattened.
fn comparable(policy: &Value) -> Value {
    let Some(fields) = policy.as_object() else { return policy.clone() };
    let mut comparable = Map::new();
    for (name, value) in fields {
        let value = match name.as_str() {
            "permissions" => alternatives(value, "or_rules", "rules"),
            "principals" => alternatives(value, "or_ids", "ids"),
            _ => value.clone(),
        };
        comparable.insert(name.clone(), value);
    }
    Value::Object(comparable)
}

/// Alternatives as one sorted list.
fn alternatives(value: &Value, or: &str, list: &str) -> Value {
    let mut flat = Vec::new();
    flatten(value, or, list, &mut flat);
    flat.sort_by_key(Value::to_string);
    flat.dedup();
    flat.into()
}

fn flatten(value: &Value, or: &str, list: &str, flat: &mut Vec<Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, or, list, flat)),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key(or) => {
            flatten(part(value, &[or, list]), or, list, flat);
        }
        Value::Object(_) => flat.push(without_defaults(value)),
        // Envoy doesn't accept this, so it must equal nothing that is shipped.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            flat.push(json!({"not a matcher": value}))
        }
    }
}

/// The value without the fields that are set to their default.
fn without_defaults(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let given = fields
                .iter()
                .filter(|(name, value)| !(name.as_str() == "ignore_case" && **value == Value::Bool(false)));
            given.map(|(name, value)| (name.clone(), without_defaults(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(without_defaults).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
