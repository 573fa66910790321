# REST among few keys and among many: pages of the list at both ends, a search, and `identify`.
"""Two control planes, one with 1,000 keys and one with 1,000,000, all in one workspace. The same requests go to both in turn, on one
connection each, one after the other; what counts is the time until an answer is read."""

import http.client
import json
import time

import keyset
from harness import ROUNDS, ControlPlane, cores, fail, median, say, table

LIMIT_SECONDS = 900
FEW, MANY = 1_000, 1_000_000
# Requests of a kind in each round.
REQUESTS = 20
LIST = "/v1/workspaces/workspace-0/keys"


class Site:
    def __init__(self, bench, count, core):
        keys = keyset.of(count, workspaces=1)
        self.control_plane = ControlPlane(bench, f"control-plane-{count}", core, keys.database)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.control_plane.port, timeout=60)
        self.secrets = keys.secrets
        say(f"rest: walking to the end of {count:,} keys")
        self.last_page = self.walk("sort=created_at")
        # It would idle for too long until the other one has been walked; the next request opens another.
        self.connection.close()

    def ask(self, method, path, body=None):
        headers = {"authorization": f"Bearer {self.control_plane.admin_token}", "content-type": "application/json"}
        self.connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            fail(f"{method} {path} was answered {answer.status}: {text.decode()}")
        return json.loads(text)

    def walk(self, query):
        """The path of the last page, by the cursor of the page before it."""
        path, cursor = f"{LIST}?{query}&limit=200", ""
        while following := self.ask("GET", path + cursor)["next_cursor"]:
            cursor = f"&cursor={following}"
        return path + cursor

    def kinds(self):
        secret = self.secrets[len(self.secrets) // 2]
        return {
            "a first page of 50, newest first": ("GET", f"{LIST}?limit=50"),
            "a first page of 50, by name": ("GET", f"{LIST}?limit=50&sort=name"),
            "a first page of 50, active ones": ("GET", f"{LIST}?limit=50&status=active"),
            "a first page of 200, oldest first": ("GET", f"{LIST}?limit=200&sort=created_at"),
            "the last page of at most 200, oldest first": ("GET", self.last_page),
            "a search by a name that no key has": ("GET", f"{LIST}?limit=50&q=nobody"),
            "identify": ("POST", "/v1/keys/identify", {"secret": secret}),
        }


def measure(bench):
    own, others = cores()
    sites = {count: Site(bench, count, others) for count in (FEW, MANY)}
    took = {(count, kind): [] for count, site in sites.items() for kind in site.kinds()}
    for number in range(ROUNDS):
        say(f"rest: round {number + 1} of {ROUNDS}")
        for count, site in sites.items():
            for kind, request in site.kinds().items():
                # What passes over every key is asked for once.
                for _ in range(1 if "search" in kind else REQUESTS):
                    began = time.perf_counter()
                    site.ask(*request)
                    took[count, kind].append((time.perf_counter() - began) * 1000)
    rows = []
    for kind in sites[FEW].kinds():
        few, many = (median(took[count, kind]) for count in (FEW, MANY))
        rows.append([kind, f"{few:.2f}", f"{many:.2f}", f"{many / few:.2f}"])
    return "\n".join([
        f"Milliseconds until the answer was read; medians of {ROUNDS} interleaved rounds of {REQUESTS} requests.",
        "",
        table(["", f"{FEW:,} keys", f"{MANY:,} keys", "ratio"], rows),
    ])
