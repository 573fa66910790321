//! Edits of the filters around ours, and of how a connection manager reads requests.

use serde_json::{Value, json};

use crate::bypasses::Probe;
use crate::printed_config::{
    any, at, filters, host, index_of, items, manager, plugin, remove, route, router, typed, wasm,
};
use crate::refused::Row;

const LUA: &str = "envoy.extensions.filters.http.lua.v3.Lua";
const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

/// Puts a filter directly behind the guard.
fn behind(config: &mut Value, name: &str, typed_config: Value) {
    let index = index_of(config, "latchkey-guard") + 1;
    filters(config).insert(index, json!({"name": name, "typed_config": typed_config}));
}

fn before(config: &mut Value, name: &str, typed_config: Value) {
    filters(config).insert(0, json!({"name": name, "typed_config": typed_config}));
}

fn append(name: &str, value: &str) -> Value {
    let append = json!({"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"});
    json!({"append": append})
}

fn lua(code: &str) -> Value {
    any(LUA, json!({"default_source_code": {"inline_string": code}}))
}

pub fn rows() -> Vec<Row> {
    [of_filters(), of_addresses(), of_limits()].into_iter().flatten().collect()
}

fn of_filters() -> Vec<Row> {
    vec![
        Row {
            name: "an upgrade with filters of its own",
            edit: |config| {
                manager(config)["upgrade_configs"] = json!([{"upgrade_type": "websocket", "filters": [router()]}])
            },
            expected: ["upgrade_configs[0].filters", "a chain of its own without our filter", "remove it"],
            bypass: Some(Probe::upgrades),
        },
        Row {
            name: "the route is chosen again behind the guard",
            edit: |config| {
                let code = "function envoy_on_request(handle) local to = handle:headers():get('x-to') if to then handle:headers():replace(':path', to) handle:clearRouteCache() end end";
                behind(config, "redirect", lua(code));
            },
            expected: ["http_filters[2]", "make Envoy choose another route", "put it before our filter"],
            bypass: Some(|probe| probe.reaches("/healthz", &[("x-to", "/v1/reviews/1")])),
        },
        Row {
            name: "a script between filter and guard",
            edit: |config| {
                filters(config).insert(1, json!({"name": "script", "typed_config": lua("function envoy_on_request(handle) handle:clearRouteCache() end")}))
            },
            expected: ["http_filters[1]", "between our filter and the guard", "put it before our filter"],
            bypass: None,
        },
        Row {
            name: "an authorization server makes Envoy choose the route again",
            edit: |config| {
                behind(
                    config,
                    "authz",
                    any("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", json!({"clear_route_cache": true})),
                )
            },
            expected: ["http_filters[2]", "makes Envoy choose the route again (`clear_route_cache`)", "remove that"],
            bypass: None,
        },
        Row {
            name: "filters that are composed by request",
            edit: |config| behind(config, "composite", typed("envoy.extensions.filters.http.composite.v3.Composite")),
            expected: [
                "http_filters[2]",
                "`composite` is between our filter and the router",
                "put it before our filter",
            ],
            bypass: None,
        },
        Row {
            name: "the path is changed behind the guard",
            edit: |config| {
                behind(
                    config,
                    "paths",
                    any(MUTATION, json!({"mutations": {"request_mutations": [append(":path", "/v1/reviews/1")]}})),
                )
            },
            expected: [
                "request_mutations[0]",
                "sets `:path` after Envoy has chosen the route",
                "let the route rewrite it",
            ],
            bypass: None,
        },
        Row {
            name: "an identity that is written behind the guard",
            edit: |config| {
                behind(
                    config,
                    "identity",
                    any(
                        MUTATION,
                        json!({"mutations": {"request_mutations": [append("X-Latchkey-Key-Id", "key_of_another")]}}),
                    ),
                )
            },
            expected: ["request_mutations[0]", "sets `x-latchkey-key-id`", "remove it"],
            bypass: Some(|probe| probe.forges("/healthz", &[], "x-latchkey-key-id")),
        },
        Row {
            name: "a key for everybody",
            edit: |config| {
                before(
                    config,
                    "keys",
                    any(
                        MUTATION,
                        json!({"mutations": {"request_mutations": [append("x-api-key", "lk_live_000000000000000000000000000000004cjNQE")]}}),
                    ),
                )
            },
            expected: ["request_mutations[0]", "gives a key to clients that have none", "remove it"],
            bypass: None,
        },
        Row {
            name: "a verdict that another filter writes",
            edit: |config| {
                let value = json!({"object_key": "wasm.latchkey_verdict", "factory_key": "envoy.string", "format_string": {"text_format_source": {"inline_string": "public"}}});
                before(
                    config,
                    "verdict",
                    any(
                        "envoy.extensions.filters.http.set_filter_state.v3.Config",
                        json!({"on_request_headers": [value]}),
                    ),
                );
            },
            expected: ["object_key", "sets filter state of our filter's", "remove it"],
            bypass: None,
        },
        Row {
            name: "a script that writes an identity",
            edit: |config| {
                before(
                    config,
                    "script",
                    lua("function envoy_on_request(handle) handle:headers():add('x-latchkey-key-id', 'key_1') end"),
                )
            },
            expected: ["http_filters[0]", "names what only our filter may set", "remove that from the script"],
            bypass: None,
        },
        Row {
            name: "a cache before our filter",
            edit: |config| before(config, "cache", typed("envoy.extensions.filters.http.cache.v3.CacheConfig")),
            expected: ["http_filters[0]", "answers from its cache before a key is checked", "put it behind the guard"],
            bypass: None,
        },
        Row {
            name: "a capability is withheld",
            edit: |config| {
                drop(remove(wasm(config), "/capability_restriction_config/allowed_capabilities", "proxy_on_tick"))
            },
            expected: ["allowed_capabilities", "the filter needs capabilities that this list lacks", "proxy_on_tick"],
            bypass: None,
        },
        Row {
            name: "a host that adds an identity",
            edit: |config| {
                host(config)["request_headers_to_add"] =
                    json!([{"header": {"key": "x-latchkey-key-id", "value": "key_of_another"}}])
            },
            expected: ["request_headers_to_add[0]", "sets `x-latchkey-key-id`", "remove it"],
            bypass: Some(|probe| probe.forges("/healthz", &[], "x-latchkey-key-id")),
        },
    ]
}

fn of_addresses() -> Vec<Row> {
    const BOTH: &str = "set both to the number of your own proxies in front";
    let named: Option<fn(&Probe) -> bool> = Some(Probe::can_spoof_its_address);
    vec![
        Row {
            name: "one hop too many",
            edit: |config| manager(config)["xff_num_trusted_hops"] = json!(1),
            expected: ["xff_num_trusted_hops", "is 1, and `trusted_hops` in the plugin configuration is 0", BOTH],
            bypass: named,
        },
        Row {
            name: "one hop too many, in camel case and as a text",
            edit: |config| {
                remove(manager(config), "", "xff_num_trusted_hops");
                manager(config)["xffNumTrustedHops"] = json!("1");
            },
            expected: ["xff_num_trusted_hops", "is 1, and `trusted_hops` in the plugin configuration is 0", BOTH],
            bypass: named,
        },
        Row {
            name: "hops that Envoy doesn't know of",
            edit: |config| plugin(config, "trusted_hops", json!(2)),
            expected: ["xff_num_trusted_hops", "is 0, and `trusted_hops` in the plugin configuration is 2", BOTH],
            bypass: None,
        },
        Row {
            name: "the client's word for its address",
            edit: |config| manager(config)["use_remote_address"] = json!(false),
            expected: ["use_remote_address", "a client can choose its address", "set it to true"],
            bypass: named,
        },
        Row {
            name: "the peer is left out",
            edit: |config| manager(config)["skip_xff_append"] = json!(true),
            expected: ["skip_xff_append", "leaves the peer out of x-forwarded-for", "remove it"],
            bypass: None,
        },
        Row {
            name: "an address by a header",
            edit: |config| {
                let custom = any(
                    "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig",
                    json!({"header_name": "x-client"}),
                );
                manager(config)["original_ip_detection_extensions"] =
                    json!([{"name": "header", "typed_config": custom}]);
            },
            expected: ["original_ip_detection_extensions", "takes the client's address from the request", "remove it"],
            bypass: None,
        },
    ]
}

fn of_limits() -> Vec<Row> {
    vec![
        Row {
            name: "underscores pass",
            edit: |config| {
                drop(remove(manager(config), "/common_http_protocol_options", "headers_with_underscores_action"))
            },
            expected: [
                "headers_with_underscores_action",
                "take it for `x-latchkey-key-id`",
                "set it to REJECT_REQUEST",
            ],
            bypass: Some(|probe| {
                probe.forges("/healthz", &[("x_latchkey_key_id", "key_of_another")], "x_latchkey_key_id")
            }),
        },
        Row {
            name: "streams without an end",
            edit: |config| drop(remove(manager(config), "/common_http_protocol_options", "max_stream_duration")),
            expected: ["max_stream_duration", "runs on forever", "set it"],
            bypass: None,
        },
        Row {
            name: "a route's streams without an end",
            edit: |config| {
                at(route(config, "/v1/reviews"), "/route")["max_stream_duration"] = json!({"max_stream_duration": "0s"})
            },
            expected: ["routes[1].route.max_stream_duration", "runs on forever", "remove it, or set it"],
            bypass: None,
        },
        Row {
            name: "no limits at all",
            edit: |config| drop(remove(manager(config), "", "common_http_protocol_options")),
            expected: ["max_stream_duration", "runs on forever", "set it"],
            bypass: None,
        },
        Row {
            name: "spellings that a weaker route takes",
            edit: |config| {
                plugin(config, "paths", json!({"allow": ["semicolon"]}));
                let last = items(host(config), "/routes").last_mut().expect("a route");
                last["metadata"] = json!({"filter_metadata": {"latchkey": {"rule": "key"}}});
            },
            expected: [
                "routes[3]",
                "`paths.allow` allows spellings that Envoy matches as written",
                "make the last rule `deny`",
            ],
            bypass: None,
        },
    ]
}
