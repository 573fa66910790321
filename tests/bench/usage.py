# The cost of usage: counting a request in the filter, and merging the reports of 10,000 edges while keys are changed.
"""Counting is timed in the real VM, by a build of the filter with a loop around the function that each allowed request
calls. Merging: a control plane on one core, and on the other a program that reports as 10,000 edges do, and a client
that changes a key repeatedly. The same changes without reports come after that. At the end the database must contain
exactly what was answered."""

import http.client
import json
import os
import re
import sqlite3
import subprocess
import time

import keyset
from enforced import ACTIONS, Admin
from envoy_config import bootstrap, cluster, listener, ours
from harness import READY_PATH, ROOT, ControlPlane, answers, budget, cores, fail, median, percentile, process_cpu_ns, say, table, wait_until

LIMIT_SECONDS = 1800
COUNTED_KEYS = (1, 1_000, 4_096)
TURNS = 5
COUNTING_NS = 200

KEYS = 100_000
EDGES = int(os.environ.get("EDGES", "10000"))
REPORTING_SECONDS = 90
QUIET_SECONDS = 20
# Seconds between two changes: the pace of a client, not a flood.
PAUSE = 0.02
BUDGET_MS = 50


def measure(bench):
    return "\n".join([counting(bench), "", folding(bench)])


def counting(bench):
    faulty = ROOT / "target" / "faulty_filter.wasm"
    say("usage: the filter with a loop around its counting")
    subprocess.run([ROOT / "scripts" / "faulty-filter"], check=True, capture_output=True)
    own, others = cores()
    control_plane = ControlPlane(bench, "control-plane", others)
    port = bench.port()
    config = bootstrap(listener("counting", port, ours("counting"), rule="public"), cluster("latchkey", control_plane.port))
    envoy = bench.envoy("envoy", config.replace(str(ROOT / "dist" / "latchkey_filter.wasm"), str(faulty)), own, LATCHKEY_EDGE_TOKEN=control_plane.edge_token)
    wait_until("a ready Envoy", lambda: answers(port, READY_PATH) == 200)
    costs = {keys: [] for keys in COUNTED_KEYS}
    for _ in range(TURNS):
        for keys, seen in costs.items():
            seen.append(counted(bench, port, keys))
    bench.end(envoy)
    control_plane.stop()
    rows = [[f"{keys:,}", f"{median(seen):.0f}", f"{max(seen)}"] for keys, seen in costs.items()]
    return "\n".join([
        f"Counting a request of a key that was counted before, in the VM of an Envoy worker: {TURNS} times 4,000,000 of them, keys in turn. "
        "The client's address comes on top, once a key and worker in 10 s: one call out of the VM.",
        "",
        table(["keys", "ns, median", "ns, most"], rows),
        "",
        budget("counting a request", COUNTING_NS, max(median(seen) for seen in costs.values()), " ns"),
    ])


def counted(bench, port, keys):
    """Nanoseconds, from the filter's log."""
    pattern = rf"one of {keys} keys took (\d+) ns"
    log = bench.folder / "envoy.log"
    before = len(re.findall(pattern, log.read_text()))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/", headers={"x-fault": f"count={keys}"})
    connection.getresponse().read()
    wait_until("the cost in Envoy's log", lambda: len(re.findall(pattern, log.read_text())) > before)
    return int(re.findall(pattern, log.read_text())[-1])


def folding(bench):
    own, others = cores()
    keys = keyset.of(KEYS)
    control_plane = ControlPlane(bench, "folding", own, keys.database)
    file = sqlite3.connect(f"file:{keys.database}?mode=ro", uri=True)
    before = counted_in(file)
    names = bench.folder / "keys"
    names.write_text("".join(f"key_{key.hex()} {secret.hex()}\n" for key, secret in file.execute("SELECT key_id, secret FROM key_usage")))
    words = [ROOT / "dist/latchkey-reports", f"--control-plane=http://127.0.0.1:{control_plane.port}", f"--edges={EDGES}"]
    words += [f"--edge-token-file={control_plane.tokens[1]}", f"--keys-file={names}", f"--seconds={REPORTING_SECONDS}"]
    say(f"usage: {EDGES:,} edges register")
    reports = bench.run("reports", words, others, stdout=subprocess.PIPE)
    line(reports)
    admin, path = Admin(control_plane), keys.paths[0]
    # Excludes costs that only the first changes and the first round of merging have.
    say("usage: changes while edges report")
    changes(admin, path, 15)
    cpu, began = process_cpu_ns(control_plane.process), time.monotonic()
    folded = changes(admin, path, REPORTING_SECONDS - 25)
    cpu = (process_cpu_ns(control_plane.process) - cpu) / 1e9 / (time.monotonic() - began)
    totals = line(reports)
    say("usage: the same changes without reports")
    quiet = changes(admin, path, QUIET_SECONDS)
    control_plane.stop()
    counts = counted_in(file) - before
    if counts != totals["entries"]:
        fail(f"{totals['entries']} counts were acknowledged, but {counts} are in the database")
    figures = lambda times: [len(times), *(f"{percentile(times, share):.1f}" for share in (50, 90, 99, 100))]
    per_second = totals["entries"] / totals["seconds"]
    return "\n".join([
        f"{EDGES:,} edges with 1,000 of {KEYS:,} keys each a minute, a sixth of them every 10 s, for {REPORTING_SECONDS} s: {per_second:,.0f} entries a "
        f"second were counted, {totals['refused']} batches were sent again, and the database has each exactly once. The control plane and the "
        "edges have a core each.",
        "",
        table(["a key is changed, ms until it is answered", "changes", "median", "p90", "p99", "max"],
              [["while edges report", *figures(folded)], ["without reports", *figures(quiet)]]),
        "",
        f"A batch was answered after {totals['p50_ms'] / 1000:.1f} s (median; p99 {totals['p99_ms'] / 1000:.1f} s). The control plane took {cpu * 100:.0f} % of its core.",
        "",
        budget("merging delays a change, p99,", BUDGET_MS, percentile(folded, 99) - percentile(quiet, 99), " ms"),
    ])


def changes(admin, path, seconds):
    """Milliseconds that each change took."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        times.append(admin.change(path, ACTIONS[len(times) % 2], None)[0])
        time.sleep(PAUSE)
    return times


def counted_in(file):
    return file.execute("SELECT coalesce(sum(count), 0) FROM usage_hours").fetchone()[0]


def line(process):
    text = process.stdout.readline()
    if not text:
        fail("latchkey-reports ended: see its error above")
    return json.loads(text)
