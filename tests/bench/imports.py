# The cost of imports while they are received and applied, and how soon clients that never read are disconnected.
"""50 clients each send an import without its last byte: their bodies wait on disk. Then one import of 100,000 keys runs
alone. Last, 10,000 clients with a valid token request more than the system buffers for them, and never read."""

import errno
import hashlib
import http.client
import json
import os
import pathlib
import re
import resource
import socket
import time

from harness import ControlPlane, budget, cores, fail, memory, say, table, wait_until

LIMIT_SECONDS = 900
UNFINISHED = 50
# The size of a body: 50 of 5 MB fit into the 256 MiB for all.
UNFINISHED_BYTES = 5_000_000
KEYS = 100_000
NOTE = "x" * 200
READERS = int(os.environ.get("READERS", "10000"))
# Requests of each client, with answers of about 100 KB each.
PIPELINED = 40
PATH = "/v1/workspaces/acme/keys/import"


def line(name, number):
    digest = hashlib.sha256(f"{name}-{number}".encode()).hexdigest()
    return json.dumps({"digest": digest, "name": name, "expires_in": "none", "metadata": {"note": NOTE}}) + "\n"


def head(control_plane, method, path, more=""):
    token = f"authorization: Bearer {control_plane.admin_token}\r\n"
    return f"{method} {path} HTTP/1.1\r\nhost: a\r\n{token}{more}\r\n".encode()


def connected(control_plane, received=None):
    """A connection; `received` is how many bytes the system buffers for a client that doesn't read."""
    client = socket.socket()
    if received:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    client.connect(("127.0.0.1", control_plane.port))
    return client


def begun(control_plane, body):
    """An import without its last byte."""
    client = connected(control_plane)
    lengths = f"content-type: application/jsonl\r\ncontent-length: {len(body)}\r\n"
    client.sendall(head(control_plane, "POST", PATH, lengths) + body[:-1])
    return client


def queues(port):
    """How many connections have bytes in flight."""
    ends = [line.split()[1:5] for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    own = f":{port:04X}"
    return sum(1 for local, remote, _, queue in ends if (local.endswith(own) or remote.endswith(own)) and queue != "00000000:00000000")


def spooled(control_plane):
    """Bytes in open files that are already removed."""
    total = 0
    for entry in pathlib.Path(f"/proc/{control_plane.process.pid}/fd").iterdir():
        try:
            if os.readlink(entry).endswith(" (deleted)"):
                total += entry.stat().st_size
        except OSError:
            # The file was closed in the meantime.
            continue
    return total


def unfinished(control_plane):
    body = "".join(line("unfinished", number) for number in range(UNFINISHED_BYTES // len(line("unfinished", 0)))).encode()
    before = control_plane.rss()
    clients = [begun(control_plane, body) for _ in range(UNFINISHED)]
    wait_until("the receipt of all bodies", lambda: queues(control_plane.port) == 0, 120)
    held, on_disk = control_plane.rss(), spooled(control_plane)
    for client in clients:
        client.close()
    wait_until("the removal of all bodies", lambda: spooled(control_plane) == 0)
    return before, held, on_disk


def whole(control_plane):
    """Memory before, peak memory, seconds, and the length of the body."""
    body = "".join(line("theirs", number) for number in range(KEYS)).encode()
    before = control_plane.rss()
    # Resets the peak.
    pathlib.Path(f"/proc/{control_plane.process.pid}/clear_refs").write_text("5")
    connection = http.client.HTTPConnection("127.0.0.1", control_plane.port, timeout=300)
    headers = {"authorization": f"Bearer {control_plane.admin_token}", "content-type": "application/jsonl"}
    began = time.monotonic()
    connection.request("POST", PATH, body, headers)
    answer = connection.getresponse()
    imported = json.loads(answer.read()).get("imported")
    if imported != KEYS:
        fail(f"the import was answered {answer.status}")
    return before, memory(control_plane.process, "VmHWM"), time.monotonic() - began, len(body)


def served(control_plane):
    """How many connections the control plane has."""
    port = f":{control_plane.port:04X}"
    ends = [line.split()[1:4] for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # 01: established. 08: closed by the client only.
    return sum(1 for local, _, state in ends if local.endswith(port) and state in ("01", "08"))


def never_read(control_plane):
    """How many clients connected, the most at a time, the seconds until all were disconnected, and the peak memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # The first request shows the token, so the limit for an address doesn't apply.
    requests = head(control_plane, "GET", "/v1/workspaces") + head(control_plane, "GET", "/openapi.json") * PIPELINED
    clients = []
    for number in range(READERS):
        try:
            client = connected(control_plane, received=4096)
            client.setblocking(False)
            client.send(requests)
            clients.append(client)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                say(f"imports: the system allows only {number:,} connections")
                break
            raise
    sent = time.monotonic()
    most, held = 0, 0

    def are_gone():
        nonlocal most, held
        most, held = max(most, served(control_plane)), max(held, control_plane.rss())
        return served(control_plane) == 0

    wait_until("the disconnection of all clients that never read", are_gone, 180, pause=0.25)
    gone = time.monotonic() - sent
    for client in clients:
        client.close()
    return len(clients), most, gone, held


def measure(bench):
    own, _ = cores()
    control_plane = ControlPlane(bench, "control-plane", own)
    control_plane.post("/v1/workspaces", {"name": "Acme", "slug": "acme"})
    say(f"imports: {UNFINISHED} incomplete ones")
    alone, held, on_disk = unfinished(control_plane)
    say(f"imports: one of {KEYS:,} keys")
    before, most, seconds, length = whole(control_plane)
    control_plane.stop()
    control_plane.start()
    say(f"imports: {READERS:,} clients that never read")
    quiet = control_plane.rss()
    clients, at_once, gone, reading = never_read(control_plane)
    megabytes = lambda number: f"{number / 1e6:.0f} MB"
    rows = [
        [f"{UNFINISHED} imports of {UNFINISHED_BYTES / 1e6:.0f} MB, each without its last byte", megabytes(alone), megabytes(held)],
        [f"an import of {KEYS:,} keys, {megabytes(length)}, at most", megabytes(before), megabytes(most)],
        [f"{clients:,} clients that never read, at most", megabytes(quiet), megabytes(reading)],
    ]
    return "\n".join([
        table(["resident memory of the control plane", "before", "with"], rows),
        "",
        f"The unfinished bodies had {megabytes(on_disk)} on disk. The import took {seconds:.1f} s on one core.",
        f"{clients:,} clients with a valid token requested {PIPELINED} answers each and never read, {at_once:,} of them at once; all were disconnected {gone:.0f} s after the last request.",
        "",
        budget(f"more memory with {UNFINISHED} unfinished imports", 32, (held - alone) / (1 << 20), " MiB"),
        budget("more memory during an import", 64, (most - before) / (1 << 20), " MiB"),
        budget("time until clients that never read are disconnected", 45, gone, " s"),
    ])
