# The cost of 10,000 edges that wait in the feed of one control plane: memory, and the time until all have a change.
"""A control plane on one core; on the other a program that simulates the edges without Envoy: each sends its requests
over its own connection, waits, and continues from the answer's position. Then the control plane restarts, and all edges
reconnect."""

import json
import os
import subprocess
import time

from harness import ROOT, ControlPlane, budget, cores, fail, memory, percentile, process_cpu_ns, say, table

LIMIT_SECONDS = 600
EDGES = int(os.environ.get("EDGES", "10000"))
CHANGES = 20


class Edges:
    """The program, its commands and its lines of JSON. Changes are made at the first of the control planes."""

    def __init__(self, bench, control_planes, key, core):
        admin, edge = control_planes[0].tokens
        words = [ROOT / "dist/latchkey-edges", f"--edges={EDGES}"]
        words += [f"--control-plane=127.0.0.1:{control_plane.port}" for control_plane in control_planes]
        words += [f"--admin-token-file={admin}", f"--edge-token-file={edge}", f"--key={key}"]
        self.process = bench.run("edges", words, core, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            fail("latchkey-edges ended: see its error above")
        return json.loads(line)

    def change(self):
        self.process.stdin.write(b"change\n")
        self.process.stdin.flush()
        return self.line()


def measure(bench):
    own, others = cores()
    control_plane = ControlPlane(bench, "control-plane", own)
    control_plane.post("/v1/workspaces", {"name": "Acme", "slug": "acme"})
    key = control_plane.post("/v1/workspaces/acme/keys", {"name": "bench", "expires_in": "none"})["key"]["id"]
    alone = control_plane.rss()
    say(f"edges: {EDGES:,} edges connect and wait")
    edges = Edges(bench, [control_plane], f"/v1/workspaces/acme/keys/{key}", others)
    joined = edges.line()
    time.sleep(2)
    waiting = control_plane.rss()
    before, changes = process_cpu_ns(control_plane.process), []
    for number in range(CHANGES):
        say(f"edges: change {number + 1} of {CHANGES}")
        changes.append(edges.change())
        # Lets all edges wait again before the next change.
        time.sleep(0.5)
    cpu_ms = (process_cpu_ns(control_plane.process) - before) / 1e6 / CHANGES
    most = memory(control_plane.process, "VmHWM")
    say("edges: the control plane is restarted")
    control_plane.stop()
    control_plane.start()
    back = edges.change()
    times = [change["enforced_ms"] for change in changes]
    figures = lambda name: [f"{percentile([change[name] for change in changes], share):.0f}" for share in (50, 99, 100)]
    heads = ["from sending a change until, ms", "median", "p99", "max"]
    rows = [
        ["half of the edges have it", *figures("p50_ms")],
        ["99 % of the edges have it", *figures("p99_ms")],
        ["all edges have it", *figures("all_ms")],
        ["all have acknowledged it: it is answered as enforced", *figures("enforced_ms")],
    ]
    return "\n".join([
        f"{EDGES:,} edges, {CHANGES} changes; one core for the control plane, one for all edges. All edges were waiting after "
        f"{joined['ms'] / 1000:.1f} s, of which 2 s are their own jitter.",
        "",
        table(heads, rows),
        "",
        f"Resident memory of the control plane: {alone / 1e6:.0f} MB without edges, {waiting / 1e6:.0f} MB with them "
        f"({(waiting - alone) / EDGES / 1000:.1f} KB an edge), {most / 1e6:.0f} MB at most. CPU of the control plane a change: {cpu_ms:.0f} ms.",
        f"After a restart of the control plane all had the next change {back['all_ms'] / 1000:.1f} s after it was sent.",
        "",
        budget("memory with all edges", 1024, most / (1 << 20), " MiB"),
        budget("a change acknowledged by all edges, p99,", 1000, percentile(times, 99), " ms"),
    ])
