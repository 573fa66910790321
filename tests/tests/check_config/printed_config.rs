//! The configuration that `latchkey envoy-config` prints, as a value that a test edits.

use std::path::Path;

use end_to_end::{latchkey, root};
use serde_json::{Value, json};

/// The addresses and ports of a configuration.
pub struct Addresses {
    pub control_plane_port: u16,
    pub upstream_port: u16,
    /// The address for clients.
    pub listen: &'static str,
    pub port: u16,
    pub local_port: u16,
    pub admin_port: u16,
}

impl Addresses {
    /// For a configuration that no Envoy runs.
    pub fn unused() -> Self {
        Self {
            control_plane_port: 8444,
            upstream_port: 8081,
            listen: "0.0.0.0",
            port: 10000,
            local_port: 9902,
            admin_port: 9901,
        }
    }
}

/// The configuration with three routes: one public, two that need a scope; everything else is denied.
pub fn printed_config(addresses: &Addresses, folder: &Path) -> Value {
    let flags = flags(addresses, folder);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let secret = text(&[flags.as_slice(), &["--print=token-secret"]].concat());
    std::fs::write(folder.join("edge-token.yaml"), secret).expect("the secret's file");
    serde_saphyr::from_str(&text(&flags)).expect("YAML")
}

fn flags(addresses: &Addresses, folder: &Path) -> Vec<String> {
    let Addresses { control_plane_port, upstream_port, listen, port, local_port, admin_port } = addresses;
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--control-plane=http://127.0.0.1:{control_plane_port}"),
        "--insecure-http".to_owned(),
        format!("--upstream=127.0.0.1:{upstream_port}"),
        format!("--listen={listen}:{port}"),
        format!("--local=127.0.0.1:{local_port}"),
        format!("--admin=127.0.0.1:{admin_port}"),
        format!("--token-file={}", file("edge-token")),
        format!("--token-secret={}", file("edge-token.yaml")),
        format!("--wasm={}", root().join("dist/latchkey_filter.wasm").display()),
        "--route=/healthz=public".to_owned(),
        "--route=/v1/reviews=reviews".to_owned(),
        "--route=/v1/webhooks=webhooks".to_owned(),
    ]
}

fn text(flags: &[&str]) -> String {
    let (code, output) = latchkey(&[&["envoy-config"], flags].concat());
    assert_eq!(code, Some(0), "{output}");
    output
}

/// The exit code and the output of `check-config`.
pub fn check(config: &Value, folder: &Path) -> (Option<i32>, String) {
    let file = folder.join("edited.json");
    std::fs::write(&file, config.to_string()).expect("the edited file");
    latchkey(&["check-config", &file.display().to_string()])
}

pub fn at<'a>(config: &'a mut Value, pointer: &str) -> &'a mut Value {
    config.pointer_mut(pointer).unwrap_or_else(|| panic!("nothing is at {pointer}"))
}

pub fn items<'a>(config: &'a mut Value, pointer: &str) -> &'a mut Vec<Value> {
    at(config, pointer).as_array_mut().unwrap_or_else(|| panic!("no list is at {pointer}"))
}

pub fn remove(config: &mut Value, pointer: &str, name: &str) -> Value {
    let fields = at(config, pointer).as_object_mut().expect("an object");
    fields.remove(name).unwrap_or_else(|| panic!("{pointer} has no {name}"))
}

/// The connection manager for clients.
pub fn manager(config: &mut Value) -> &mut Value {
    at(config, "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config")
}

pub fn filters(config: &mut Value) -> &mut Vec<Value> {
    items(manager(config), "/http_filters")
}

/// The index of the filter with this name.
pub fn index_of(config: &mut Value, name: &str) -> usize {
    filters(config).iter().position(|filter| filter["name"] == name).unwrap_or_else(|| panic!("no filter {name}"))
}

pub fn filter<'a>(config: &'a mut Value, name: &str) -> &'a mut Value {
    let index = index_of(config, name);
    &mut filters(config)[index]
}

/// The guard's configuration.
pub fn guard(config: &mut Value) -> &mut Value {
    at(filter(config, "latchkey-guard"), "/typed_config")
}

/// The policies of the guard.
pub fn policies(config: &mut Value) -> &mut serde_json::Map<String, Value> {
    at(guard(config), "/rules/policies").as_object_mut().expect("policies")
}

/// The one policy of the guard.
pub fn policy(config: &mut Value) -> &mut Value {
    policies(config).values_mut().next().expect("a policy")
}

/// The `PluginConfig` of our filter.
pub fn wasm(config: &mut Value) -> &mut Value {
    at(filter(config, "latchkey"), "/typed_config/config")
}

/// Changes the plugin configuration.
pub fn plugin(config: &mut Value, name: &str, value: Value) {
    let text = at(wasm(config), "/configuration/value");
    let mut plugin: Value = serde_json::from_str(text.as_str().expect("a text")).expect("JSON");
    plugin[name] = value;
    *text = json!(plugin.to_string());
}

pub fn host(config: &mut Value) -> &mut Value {
    at(manager(config), "/route_config/virtual_hosts/0")
}

pub fn routes(config: &mut Value) -> &mut Vec<Value> {
    items(host(config), "/routes")
}

/// The route for everything below this path.
pub fn route<'a>(config: &'a mut Value, path: &str) -> &'a mut Value {
    let found = routes(config).iter_mut().find(|route| route["match"]["path_separated_prefix"] == path);
    found.unwrap_or_else(|| panic!("no route for {path}"))
}

/// A route with a rule.
pub fn ruled(matched: Value, rule: &str, action: Value) -> Value {
    json!({"match": matched, "metadata": {"filter_metadata": {"latchkey": {"rule": rule}}}, "route": action})
}

pub fn typed(kind: &str) -> Value {
    json!({"@type": format!("type.googleapis.com/{kind}")})
}

/// A message of this type with these fields.
pub fn any(kind: &str, fields: Value) -> Value {
    let mut message = typed(kind);
    for (name, value) in fields.as_object().expect("fields") {
        message[name] = value.clone();
    }
    message
}

pub fn router() -> Value {
    json!({"name": "envoy.filters.http.router", "typed_config": typed("envoy.extensions.filters.http.router.v3.Router")})
}

/// A manager without our filter, with this route alone.
pub fn open_manager(route: Value) -> Value {
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": any(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "open",
            "route_config": {"virtual_hosts": [{"name": "open", "domains": ["*"], "routes": [route]}]},
            "http_filters": [router()],
        }),
    )})
}

pub fn tcp_proxy(cluster: &str) -> Value {
    let kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": any(kind, json!({"stat_prefix": "tcp", "cluster": cluster}))})
}

/// A listener for anyone, with this network filter.
pub fn listener(filter: Value) -> Value {
    json!({
        "name": "second",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 10001}},
        "filter_chains": [{"filters": [filter]}],
    })
}

pub fn add_listener(config: &mut Value, filter: Value) {
    items(config, "/static_resources/listeners").push(listener(filter));
}

/// A cluster at one address of this machine.
pub fn cluster(name: &str, port: &Value) -> Value {
    json!({"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}},
    ]}]}})
}

pub fn add_cluster(config: &mut Value, cluster: Value) {
    items(config, "/static_resources/clusters").push(cluster);
}

/// The port of the upstream.
pub fn upstream_port(config: &mut Value) -> Value {
    let endpoint = "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
    at(config, endpoint).clone()
}

pub const ONE_ROUTE: &str =
    "/static_resources/listeners/1/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0";
