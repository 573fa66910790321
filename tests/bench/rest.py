# The cost of lists and look-ups in REST by the number of keys: the same requests among few keys and among many.
"""Two control planes, each with all its keys in one workspace, and a keep-alive connection to each. Each request is
sent to the first and then to the second. The end of a list is found by its own cursors, from the first page on. Among
many keys, about one in a thousand is inactive."""

import http.client
import json
import time
import urllib.parse

import keyset
from harness import ControlPlane, budget, cores, fail, median, percentile, say, table

LIMIT_SECONDS = 900
FEW, MANY = 1_000, 1_000_000
TIMED = 101
LARGEST_PAGE = 200
# The limit for the first page of many keys compared with that of few, and for the last page compared with the first.
GROWS_AT_MOST = 1.5


class Client:
    """A keep-alive connection of the platform admin."""

    def __init__(self, control_plane):
        self.token = control_plane.admin_token
        self.connection = http.client.HTTPConnection("127.0.0.1", control_plane.port, timeout=120)

    def ask(self, path, body=None):
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        self.connection.request("POST" if body else "GET", path, body and json.dumps(body), headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            fail(f"{path} was answered {answer.status}: {text.decode()}")
        return text

    def timed(self, request):
        """Milliseconds until the answer is there."""
        began = time.monotonic()
        self.ask(*request)
        return (time.monotonic() - began) * 1000

    def end_of(self, path):
        """The path of the last full page of a list."""
        page, cursor = path, ""
        while True:
            next_cursor = json.loads(self.ask(f"{path}&limit={LARGEST_PAGE}{cursor}"))["next_cursor"]
            if not next_cursor:
                return page
            cursor = f"&cursor={next_cursor}"
            page = path + cursor


def measure(bench):
    own, others = cores()
    sizes = []
    for count in (FEW, MANY):
        keys = keyset.of(count, workspaces=1)
        control_plane = ControlPlane(bench, f"control-plane-{count}", own, keys.database)
        sizes.append((control_plane, requests(Client(control_plane), keys)))
    rows, medians = [], {}
    clients = [Client(control_plane) for control_plane, _ in sizes]
    for name in sizes[0][1]:
        say(f"rest: {name}")
        times = ([], [])
        began = time.monotonic()
        # A slow request is sent less often.
        while len(times[0]) < TIMED and (len(times[0]) < 11 or time.monotonic() - began < 20):
            for client, (_, requested), seen in zip(clients, sizes, times):
                seen.append(client.timed(requested[name]))
        few, many = (median(seen) for seen in times)
        medians[name] = few, many
        rows.append([name, f"{few:.2f}", f"{many:.2f}", f"{percentile(times[1], 99):.2f}", f"{many / few:.2f}"])
    grows = lambda name: medians[name][1] / medians[name][0]
    deep = lambda end, start: medians[end][1] / medians[start][1]
    heads = ["request", f"{FEW:,} keys, ms", f"{MANY:,} keys, ms", "p99 of these", "ratio"]
    return "\n".join([
        f"Medians of up to {TIMED} requests, in turn with the same ones among {FEW:,} keys; pages of 50. The control planes have a core, the "
        "client another.",
        "",
        table(heads, rows),
        "",
        budget("the first page among many keys, to that among few,", GROWS_AT_MOST, grows("first page"), " x"),
        budget("the last page among many keys, to the first,", GROWS_AT_MOST, deep("last page", "first page"), " x"),
        budget("by name, the same,", GROWS_AT_MOST, deep("by name, last page", "by name, first page"), " x"),
        budget("identify among many keys, to that among few,", GROWS_AT_MOST, grows("identify"), " x"),
    ])


def requests(client, keys):
    """The requests by their names: path and body."""
    known = keys.paths[0]
    listed = known.rsplit("/", 1)[0]
    log = listed.rsplit("/", 1)[0] + "/audit-events?"
    one = json.loads(client.ask(known))
    search = lambda text: f"{listed}?q={urllib.parse.quote(text)}"
    say("rest: finding the end of the lists")
    paths = {
        "first page": f"{listed}?",
        "last page": client.end_of(f"{listed}?sort=-created_at"),
        "by name, first page": f"{listed}?sort=name",
        "by name, last page": client.end_of(f"{listed}?sort=name"),
        "status=active": f"{listed}?status=active",
        "status=inactive, one in a thousand": f"{listed}?status=inactive",
        "status=inactive by name": f"{listed}?status=inactive&sort=name",
        "status=expired, none": f"{listed}?status=expired",
        "q: part of every name": search("key"),
        "q: one name": search(one["name"]),
        "q: last characters": search(one["last_characters"]),
        "q: an id": search(one["id"]),
        "q: nothing": search("nowhere"),
        "one key": known,
        "audit log, an action that nothing did": log + "action=nothing",
    }
    by_name = {name: (path,) for name, path in paths.items()}
    by_name["identify"] = ("/v1/keys/identify", {"secret": keys.secrets[0]})
    return by_name
