# How long a revocation takes until it is enforced on every worker of two Envoys, and where the time goes.
"""A control plane with 100,000 keys, and two Envoys with two workers each. A key is deactivated with `Prefer: wait`, so that the answer
comes once every worker has acknowledged; then it is activated in the same way. The parts of the time are measured by asking less: a change
that waits for nobody ends with the commit, and one whose key is used until Envoy refuses it ends when a worker has applied it."""

import http.client
import re
import time

import keyset
from delta import Client
from envoy_config import bootstrap, cluster, listener, ours
from harness import READY_PATH, ControlPlane, answers, budget, cores, fail, median, percentile, say, table, wait_until

LIMIT_SECONDS = 600
KEYS, ENVOYS, WORKERS = 100_000, 2, 2
CHANGES = 200
BUDGET_MS = 50


def measure(bench):
    own, others = cores()
    keys = keyset.of(KEYS)
    control_plane = ControlPlane(bench, "control-plane", others, keys.database)
    ports = [bench.port() for _ in range(ENVOYS)]
    for number, port in enumerate(ports):
        config = bootstrap(listener("enforced", port, ours("enforced")), cluster("latchkey", control_plane.port))
        bench.envoy(f"envoy-{number}", config, own, WORKERS, LATCHKEY_EDGE_TOKEN=control_plane.edge_token)
    for port in ports:
        wait_until(f"{KEYS:,} keys at each Envoy", lambda port=port: answers(port, READY_PATH) == 200, 120)
    admin = Admin(control_plane)
    expected = f"enforced=true, edges={ENVOYS}, workers={ENVOYS * (WORKERS + 1)}"
    wait_until("that every worker is known", lambda: admin.change(keys.paths[0], "activate", 5)[1].startswith(expected), 60)

    say(f"enforced: {CHANGES} changes that wait for nobody")
    committed = [admin.change(keys.paths[number // 2], ACTIONS[number % 2], None)[0] for number in range(CHANGES)]
    say(f"enforced: {CHANGES} changes until a worker refuses")
    clients, applied = [Client(port) for port in ports], []
    for number in range(CHANGES):
        secret, path, client = keys.secrets[number], keys.paths[number], clients[number % ENVOYS]
        client.until(secret, 200, time.monotonic())
        began = time.monotonic()
        admin.change(path, "deactivate", None)
        applied.append(client.until(secret, 401, began))
        admin.change(path, "activate", None)
    say(f"enforced: {CHANGES} changes until every worker has acknowledged")
    enforced, elapsed = [], []
    for number in range(CHANGES):
        took, enforcement = admin.change(keys.paths[number // 2], ACTIONS[number % 2], 10)
        found = re.search(r"elapsed_ms=(\d+)", enforcement)
        if not enforcement.startswith(expected) or not found:
            fail(f"a change was answered {enforcement!r}, not {expected!r}")
        enforced.append(took)
        elapsed.append(int(found.group(1)))
    kinds = [
        ("committed and answered", committed),
        ("refused by a worker of one Envoy: woken, fetched, published, applied", applied),
        ("enforced on every worker, and answered", enforced),
        ("the same by the control plane's clock, from the commit on", elapsed),
    ]
    rows = [[what, *(f"{value:.1f}" for value in (median(seen), percentile(seen, 90), percentile(seen, 99), max(seen)))] for what, seen in kinds]
    return "\n".join([
        f"{KEYS:,} keys, {ENVOYS} Envoys with {WORKERS} workers each, on one core; the control plane and the client have another. {CHANGES} changes of a kind, one "
        "after the other.",
        "",
        table(["from sending a change until it is, ms", "median", "p90", "p99", "max"], rows),
        "",
        budget("a revocation enforced on every worker, p99,", BUDGET_MS, percentile(enforced, 99), " ms"),
    ])


ACTIONS = ("deactivate", "activate")


class Admin:
    """A keep-alive connection that changes keys."""

    def __init__(self, control_plane):
        self.token = control_plane.admin_token
        self.connection = http.client.HTTPConnection("127.0.0.1", control_plane.port, timeout=30)

    def change(self, path, action, wait):
        """Milliseconds until the answer, and what it says of enforcement."""
        headers = {"authorization": f"Bearer {self.token}", **({"prefer": f"wait={wait}"} if wait else {})}
        began = time.monotonic()
        self.connection.request("POST", f"{path}/{action}", headers=headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            fail(f"POST {path}/{action} was answered {answer.status}: {text.decode()}")
        return (time.monotonic() - began) * 1000, answer.headers.get("latchkey-enforcement", "")
