# The cost of the number of keys for an Envoy: CPU a request, memory, and the time and stalls of loading them.
"""Two control planes, and an Envoy at each. First each Envoy is restarted some times, with a client that sends the next
request as soon as it is answered, while the event loops record how long they were busy. Then, in each round, each Envoy
gets a few seconds of keep-alive load with changing keys, one after the other."""

import os
import pathlib
import re
import time

import keyset
from envoy_config import bootstrap, cluster, listener, ours
from harness import READY_PATH, ROUNDS, SECONDS, ControlPlane, answers, budget, cores, cost_us, median, memory, say, table, wait_until, worker_of, wrk
from urllib.request import urlopen

LIMIT_SECONDS = 1200
FEW, MANY = 1_000, 1_000_000
STARTS = 6


class Site:
    """A control plane with `count` keys, and the config of an Envoy at it."""

    def __init__(self, bench, count, core):
        self.bench, self.count = bench, count
        self.keys = keyset.of(count)
        self.secrets = self.keys.write_secrets(bench.folder / f"secrets-{count}")
        self.control_plane = ControlPlane(bench, f"control-plane-{count}", core, self.keys.database)
        self.port, self.admin = bench.port(), bench.port()
        listeners = listener("keys", self.port, ours("keys"))
        self.config = bootstrap(listeners, cluster("latchkey", self.control_plane.port), self.admin, loop_stats=True)

    def envoy(self, core, concurrency=1):
        token = self.control_plane.edge_token
        return self.bench.envoy(f"envoy-{self.count}", self.config, core, concurrency, LATCHKEY_EDGE_TOKEN=token)

    def is_ready(self):
        return answers(self.port, READY_PATH) == 200

    def worker_has_keys(self):
        return all(answers(self.port, "/v1/plain", **{"x-api-key": self.keys.secrets[0]}) == 200 for _ in range(4))

    def load(self):
        return {"script": "keys.lua", "arguments": [self.secrets]}

    def longest_loop_ms(self, loop):
        """The longest turn of an event loop, as exactly as the histogram's buckets show it."""
        with urlopen(f"http://127.0.0.1:{self.admin}/stats?filter=dispatcher.loop_duration_us", timeout=5) as answer:
            text = answer.read().decode()
        found = re.search(rf"^{re.escape(loop)}\.dispatcher\.loop_duration_us: .*P100\([^,]*,([0-9.e+]+)\)", text, re.MULTILINE)
        return float(found.group(1)) / 1000 if found else None


def measure(bench):
    own, others = cores()
    sites = {count: Site(bench, count, others) for count in (FEW, MANY)}
    started = {count: {"ready": [], "worker": [], "main": [], "client": []} for count in sites}
    for number in range(STARTS):
        for count, site in sites.items():
            say(f"keys: start {number + 1} of {STARTS} with {count:,} keys")
            for name, value in start(bench, site, own, others).items():
                started[count][name].append(value)
    costs = requests(sites, own, others)
    resident = memories(bench, sites, own)
    return section(sites, costs, started, resident)


def requests(sites, own, others):
    envoys = {count: site.envoy(own) for count, site in sites.items()}
    for count, site in sites.items():
        wait_until(f"{count:,} keys at Envoy", site.worker_has_keys, 120)
    costs = {count: [] for count in sites}
    for number in range(ROUNDS + 1):
        say(f"keys: round {number} of {ROUNDS}" if number else "keys: warming up")
        for count, site in sites.items():
            cost = cost_us(worker_of(envoys[count]), site.port, others, **site.load())
            if number:
                costs[count].append(cost)
    for site, envoy in zip(sites.values(), envoys.values()):
        site.bench.end(envoy)
    return costs


def start(bench, site, own, others):
    """One start of an Envoy: seconds until it is ready, milliseconds of the longest stalls."""
    began = time.monotonic()
    envoy = site.envoy(own)
    wait_until("Envoy's start", lambda: answers(site.port, READY_PATH), 30, 0.005)
    alone(envoy, own, others)
    # The first answers are `not-ready`, the rest are 200 or a denial; only the time of each matters.
    probe = bench.run("probe", ["wrk", "-t1", "-c1", "-d20s", f"http://127.0.0.1:{site.port}{READY_PATH}"], others)
    wait_until(f"{site.count:,} keys at Envoy", site.is_ready, 120, 0.005)
    ready = time.monotonic() - began
    # The histograms are merged twice a second.
    seen = {}

    def is_reported():
        seen.update(worker=site.longest_loop_ms("listener_manager.worker_0"), main=site.longest_loop_ms("server"))
        return None not in seen.values() and time.monotonic() - began > ready + 2

    wait_until("the event loops' figures", is_reported, 30, 0.2)
    bench.interrupt(probe)
    text = (bench.folder / "probe.log").read_text()
    longest = re.findall(r"Latency +[0-9.]+[mu]?s +[0-9.]+[mu]?s +([0-9.]+)(us|ms|s)", text)[-1]
    bench.end(envoy)
    return {"ready": ready, **seen, "client": float(longest[0]) * {"us": 0.001, "ms": 1, "s": 1000}[longest[1]]}


def alone(envoy, own, others):
    """Leaves a core to the worker and moves all other threads, and this process, to the other: a turn of an event loop
    is timed by the wall clock, so any other thread on the core would count."""
    os.sched_setaffinity(0, {others})
    for task in pathlib.Path(f"/proc/{envoy.pid}/task").iterdir():
        if not (task / "comm").read_text().startswith("wrk:worker_"):
            os.sched_setaffinity(int(task.name), {others})


def memories(bench, sites, own):
    """Resident bytes of an Envoy by number of keys and of workers, once it has them."""
    resident = {}
    for count, site in sites.items():
        for concurrency in (1, 2):
            say(f"keys: memory of {concurrency} workers with {count:,} keys")
            envoy = site.envoy(own, concurrency)
            wait_until(f"{count:,} keys at Envoy", site.worker_has_keys, 120)
            settled(envoy)
            resident[count, concurrency] = memory(envoy, "VmRSS")
            bench.end(envoy)
    return resident


def settled(envoy, still=1.5):
    """Waits until the memory of a process has not changed for a while: every VM has its keys."""
    last, since = 0, time.monotonic()

    def is_still():
        nonlocal last, since
        now = memory(envoy, "VmRSS")
        if abs(now - last) > 1 << 20:
            last, since = now, time.monotonic()
        return time.monotonic() - since > still

    wait_until("a constant memory of Envoy", is_still, 120, 0.1)


def section(sites, costs, started, resident):
    few, many = (median(costs[count]) for count in (FEW, MANY))
    more = MANY - FEW
    grown = {workers: (resident[MANY, workers] - resident[FEW, workers]) / more for workers in (1, 2)}
    # One more worker is one more VM; the rest of the growth exists once.
    vm = grown[2] - grown[1]
    shared = grown[1] - 2 * vm
    page_bytes = int(sites[MANY].control_plane.logged(r"made a snapshot.* bytes=(\d+)") or 0)
    made_ms = sites[MANY].control_plane.logged(r"made a snapshot.* elapsed_ms=(\d+)")
    heads = ["", f"{FEW:,} keys", f"{MANY:,} keys"]
    middle = lambda name, count: f"{median(started[count][name][1:]):.2f}"
    least = lambda name, count: f"{min(started[count][name][1:]):.2f} ({middle(name, count)})"
    rows = [
        ["CPU of the worker a request, µs", f"{few:.1f}", f"{many:.1f}"],
        ["from Envoy's start to ready, s", middle("ready", FEW), middle("ready", MANY)],
        ["the first start, for which the control plane makes the snapshot, s", *(f"{started[count]['ready'][0]:.2f}" for count in (FEW, MANY))],
        ["longest turn of the worker's event loop while loading, ms", least("worker", FEW), least("worker", MANY)],
        ["longest turn of the main event loop while loading, ms", least("main", FEW), least("main", MANY)],
        ["longest answer to a client while loading, ms", least("client", FEW), least("client", MANY)],
        *([f"resident, {workers} worker(s), MB", *(f"{resident[count, workers] / 1e6:.0f}" for count in (FEW, MANY))] for workers in (1, 2)),
    ]
    lines = [
        f"Requests: medians of {ROUNDS} interleaved rounds of {SECONDS} s, direct response, up to {keyset.KNOWN:,} different keys. "
        f"Starts: medians of {STARTS - 1}, 1 worker; of the longest durations the smallest, and the median in parentheses, because other load on the machine "
        "only adds to them. The event loops' figures are upper bounds of a histogram's buckets, and include the VMs' own start.",
        "",
        table(heads, rows),
        "",
        f"One key more costs an Envoy with 1 worker {grown[1]:.0f} bytes of resident memory: {vm:.0f} a VM, which is what a second worker adds, and "
        f"{shared:.0f} once. On the wire it has {page_bytes / MANY:.0f} bytes; the control plane made that snapshot in {made_ms} ms.",
        "",
        budget("CPU a request, to that with few keys,", 1.1, many / few, " x"),
        budget("memory a key a VM", 96, vm, " bytes"),
        budget("memory a key in shared data", 96, shared, " bytes"),
        budget("longest turn of the worker's event loop", 5, min(started[MANY]["worker"][1:]), " ms"),
    ]
    return "\n".join(lines)
