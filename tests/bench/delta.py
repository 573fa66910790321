# The cost of one change by the size of the table: time until an Envoy enforces it, and the Envoy's CPU.
"""A control plane and an Envoy with one worker. A key is deactivated over REST, and from the answer on it is used until
Envoy refuses it; then it is activated. For the CPU, the same changes are made at a fixed pace without client requests,
long enough to include all later work that a change causes: the pages are published again after some thousand
changes."""

import http.client
import time

import keyset
from envoy_config import bootstrap, cluster, listener, ours
from harness import ControlPlane, answers, budget, cores, fail, median, percentile, process_cpu_ns, say, table, wait_until

LIMIT_SECONDS = 900
SIZES = (1_000, 100_000, 1_000_000)
TIMED = 60
PACED, IDLE, PACE_SECONDS = 10_000, 1_000, 0.005


class Client:
    """A keep-alive connection that sends requests with a key."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)

    def status(self, secret):
        self.connection.request("GET", "/v1/plain", headers={"x-api-key": secret})
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def until(self, secret, status, began):
        """Milliseconds from `began` to the first answer with this status."""
        while self.status(secret) != status:
            if time.monotonic() - began > 10:
                fail(f"a change did not take effect within 10 s: expected {status}")
        return (time.monotonic() - began) * 1000


def measure(bench):
    own, others = cores()
    rows, costs = [], {}
    for count in SIZES:
        keys = keyset.of(count)
        control_plane = ControlPlane(bench, f"control-plane-{count}", others, keys.database)
        port = bench.port()
        config = bootstrap(listener("delta", port, ours("delta")), cluster("latchkey", control_plane.port))
        envoy = bench.envoy(f"envoy-{count}", config, own, LATCHKEY_EDGE_TOKEN=control_plane.edge_token)
        allowed = lambda: answers(port, "/v1/plain", **{"x-api-key": keys.secrets[0]}) == 200
        wait_until(f"{count:,} keys at Envoy", allowed, 120)
        say(f"delta: {TIMED} changes among {count:,} keys")
        times = timed(control_plane, keys, Client(port))
        say(f"delta: {PACED:,} changes among {count:,} keys, their CPU")
        idle = cpu_ms(envoy, IDLE, lambda _: None)
        busy = cpu_ms(envoy, PACED, lambda number: change(control_plane, keys, number))
        costs[count] = busy - idle
        rows.append([f"{count:,}", f"{median(times):.2f}", f"{percentile(times, 99):.2f}", f"{costs[count]:.2f}"])
        bench.end(envoy)
        control_plane.stop()
    heads = ["keys", "from the answer to the first refusal, ms, median", "p99", "Envoy's CPU a change, ms"]
    few, many = costs[SIZES[0]], costs[SIZES[-1]]
    return "\n".join([
        f"{TIMED} changes one after the other; the CPU is that of the whole process over {PACED:,} changes, {PACE_SECONDS * 1000:.0f} ms apart, "
        "less its CPU when nothing changes. 1 worker.",
        "",
        table(heads, rows),
        "",
        budget(f"CPU a change among {SIZES[-1]:,} keys, to that among {SIZES[0]:,},", 1.25, many / few, " x"),
    ])


def timed(control_plane, keys, client):
    """Milliseconds from the answer to a deactivation to the first refusal."""
    times = []
    for number in range(TIMED):
        which = number % len(keys.secrets)
        secret, path = keys.secrets[which], keys.paths[which]
        client.until(secret, 200, time.monotonic())
        control_plane.post(f"{path}/deactivate")
        times.append(client.until(secret, 401, time.monotonic()))
        control_plane.post(f"{path}/activate")
    return times


def change(control_plane, keys, number):
    action = ("deactivate", "activate")[number % 2]
    control_plane.post(f"{keys.paths[number // 2 % len(keys.paths)]}/{action}")


def cpu_ms(envoy, steps, step):
    """CPU of the process a step, for `steps` steps at a fixed pace, in milliseconds."""
    before, began = process_cpu_ns(envoy), time.monotonic()
    for number in range(steps):
        step(number)
        time.sleep(max(0, began + (number + 1) * PACE_SECONDS - time.monotonic()))
    return (process_cpu_ns(envoy) - before) / 1e6 / steps
