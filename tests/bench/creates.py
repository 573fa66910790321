# Durable creates a second, compared with the disk's own rate: each answer comes after its fsync.
"""A control plane and 16 clients, each of which creates a key and waits for the answer before it creates the next. The
rounds alternate with loops of 4 KiB writes, each followed by fdatasync, in the same folder: into a growing file, and
over existing blocks, as a reused write-ahead log does."""

import os
import time

from harness import ROUNDS, SECONDS, ControlPlane, cores, median, requests_in, say, table, wrk

LIMIT_SECONDS = 600
CLIENTS = 16
TARGET = 1_000


def measure(bench):
    own, others = cores()
    control_plane = ControlPlane(bench, "control-plane", own)
    control_plane.post("/v1/workspaces", {"name": "Acme", "slug": "acme"})
    path, token = "/v1/workspaces/acme/keys", control_plane.admin_token
    load = {"path": path, "script": "create.lua", "arguments": [token]}
    wrk(control_plane.port, others, connections=CLIENTS, seconds=1, **load)
    growing, over, alone, together = [], [], [], []
    for number in range(ROUNDS):
        say(f"creates: round {number + 1} of {ROUNDS}")
        growing.append(fsyncs(bench.folder / f"growing-{number}", lambda count: count))
        over.append(fsyncs(bench.folder / "growing-0", lambda count: count % 64))
        for clients, rates in [(1, alone), (CLIENTS, together)]:
            rates.append(requests_in(wrk(control_plane.port, others, connections=clients, **load)) / SECONDS)
    rows = [
        [what, f"{median(rates):.0f}", f"{min(rates):.0f} to {max(rates):.0f}"]
        for what, rates in [
            ("4 KiB write and fdatasync, a file that grows", growing),
            ("4 KiB write and fdatasync, over existing blocks", over),
            ("creates, 1 client", alone),
            (f"creates, {CLIENTS} clients", together),
        ]
    ]
    rate = median(together)
    word = "met" if rate >= TARGET else "missed"
    return "\n".join([
        f"Medians of {ROUNDS} interleaved rounds of {SECONDS} s; {os.stat(control_plane.database).st_size / 1e6:.0f} MB of database at the end.",
        "",
        table(["", "a second", "from, to"], rows),
        "",
        f"- budget: creates by {CLIENTS} clients at least {TARGET}/s if the disk allows it; measured {rate:.0f}/s: {word}",
    ])


def fsyncs(path, block_of):
    """Writes of 4 KiB a second, each on disk before the next. `block_of` returns the block of each."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    block, count = os.urandom(4096), 0
    began = time.monotonic()
    while time.monotonic() - began < SECONDS:
        os.pwrite(file, block, block_of(count) * len(block))
        os.fdatasync(file)
        count += 1
    os.close(file)
    return count / (time.monotonic() - began)
