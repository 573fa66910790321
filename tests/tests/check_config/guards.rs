//! Edits of the guard, of our filter, and of the routes' overrides of either.

use serde_json::{Value, json};

use crate::bypasses::Probe;
use crate::printed_config::{
    any, at, filter, filters, guard, host, index_of, items, manager, plugin, policies, policy, remove, route, typed,
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
    let lent: Option<fn(&Probe) -> bool> = Some(Probe::lends_a_public_rule);
    vec![
        Row {
            name: "guard disabled",
            edit: |config| filter(config, "latchkey-guard")["disabled"] = json!(true),
            expected: ["http_filters[1]", "the guard is disabled", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "guard disabled, in YAML's other word",
            edit: |config| filter(config, "latchkey-guard")["disabled"] = json!("yes"),
            expected: ["http_filters[1]", "the guard is disabled", SHIPPED],
            bypass: None,
        },
        Row {
            name: "shadow rules only",
            edit: |config| {
                let rules = remove(guard(config), "", "rules");
                guard(config)["shadow_rules"] = rules;
            },
            expected: ["http_filters[1]", "`shadow_rules` only", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "shadow rules only, in camel case",
            edit: |config| {
                let rules = remove(guard(config), "", "rules");
                guard(config)["shadowRules"] = rules;
            },
            expected: ["http_filters[1]", "`shadow_rules` only", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "action LOG",
            edit: |config| guard(config)["rules"]["action"] = json!("LOG"),
            expected: ["http_filters[1]", "`action: LOG`, which denies nothing", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "action DENY",
            edit: |config| guard(config)["rules"]["action"] = json!("DENY"),
            expected: ["http_filters[1]", "`action: DENY`, which lets pass", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "a second policy for any",
            edit: |config| {
                policies(config).insert(
                    "health".to_owned(),
                    json!({"permissions": [{"any": true}], "principals": [{"any": true}]}),
                );
            },
            expected: [
                "http_filters[1]",
                "a policy `health` that the shipped guard has not: it lets any request pass",
                SHIPPED,
            ],
            bypass: lent,
        },
        Row {
            name: "any among the principals",
            edit: |config| items(policy(config), "/principals/0/or_ids/ids").push(json!({"any": true})),
            expected: ["http_filters[1]", "it lets any request pass", SHIPPED],
            bypass: None,
        },
        Row {
            name: "a denied verdict passes",
            edit: |config| {
                items(policy(config), "/principals/0/or_ids/ids").push(
                    json!({"filter_state": {"key": "wasm.latchkey_verdict", "string_match": {"prefix": "denied"}}}),
                )
            },
            expected: ["http_filters[1]", "it takes other verdicts than `allowed` and `public`", SHIPPED],
            bypass: None,
        },
        Row {
            name: "any verdict passes",
            edit: |config| *at(policy(config), "/principals") = json!([{"filter_state": {"key": "wasm.latchkey_verdict", "string_match": {"safe_regex": {"regex": ".*"}}}}]),
            expected: ["http_filters[1]", "it takes other verdicts than `allowed` and `public`", SHIPPED],
            bypass: None,
        },
        Row {
            name: "the guard compares no rule",
            edit: |config| {
                remove(policy(config), "", "condition");
                remove(policy(config), "", "cel_config");
            },
            expected: ["http_filters[1]", "its condition doesn't compare `wasm.latchkey_rule`", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "a matcher in place of rules",
            edit: |config| {
                remove(guard(config), "", "rules");
                let allow = any("envoy.config.rbac.v3.Action", json!({"name": "allow"}));
                guard(config)["matcher"] = json!({"on_no_match": {"action": {"name": "allow", "typed_config": allow}}});
            },
            expected: ["http_filters[1]", "has a `matcher`, which is taken in place of `rules`", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "no rules",
            edit: |config| drop(remove(guard(config), "", "rules")),
            expected: ["http_filters[1]", "has no `rules`", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "no guard",
            edit: |config| {
                let index = index_of(config, "latchkey-guard");
                filters(config).remove(index);
            },
            expected: ["http_filters[0]", "no guard is behind it", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "the guard is behind the router",
            edit: |config| {
                let index = index_of(config, "latchkey-guard");
                let guard = filters(config).remove(index);
                filters(config).push(guard);
            },
            expected: ["http_filters[", "is behind the router", SHIPPED],
            bypass: None,
        },
        Row {
            name: "the guard is before the filter",
            edit: |config| {
                let index = index_of(config, "latchkey-guard");
                let guard = filters(config).remove(index);
                filters(config).insert(0, guard);
            },
            expected: ["http_filters[0]", "is before our filter", "put it directly behind"],
            bypass: None,
        },
        Row {
            name: "an optional guard",
            edit: |config| filter(config, "latchkey-guard")["is_optional"] = json!(true),
            expected: ["http_filters[1]", "is optional", SHIPPED],
            bypass: None,
        },
        Row {
            name: "a guard that a header skips",
            edit: |config| wrap(config, "latchkey-guard"),
            expected: ["http_filters[1]", "ExtensionWithMatcher, so that a request can skip it", SHIPPED],
            bypass: lent,
        },
        Row {
            name: "a guard from elsewhere",
            edit: |config| discover(config, "latchkey-guard", "envoy.extensions.filters.http.rbac.v3.RBAC"),
            expected: ["http_filters[1]", "comes from elsewhere (`config_discovery`)", SHIPPED],
            bypass: None,
        },
    ]
}

fn of_the_filter() -> Vec<Row> {
    vec![
        Row {
            name: "our filter in a matcher",
            edit: |config| wrap(config, "latchkey"),
            expected: ["http_filters[0]", "ExtensionWithMatcher", "put the filter itself here"],
            bypass: None,
        },
        Row {
            name: "our filter from elsewhere",
            edit: |config| discover(config, "latchkey", "envoy.extensions.filters.http.wasm.v3.Wasm"),
            expected: ["http_filters[0]", "`config_discovery`", "write its `typed_config` here"],
            bypass: None,
        },
        Row {
            name: "our filter disabled",
            edit: |config| filter(config, "latchkey")["disabled"] = json!(true),
            expected: ["http_filters[0]", "no route enables it", "remove `disabled`"],
            bypass: None,
        },
        Row {
            name: "our filter optional",
            edit: |config| filter(config, "latchkey")["is_optional"] = json!(true),
            expected: ["http_filters[0]", "is optional", "remove `is_optional`"],
            bypass: None,
        },
        Row {
            name: "our filter twice",
            edit: |config| {
                let second = filter(config, "latchkey").clone();
                filters(config).insert(1, second);
            },
            expected: ["http_filters[1]", "a second Latchkey filter", "remove one of them"],
            bypass: None,
        },
        Row {
            name: "fails open",
            edit: |config| wasm(config)["failure_policy"] = json!("FAIL_OPEN"),
            expected: ["failure_policy", "lets everything through", "FAIL_RELOAD is needed"],
            bypass: None,
        },
        Row {
            name: "fails open, by its number",
            edit: |config| wasm(config)["failure_policy"] = json!(3),
            expected: ["failure_policy", "lets everything through", "FAIL_RELOAD is needed"],
            bypass: None,
        },
        Row {
            name: "fails open, by the old name",
            edit: |config| {
                remove(wasm(config), "", "failure_policy");
                wasm(config)["failOpen"] = json!(true);
            },
            expected: ["fail_open", "lets everything through", "set failure_policy: FAIL_RELOAD"],
            bypass: None,
        },
        Row {
            name: "a configuration that Envoy doesn't take",
            edit: |config| {
                let text = at(wasm(config), "/configuration/value").as_str().expect("a text").to_owned();
                wasm(config)["configuration"] = json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": serde_json::from_str::<Value>(&text).expect("JSON")});
            },
            expected: [
                "config.configuration",
                "google.protobuf.Struct, with which Envoy does not start",
                "as the text of a google.protobuf.StringValue",
            ],
            bypass: None,
        },
        Row {
            name: "another module in the same memory",
            edit: |config| {
                let mut other = filter(config, "latchkey").clone();
                other["name"] = json!("other");
                *at(&mut other, "/typed_config/config") = json!({"name": "other", "vm_config": {"vm_id": "latchkey", "code": {"local": {"filename": "/other.wasm"}}}});
                filters(config).insert(0, other);
            },
            expected: ["vm_config.vm_id", "can write the keys that workers share", "give it a `vm_id` of its own"],
            bypass: None,
        },
        Row {
            name: "an unknown way to read paths",
            edit: |config| plugin(config, "paths", json!({"allow": ["dots"]})),
            expected: ["configuration.value", "`paths.allow", "dots"],
            bypass: None,
        },
    ]
}

fn of_overrides() -> Vec<Row> {
    let lent: Option<fn(&Probe) -> bool> = Some(Probe::lends_a_public_rule);
    const OFF: &str = "switches the guard off, or replaces it";
    vec![
        Row {
            name: "a route without the guard",
            edit: |config| override_at(route(config, "/v1/webhooks"), "latchkey-guard", typed(PER_ROUTE)),
            expected: [".typed_per_filter_config.latchkey-guard", OFF, "remove it"],
            bypass: lent,
        },
        Row {
            name: "a host without the guard",
            edit: |config| override_at(host(config), "latchkey-guard", typed(PER_ROUTE)),
            expected: ["virtual_hosts[0].typed_per_filter_config", OFF, "remove it"],
            bypass: lent,
        },
        Row {
            name: "all hosts without the guard",
            edit: |config| override_at(at(manager(config), "/route_config"), "latchkey-guard", typed(PER_ROUTE)),
            expected: ["route_config.typed_per_filter_config", OFF, "remove it"],
            bypass: lent,
        },
        Row {
            name: "a host that disables the guard",
            edit: |config| {
                override_at(host(config), "latchkey-guard", any(FILTER_CONFIG, json!({"disabled": true, "config": {}})))
            },
            expected: ["virtual_hosts[0].typed_per_filter_config", OFF, "remove it"],
            bypass: lent,
        },
        Row {
            name: "the same in camel case and a wrapper",
            edit: |config| {
                host(config)["typedPerFilterConfig"] = json!({"latchkey-guard": any(FILTER_CONFIG, json!({"isOptional": true, "config": typed(PER_ROUTE)}))})
            },
            expected: ["virtual_hosts[0].typed_per_filter_config", OFF, "remove it"],
            bypass: lent,
        },
        Row {
            name: "the guard under another name",
            edit: |config| {
                filter(config, "latchkey-guard")["name"] = json!("checks");
                override_at(host(config), "checks", typed(PER_ROUTE));
            },
            expected: ["typed_per_filter_config.checks", OFF, "remove it"],
            bypass: lent,
        },
        Row {
            name: "a part of a route's requests without the guard",
            edit: |config| {
                let part = json!({"name": "upstream", "weight": 1, "typed_per_filter_config": {"latchkey-guard": typed(PER_ROUTE)}});
                *at(route(config, "/v1/webhooks"), "/route") = json!({"weighted_clusters": {"clusters": [part]}});
            },
            expected: ["weighted_clusters.clusters[0].typed_per_filter_config", OFF, "remove it"],
            bypass: lent,
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
            expected: [".typed_per_filter_config.latchkey", "is disabled here", "has the rule `public`"],
            bypass: None,
        },
    ]
}
