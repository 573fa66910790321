-- The same as the nine migrations for SQLite lead to; what is said there of tables and columns holds here. Texts are ordered by
-- their bytes whatever the database's collation is, and a constraint on another table may wait until COMMIT when asked to.

CREATE TABLE position (
    one               BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch             BYTEA  NOT NULL CHECK (length(epoch) = 16),
    first_revision    BIGINT NOT NULL,
    revision          BIGINT NOT NULL CHECK (revision >= first_revision),
    head              BYTEA  NOT NULL CHECK (length(head) = 32),
    reported_revision BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 10); -- one row, written with each change: its next version finds room beside it

CREATE TABLE changes (
    revision   BIGINT NOT NULL PRIMARY KEY,
    chain_hash BYTEA  NOT NULL CHECK (length(chain_hash) = 32),
    body       BYTEA  NOT NULL,
    changed_at BIGINT NOT NULL
);

CREATE TABLE scopes (
    number BIGINT NOT NULL PRIMARY KEY CHECK (number BETWEEN 1 AND 32767),
    name   TEXT COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE environments (
    number BIGINT NOT NULL PRIMARY KEY CHECK (number BETWEEN 1 AND 255),
    name   TEXT COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE workspaces (
    id         BYTEA  NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    slug       TEXT COLLATE "C" NOT NULL UNIQUE,
    name       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    updated_at BIGINT NOT NULL,
    revision   BIGINT NOT NULL
);

CREATE TABLE keys (
    workspace_id BYTEA  NOT NULL REFERENCES workspaces (id) DEFERRABLE,
    id           BYTEA  NOT NULL CHECK (length(id) = 16),
    name         TEXT COLLATE "C" NOT NULL,
    environment  TEXT COLLATE "C" NOT NULL REFERENCES environments (name) DEFERRABLE,
    active       BIGINT NOT NULL CHECK (active IN (0, 1)),
    scopes       TEXT COLLATE "C" NOT NULL,
    ip_allowlist TEXT COLLATE "C",
    expires_at   BIGINT,
    metadata     TEXT COLLATE "C" NOT NULL,
    created_at   BIGINT NOT NULL,
    created_by   TEXT COLLATE "C" NOT NULL,
    updated_at   BIGINT NOT NULL,
    rotated_at   BIGINT,
    deleted_at   BIGINT,
    revision     BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, id)
);

-- By "C", lower() knows A to Z alone, as SQLite's NOCASE does.
CREATE INDEX keys_by_name ON keys (workspace_id, lower(name), id) WHERE deleted_at IS NULL;
CREATE INDEX keys_deleted ON keys (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE secrets (
    digest          BYTEA  NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    workspace_id    BYTEA  NOT NULL,
    key_id          BYTEA  NOT NULL,
    last_characters TEXT COLLATE "C" NOT NULL,
    created_at      BIGINT NOT NULL,
    superseded_at   BIGINT,
    previous_until  BIGINT CHECK (previous_until IS NULL OR superseded_at IS NOT NULL),
    at_edge         BIGINT NOT NULL CHECK (at_edge IN (0, 1)),
    FOREIGN KEY (workspace_id, key_id) REFERENCES keys (workspace_id, id) DEFERRABLE
);

CREATE INDEX secrets_of_key ON secrets (workspace_id, key_id);
CREATE UNIQUE INDEX secrets_one_current ON secrets (workspace_id, key_id) WHERE superseded_at IS NULL;
CREATE UNIQUE INDEX secrets_one_previous ON secrets (workspace_id, key_id) WHERE previous_until IS NOT NULL;
CREATE INDEX secrets_leaving_edge ON secrets (superseded_at) WHERE superseded_at IS NOT NULL AND at_edge = 1;
CREATE INDEX secrets_by_last_characters ON secrets (workspace_id, last_characters, key_id) WHERE superseded_at IS NULL;

-- json, not jsonb: it takes every event as it is.
CREATE TABLE audit_events (
    revision     BIGINT NOT NULL PRIMARY KEY,
    event        TEXT COLLATE "C" NOT NULL,
    hash         BYTEA  NOT NULL CHECK (length(hash) = 32),
    workspace_id TEXT COLLATE "C" GENERATED ALWAYS AS (event::json ->> 'workspace_id') STORED,
    target_id    TEXT COLLATE "C" GENERATED ALWAYS AS (event::json #>> '{target,id}') STORED,
    action       TEXT COLLATE "C" GENERATED ALWAYS AS (event::json ->> 'action') STORED
);

CREATE INDEX audit_events_of_workspace ON audit_events (workspace_id, revision) WHERE workspace_id IS NOT NULL;
CREATE INDEX audit_events_of_target ON audit_events (target_id, revision) WHERE target_id IS NOT NULL;
CREATE INDEX audit_events_of_action ON audit_events (action, revision);
CREATE INDEX audit_events_of_workspace_action ON audit_events (workspace_id, action, revision) WHERE workspace_id IS NOT NULL;

CREATE TABLE admin_tokens (
    id              BYTEA  NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    digest          BYTEA  NOT NULL UNIQUE CHECK (length(digest) = 32),
    last_characters TEXT COLLATE "C" NOT NULL,
    name            TEXT COLLATE "C" NOT NULL,
    role            TEXT COLLATE "C" NOT NULL CHECK (role IN ('platform_admin', 'workspace_admin', 'workspace_member')),
    workspace_id    BYTEA  REFERENCES workspaces (id) DEFERRABLE,
    created_at      BIGINT NOT NULL,
    created_by      TEXT COLLATE "C" NOT NULL,
    expires_at      BIGINT,
    last_used_at    BIGINT,
    revoked_at      BIGINT,
    revision        BIGINT NOT NULL,
    CHECK ((role = 'platform_admin') = (workspace_id IS NULL))
);

CREATE INDEX admin_tokens_of_workspace ON admin_tokens (workspace_id, id);

CREATE TABLE edge_tokens (
    id              BYTEA  NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    digest          BYTEA  NOT NULL UNIQUE CHECK (length(digest) = 32),
    last_characters TEXT COLLATE "C" NOT NULL,
    name            TEXT COLLATE "C" NOT NULL,
    edge            TEXT COLLATE "C" NOT NULL,
    created_at      BIGINT NOT NULL,
    created_by      TEXT COLLATE "C" NOT NULL,
    last_used_at    BIGINT,
    revoked_at      BIGINT,
    revision        BIGINT NOT NULL
);

CREATE TABLE instances (
    id                 TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    edge               TEXT COLLATE "C" NOT NULL,
    token              TEXT COLLATE "C" NOT NULL,
    address            TEXT COLLATE "C",
    version            TEXT COLLATE "C",
    format             BIGINT NOT NULL,
    acknowledged       BIGINT NOT NULL CHECK (acknowledged IN (0, 1)),
    max_staleness_secs BIGINT,
    workers            TEXT COLLATE "C" NOT NULL,
    first_seen_at      BIGINT NOT NULL,
    last_seen_at       BIGINT NOT NULL,
    ended_at           BIGINT
);

CREATE TABLE key_usage (
    key_id                       BYTEA NOT NULL PRIMARY KEY CHECK (length(key_id) = 16),
    workspace_id                 BYTEA NOT NULL,
    last_used_at                 BIGINT,
    last_used_ip                 TEXT COLLATE "C",
    secret                       BYTEA NOT NULL CHECK (length(secret) = 4),
    secret_last_used_at          BIGINT,
    previous_secret              BYTEA CHECK (length(previous_secret) = 4),
    previous_secret_last_used_at BIGINT
);

CREATE TABLE usage_hours (
    hour    BIGINT NOT NULL,
    key_id  BYTEA  NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    count   BIGINT NOT NULL,
    PRIMARY KEY (hour, key_id, outcome)
);

CREATE TABLE usage_days (
    day     BIGINT NOT NULL,
    key_id  BYTEA  NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    count   BIGINT NOT NULL,
    PRIMARY KEY (day, key_id, outcome)
);

CREATE TABLE key_denials (
    key_id BYTEA NOT NULL PRIMARY KEY,
    latest TEXT COLLATE "C" NOT NULL
);

CREATE TABLE usage_rounds (
    id        BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    folded_to BYTEA  NOT NULL
);

CREATE TABLE usage_workers (
    instance TEXT COLLATE "C" NOT NULL,
    worker   TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    round    BIGINT NOT NULL,
    noted_at BIGINT NOT NULL,
    PRIMARY KEY (instance, worker)
);

CREATE TABLE import_steps (
    step BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    keys TEXT COLLATE "C" NOT NULL
);

CREATE TABLE imports (
    one        BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    decided_to BIGINT NOT NULL
);

INSERT INTO imports VALUES (1, 0);

CREATE TABLE sessions (
    digest       BYTEA  NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    token        BYTEA  NOT NULL CHECK (length(token) = 32),
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL
);

CREATE INDEX sessions_of_token ON sessions (token);

CREATE TABLE made_once (
    nonce    BYTEA  NOT NULL PRIMARY KEY CHECK (length(nonce) = 32),
    revision BIGINT NOT NULL,
    made_at  BIGINT NOT NULL
);
