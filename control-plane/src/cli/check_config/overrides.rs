//! Overrides of filters by routes, hosts and a route's clusters, found by the real names of the filters.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Finding;
use super::chain::Manager;
use super::filter_order::{FilterRole, protected_names};
use super::message::{Message, fields};
use super::values::may_be_true;

const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

/// Refuses each override of a filter that protects a chain.
pub(super) fn check_overrides(file: &Value, managers: &[Manager<'_>], findings: &mut Vec<Finding>) {
    let chains = managers.iter().flat_map(|manager| &manager.chains);
    let mut names: BTreeMap<&str, FilterRole> = chains.flat_map(protected_names).collect();
    // A mesh's manifest has no chain; there our filters have these names.
    for (name, role) in [("latchkey", FilterRole::Filter), ("latchkey-guard", FilterRole::Guard)] {
        names.entry(name).or_insert(role);
    }
    for (place, overrides) in fields(file, "typed_per_filter_config") {
        let Some(overrides) = overrides.as_object() else { continue };
        for (name, value) in overrides {
            let Some(role) = names.get(name.as_str()) else { continue };
            let place = format!("{place}.{name}");
            match role {
                FilterRole::Filter if is_plain(&place, value) => {}
                FilterRole::Filter => findings.push(Finding::refused(place, "is disabled here, or configured differently, and the guard denies what was not decided: remove it; a route without keys has the rule `public`")),
                FilterRole::Guard => findings.push(Finding::refused(place, "switches the guard off, or replaces it, for what is below: requests that were not decided pass there; remove it")),
                FilterRole::Mutation => findings.push(Finding::refused(place, "switches off, or replaces, what keeps `x-latchkey-` headers of a client from the upstream: remove it")),
            }
        }
    }
    check_disabled(file, managers, findings);
}

/// An override that changes nothing, except that it may enable the filter.
fn is_plain(place: &str, value: &Value) -> bool {
    Message::read(place, value).is_some_and(|message| message.is(FILTER_CONFIG))
        && !may_be_true(value, "disabled")
        && value
            .get("config")
            .is_none_or(|config| config.as_object().is_some_and(|config| config.keys().all(|name| name == "@type")))
}

/// A filter that is disabled in its chain runs only on routes that enable it; the guard denies the others.
fn check_disabled(file: &Value, managers: &[Manager<'_>], findings: &mut Vec<Finding>) {
    let enables = |name: &str| {
        fields(file, "typed_per_filter_config")
            .iter()
            .any(|(place, overrides)| overrides.get(name).is_some_and(|value| is_plain(place, value)))
    };
    for filter in managers.iter().flat_map(|manager| &manager.chains).flat_map(|chain| &chain.filters) {
        if filter.is_ours() && filter.is_disabled() && !enables(filter.name) {
            let message = "is disabled, and no route enables it: the guard denies every request; remove `disabled`, routes that need no key have the rule `public`";
            findings.push(Finding::refused(&filter.place, message));
        }
    }
}
