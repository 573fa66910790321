# CPU per request of one Envoy worker: no filter, Envoy's own api_key_auth, Lua, ext_authz, and our filter, compared.
"""All variants are listeners of one Envoy with one worker, so that they share its memory and conditions. In each round
each variant gets a few seconds of keep-alive load, one after the other. The CPU time of the worker's thread counts, not
the wall clock."""

import os

from envoy_config import DIRECT, bootstrap, cluster, listener, native, ours, typed, upstream
from harness import ROUNDS, SECONDS, ControlPlane, answers, cores, cost_us, fail, median, say, table, wait_until, worker_of

LIMIT_SECONDS = 1800

# The budgets: ratios to native and to ext_authz, with an upstream and with a direct response.
BUDGETS = {"upstream": {"native": 1.15, "ext_authz": 0.5}, "direct": {"native": 1.45}}


def lua(secret):
    code = f"""
local keys = {{["{secret}"] = "acme"}}
function envoy_on_request(handle)
  local headers = handle:headers()
  local client = keys[headers:get("x-api-key") or ""]
  if client == nil then
    handle:respond({{[":status"] = "401"}}, "no key")
    return
  end
  headers:remove("x-api-key")
  headers:replace("x-client", client)
end
"""
    return [{"name": "envoy.filters.http.lua", "typed_config": typed("lua.v3.Lua", {"default_source_code": {"inline_string": code}})}]


def ext_authz(port):
    server = {"server_uri": {"uri": f"http://127.0.0.1:{port}", "cluster": "backend", "timeout": "1s"}}
    return [{"name": "envoy.filters.http.ext_authz", "typed_config": typed("ext_authz.v3.ExtAuthz", {"http_service": server})}]


# Optional parts, with the variants that have each and the ones that don't. Filter state isn't optional, because the
# guard and the logs need it.
OPTIONS = [
    ("the guard", "ours, guard", "ours"),
    ("the two identity headers of the default", "ours", "ours, nothing forwarded"),
    ("the other two identity headers", "ours, all forwarded", "ours"),
]

# Each maps a valid key and the backend's port to the filters that are measured.
VARIANTS = {
    "none": lambda secret, backend: [],
    "native": lambda secret, backend: native({secret: "acme"}),
    "lua": lambda secret, backend: lua(secret),
    "ext_authz": lambda secret, backend: ext_authz(backend),
    "ours": lambda secret, backend: ours("ours"),
    "ours, guard": lambda secret, backend: ours("guarded") + ["GUARD"],
    "ours, rule by routes": lambda secret, backend: ours("routes", routes=[{"path": "/v1/plain/{*rest}", "rule": "reviews"}]),
    "ours, nothing forwarded": lambda secret, backend: ours("bare", forward=[]),
    "ours, all forwarded": lambda secret, backend: ours("all", forward=["key_id", "workspace_id", "workspace", "scopes"]),
}


def measure(bench):
    own, others = cores()
    control_plane = ControlPlane(bench, "control-plane", others)
    control_plane.post("/v1/workspaces", {"name": "Acme", "slug": "acme"})
    body = {"name": "bench", "expires_in": "none", "scopes": {"reviews": "read"}}
    secret = control_plane.post("/v1/workspaces/acme/keys", body)["secret"]

    backend = bench.port()
    bench.envoy("backend", bootstrap(listener("backend", backend, [], rule=None)), others)
    wanted = [name for name in os.environ.get("BENCH_ONLY", "").split(",") if name in VARIANTS] or list(VARIANTS)
    ports, text = {}, ""
    for kind, action in [("direct", DIRECT), ("upstream", upstream("backend"))]:
        for name in wanted:
            port = ports[kind, name] = bench.port()
            rule = None if "routes" in name else "reviews"
            text += listener(f"l{len(ports)}", port, VARIANTS[name](secret, backend), action, rule)
    clusters = cluster("backend", backend) + cluster("latchkey", control_plane.port)
    config = bootstrap(text, clusters, bench.port())
    envoy = bench.envoy("envoy", config, own, LATCHKEY_EDGE_TOKEN=control_plane.edge_token)
    for (kind, name), port in ports.items():
        wait_until(f"200 with a key from {name}, {kind}", lambda port=port: answers(port, "/v1/plain", **{"x-api-key": secret}) == 200)
        if name not in ("none", "ext_authz") and answers(port, "/v1/plain") not in (401, 403):
            fail(f"{name}, {kind}, lets a request without a key through")

    worker = worker_of(envoy)
    load = {"headers": [f"x-api-key: {secret}"]}
    costs = {key: [] for key in ports}
    for port in ports.values():
        cost_us(worker, port, others, **load)
    for number in range(ROUNDS):
        say(f"cost: round {number + 1} of {ROUNDS}")
        for key, port in ports.items():
            costs[key].append(cost_us(worker, port, others, **load))
    return section(wanted, {key: median(values) for key, values in costs.items()})


def section(wanted, costs):
    def ratio(kind, name, peer):
        return f"{costs[kind, name] / costs[kind, peer]:.2f}" if (kind, peer) in costs else "-"

    rows = []
    for name in wanted:
        direct, proxied = costs["direct", name], costs["upstream", name]
        ratios = ratio("direct", name, "native"), ratio("upstream", name, "native"), ratio("upstream", name, "ext_authz")
        rows.append([name, f"{direct:.1f}", ratios[0], f"{proxied:.1f}", ratios[1], ratios[2]])
    heads = ["variant", "direct response, µs", "to native", "with upstream, µs", "to native", "to ext_authz"]
    lines = [f"CPU of one Envoy worker per request; medians of {ROUNDS} interleaved rounds of {SECONDS} s.", "", table(heads, rows), ""]
    for kind, peers in BUDGETS.items():
        for peer, limit in peers.items():
            if (kind, "ours") in costs and (kind, peer) in costs:
                seen = costs[kind, "ours"] / costs[kind, peer]
                word = "met" if seen <= limit else "missed"
                lines.append(f"- budget, {kind}: at most {limit} x {peer}; measured {seen:.2f}: {word}")
    for what, with_it, without in OPTIONS:
        if ("direct", with_it) in costs and ("direct", without) in costs:
            added = (f"{costs[kind, with_it] - costs[kind, without]:+.1f} µs" for kind in ("direct", "upstream"))
            lines.append("- {}: {} with a direct response, {} with an upstream".format(what, *added))
    return "\n".join(lines)
