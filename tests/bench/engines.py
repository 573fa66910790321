# PostgreSQL with one and several control planes, compared with SQLite: durable creates, revocations, waiting edges.
"""SQLite with one control plane, and PostgreSQL with one and with three, one after the other in each round. PostgreSQL
is started by `scripts/postgres`, with fsync, on the same disk. All control planes and PostgreSQL share one core,
clients and Envoys the other: so three control planes show their overhead, and not what separate machines would gain."""

import re
import subprocess
import time

from edges import EDGES, Edges
from enforced import ACTIONS, Admin
from envoy_config import bootstrap, cluster, listener, ours
from harness import (
    READY_PATH,
    ROOT,
    ROUNDS,
    SECONDS,
    ControlPlane,
    answers,
    cores,
    fail,
    median,
    percentile,
    printed,
    process_cpu_ns,
    requests_in,
    say,
    table,
    wait_until,
    wrk_begun,
)

LIMIT_SECONDS = 900
CLIENTS = 16
ENVOYS, WORKERS = 2, 2
CHANGES = 100
EDGE_CHANGES = 10
# Engine, and how many control planes.
SITES = (("SQLite", 1), ("PostgreSQL", 1), ("PostgreSQL", 3))


class Postgres:
    """A server of this measurement."""

    def __init__(self, bench, core):
        self.process = bench.run("postgres", [ROOT / "scripts/postgres"], core, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.folder = self.process.stdout.readline().decode().strip()
        if self.process.stdout.readline().decode().strip() != "ready":
            fail("PostgreSQL did not start: see its error above")

    def database(self, name):
        """The URL of a new database."""
        self.ask("postgres", f"CREATE DATABASE {name}")
        return f"postgres://latchkey@/{name}?host={self.folder}"

    def ask(self, database, sql):
        words = ["psql", "--quiet", "--host", self.folder, "--username", "latchkey", "--dbname", database, "--command", sql]
        subprocess.run(words, check=True, capture_output=True)


class Site:
    """Control planes over one database, and a workspace."""

    def __init__(self, bench, postgres, engine, count, core):
        self.name = f"{engine}, {count} control plane{'s' if count > 1 else ''}"
        word = f"{engine}_{count}".lower()
        database = postgres.database(word) if engine == "PostgreSQL" else None
        first = ControlPlane(bench, f"{word}_0", core, database)
        others = [ControlPlane(bench, f"{word}_{number}", core, database, tokens=first.tokens) for number in range(1, count)]
        self.control_planes = [first, *others]
        first.post("/v1/workspaces", {"name": "Acme", "slug": "acme"})

    def creates(self, core, seconds=SECONDS):
        """Keys created a second by all clients, which are spread over the control planes."""
        load = {"path": "/v1/workspaces/acme/keys", "script": "create.lua", "arguments": [self.control_planes[0].admin_token], "seconds": seconds}
        shares = [len(range(number, CLIENTS, len(self.control_planes))) for number in range(len(self.control_planes))]
        begun = [wrk_begun(each.port, core, connections=share, **load) for each, share in zip(self.control_planes, shares)]
        return sum(requests_in(printed(run)) for run in begun) / seconds

    def key(self):
        key = self.control_planes[0].post("/v1/workspaces/acme/keys", {"name": "bench", "expires_in": "none"})["key"]["id"]
        return f"/v1/workspaces/acme/keys/{key}"


def measure(bench):
    own, others = cores()
    postgres = Postgres(bench, own)
    sites = [Site(bench, postgres, engine, count, own) for engine, count in SITES]
    parts = [creates(sites, others), enforced(bench, sites, others), edges(bench, sites, others)]
    return "\n\n".join(parts)


def creates(sites, core):
    rates = {site.name: [] for site in sites}
    for site in sites:
        site.creates(core, 1)
    for number in range(ROUNDS):
        say(f"engines: creates, round {number + 1} of {ROUNDS}")
        for site in sites:
            rates[site.name].append(site.creates(core))
    first = median(rates[sites[0].name])
    rows = [[name, f"{median(seen):.0f}", f"{min(seen):.0f} to {max(seen):.0f}", f"{median(seen) / first:.2f}"] for name, seen in rates.items()]
    return "\n".join([
        f"Durable creates by {CLIENTS} clients; medians of {ROUNDS} interleaved rounds of {SECONDS} s.",
        "",
        table(["", "a second", "from, to", "to SQLite"], rows),
    ])


def enforced(bench, sites, core):
    rows = []
    for site in sites:
        say(f"engines: {site.name}: changes until every worker has acknowledged")
        word = site.control_planes[0].name
        envoys, ports = [], [bench.port() for _ in range(ENVOYS)]
        for number, port in enumerate(ports):
            config = bootstrap(listener(word, port, ours(word)), cluster("latchkey", *(each.port for each in site.control_planes)))
            token = site.control_planes[0].edge_token
            envoys.append(bench.envoy(f"{word}-envoy-{number}", config, core, WORKERS, LATCHKEY_EDGE_TOKEN=token))
        for port in ports:
            wait_until("the keys at each Envoy", lambda port=port: answers(port, READY_PATH) == 200, 60)
        admins, key = [Admin(each) for each in site.control_planes], site.key()
        expected = f"enforced=true, edges={ENVOYS}, workers={ENVOYS * (WORKERS + 1)}"
        for admin in admins:
            wait_until("the registration of every worker", lambda admin=admin: admin.change(key, "activate", 5)[1].startswith(expected), 60)
        times, committed = [], []
        for number in range(CHANGES):
            admin = admins[number // 2 % len(admins)]
            took, enforcement, _ = admin.change(key, ACTIONS[number % 2], 10)
            found = re.search(r"elapsed_ms=(\d+)", enforcement)
            if not enforcement.startswith(expected) or not found:
                fail(f"a change was answered {enforcement!r}, not {expected!r}")
            times.append(took)
            committed.append(took - int(found.group(1)))
        rows.append([site.name, *(f"{value:.1f}" for value in (median(committed), median(times), percentile(times, 90), percentile(times, 99), max(times)))])
        # Before they end, so that they receive the answer that they are retired: otherwise the other control planes
        # would wait for them.
        for edge in site.control_planes[0].get("/v1/edges")["items"]:
            site.control_planes[0].retire(edge["instance"])
        for process in envoys:
            bench.end(process)
    return "\n".join([
        f"A change until it is enforced and answered: {ENVOYS} Envoys with {WORKERS} workers, which use the control planes in turn; {CHANGES} changes, one after the "
        "other, at each control plane in turn.",
        "",
        table(["ms", "until committed, median", "until enforced, median", "p90", "p99", "max"], rows),
    ])


def edges(bench, sites, core):
    rows = []
    for site in sites:
        say(f"engines: {site.name}: {EDGES:,} edges connect and wait")
        edges = Edges(bench, site.control_planes, site.key(), core)
        edges.line()
        time.sleep(2)
        before = sum(process_cpu_ns(each.process) for each in site.control_planes)
        times = []
        for _ in range(EDGE_CHANGES):
            times.append(edges.change()["enforced_ms"])
            # Lets all edges wait again before the next change.
            time.sleep(0.5)
        cpu_ms = (sum(process_cpu_ns(each.process) for each in site.control_planes) - before) / 1e6 / EDGE_CHANGES
        resident = sum(each.rss() for each in site.control_planes) / 1e6
        bench.end(edges.process)
        for each in site.control_planes:
            each.stop()
        rows.append([site.name, f"{median(times):.0f}", f"{max(times):.0f}", f"{cpu_ms:.0f}", f"{resident:.0f}"])
    return "\n".join([
        f"{EDGES:,} waiting edges, spread over the control planes; {EDGE_CHANGES} changes, each until all edges have acknowledged it.",
        "",
        table(["", "enforced, ms, median", "max", "CPU of the control planes a change, ms", "their memory, MB"], rows),
    ])
