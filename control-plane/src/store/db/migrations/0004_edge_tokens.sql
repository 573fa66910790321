-- Tokens for the feed, each bound to the name of an edge. A revoked one stays as an admin token does.
CREATE TABLE edge_tokens (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    digest          BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    last_characters TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    edge            TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    last_used_at    INTEGER,
    revoked_at      INTEGER,
    revision        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
