//! Accepted configurations: the shipped ones, also with edits that open nothing.

use end_to_end::{latchkey, root};
use serde_json::{Value, json};

use crate::printed_config::{
    Addresses, add_cluster, add_listener, any, at, check, cluster, filter, filters, guard, host, index_of, items,
    listener, manager, open_manager, plugin, policies, policy, printed_config, remove, route, routes, ruled, typed,
    wasm,
};

type Edit = fn(&mut Value);

/// A name, an edit, and the expected warning.
type WeakeningEdit = (&'static str, Box<dyn Fn(&mut Value)>, &'static str);

/// Edits that open nothing.
fn harmless() -> Vec<(&'static str, Edit)> {
    vec![
        ("another name for the policy", |config| {
            let policy = policy(config).clone();
            *policies(config) = serde_json::Map::from_iter([("keys".to_owned(), policy)]);
        }),
        ("a prefix for the guard's statistics", |config| guard(config)["rules_stat_prefix"] = json!("keys")),
        ("shadow rules beside the guard's", |config| {
            guard(config)["shadow_rules"] = json!({"action": "DENY", "policies": {"all": {"permissions": [{"any": true}], "principals": [{"any": true}]}}});
        }),
        ("the guard's verdicts in another order, without the list around them", |config| {
            let mut ids = items(policy(config), "/principals/0/or_ids/ids").clone();
            ids.reverse();
            ids.iter_mut().for_each(|id| at(id, "/filter_state/string_match")["ignore_case"] = json!(false));
            *at(policy(config), "/principals") = json!(ids);
        }),
        ("camel case", |config| *config = in_camel_case(config.clone())),
        ("other names for the filters", |config| {
            filter(config, "latchkey-guard")["name"] = json!("checks");
            filter(config, "latchkey")["name"] = json!("keys");
        }),
        ("bytes in place of a text", |config| {
            use base64::Engine as _;
            let text = at(wasm(config), "/configuration/value").as_str().expect("a text").to_owned();
            let bytes = base64::engine::general_purpose::STANDARD.encode(text);
            wasm(config)["configuration"] =
                json!({"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": bytes});
        }),
        ("no access log", |config| drop(remove(manager(config), "", "access_log"))),
        ("no rate limit", |config| {
            let index = index_of(config, "latchkey-rate-limit");
            filters(config).remove(index);
        }),
        ("a rate limit that a route doesn't have", |config| {
            route(config, "/v1/reviews")["typed_per_filter_config"] = json!({"latchkey-rate-limit": any("envoy.config.route.v3.FilterConfig", json!({"disabled": true, "config": {}}))});
        }),
        ("CORS before, compression behind", |config| {
            filters(config).insert(
                0,
                json!({"name": "cors", "typed_config": typed("envoy.extensions.filters.http.cors.v3.Cors")}),
            );
            let index = index_of(config, "latchkey-guard") + 1;
            filters(config).insert(index, json!({"name": "compressor", "typed_config": typed("envoy.extensions.filters.http.compressor.v3.Compressor")}));
        }),
        ("a header for the upstream", |config| {
            host(config)["request_headers_to_add"] = json!([{"header": {"key": "x-gateway", "value": "shop"}}])
        }),
        ("a listener that sends to TLS", |config| {
            add_listener(config, open_manager(json!({"match": {"prefix": "/"}, "redirect": {"https_redirect": true}})))
        }),
        ("a listener that shows metrics", |config| {
            add_cluster(config, cluster("pages", &json!(9901)));
            add_listener(
                config,
                open_manager(json!({"match": {"path": "/stats/prometheus"}, "route": {"cluster": "pages"}})),
            );
        }),
        ("another upstream without keys, on a listener of its own", |config| {
            add_cluster(config, cluster("site", &json!(8090)));
            add_listener(config, open_manager(json!({"match": {"prefix": "/"}, "route": {"cluster": "site"}})));
        }),
        ("another upstream that is public", |config| {
            add_cluster(config, cluster("site", &json!(8090)));
            let last = routes(config).len() - 1;
            routes(config)[last] = ruled(json!({"prefix": "/"}), "public", json!({"cluster": "site"}));
        }),
        ("one more route with a rule", |config| {
            routes(config).insert(
                0,
                ruled(
                    json!({"path_separated_prefix": "/v1/repositories"}),
                    "repositories:read",
                    json!({"cluster": "upstream", "timeout": "30s"}),
                ),
            )
        }),
        ("`deny` as the last rule, written", |config| {
            let last = routes(config).last_mut().expect("a route");
            last["metadata"] = json!({"filter_metadata": {"latchkey": {"rule": "deny"}}});
        }),
        ("preflights without a key", |config| {
            let method = json!([{"name": ":method", "string_match": {"exact": "OPTIONS"}}]);
            routes(config)
                .insert(0, ruled(json!({"prefix": "/", "headers": method}), "public", json!({"cluster": "upstream"})));
        }),
        ("a second route to the same, by another path and with a key", |config| {
            routes(config).insert(
                0,
                ruled(
                    json!({"prefix": "/old/"}),
                    "key",
                    json!({"cluster": "upstream", "prefix_rewrite": "/v1/reviews/"}),
                ),
            );
        }),
        ("other limits", |config| {
            manager(config)["max_request_headers_kb"] = json!(60);
            manager(config)["request_headers_timeout"] = json!("5s");
            at(manager(config), "/common_http_protocol_options")["max_stream_duration"] = json!("60s");
        }),
        ("trusted hops, at both places", |config| {
            manager(config)["xff_num_trusted_hops"] = json!(2);
            plugin(config, "trusted_hops", json!(2));
        }),
        ("semicolons, with nothing weaker behind", |config| plugin(config, "paths", json!({"allow": ["semicolon"]}))),
        ("slashes as they come, for an upstream that reads them so", |config| {
            plugin(config, "paths", json!({"allow": ["double-slash", "encoded-slash"]}));
            manager(config)["merge_slashes"] = json!(false);
            manager(config)["path_with_escaped_slashes_action"] = json!("KEEP_UNCHANGED");
        }),
        ("admin pages at a file", |config| {
            *at(config, "/admin/address") = json!({"pipe": {"path": "/run/envoy/admin"}})
        }),
        ("a filter that routes enable, as Envoy Gateway has it", |config| {
            filter(config, "latchkey")["disabled"] = json!(true);
            host(config)["typed_per_filter_config"] =
                json!({"latchkey": any("envoy.config.route.v3.FilterConfig", json!({"config": {}}))});
        }),
    ]
}

/// Renames each field of a message to camel case.
fn in_camel_case(value: Value) -> Value {
    const CHOSEN: [&str; 4] =
        ["policies", "allowed_capabilities", "filter_metadata", "typed_extension_protocol_options"];
    match value {
        Value::Object(fields) => {
            let mut renamed = serde_json::Map::new();
            for (name, value) in fields {
                let value = match (CHOSEN.contains(&name.as_str()), value) {
                    (true, Value::Object(chosen)) => chosen
                        .into_iter()
                        .map(|(name, value)| (name, in_camel_case(value)))
                        .collect::<serde_json::Map<_, _>>()
                        .into(),
                    (_, value) => in_camel_case(value),
                };
                renamed.insert(camel(&name), value);
            }
            renamed.into()
        }
        Value::Array(items) => items.into_iter().map(in_camel_case).collect(),
        other => other,
    }
}

fn camel(name: &str) -> String {
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        || name.starts_with("proxy_")
        || name.ends_with("_get")
    {
        return name.to_owned();
    }
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| format!("{text}{}{}", word[..1].to_uppercase(), &word[1..]))
}

#[test]
fn an_edit_that_opens_nothing_is_accepted_without_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = printed_config(&Addresses::unused(), folder.path());
    let mut wrong = Vec::new();
    for (name, edit) in harmless() {
        let mut edited = base.clone();
        edit(&mut edited);
        assert_ne!(edited, base, "{name}: nothing was edited");
        let (code, output) = check(&edited, folder.path());
        if code != Some(0) || !output.contains("accepted, with 0 warnings") {
            wrong.push(format!("{name}: {code:?}:\n{output}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_edit_that_weakens_is_accepted_with_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = printed_config(&Addresses::unused(), folder.path());
    let public = |path: Value| ruled(path, "public", json!({"cluster": "upstream"}));
    let warnings: Vec<WeakeningEdit> = vec![
        (
            "a public catch-all",
            Box::new(move |config| *routes(config).last_mut().expect("a route") = public(json!({"prefix": "/"}))),
            "`/` is `public` and covers `/v1/reviews` (`reviews`), `/v1/webhooks` (`webhooks`): a path that only the upstream reads as theirs",
        ),
        (
            "a public part",
            Box::new(move |config| routes(config).insert(2, public(json!({"path_separated_prefix": "/V1"})))),
            "`/V1` is `public` and covers",
        ),
        (
            "a catch-all for any key",
            Box::new(|config| {
                *routes(config).last_mut().expect("a route") =
                    ruled(json!({"prefix": "/"}), "key", json!({"cluster": "upstream"}))
            }),
            "leave `deny` as the last rule",
        ),
        (
            "any key for what no rule is for",
            Box::new(|config| plugin(config, "unmatched", json!("key"))),
            "leave `deny` as the last rule",
        ),
        (
            "a route without a rule",
            Box::new(|config| drop(remove(route(config, "/v1/webhooks"), "", "metadata"))),
            "routes[0]: `/v1/webhooks` states no rule, so all of its requests are denied",
        ),
        (
            "an answer without a rule",
            Box::new(|config| {
                routes(config).insert(0, json!({"match": {"path": "/robots.txt"}, "direct_response": {"status": 200}}))
            }),
            "`/robots.txt` states no rule",
        ),
        (
            "another host",
            Box::new(move |config| {
                let other =
                    json!({"name": "other", "domains": ["other.example"], "routes": [public(json!({"prefix": "/"}))]});
                items(manager(config), "/route_config/virtual_hosts").push(other);
            }),
            "leads to the same upstream as `/v1/reviews` (`reviews`), `/v1/webhooks` (`webhooks`) of another host",
        ),
        (
            "paths as they come",
            Box::new(|config| drop(remove(manager(config), "", "normalize_path"))),
            "normalize_path: is not true",
        ),
        (
            "slow heads",
            Box::new(|config| drop(remove(manager(config), "", "request_headers_timeout"))),
            "request_headers_timeout: is missing",
        ),
        (
            "idle streams",
            Box::new(|config| manager(config)["stream_idle_timeout"] = json!("0s")),
            "stream_idle_timeout: is 0",
        ),
        (
            "large heads",
            Box::new(|config| manager(config)["max_request_headers_kb"] = json!(8192)),
            "max_request_headers_kb: is above 96",
        ),
        (
            "routes from elsewhere",
            Box::new(|config| {
                remove(manager(config), "", "route_config");
                manager(config)["rds"] = json!({"route_config_name": "public", "config_source": {"path_config_source": {"path": "/etc/envoy/routes.yaml"}}});
            }),
            "not all routes are in this file",
        ),
        (
            "listeners from elsewhere",
            Box::new(|config| {
                config["dynamic_resources"] =
                    json!({"lds_config": {"path_config_source": {"path": "/etc/envoy/listeners.yaml"}}})
            }),
            "check what it brings in the same way",
        ),
        (
            "a program before the filter",
            Box::new(|config| {
                filters(config).insert(0, json!({"name": "script", "typed_config": any("envoy.extensions.filters.http.lua.v3.Lua", json!({"default_source_code": {"inline_string": "x"}}))}))
            }),
            "may change the path after Envoy has chosen the route",
        ),
        (
            "addresses by PROXY",
            Box::new(|config| {
                let mut second =
                    listener(open_manager(json!({"match": {"prefix": "/"}, "redirect": {"https_redirect": true}})));
                second["listener_filters"] = json!([{"name": "proxy", "typed_config": typed("envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol")}]);
                items(config, "/static_resources/listeners").push(second);
            }),
            "chooses its own address",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, edit, words) in warnings {
        let mut edited = base.clone();
        edit(&mut edited);
        let (code, output) = check(&edited, folder.path());
        if code != Some(0) || !output.lines().any(|line| line.contains(": warning: ") && line.contains(words)) {
            wrong.push(format!("{name}: expected {words}, {code:?}:\n{output}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_shipped_mesh_files_are_accepted() {
    for file in ["envoy/istio.yaml", "envoy/envoy-gateway.yaml"] {
        let (code, output) = latchkey(&["check-config", &root().join(file).display().to_string()]);
        assert!(
            code == Some(0) && output.contains("accepted, with 0 warnings: 1 filter of the edge"),
            "{file}: {output}"
        );
    }
}

#[test]
fn a_weakened_mesh_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, from, to, words) in [
        (
            "envoy/istio.yaml",
            "failStrategy: FAIL_RELOAD",
            "failStrategy: FAIL_OPEN",
            "lets everything through when the filter breaks",
        ),
        (
            "envoy/istio.yaml",
            "action: ALLOW",
            "action: LOG",
            "`action: LOG`, which denies nothing; take the filter `latchkey-guard`",
        ),
        ("envoy/istio.yaml", "xff_num_trusted_hops: 0", "xff_num_trusted_hops: 1", "xff_num_trusted_hops: is 1"),
        ("envoy/istio.yaml", "rule: reviews}", "rule: Reviews}", "`routes[0].rule`"),
        (
            "envoy/envoy-gateway.yaml",
            "failOpen: false",
            "failOpen: true",
            "lets everything through when the filter breaks",
        ),
        ("envoy/envoy-gateway.yaml", "{exact: public}", "{prefix: d}", "it takes other verdicts"),
        (
            "envoy/envoy-gateway.yaml",
            "path: /use_remote_address\n      value: true",
            "path: /use_remote_address\n      value: false",
            "use_remote_address: is not true",
        ),
        (
            "envoy/envoy-gateway.yaml",
            "headers_with_underscores_action: REJECT_REQUEST, ",
            "",
            "headers_with_underscores_action: is not REJECT_REQUEST",
        ),
    ] {
        let text = std::fs::read_to_string(root().join(file)).expect(file);
        assert!(text.contains(from), "{file} has no {from:?}");
        let edited = folder.path().join("mesh.yaml");
        std::fs::write(&edited, text.replace(from, to)).expect("the edited file");
        let (code, output) = latchkey(&["check-config", &edited.display().to_string()]);
        assert!(
            code == Some(1) && output.lines().any(|line| line.contains(": refused: ") && line.contains(words)),
            "{file}, {to}: {output}"
        );
    }
}
