-- Tokens for REST. A revoked one stays, so that a leaked one can still be named; it goes with the deleted keys.
CREATE TABLE admin_tokens (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    digest          BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    last_characters TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    role            TEXT    NOT NULL CHECK (role IN ('platform_admin', 'workspace_admin', 'workspace_member')),
    workspace_id    BLOB    REFERENCES workspaces (id),
    created_at      INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    expires_at      INTEGER,
    last_used_at    INTEGER,
    revoked_at      INTEGER,
    revision        INTEGER NOT NULL,
    CHECK ((role = 'platform_admin') = (workspace_id IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX admin_tokens_of_workspace ON admin_tokens (workspace_id, id);
