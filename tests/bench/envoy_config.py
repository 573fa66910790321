# Envoy configurations to measure: listeners with one filter each, and clusters, as the text of a bootstrap.
import json

from harness import ROOT

BODY = "ok"
DIRECT = {"direct_response": {"status": 200, "body": {"inline_string": BODY}}}


def upstream(name):
    return {"route": {"cluster": name}}


def capabilities():
    """The list of envoy/demo.yaml, so that what is measured is what is shipped."""
    lines = (ROOT / "envoy" / "demo.yaml").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if "allowed_capabilities:" in line) + 1
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith(" " * 20))
    return {line.split(":")[0].strip(): {} for line in lines[start:end] if not line.strip().startswith("#")}


def guard():
    """The guard of envoy/demo.yaml."""
    text = (ROOT / "envoy" / "demo.yaml").read_text()
    start = text.index("          - name: latchkey-guard\n")
    end = text.index("          - name: envoy.filters.http.router\n")
    return text[start:end]


def typed(kind, fields):
    return {"@type": f"type.googleapis.com/envoy.extensions.filters.http.{kind}", **fields}


def native(keys):
    """Envoy's own api_key_auth with these keys in its configuration, `{key: client}`."""
    fields = {
        "credentials": [{"key": key, "client": client} for key, client in keys.items()],
        "key_sources": [{"header": "x-api-key"}],
        "forwarding": {"header": "x-client", "hide_credentials": True},
    }
    return [{"name": "envoy.filters.http.api_key_auth", "typed_config": typed("api_key_auth.v3.ApiKeyAuth", fields)}]


def ours(name, cluster="latchkey", **fields):
    """The filter of envoy/demo.yaml."""
    plugin = {
        "edge": name,
        "control_plane": {"cluster": cluster, "authority": "latchkey", "token_env": "LATCHKEY_EDGE_TOKEN"},
        **fields,
    }
    config = {
        "name": "latchkey",
        "failure_policy": "FAIL_RELOAD",
        "capability_restriction_config": {"allowed_capabilities": capabilities()},
        "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json.dumps(plugin)},
        "vm_config": {
            "vm_id": "latchkey",
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": str(ROOT / "dist" / "latchkey_filter.wasm")}},
            "environment_variables": {"host_env_keys": ["LATCHKEY_EDGE_TOKEN"]},
        },
    }
    return [{"name": "latchkey", "typed_config": typed("wasm.v3.Wasm", {"config": config})}]


def listener(name, port, filters, action=DIRECT, rule="reviews"):
    """A listener as YAML. It is JSON except for the guard, which is copied verbatim where a filter is "GUARD"."""
    route = {"match": {"prefix": "/"}, **action}
    if rule:
        route["metadata"] = {"filter_metadata": {"latchkey": {"rule": rule}}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": True,
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
    }
    router = {"name": "router", "typed_config": typed("router.v3.Router", {})}
    entries = "".join(guard() if entry == "GUARD" else f"          - {json.dumps(entry)}\n" for entry in [*filters, router])
    fields = "".join(f"          {json.dumps(key)}: {json.dumps(value)}\n" for key, value in manager.items())
    return (
        f"  - name: {name}\n"
        f"    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n"
        "    filter_chains:\n    - filters:\n      - name: http\n        typed_config:\n"
        f"{fields}          http_filters:\n{entries}"
    )


def cluster(name, *ports):
    at = lambda port: {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [at(port) for port in ports]}]}
    return f"  - {json.dumps({'name': name, 'type': 'STATIC', 'load_assignment': load})}\n"


def bootstrap(listeners, clusters="", admin=None, loop_stats=False):
    # With `loop_stats` the event loops report how long they were busy; the figures are merged twice a second.
    text = "enable_dispatcher_stats: true\nstats_flush_interval: 0.5s\n" if loop_stats else ""
    if admin:
        text += f"admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\n"
    text += f"static_resources:\n  listeners:\n{listeners}"
    return text + (f"  clusters:\n{clusters}" if clusters else "")
