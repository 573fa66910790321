# The cost of one change when keys are configuration: the native filter by ECDS with all keys, compared with our delta.
"""An Envoy with one worker gets its api_key_auth filter by ECDS from a file, in binary Protocol Buffers as a control
plane would send it. One key among many is removed and restored; each time the whole file is replaced. The CPU is that
of the whole process until it is idle again. For comparison, the same change by our feed."""

import os
import random
import time
from urllib.request import urlopen

import delta
import keyset
from envoy_config import bootstrap, cluster, listener, ours
from harness import ControlPlane, answers, cores, fail, median, process_cpu_ns, say, table, wait_until

LIMIT_SECONDS = 900
SIZES = (1_000, 10_000, 100_000)
CHANGES = 10
KIND = "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
RESOURCE = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"


def field(number, content):
    """A length-delimited Protocol Buffers field."""
    content = content.encode() if isinstance(content, str) else content
    length, size = b"", len(content)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def any_of(kind, content):
    return field(1, kind) + field(2, content)


def response(version, keys):
    """A DiscoveryResponse with the filter and all its keys."""
    credentials = b"".join(field(1, field(1, key) + field(2, f"client-{number}")) for number, key in enumerate(keys))
    # key_sources: one header. forwarding: the client's name is forwarded in a header, the key is not.
    filter_ = credentials + field(2, field(1, "x-api-key")) + field(3, field(1, "x-client") + b"\x10\x01")
    extension = field(1, "keys") + field(2, any_of(KIND, filter_))
    return field(1, str(version)) + field(2, any_of(RESOURCE, extension))


class Native:
    """An Envoy whose filter comes from a file."""

    def __init__(self, bench, count, secrets, core):
        self.file, self.version = bench.folder / f"ecds-{count}.pb", 0
        self.pushed = 0
        self.push(secrets)
        source = {"path_config_source": {"path": str(self.file)}, "resource_api_version": "V3"}
        filters = [{"name": "keys", "config_discovery": {"config_source": source, "type_urls": [KIND]}}]
        self.port = bench.port()
        self.process = bench.envoy(f"native-{count}", bootstrap(listener("ecds", self.port, filters)), core)

    def push(self, secrets):
        """Replaces the file; Envoy watches for a file that is moved into place."""
        self.version += 1
        text = response(self.version, secrets)
        written = self.file.with_suffix(".new")
        written.write_bytes(text)
        os.rename(written, self.file)
        self.pushed += len(text)

    def received(self):
        return self.pushed


class Ours:
    """An Envoy with our filter, and a control plane with `count` keys."""

    def __init__(self, bench, count, own, others):
        self.keys = keyset.of(count)
        self.control_plane = ControlPlane(bench, f"control-plane-{count}", others, self.keys.database)
        self.port, self.admin = bench.port(), bench.port()
        clusters = cluster("latchkey", self.control_plane.port)
        config = bootstrap(listener("ours", self.port, ours("ecds")), clusters, self.admin)
        token = self.control_plane.edge_token
        self.process = bench.envoy(f"ours-{count}", config, own, LATCHKEY_EDGE_TOKEN=token)

    def received(self):
        """Bytes that Envoy has received from the control plane so far, including HTTP."""
        with urlopen(f"http://127.0.0.1:{self.admin}/stats?filter=cluster.latchkey.upstream_cx_rx_bytes_total", timeout=5) as answer:
            return int(answer.read().split()[-1])

    def change(self, action):
        self.control_plane.post(f"{self.keys.paths[0]}/{action}")


def measure(bench):
    own, others = cores()
    rows = []
    for count in SIZES:
        chance = random.Random(count)
        secrets = [keyset.secret_text(chance) for _ in range(count)]
        native = Native(bench, count, secrets, own)
        off, on = (lambda: native.push(secrets[1:])), (lambda: native.push(secrets))
        rows.append([f"{count:,}", "native by ECDS", *figures(native, secrets[0], off, on, f"ecds: configuration with {count:,} keys")])
        bench.end(native.process)

        edge = Ours(bench, count, own, others)
        off, on = (lambda: edge.change("deactivate")), (lambda: edge.change("activate"))
        rows.append([f"{count:,}", "ours, a delta", *figures(edge, edge.keys.secrets[0], off, on, f"ecds: deltas among {count:,} keys")])
        bench.end(edge.process)
        edge.control_plane.stop()
    heads = ["keys", "method", "bytes a change", "Envoy's CPU a change, ms", "until it takes effect, ms, median", "longest"]
    return "\n".join([
        f"Medians of {CHANGES} changes, 1 worker. Time counts from the file's move, or from the REST answer, until the change takes effect. Bytes are those of the "
        "file, or those that Envoy received from the control plane, including headers. The CPU is that of the process until it is idle again, less its idle CPU.",
        "",
        table(heads, rows),
    ])


def figures(edge, secret, off, on, what):
    """Bytes, CPU and time of changes that remove a key and restore it."""
    say(what)
    wait_until(what, lambda: answers(edge.port, "/v1/plain", **{"x-api-key": secret}) == 200, 120)
    idle = idle_share(edge.process)
    client, times, costs = delta.Client(edge.port), [], []
    steps = [(off, 401), (on, 200)] * (CHANGES // 2)
    for step, status in steps:
        step()
        times.append(client.until(secret, status, time.monotonic()))
    settle(edge.process)
    # The same changes again, without a client that sends requests all the time.
    received = edge.received()
    for step, _ in steps:
        before, began = process_cpu_ns(edge.process), time.monotonic()
        step()
        settle(edge.process)
        costs.append((process_cpu_ns(edge.process) - before) / 1e6 - idle * (time.monotonic() - began) * 1000)
    return [f"{(edge.received() - received) / len(steps):,.0f}", f"{median(costs):.2f}", f"{median(times):.2f}", f"{max(times):.2f}"]


def idle_share(process, seconds=2):
    """The share of a core that the process uses when nothing happens."""
    settle(process)
    before = process_cpu_ns(process)
    time.sleep(seconds)
    return (process_cpu_ns(process) - before) / 1e9 / seconds


def settle(process, window=0.4):
    """Waits until the process uses almost no CPU."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        before = process_cpu_ns(process)
        time.sleep(window)
        if process_cpu_ns(process) - before < 0.02 * window * 1e9:
            return
    fail("an Envoy did not become idle within 60 s")
