//! `latchkey check-config`: what an edge would refuse, by field.

use std::fs::write;

use serde_json::{Value, json};

use super::{Cli, CommandOutput};

const PLUGIN: &str = r#"{"edge": "eu-1", "control_plane": {"cluster": "latchkey", "authority": "latchkey", "token_env": "LATCHKEY_EDGE_TOKEN"}}"#;

/// The demo's file, filled in.
fn envoy(plugin: &str) -> String {
    let demo = include_str!("../../../../envoy/demo.yaml");
    let demo = demo.replace("${LATCHKEY}", plugin).replace("${WASM}", "/etc/envoy/latchkey_filter.wasm");
    ["LISTENER_PORT", "ADMIN_PORT", "CONTROL_PLANE_PORT", "UPSTREAM_PORT"]
        .iter()
        .fold(demo, |demo, name| demo.replace(&format!("${{{name}}}"), "10000"))
}

fn check(cli: &Cli, name: &str, text: &str, more: &[&str]) -> CommandOutput {
    write(cli.at(name), text).unwrap();
    cli.run(&[&["check-config", name], more].concat())
}

#[test]
fn what_is_right_is_accepted() {
    let cli = Cli::start_unsigned(&[]);
    let plugin = check(&cli, "plugin.json", PLUGIN, &[]);
    assert_eq!(
        (plugin.code, plugin.stdout.as_str()),
        (0, "plugin.json: accepted, with 0 warnings: a plugin configuration, of the edge `eu-1`\n")
    );
    let demo = check(&cli, "envoy.yaml", &envoy(PLUGIN), &[]);
    let expected = "envoy.yaml: accepted, with 0 warnings: 1 filter of the edge `eu-1`; 4 of 5 routes state a rule, the others are `routes`' and `unmatched`'s\n";
    assert_eq!((demo.code, demo.stdout.as_str()), (0, expected), "{demo:?}");
}

#[test]
fn a_plugin_configuration_is_refused_by_field() {
    let cli = Cli::start_unsigned(&[]);
    for (name, text, expected) in [
        ("unknown field", PLUGIN.replace("\"edge\"", "\"egde\""), "unknown field `egde`"),
        ("no control plane", "{}".to_owned(), "missing field `control_plane`"),
        ("a rule", PLUGIN.replacen('{', r#"{"routes": [{"path": "/a", "rule": "read all"}], "#, 1), "`routes[0].rule`"),
        (
            "a template",
            PLUGIN.replacen('{', r#"{"routes": [{"path": "a", "rule": "key"}], "#, 1),
            "`a` is not a path template",
        ),
        ("twice", PLUGIN.replacen('{', r#"{"edge": "x", "#, 1), "duplicate field `edge`"),
        ("a bound", PLUGIN.replacen('{', r#"{"max_staleness_secs": 5, "#, 1), "`max_staleness_secs`"),
    ] {
        let ended = check(&cli, "plugin.json", &text, &[]);
        assert_eq!(ended.code, 1, "{name}: {ended:?}");
        assert!(
            ended.stdout.starts_with("plugin.json: refused: ") && ended.stdout.contains(expected),
            "{name}: {ended:?}"
        );
        // The same, within an Envoy file.
        let ended = check(&cli, "envoy.yaml", &envoy(&text.replace('\'', "''")), &[]);
        let place = "refused: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.config.configuration.value: ";
        assert!(
            ended.code == 1 && ended.stdout.contains(place) && ended.stdout.contains(expected),
            "{name}: {ended:?}"
        );
    }
    let never = check(&cli, "plugin.json", &PLUGIN.replacen('{', r#"{"max_staleness_secs": null, "#, 1), &[]);
    assert!(never.code == 0 && never.stdout.contains("warning: `max_staleness_secs` is null"), "{never:?}");
}

#[test]
fn an_envoy_file_that_lets_requests_pass_the_filter_by_is_refused() {
    let cli = Cli::start_unsigned(&[]);
    let whole = envoy(PLUGIN);
    let without_guard = {
        let (before, rest) = whole.split_once("          # The guard.").unwrap();
        let (_, router) = rest.split_once("          - name: envoy.filters.http.router").unwrap();
        format!("{before}          - name: envoy.filters.http.router{router}")
    };
    for (name, text, kind, expected) in [
        ("no guard", without_guard, "refused", "no guard is behind it"),
        ("fail open", whole.replace("FAIL_RELOAD", "FAIL_OPEN"), "refused", "FAIL_OPEN lets everything through"),
        ("fail closed", whole.replace("FAIL_RELOAD", "FAIL_CLOSED"), "warning", "until Envoy is restarted"),
        ("a capability", whole.replace("proxy_on_tick: {}", "proxy_on_tack: {}"), "refused", "lacks: proxy_on_tick"),
        ("no token", whole.replace("[LATCHKEY_EDGE_TOKEN]", "[]"), "refused", "`control_plane.token_env` is `LATCHKEY_EDGE_TOKEN`"),
        ("no cluster", whole.replace("- name: latchkey\n    type: STATIC", "- name: other\n    type: STATIC"), "refused", "no cluster `latchkey`"),
        ("a rule", whole.replace("rule: webhooks}", "rule: Webhooks}"), "refused", "routes[2].metadata.filter_metadata.latchkey: `rule` is `Webhooks`"),
        ("no text", whole.replace("rule: webhooks}", "rule: 7}"), "refused", "`rule`: a text is expected"),
        ("a template", whole.replace("/v1/workspaces/{workspace}/{*rest}", "v1/{workspace}"), "refused", "`path`: `v1/{workspace}` is not a path template"),
        (
            "switched off",
            whole.replace("route: {cluster: upstream}\n              - match: {path_separated_prefix: /v1/reviews}", "route: {cluster: upstream}\n                typed_per_filter_config: {latchkey: {disabled: true}}\n              - match: {path_separated_prefix: /v1/reviews}"),
            "refused",
            "is disabled here",
        ),
        ("any address", whole.replace("use_remote_address: true", "use_remote_address: false"), "refused", "a client can choose its address"),
        ("no normalisation", whole.replace("normalize_path: true", "normalize_path: false"), "warning", "normalize_path: is not true"),
        ("no vm id", whole.replace("vm_id: latchkey", "vm_id: \"\""), "warning", "each worker polls the control plane by itself"),
    ] {
        assert_ne!(text, whole, "{name}: envoy/demo.yaml has changed");
        let ended = check(&cli, "envoy.yaml", &text, &[]);
        assert_eq!(ended.code, i32::from(kind == "refused"), "{name}: {ended:?}");
        let line = ended.stdout.lines().find(|line| line.contains(expected));
        assert!(line.is_some_and(|line| line.starts_with(&format!("envoy.yaml: {kind}: "))), "{name}: {ended:?}");
        let json: Value = serde_json::from_str(&check(&cli, "envoy.yaml", &text, &["--json"]).stdout).unwrap();
        assert_eq!(json["accepted"], json!(kind != "refused"), "{name}");
    }
}

/// As for Istio: one patch in each document.
#[test]
fn a_filter_in_a_manifest_is_found_and_its_guard_looked_for() {
    let cli = Cli::start_unsigned(&[]);
    let patch = |value: &str| format!("kind: EnvoyFilter\nspec:\n  configPatches:\n  - patch:\n      value: {value}\n");
    let wasm = json!({"name": "latchkey", "typed_config": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "value": {"config": {
            "failure_policy": "FAIL_RELOAD",
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": PLUGIN},
            "vm_config": {"vm_id": "latchkey", "environment_variables": {"host_env_keys": ["LATCHKEY_EDGE_TOKEN"]}},
        }},
    }});
    let demo: Value = serde_saphyr::from_str(&envoy(PLUGIN)).unwrap();
    let manager = &demo["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    let guard = &manager["http_filters"][1];
    let alone = check(&cli, "filter.yaml", &patch(&wasm.to_string()), &[]);
    assert!(
        alone.code == 0
            && alone.stdout.contains(
                "warning: spec.configPatches[0].patch.value.typed_config.value.config: no guard is in this file"
            ),
        "{alone:?}"
    );
    let both = [patch(&wasm.to_string()), patch(&guard.to_string())].join("---\n");
    let both = check(&cli, "filter.yaml", &both, &[]);
    assert!(
        both.code == 0 && both.stdout.contains("accepted, with 0 warnings: 1 filter of the edge `eu-1`"),
        "{both:?}"
    );
    let open = guard.to_string().replace("ALLOW", "LOG");
    let open = check(&cli, "filter.yaml", &[patch(&wasm.to_string()), patch(&open)].join("---\n"), &[]);
    assert!(open.code == 1 && open.stdout.contains("the guard has `action: LOG`"), "{open:?}");
    let broken = check(&cli, "filter.yaml", &patch(&wasm.to_string().replace("latchkey\\\"", "latch key\\\"")), &[]);
    assert!(broken.code == 1 && broken.stdout.contains("`control_plane.cluster`"), "{broken:?}");
}

/// Routes in the plugin configuration cover each other as Envoy's do.
#[test]
fn a_template_that_covers_a_stronger_one_is_warned_of() {
    let cli = Cli::start_unsigned(&[]);
    let lines = |lines: &str| PLUGIN.replacen('{', &format!("{{{lines}, "), 1);
    let webhooks = r#"{"path": "/v1/webhooks/{*rest}", "rule": "webhooks"}"#;
    for (name, fields, expected) in [
        (
            "public",
            format!(r#""routes": [{{"path": "/{{*rest}}", "rule": "public"}}, {webhooks}]"#),
            "`/` is `public` and covers `/v1/webhooks` (`webhooks`)",
        ),
        (
            "any key",
            format!(r#""unmatched": "key", "routes": [{webhooks}]"#),
            "`unmatched`: `/` is `key` and covers `/v1/webhooks` (`webhooks`)",
        ),
    ] {
        let ended = check(&cli, "plugin.json", &lines(&fields), &[]);
        assert!(ended.code == 0 && ended.stdout.contains(expected), "{name}: {ended:?}");
    }
    let closed = check(
        &cli,
        "plugin.json",
        &lines(&format!(r#""routes": [{{"path": "/v1/{{*rest}}", "rule": "deny"}}, {webhooks}]"#)),
        &[],
    );
    assert!(closed.code == 0 && closed.stdout.contains("with 0 warnings"), "{closed:?}");
}

#[test]
fn a_field_that_is_written_under_both_of_its_names_is_refused() {
    let cli = Cli::start_unsigned(&[]);
    let twice = envoy(PLUGIN)
        .replace("use_remote_address: true", "use_remote_address: true\n          useRemoteAddress: false");
    let ended = check(&cli, "envoy.yaml", &twice, &[]);
    assert!(ended.code == 1 && ended.stderr.contains("the field `use_remote_address` is given twice"), "{ended:?}");
    // Duplicate names, of which JSON parsers take one.
    let demo: Value = serde_saphyr::from_str(&envoy(PLUGIN)).unwrap();
    let twice = demo
        .to_string()
        .replace(r#""name":"latchkey-guard""#, r#""disabled":true,"name":"latchkey-guard","disabled":false"#);
    let ended = check(&cli, "envoy.json", &twice, &[]);
    assert!(ended.code == 1 && ended.stderr.contains("duplicate"), "{ended:?}");
}

/// As in a part of Envoy's configuration that Envoy fetches.
#[test]
fn a_filter_that_is_discovered_is_refused() {
    let cli = Cli::start_unsigned(&[]);
    let demo: Value = serde_saphyr::from_str(&envoy(PLUGIN)).unwrap();
    let manager = &demo["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    let filter = &manager["http_filters"][0]["typed_config"];
    let resource = json!({"resources": [{"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", "name": "latchkey", "typed_config": filter}]});
    let ended = check(&cli, "filter.yaml", &resource.to_string(), &[]);
    assert!(
        ended.code == 1 && ended.stdout.contains("resources[0]: is for a chain that takes it by `config_discovery`"),
        "{ended:?}"
    );
}

#[test]
fn names_that_the_operator_does_not_know_are_refused() {
    let cli = Cli::start_unsigned(&[]);
    write(cli.at("latchkey.toml"), "environments = [\"test\"]\nscopes = [\"reviews\"]\n").unwrap();
    let ended = check(&cli, "envoy.yaml", &envoy(PLUGIN), &["--catalogue", "latchkey.toml"]);
    assert_eq!(ended.code, 1);
    for part in ["no key is made for `live`", "the scope `webhooks`", "the scope `workspaces`"] {
        assert!(ended.stdout.contains(part), "{ended:?}");
    }
    assert!(!ended.stdout.contains("the scope `reviews`"));
}

#[test]
fn a_file_without_our_filter_is_refused_in_one_line() {
    let cli = Cli::start_unsigned(&[]);
    for (text, expected) in [
        ("static_resources: {listeners: []}", "it contains no Latchkey filter"),
        ("[1, 2]", "it contains no Latchkey filter"),
        ("a: [", "neither JSON nor YAML"),
        ("a: {b: ${PORT}}", "a template must be filled in first"),
    ] {
        let ended = check(&cli, "envoy.yaml", text, &[]);
        assert!(ended.code == 1 && ended.stderr.contains(expected), "{text}: {ended:?}");
        // The lines around the error may contain a token.
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    assert!(cli.run(&["check-config", "nowhere.yaml"]).stderr.contains("nowhere.yaml: cannot read it"));
}
