//! Edits of the filters around ours, and of how a connection manager reads requests.

use serde_json::{Value, json};

use crate::doors::Probe;
use crate::printed::{any, at, filters, host, items, manager, place_of, plugin, remove, route, router, typed, wasm};
use crate::refused::Row;

const LUA: &str = "envoy.extensions.filters.http.lua.v3.Lua";
const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

/// Puts a filter directly behind the guard.
fn behind(config: &mut Value, name: &str, typed_config: Value) {
    let place = place_of(config, "latchkey-guard") + 1;
    filters(config).insert(place, json!({"name": name, "typed_config": typed_config}));
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
            words: ["upgrade_configs[0].filters", "a chain of its own without our filter", "take it out"],
            door: Some(Probe::upgrades),
        },
        Row {
            name: "the route is chosen anew behind the guard",
            edit: |config| {
                let code = "function envoy_on_request(handle) local to = handle:headers():get('x-to') if to then handle:headers():replace(':path', to) handle:clearRouteCache() end end";
                behind(config, "redirect", lua(code));
            },
            words: ["http_filters[2]", "have Envoy choose another route", "put it before our filter"],
            door: Some(|probe| probe.reaches("/healthz", &[("x-to", "/v1/reviews/1")])),
        },
        Row {
            name: "a script between filter and guard",
            edit: |config| {
                filters(config).insert(1, json!({"name": "script", "typed_config": lua("function envoy_on_request(handle) handle:clearRouteCache() end")}))
            },
            words: ["http_filters[1]", "between our filter and the guard", "put it before our filter"],
            door: None,
        },
        Row {
            name: "an authorization server has the route chosen anew",
            edit: |config| {
                behind(
                    config,
                    "authz",
                    any("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", json!({"clear_route_cache": true})),
                )
            },
            words: ["http_filters[2]", "has Envoy choose the route anew (`clear_route_cache`)", "take that out"],
            door: None,
        },
        Row {
            name: "filters that are composed by request",
            edit: |config| behind(config, "composite", typed("envoy.extensions.filters.http.composite.v3.Composite")),
            words: [
                "http_filters[2]",
                "`composite` stands between our filter and the router",
                "put it before our filter",
            ],
            door: None,
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
            words: [
                "request_mutations[0]",
                "sets `:path` after Envoy has chosen the route",
                "let the route rewrite it",
            ],
            door: None,
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
            words: ["request_mutations[0]", "sets `x-latchkey-key-id`", "take it out"],
            door: Some(|probe| probe.forges("/healthz", &[], "x-latchkey-key-id")),
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
            words: ["request_mutations[0]", "lends a key to whoever comes", "take it out"],
            door: None,
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
            words: ["object_key", "sets filter state of our filter's", "take it out"],
            door: None,
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
            words: ["http_filters[0]", "names what only our filter may set", "take that out of the script"],
            door: None,
        },
        Row {
            name: "a cache before our filter",
            edit: |config| before(config, "cache", typed("envoy.extensions.filters.http.cache.v3.CacheConfig")),
            words: ["http_filters[0]", "answers from its cache before a key is looked at", "put it behind the guard"],
            door: None,
        },
        Row {
            name: "a capability is withheld",
            edit: |config| {
                drop(remove(wasm(config), "/capability_restriction_config/allowed_capabilities", "proxy_on_tick"))
            },
            words: ["allowed_capabilities", "the filter needs what this withholds", "proxy_on_tick"],
            door: None,
        },
        Row {
            name: "a host that adds an identity",
            edit: |config| {
                host(config)["request_headers_to_add"] =
                    json!([{"header": {"key": "x-latchkey-key-id", "value": "key_of_another"}}])
            },
            words: ["request_headers_to_add[0]", "sets `x-latchkey-key-id`", "take it out"],
            door: Some(|probe| probe.forges("/healthz", &[], "x-latchkey-key-id")),
        },
    ]
}

fn of_addresses() -> Vec<Row> {
    const BOTH: &str = "set both to the number of your own proxies in front";
    let named: Option<fn(&Probe) -> bool> = Some(Probe::names_an_address);
    vec![
        Row {
            name: "one hop too many",
            edit: |config| manager(config)["xff_num_trusted_hops"] = json!(1),
            words: ["xff_num_trusted_hops", "is 1, and `trusted_hops` in the plugin configuration is 0", BOTH],
            door: named,
        },
        Row {
            name: "one hop too many, in camel case and as a text",
            edit: |config| {
                remove(manager(config), "", "xff_num_trusted_hops");
                manager(config)["xffNumTrustedHops"] = json!("1");
            },
            words: ["xff_num_trusted_hops", "is 1, and `trusted_hops` in the plugin configuration is 0", BOTH],
            door: named,
        },
        Row {
            name: "hops that Envoy doesn't know of",
            edit: |config| plugin(config, "trusted_hops", json!(2)),
            words: ["xff_num_trusted_hops", "is 0, and `trusted_hops` in the plugin configuration is 2", BOTH],
            door: None,
        },
        Row {
            name: "the client's word for its address",
            edit: |config| manager(config)["use_remote_address"] = json!(false),
            words: ["use_remote_address", "a client can name any address", "set it to true"],
            door: named,
        },
        Row {
            name: "the peer is left out",
            edit: |config| manager(config)["skip_xff_append"] = json!(true),
            words: ["skip_xff_append", "leaves the peer out of x-forwarded-for", "take it out"],
            door: None,
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
            words: [
                "original_ip_detection_extensions",
                "names the client's address by what a request says",
                "take it out",
            ],
            door: None,
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
            words: ["headers_with_underscores_action", "take it for `x-latchkey-key-id`", "set it to REJECT_REQUEST"],
            door: Some(|probe| {
                probe.forges("/healthz", &[("x_latchkey_key_id", "key_of_another")], "x_latchkey_key_id")
            }),
        },
        Row {
            name: "streams without an end",
            edit: |config| drop(remove(manager(config), "/common_http_protocol_options", "max_stream_duration")),
            words: ["max_stream_duration", "runs on for ever", "set it"],
            door: None,
        },
        Row {
            name: "a route's streams without an end",
            edit: |config| {
                at(route(config, "/v1/reviews"), "/route")["max_stream_duration"] = json!({"max_stream_duration": "0s"})
            },
            words: ["routes[1].route.max_stream_duration", "runs on for ever", "take it out, or set it"],
            door: None,
        },
        Row {
            name: "no limits at all",
            edit: |config| drop(remove(manager(config), "", "common_http_protocol_options")),
            words: ["max_stream_duration", "runs on for ever", "set it"],
            door: None,
        },
        Row {
            name: "spellings that a weaker route takes",
            edit: |config| {
                plugin(config, "paths", json!({"allow": ["semicolon"]}));
                let last = items(host(config), "/routes").last_mut().expect("a route");
                last["metadata"] = json!({"filter_metadata": {"latchkey": {"rule": "key"}}});
            },
            words: [
                "routes[3]",
                "`paths.allow` admits spellings that Envoy matches as they stand",
                "make the last word `deny`",
            ],
            door: None,
        },
    ]
}
