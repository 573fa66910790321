-- Envoys that use the feed. What changes with each request of theirs is in memory only.
--
-- max_staleness_secs: the largest bound that it named since it started; NULL is none. workers: JSON, [{"id", "started_at"}].
-- ended_at: it retired, or an operator said that it is gone; its feed is refused from then on.
CREATE TABLE instances (
    id                 TEXT    NOT NULL PRIMARY KEY,
    edge               TEXT    NOT NULL,
    token              TEXT    NOT NULL,
    address            TEXT,
    version            TEXT,
    format             INTEGER NOT NULL,
    acknowledged       INTEGER NOT NULL CHECK (acknowledged IN (0, 1)),
    max_staleness_secs INTEGER,
    workers            TEXT    NOT NULL,
    first_seen_at      INTEGER NOT NULL,
    last_seen_at       INTEGER NOT NULL,
    ended_at           INTEGER
) STRICT, WITHOUT ROWID;
