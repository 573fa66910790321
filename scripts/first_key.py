# The first steps after any start of Latchkey: a workspace, a key, and commands to try.
"""Creates the first key of a new control plane and prints commands to try, for scripts/demo and scripts/compose."""

import http.client
import json
import pathlib
import shlex
import socket
import time
import urllib.error
import urllib.request

READY_SECS = 60
WORKERS = 2

# Everything is on this machine, so no proxy is used.
urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))


class Failed(Exception):
    """Why the script can't run, in a sentence for the user."""


def refuse_taken(numbers):
    for name, port in numbers.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise Failed(f"port {port}, for the {name}, is in use: stop the program that uses it, or set DEMO_PORT_BASE") from None


def wait_until(what, condition, check=lambda: None, look="its log"):
    """Waits for a condition; `check` raises if it can no longer come true, `look` is where to find the reason."""
    deadline = time.monotonic() + READY_SECS
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not happen within {READY_SECS} s; see {look}")
        time.sleep(0.05)


def answers_200(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def every_worker_answers_200(port, path, headers):
    """Requests the path on several open connections, because Envoy spreads those over its workers."""
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=2) for _ in range(4 * WORKERS)]

    def status(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    try:
        for connection in connections:
            connection.connect()
        return all(status(connection) == 200 for connection in connections)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        for connection in connections:
            connection.close()


def ask(control_plane, token_file, path, body=None):
    """The answer, or None if a GET finds nothing; POST with a body, else GET."""
    token = pathlib.Path(token_file).read_text().strip()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(control_plane + path, data, headers), timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if body is None and error.code == 404:
            return None
        raise Failed(f"{path} was answered {error.code}: {error.read().decode(errors='replace')}") from None


def make(control_plane, token_file):
    """The workspace, which may exist from an earlier run, and a new key in it, as the API returns them."""
    workspace = ask(control_plane, token_file, "/v1/workspaces/acme") or ask(
        control_plane, token_file, "/v1/workspaces", {"name": "Acme", "slug": "acme"}
    )
    fields = {"name": "Review sync of the demo", "expires_in": "1d", "scopes": {"reviews": "read"}}
    return workspace, ask(control_plane, token_file, "/v1/workspaces/acme/keys", fields)


def save(state, control_plane, envoy, token_file, workspace, created):
    """Writes addresses, files and ids for scripts; no secret is among them."""
    fields = {
        "console": f"{control_plane}/console",
        "control_plane": control_plane,
        "envoy": envoy,
        "admin_token_file": str(token_file),
        "workspace": workspace["id"],
        "key_id": created["key"]["id"],
    }
    state.write_text(json.dumps(fields, indent=2) + "\n")


def token_name(token_file):
    """The path of the file, relative to the current folder if it is in there."""
    path = pathlib.Path(token_file)
    here = pathlib.Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def show(control_plane, envoy, token_file, created, what_runs):
    secret, key = created["secret"], created["key"]
    unknown = "lk_live_000000000000000000000000000000004cjNQE"
    curl = "curl -i"
    print(
        f"""
Latchkey runs: control plane {control_plane}, Envoy {what_runs}.
The key `{key["name"]}` may read reviews of workspace acme. Its secret is shown only once, here.

  200, and the upstream receives the client's identity and no key:
    {curl} {envoy}/v1/reviews -H 'x-api-key: {secret}'

  401 missing-key:
    {curl} {envoy}/v1/reviews

  401 unknown-key:
    {curl} {envoy}/v1/reviews -H 'x-api-key: {unknown}'

  403 missing-scope, because the key may read reviews and not write them:
    {curl} -X POST {envoy}/v1/reviews -H 'x-api-key: {secret}'

The console; sign in with the token in {token_name(token_file)}:
    {control_plane}/console

Deactivate the key, and try the first line again:
    {curl} -X POST {control_plane}/v1/workspaces/acme/keys/{key["id"]}/deactivate -H "authorization: Bearer $(cat {shlex.quote(str(token_file))})"
""",
        flush=True,
    )
