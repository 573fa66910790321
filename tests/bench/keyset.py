# Databases with many keys, made in seconds: rows are written directly into the file of a stopped control plane.
import atexit
import contextlib
import functools
import hashlib
import pathlib
import random
import shutil
import sqlite3
import tempfile
import zlib

from harness import Bench, ControlPlane, cores, say

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
WORKSPACES = 100
# Enough secrets to use keys from all parts of a table of a million.
KNOWN = 10_000


class Keyset:
    """Keys in a database, and the secrets and REST paths of some of them."""

    def __init__(self, database, secrets, paths):
        self.database, self.secrets, self.paths = database, secrets, paths

    def write_secrets(self, path):
        path.write_text("\n".join(self.secrets) + "\n")
        return path


def secret_text(chance):
    """A key's text, as the documents and policy/src/key_text.rs define it."""
    text = "lk_live_" + "".join(chance.choices(ALPHABET, k=32))
    checksum, symbols = zlib.crc32(text.encode()), ""
    for _ in range(6):
        checksum, digit = divmod(checksum, 62)
        symbols = ALPHABET[digit] + symbols
    return text + symbols


def of(count, workspaces=WORKSPACES):
    """A database with `count` keys, each with two scopes, spread over workspaces. Made once a run, and used by one
    measurement after the other."""
    keys = cached(count, workspaces)
    # A change is enforced when every known instance has it; those of the measurement before are gone.
    with contextlib.closing(sqlite3.connect(keys.database)) as database, database:
        database.execute("DELETE FROM instances")
    return keys


@functools.cache
def cached(count, workspaces):
    say(f"making {count:,} keys")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="latchkey-keys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with Bench() as bench:
        return made(bench, folder / f"{count}.db", count, workspaces)


def made(bench, database, count, workspaces):
    control_plane = ControlPlane(bench, "first", cores()[1], database)
    for number in range(workspaces):
        slug = f"workspace-{number}"
        control_plane.post("/v1/workspaces", {"name": slug, "slug": slug})
        # Its rows are the template for all others in this workspace.
        scopes = {"reviews": "read", "webhooks": "write"}
        control_plane.post(f"/v1/workspaces/{slug}/keys", {"name": "pattern", "expires_in": "none", "scopes": scopes})
    control_plane.stop()

    count -= workspaces
    chance = random.Random(count)
    # The known keys are spread over the table.
    known = chance.sample(range(count), min(count, KNOWN))
    secrets = {number: secret_text(chance) for number in known}
    digests = [chance.randbytes(32) for _ in range(count)]
    for number, secret in secrets.items():
        digests[number] = hashlib.sha256(secret.encode()).digest()
    ids = [(number + 1).to_bytes(8, "big") + chance.randbytes(8) for number in range(count)]
    file = sqlite3.connect(database, isolation_level=None)
    for pragma in ["synchronous = OFF", "journal_mode = OFF", "cache_size = -600000"]:
        file.execute(f"PRAGMA {pragma}")
    file.execute("BEGIN")
    slugs = dict(file.execute("SELECT id, slug FROM workspaces").fetchall())
    # As if ids were made one after the other: each workspace has a contiguous range of them.
    owners = [owner for owner in slugs for _ in range(-(-count // workspaces))][:count]
    names = (f"key {chance.randrange(count)}-{number}" for number in range(count))
    # Known keys stay active, because requests use them.
    active = (int(number % 1_000 != 500 or number in secrets) for number in range(count))
    insert(file, "keys", ["id", "name", "active"], zip(owners, ids, names, active))
    endings = ("".join(chance.choices(ALPHABET, k=4)) for _ in range(count))
    rows = sorted(zip(owners, digests, ids, endings), key=lambda row: row[1])
    insert(file, "secrets", ["digest", "key_id", "last_characters"], rows)
    insert(file, "key_usage", ["key_id"], zip(owners, ids))
    file.execute("COMMIT")
    file.execute("PRAGMA journal_mode = WAL")
    file.close()
    paths = [f"/v1/workspaces/{slugs[owners[n]]}/keys/key_{ids[n].hex()}" for n in known]
    return Keyset(database, [secrets[n] for n in known], paths)


def insert(file, table, differs, rows):
    """Copies a workspace's row for each of `rows`, `(workspace, *values)`, with the values in the columns `differs`."""
    columns = [row[1] for row in file.execute(f"PRAGMA table_info({table})")]
    same = [column for column in columns if column not in ("workspace_id", *differs)]
    patterns = file.execute(f"SELECT workspace_id, {', '.join(same)} FROM {table}").fetchall()
    pattern = {owner: tuple(values) for owner, *values in patterns}
    names = ", ".join(["workspace_id", *differs, *same])
    marks = ", ".join("?" * len(columns))
    file.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", (row + pattern[row[0]] for row in rows))
