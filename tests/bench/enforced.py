# How long a revocation takes until it is enforced on every worker of two Envoys, and where the time goes.
"""A control plane with 100,000 keys, and two Envoys with two workers each. A key is deactivated with `Prefer: wait`, so
that the answer comes once every worker has acknowledged; then it is activated in the same way. The parts of the time
are measured with weaker conditions: a change that doesn't wait ends with the commit, and one whose key is used until
Envoy refuses it ends when a worker has applied it."""

import datetime
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
    keys = keyset.of(KEYS)
    site = Site(bench, "enforced", keys)
    admin, ports, expected = site.admin, site.ports, site.expected
    say(f"enforced: {CHANGES} changes that don't wait for any worker")
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
        took, enforcement, _ = admin.change(keys.paths[number // 2], ACTIONS[number % 2], 10)
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
        "",
        hops(bench, site, keys),
    ])


def hops(bench, site, keys):
    """The hops of a change, from the logs of all processes involved, which share a clock."""
    site.end()
    site = Site(bench, "hops", keyset.of(KEYS), is_traced=True)
    say(f"enforced: {CHANGES} changes with every hop logged")
    sent = {}
    for number in range(CHANGES):
        began = time.time()
        _, enforcement, revision = site.admin.change(keys.paths[number // 2], ACTIONS[number % 2], 10)
        if not enforcement.startswith(site.expected):
            fail(f"a change was answered {enforcement!r}, not {site.expected!r}")
        sent[revision] = (began, time.time())
    steps = {revision: {} for revision in sent}
    for at, what, revision in site.logged():
        if revision in steps:
            steps[revision].setdefault(what, []).append(at)
    ways = []
    for revision, (began, answered) in sorted(sent.items()):
        seen = steps[revision]
        missing = [what for what in HOPS if what not in seen]
        if missing:
            fail(f"revision {revision} was answered as enforced, but these hops were not logged: {', '.join(missing)}")
        # If several processes take a hop, it ends when the last one has taken it.
        ways.append([began, *(max(seen[what]) for what in HOPS), answered])
    parts = [[(after - before) * 1000 for before, after in zip(way, way[1:])] for way in ways]
    rows = [
        [name, *(f"{value:.2f}" for value in (median(times), percentile(times, 90), percentile(times, 99)))]
        for name, times in zip(HOP_NAMES, zip(*parts))
    ]
    return "\n".join([
        f"The same change hop by hop; each hop ends when the last Envoy or worker has done it. {CHANGES} changes with every hop logged, which takes time, too.",
        "",
        table(["hop, ms", "median", "p90", "p99"], rows),
    ])


# The log line of each hop of a change, in order.
HOPS = {
    "committed": r"committed revision=(\d+)",
    "answered": r"a delta is answered .*revision=(\d+)",
    "came": r"revision (\d+) is received",
    "published": r"revision (\d+) is published",
    "applied": r"revision (\d+) is applied",
    "acknowledged": r" acknowledged .*revision=(\d+)",
}
HOP_NAMES = [
    "commit: from sending until it is on disk",
    "wake: until the feed's answers are written",
    "fetch: until the leaders have them",
    "publish: until they are in shared data",
    "apply: until the other workers have them",
    "acknowledge: until the control plane has the acknowledgement of every worker",
    "answer: until the client has it",
]
ACTIONS = ("deactivate", "activate")


class Site:
    """A control plane with the keys, and Envoys that have them."""

    def __init__(self, bench, name, keys, is_traced=False):
        own, others = cores()
        self.bench, self.name = bench, name
        self.control_plane = ControlPlane(bench, f"{name}-control-plane", others, keys.database, log="latchkey=debug" if is_traced else "")
        options = ["--component-log-level", "wasm:debug", "--log-format", "%E.%f %v"] if is_traced else []
        self.ports = [bench.port() for _ in range(ENVOYS)]
        self.envoys = []
        for number, port in enumerate(self.ports):
            config = bootstrap(listener(name, port, ours(name)), cluster("latchkey", self.control_plane.port))
            token = self.control_plane.edge_token
            self.envoys.append(bench.envoy(f"{name}-envoy-{number}", config, own, WORKERS, options, LATCHKEY_EDGE_TOKEN=token))
        for port in self.ports:
            wait_until(f"{KEYS:,} keys at each Envoy", lambda port=port: answers(port, READY_PATH) == 200, 120)
        self.admin = Admin(self.control_plane)
        self.expected = f"enforced=true, edges={ENVOYS}, workers={ENVOYS * (WORKERS + 1)}"
        wait_until("the registration of every worker", lambda: self.admin.change(keys.paths[0], "activate", 5)[1].startswith(self.expected), 60)

    def end(self):
        """Ends all processes. The Envoys are retired; otherwise the next control plane on this database would wait for
        them."""
        for process in self.envoys:
            self.bench.end(process)
        for edge in self.control_plane.get("/v1/edges")["items"]:
            self.control_plane.retire(edge["instance"])
        self.control_plane.stop()

    def logged(self):
        """Instant, hop and revision of each log line for a hop."""
        for path in self.bench.folder.glob(f"{self.name}-*.log"):
            for line in path.read_text().splitlines():
                for what, pattern in HOPS.items():
                    if found := re.search(pattern, line):
                        yield instant(line.split()[0]), what, int(found.group(1))


def instant(text):
    """Unix seconds, from a time stamp of the control plane or of an Envoy."""
    if text.endswith("Z"):
        return datetime.datetime.fromisoformat(text).timestamp()
    return float(text)


class Admin:
    """A keep-alive connection that changes keys."""

    def __init__(self, control_plane):
        self.token = control_plane.admin_token
        self.connection = http.client.HTTPConnection("127.0.0.1", control_plane.port, timeout=30)

    def change(self, path, action, wait):
        """Milliseconds until the answer, its enforcement header, and the revision."""
        headers = {"authorization": f"Bearer {self.token}", **({"prefer": f"wait={wait}"} if wait else {})}
        began = time.monotonic()
        self.connection.request("POST", f"{path}/{action}", headers=headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            fail(f"POST {path}/{action} was answered {answer.status}: {text.decode()}")
        revision = int(answer.headers["latchkey-revision"])
        return (time.monotonic() - began) * 1000, answer.headers.get("latchkey-enforcement", ""), revision
