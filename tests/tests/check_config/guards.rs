//! Edits of the guard, of our filter, and of the routes' overrides of either.

use serde_json::{Value, json};

use crate::doors::Probe;
use crate::printed::{
    any, at, filter, filters, guard, host, items, manager, place_of, plugin, policies, policy, remove, route, typed,
    wasm,
};
use crate::refused::Row;

const PER_ROUTE: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
const SHIPPED: &str = "take the filter `latchkey-guard` from what `latchkey envoy-config` prints";

/// Wraps a filter so that a header of the request skips it.
fn matched(name: &str, inner: Value) -> Value {
    let skip =
        json!({"name": "skip", "typed_config": typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter")});
    let input = json!({"name": "header", "typed_config": any("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", json!({"header_name": "x-skip"}))});
    any(
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        json!({
            "extension_config": {"name": name, "typed_config": inner},
            "xds_matcher": {"matcher_tree": {"input": input, "exact_match_map": {"map": {"yes": {"action": skip}}}}},
        }),
    )
}

fn wrap(config: &mut Value, name: &str) {
    let own = at(filter(config, name), "/typed_config");
    *own = matched(name, own.clone());
}

fn discover(config: &mut Value, name: &str, kind: &str) {
    let own = filter(config, name);
    remove(own, "", "typed_config");
    own["config_discovery"] = json!({
        "config_source": {"path_config_source": {"path": "/etc/envoy/filter.yaml"}},
        "type_urls": [format!("type.googleapis.com/{kind}")],
    });
}

fn override_at(value: &mut Value, name: &str, config: Value) {
    value["typed_per_filter_config"] = json!({name: config});
}

pub fn rows() -> Vec<Row> {
    [of_the_guard(), of_the_filter(), of_overrides()].into_iter().flatten().collect()
}

fn of_the_guard() -> Vec<Row> {
    let lent: Option<fn(&Probe) -> bool> = Some(Probe::lends);
    vec![
        Row {
            name: "guard disabled",
            edit: |config| filter(config, "latchkey-guard")["disabled"] = json!(true),
            words: ["http_filters[1]", "the guard is disabled", SHIPPED],
            door: lent,
        },
        Row {
            name: "guard disabled, in YAML's other word",
            edit: |config| filter(config, "latchkey-guard")["disabled"] = json!("yes"),
            words: ["http_filters[1]", "the guard is disabled", SHIPPED],
            door: None,
        },
        Row {
            name: "shadow rules only",
            edit: |config| {
                let rules = remove(guard(config), "", "rules");
                guard(config)["shadow_rules"] = rules;
            },
            words: ["http_filters[1]", "`shadow_rules` only", SHIPPED],
            door: lent,
        },
        Row {
            name: "shadow rules only, in camel case",
            edit: |config| {
                let rules = remove(guard(config), "", "rules");
                guard(config)["shadowRules"] = rules;
            },
            words: ["http_filters[1]", "`shadow_rules` only", SHIPPED],
            door: lent,
        },
        Row {
            name: "action LOG",
            edit: |config| guard(config)["rules"]["action"] = json!("LOG"),
            words: ["http_filters[1]", "`action: LOG`, which denies nothing", SHIPPED],
            door: lent,
        },
        Row {
            name: "action DENY",
            edit: |config| guard(config)["rules"]["action"] = json!("DENY"),
            words: ["http_filters[1]", "`action: DENY`, which lets pass", SHIPPED],
            door: lent,
        },
        Row {
            name: "a second policy for any",
            edit: |config| {
                policies(config).insert(
                    "health".to_owned(),
                    json!({"permissions": [{"any": true}], "principals": [{"any": true}]}),
                );
            },
            words: [
                "http_filters[1]",
                "a policy `health` that the shipped guard has not: it lets any request pass",
                SHIPPED,
            ],
            door: lent,
        },
        Row {
            name: "any among the principals",
            edit: |config| items(policy(config), "/principals/0/or_ids/ids").push(json!({"any": true})),
            words: ["http_filters[1]", "it lets any request pass", SHIPPED],
            door: None,
        },
        Row {
            name: "a denied verdict passes",
            edit: |config| {
                items(policy(config), "/principals/0/or_ids/ids").push(
                    json!({"filter_state": {"key": "wasm.latchkey_verdict", "string_match": {"prefix": "denied"}}}),
                )
            },
            words: ["http_filters[1]", "it takes other verdicts than `allowed` and `public`", SHIPPED],
            door: None,
        },
        Row {
            name: "any verdict passes",
            edit: |config| *at(policy(config), "/principals") = json!([{"filter_state": {"key": "wasm.latchkey_verdict", "string_match": {"safe_regex": {"regex": ".*"}}}}]),
            words: ["http_filters[1]", "it takes other verdicts than `allowed` and `public`", SHIPPED],
            door: None,
        },
        Row {
            name: "the guard compares no rule",
            edit: |config| {
                remove(policy(config), "", "condition");
                remove(policy(config), "", "cel_config");
            },
            words: ["http_filters[1]", "its condition doesn't compare `wasm.latchkey_rule`", SHIPPED],
            door: lent,
        },
        Row {
            name: "a matcher in place of rules",
            edit: |config| {
                remove(guard(config), "", "rules");
                let allow = any("envoy.config.rbac.v3.Action", json!({"name": "allow"}));
                guard(config)["matcher"] = json!({"on_no_match": {"action": {"name": "allow", "typed_config": allow}}});
            },
            words: ["http_filters[1]", "has a `matcher`, which is taken in place of `rules`", SHIPPED],
            door: lent,
        },
        Row {
            name: "no rules",
            edit: |config| drop(remove(guard(config), "", "rules")),
            words: ["http_filters[1]", "has no `rules`", SHIPPED],
            door: lent,
        },
        Row {
            name: "no guard",
            edit: |config| {
                let place = place_of(config, "latchkey-guard");
                filters(config).remove(place);
            },
            words: ["http_filters[0]", "no guard is behind it", SHIPPED],
            door: lent,
        },
        Row {
            name: "the guard stands behind the router",
            edit: |config| {
                let place = place_of(config, "latchkey-guard");
                let guard = filters(config).remove(place);
                filters(config).push(guard);
            },
            words: ["http_filters[", "stands behind the router", SHIPPED],
            door: None,
        },
        Row {
            name: "the guard stands before the filter",
            edit: |config| {
                let place = place_of(config, "latchkey-guard");
                let guard = filters(config).remove(place);
                filters(config).insert(0, guard);
            },
            words: ["http_filters[0]", "stands before our filter", "put it directly behind"],
            door: None,
        },
        Row {
            name: "an optional guard",
            edit: |config| filter(config, "latchkey-guard")["is_optional"] = json!(true),
            words: ["http_filters[1]", "is optional", SHIPPED],
            door: None,
        },
        Row {
            name: "a guard that a header skips",
            edit: |config| wrap(config, "latchkey-guard"),
            words: ["http_filters[1]", "ExtensionWithMatcher, by which a request can skip it", SHIPPED],
            door: lent,
        },
        Row {
            name: "a guard from elsewhere",
            edit: |config| discover(config, "latchkey-guard", "envoy.extensions.filters.http.rbac.v3.RBAC"),
            words: ["http_filters[1]", "is taken from elsewhere (`config_discovery`)", SHIPPED],
            door: None,
        },
    ]
}

fn of_the_filter() -> Vec<Row> {
    vec![
        Row {
            name: "our filter in a matcher",
            edit: |config| wrap(config, "latchkey"),
            words: ["http_filters[0]", "ExtensionWithMatcher", "put the filter itself here"],
            door: None,
        },
        Row {
            name: "our filter from elsewhere",
            edit: |config| discover(config, "latchkey", "envoy.extensions.filters.http.wasm.v3.Wasm"),
            words: ["http_filters[0]", "`config_discovery`", "write its `typed_config` here"],
            door: None,
        },
        Row {
            name: "our filter disabled",
            edit: |config| filter(config, "latchkey")["disabled"] = json!(true),
            words: ["http_filters[0]", "no route enables it", "take `disabled` out"],
            door: None,
        },
        Row {
            name: "our filter optional",
            edit: |config| filter(config, "latchkey")["is_optional"] = json!(true),
            words: ["http_filters[0]", "is optional", "take `is_optional` out"],
            door: None,
        },
        Row {
            name: "our filter twice",
            edit: |config| {
                let second = filter(config, "latchkey").clone();
                filters(config).insert(1, second);
            },
            words: ["http_filters[1]", "a second filter of ours", "take one of them out"],
            door: None,
        },
        Row {
            name: "fails open",
            edit: |config| wasm(config)["failure_policy"] = json!("FAIL_OPEN"),
            words: ["failure_policy", "lets everything through", "FAIL_RELOAD is needed"],
            door: None,
        },
        Row {
            name: "fails open, by its number",
            edit: |config| wasm(config)["failure_policy"] = json!(3),
            words: ["failure_policy", "lets everything through", "FAIL_RELOAD is needed"],
            door: None,
        },
        Row {
            name: "fails open, by the old name",
            edit: |config| {
                remove(wasm(config), "", "failure_policy");
                wasm(config)["failOpen"] = json!(true);
            },
            words: ["fail_open", "lets everything through", "set failure_policy: FAIL_RELOAD"],
            door: None,
        },
        Row {
            name: "a configuration that Envoy doesn't take",
            edit: |config| {
                let text = at(wasm(config), "/configuration/value").as_str().expect("a text").to_owned();
                wasm(config)["configuration"] = json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": serde_json::from_str::<Value>(&text).expect("JSON")});
            },
            words: [
                "config.configuration",
                "google.protobuf.Struct, on which Envoy does not start",
                "as the text of a google.protobuf.StringValue",
            ],
            door: None,
        },
        Row {
            name: "another module in the same memory",
            edit: |config| {
                let mut other = filter(config, "latchkey").clone();
                other["name"] = json!("other");
                *at(&mut other, "/typed_config/config") = json!({"name": "other", "vm_config": {"vm_id": "latchkey", "code": {"local": {"filename": "/other.wasm"}}}});
                filters(config).insert(0, other);
            },
            words: ["vm_config.vm_id", "can write the keys that workers share", "give it a `vm_id` of its own"],
            door: None,
        },
        Row {
            name: "an unknown way to read paths",
            edit: |config| plugin(config, "paths", json!({"allow": ["dots"]})),
            words: ["configuration.value", "`paths.allow", "dots"],
            door: None,
        },
    ]
}

fn of_overrides() -> Vec<Row> {
    let lent: Option<fn(&Probe) -> bool> = Some(Probe::lends);
    const OFF: &str = "switches the guard off, or replaces it";
    vec![
        Row {
            name: "a route without the guard",
            edit: |config| override_at(route(config, "/v1/webhooks"), "latchkey-guard", typed(PER_ROUTE)),
            words: [".typed_per_filter_config.latchkey-guard", OFF, "take it out"],
            door: lent,
        },
        Row {
            name: "a host without the guard",
            edit: |config| override_at(host(config), "latchkey-guard", typed(PER_ROUTE)),
            words: ["virtual_hosts[0].typed_per_filter_config", OFF, "take it out"],
            door: lent,
        },
        Row {
            name: "all hosts without the guard",
            edit: |config| override_at(at(manager(config), "/route_config"), "latchkey-guard", typed(PER_ROUTE)),
            words: ["route_config.typed_per_filter_config", OFF, "take it out"],
            door: lent,
        },
        Row {
            name: "a host that disables the guard",
            edit: |config| {
                override_at(host(config), "latchkey-guard", any(FILTER_CONFIG, json!({"disabled": true, "config": {}})))
            },
            words: ["virtual_hosts[0].typed_per_filter_config", OFF, "take it out"],
            door: lent,
        },
        Row {
            name: "the same in camel case and a wrapper",
            edit: |config| {
                host(config)["typedPerFilterConfig"] = json!({"latchkey-guard": any(FILTER_CONFIG, json!({"isOptional": true, "config": typed(PER_ROUTE)}))})
            },
            words: ["virtual_hosts[0].typed_per_filter_config", OFF, "take it out"],
            door: lent,
        },
        Row {
            name: "the guard under another name",
            edit: |config| {
                filter(config, "latchkey-guard")["name"] = json!("checks");
                override_at(host(config), "checks", typed(PER_ROUTE));
            },
            words: ["typed_per_filter_config.checks", OFF, "take it out"],
            door: lent,
        },
        Row {
            name: "a part of a route's requests without the guard",
            edit: |config| {
                let part = json!({"name": "upstream", "weight": 1, "typed_per_filter_config": {"latchkey-guard": typed(PER_ROUTE)}});
                *at(route(config, "/v1/webhooks"), "/route") = json!({"weighted_clusters": {"clusters": [part]}});
            },
            words: ["weighted_clusters.clusters[0].typed_per_filter_config", OFF, "take it out"],
            door: lent,
        },
        Row {
            name: "a route without our filter",
            edit: |config| {
                override_at(
                    route(config, "/v1/webhooks"),
                    "latchkey",
                    any(FILTER_CONFIG, json!({"disabled": true, "config": {}})),
                )
            },
            words: [".typed_per_filter_config.latchkey", "is disabled here", "has the rule `public`"],
            door: None,
        },
    ]
}
