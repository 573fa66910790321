-- More roles than three: the program knows their names, the table only which are bound to a workspace. NULL as
-- `ip_allowlist` is any address, and as `may_make` any role that the token's own includes.
CREATE TABLE admin_tokens_of_any_role (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    digest          BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    last_characters TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    role            TEXT    NOT NULL,
    workspace_id    BLOB    REFERENCES workspaces (id),
    created_at      INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    expires_at      INTEGER,
    last_used_at    INTEGER,
    revoked_at      INTEGER,
    revision        INTEGER NOT NULL,
    ip_allowlist    TEXT,
    may_make        TEXT,
    CHECK ((role IN ('workspace_admin', 'workspace_member')) = (workspace_id IS NOT NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO admin_tokens_of_any_role
      (id, digest, last_characters, name, role, workspace_id, created_at, created_by, expires_at, last_used_at,
       revoked_at, revision)
SELECT id, digest, last_characters, name, role, workspace_id, created_at, created_by, expires_at, last_used_at,
       revoked_at, revision
FROM admin_tokens;

DROP TABLE admin_tokens;

ALTER TABLE admin_tokens_of_any_role RENAME TO admin_tokens;

CREATE INDEX admin_tokens_of_workspace ON admin_tokens (workspace_id, id);
