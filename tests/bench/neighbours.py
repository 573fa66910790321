# The cost of one tenant's import for others: the time of their requests and revocations, and Envoy's memory.
"""A control plane with keys of several tenants, and an Envoy with two workers. A client of one tenant sends requests at
a fixed pace while nothing else happens, and again while another tenant imports 100,000 digests with 28 networks each;
meanwhile keys of the first are deactivated and activated with `Prefer: wait`, one after the other."""

import collections
import http.client
import json
import multiprocessing
import os
import threading
import time

import keyset
from enforced import ACTIONS, Admin
from envoy_config import bootstrap, cluster, listener, ours
from harness import READY_PATH, ControlPlane, answers, budget, cores, fail, memory, percentile, say, table, wait_until

LIMIT_SECONDS = 900
KEYS, WORKERS, CONNECTIONS = 10_000, 2, 4
IMPORTED = int(os.environ.get("IMPORTED", "100000"))
IMPORTS = int(os.environ.get("IMPORTS", "1"))
NETWORKS = [f"10.{number}.0.0/16" for number in range(28)]
QUIET_SECONDS = 20
# Seconds between two requests of a connection: the pace of a client, not a flood.
PACE_SECONDS = 0.01
BUDGET_MS, BUDGET_RATIO = 5, 2


class PacedRequests:
    """Connections that send requests at a fixed pace, each in its own process so that they don't wait for each
    other."""

    def __init__(self, port, secrets):
        self.ends = multiprocessing.Event()
        self.seen = multiprocessing.SimpleQueue()
        self.processes = [multiprocessing.Process(target=self.ask, args=(port, secret)) for secret in secrets]
        for process in self.processes:
            process.start()

    def ask(self, port, secret):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        times, answered = [], collections.Counter()
        while not self.ends.is_set():
            began = time.monotonic()
            connection.request("GET", "/v1/plain", headers={"x-api-key": secret})
            answer = connection.getresponse()
            answer.read()
            times.append((time.monotonic() - began) * 1000)
            answered[f"{answer.status} {answer.headers.get('latchkey-code', '')}".strip()] += 1
            time.sleep(max(0, began + PACE_SECONDS - time.monotonic()))
        self.seen.put((times, answered))

    def end(self):
        """All times in milliseconds, and how often each answer occurred."""
        self.ends.set()
        times, answered = [], collections.Counter()
        for _ in self.processes:
            own, answers_of_it = self.seen.get()
            times += own
            answered += answers_of_it
        for process in self.processes:
            process.join()
        return times, answered


def measure(bench):
    own, others = cores()
    keys = keyset.of(KEYS)
    control_plane = ControlPlane(bench, "control-plane", others, keys.database)
    control_plane.post("/v1/workspaces", {"name": "Newcomer", "slug": "newcomer"})
    port = bench.port()
    config = bootstrap(listener("neighbours", port, ours("neighbours", foreign_keys=True)), cluster("latchkey", control_plane.port))
    envoy = bench.envoy("envoy", config, own, WORKERS, LATCHKEY_EDGE_TOKEN=control_plane.edge_token)
    wait_until("a ready Envoy", lambda: answers(port, READY_PATH) == 200, 60)
    admin = Admin(control_plane)
    expected = f"enforced=true, edges=1, workers={WORKERS + 1}"
    wait_until("the registration of every worker", lambda: admin.change(keys.paths[0], "activate", 5)[1].startswith(expected), 60)
    # The first keys are revoked, and the last ones are used for requests.
    secrets = keys.secrets[-CONNECTIONS:]
    rows, ratio = [], None

    say(f"neighbours: {QUIET_SECONDS} s without an import")
    requests, revoking = PacedRequests(port, secrets), Revoking(admin, keys)
    time.sleep(QUIET_SECONDS)
    enforced = revoking.end()
    times, answered = requests.end()
    quiet = percentile(times, 99)
    rows.append(row("nothing else", times, answered, enforced))
    before = memory(envoy, "VmRSS")

    requests, revoking, took = PacedRequests(port, secrets), Revoking(admin, keys), []
    for number in range(IMPORTS):
        say(f"neighbours: import {number + 1} of {IMPORTS}")
        body = "".join(line(number * IMPORTED + index) for index in range(IMPORTED))
        began = time.monotonic()
        importing = multiprocessing.Process(target=send, args=(control_plane, body))
        importing.start()
        importing.join()
        if importing.exitcode:
            fail("the import failed")
        took.append(time.monotonic() - began)
    enforced = revoking.end()
    times, answered = requests.end()
    loud = percentile(times, 99)
    rows.append(row("an import", times, answered, enforced))
    most = memory(envoy, "VmHWM")
    return "\n".join([
        f"{IMPORTED:,} digests with {len(NETWORKS)} networks each, imported {IMPORTS} times, while there are {KEYS:,} keys of others; an Envoy with {WORKERS} workers on one core; "
        f"the control plane and all clients have another. The import took {', '.join(f'{seconds:.1f}' for seconds in took)} s.",
        "",
        table(["meanwhile", "requests of another tenant", "p50, ms", "p99, ms", "most, ms", "its revocations enforced, ms, p50", "most", "answers"], rows),
        "",
        f"Envoy's resident memory: {before / 1e6:.0f} MB before, {most / 1e6:.0f} MB at most.",
        "",
        budget("another tenant's p99 during an import", max(BUDGET_RATIO * quiet, BUDGET_MS), loud, " ms"),
    ])


def row(what, times, answered, enforced):
    figures = [f"{value:.1f}" for value in (percentile(times, 50), percentile(times, 99), max(times))]
    waits = [f"{percentile(enforced, 50):.0f}", f"{max(enforced):.0f}"]
    return [what, f"{len(times):,}", *figures, *waits, ", ".join(f"{count:,} x {answer}" for answer, count in answered.most_common())]


class Revoking:
    """Deactivates and activates keys, one after the other, and waits until each change is enforced."""

    def __init__(self, admin, keys):
        self.admin, self.keys, self.ends, self.times = admin, keys, False, []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        number = 0
        while not self.ends:
            took, enforcement, _ = self.admin.change(self.keys.paths[number // 2 % 1000], ACTIONS[number % 2], 30)
            if not enforcement.startswith("enforced=true"):
                say(f"neighbours: {enforcement!r} after {took:.0f} ms")
            self.times.append(took)
            number += 1
            time.sleep(0.2)

    def end(self):
        self.ends = True
        self.thread.join()
        return self.times


def line(number):
    digest = (number * 2_654_435_761 % (1 << 64)).to_bytes(8, "big").hex() + f"{number:048x}"
    return json.dumps({"digest": digest, "name": f"key {number}", "expires_in": "none", "ip_allowlist": NETWORKS, "scopes": {"reviews": "read"}}, separators=(",", ":")) + "\n"


def send(control_plane, body):
    connection = http.client.HTTPConnection("127.0.0.1", control_plane.port, timeout=300)
    headers = {"authorization": f"Bearer {control_plane.admin_token}", "content-type": "application/jsonl"}
    connection.request("POST", "/v1/workspaces/newcomer/keys/import", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        fail(f"the import was answered {answer.status}: {text[:500].decode()}")
