-- One row for each key that isn't deleted: when and from where it was used, and which secret last when.
--
-- secret, previous_secret: the first 4 bytes of the digests; the previous one only while there is one in overlap.
CREATE TABLE key_usage (
    key_id                       BLOB NOT NULL PRIMARY KEY CHECK (length(key_id) = 16),
    workspace_id                 BLOB NOT NULL,
    last_used_at                 INTEGER,
    last_used_ip                 TEXT,
    secret                       BLOB NOT NULL CHECK (length(secret) = 4),
    secret_last_used_at          INTEGER,
    previous_secret              BLOB CHECK (length(previous_secret) = 4),
    previous_secret_last_used_at INTEGER
) STRICT, WITHOUT ROWID;

INSERT INTO key_usage (key_id, workspace_id, secret, previous_secret)
SELECT k.id, k.workspace_id, substr(c.digest, 1, 4), substr(p.digest, 1, 4)
FROM keys k
JOIN secrets c ON c.workspace_id = k.workspace_id AND c.key_id = k.id AND c.superseded_at IS NULL
LEFT JOIN secrets p ON p.workspace_id = k.workspace_id AND p.key_id = k.id AND p.previous_until IS NOT NULL
WHERE k.deleted_at IS NULL
ORDER BY k.id;

-- Counts by the start of their hour or day. outcome: `allowed`, or a denial's code. The instant comes first, so that what is
-- written at a time lies together.
CREATE TABLE usage_hours (
    hour    INTEGER NOT NULL,
    key_id  BLOB    NOT NULL,
    outcome TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (hour, key_id, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_days (
    day     INTEGER NOT NULL,
    key_id  BLOB    NOT NULL,
    outcome TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (day, key_id, outcome)
) STRICT, WITHOUT ROWID;

-- The latest denials of a key, newest first: JSON, [{"code", "address", "at", "method", "path"}].
CREATE TABLE key_denials (
    key_id BLOB NOT NULL PRIMARY KEY,
    latest TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Rounds of counting that have not come to their end: up to which key.
CREATE TABLE usage_rounds (
    id        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    folded_to BLOB    NOT NULL
) STRICT;

-- The last batch of each worker, and the round that it went into.
CREATE TABLE usage_workers (
    instance TEXT    NOT NULL,
    worker   TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    round    INTEGER NOT NULL,
    noted_at INTEGER NOT NULL,
    PRIMARY KEY (instance, worker)
) STRICT, WITHOUT ROWID;
