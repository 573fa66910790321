-- Ours, so that another program's file is not taken for it: "LKEY".
PRAGMA application_id = 0x4C4B4559;

-- Where this database stands in its history of changes.
CREATE TABLE position (
    one            INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch          BLOB    NOT NULL CHECK (length(epoch) = 16),
    first_revision INTEGER NOT NULL,
    revision       INTEGER NOT NULL CHECK (revision >= first_revision),
    head           BLOB    NOT NULL CHECK (length(head) = 32)
) STRICT;

-- The log that deltas are cut from. Compacted from its old end.
CREATE TABLE changes (
    revision   INTEGER NOT NULL PRIMARY KEY,
    chain_hash BLOB    NOT NULL CHECK (length(chain_hash) = 32),
    body       BLOB    NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

-- What numbers on the wire mean. Never deleted, so never reused in an epoch.
CREATE TABLE scopes (
    number INTEGER NOT NULL PRIMARY KEY CHECK (number BETWEEN 1 AND 32767),
    name   TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE environments (
    number INTEGER NOT NULL PRIMARY KEY CHECK (number BETWEEN 1 AND 255),
    name   TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE workspaces (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    slug       TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    updated_at INTEGER NOT NULL,
    revision   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Ids sort by creation, so a page of a workspace's keys is one stretch of this table.
CREATE TABLE keys (
    workspace_id BLOB    NOT NULL REFERENCES workspaces (id),
    id           BLOB    NOT NULL CHECK (length(id) = 16),
    name         TEXT    NOT NULL COLLATE NOCASE,
    environment  TEXT    NOT NULL REFERENCES environments (name),
    active       INTEGER NOT NULL CHECK (active IN (0, 1)),
    scopes       TEXT    NOT NULL,
    ip_allowlist TEXT,
    expires_at   INTEGER,
    metadata     TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    updated_at   INTEGER NOT NULL,
    rotated_at   INTEGER,
    deleted_at   INTEGER,
    revision     INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_name ON keys (workspace_id, name, id) WHERE deleted_at IS NULL;
CREATE INDEX keys_deleted ON keys (deleted_at) WHERE deleted_at IS NOT NULL;

-- A row for each secret a key ever had. The primary key is what makes a secret unique, over all workspaces and states; its
-- order is the order of a snapshot.
--
-- superseded_at IS NULL: the current secret. Else, previous_until IS NOT NULL: the previous one, good until that instant.
-- Else: rotated out, at superseded_at. at_edge = 0: edges don't know the digest any more.
CREATE TABLE secrets (
    digest          BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    workspace_id    BLOB    NOT NULL,
    key_id          BLOB    NOT NULL,
    last_characters TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    superseded_at   INTEGER,
    previous_until  INTEGER CHECK (previous_until IS NULL OR superseded_at IS NOT NULL),
    at_edge         INTEGER NOT NULL CHECK (at_edge IN (0, 1)),
    FOREIGN KEY (workspace_id, key_id) REFERENCES keys (workspace_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX secrets_of_key ON secrets (workspace_id, key_id);
CREATE UNIQUE INDEX secrets_one_current ON secrets (workspace_id, key_id) WHERE superseded_at IS NULL;
CREATE UNIQUE INDEX secrets_one_previous ON secrets (workspace_id, key_id) WHERE previous_until IS NOT NULL;
CREATE INDEX secrets_leaving_edge ON secrets (superseded_at) WHERE superseded_at IS NOT NULL AND at_edge = 1;
