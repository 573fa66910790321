-- The audit log: one event for each revision, written in the transaction of its change, never changed and never deleted.
--
-- `event` is the event's JSON, byte for byte what its hash is made of and what an export shows. So nothing that is hashed
-- stands anywhere else; what is looked up by is read out of it.
CREATE TABLE audit_events (
    revision     INTEGER NOT NULL PRIMARY KEY,
    event        TEXT    NOT NULL,
    hash         BLOB    NOT NULL CHECK (length(hash) = 32),
    workspace_id TEXT    GENERATED ALWAYS AS (event ->> '$.workspace_id') VIRTUAL,
    target_id    TEXT    GENERATED ALWAYS AS (event ->> '$.target.id') VIRTUAL,
    action       TEXT    GENERATED ALWAYS AS (event ->> '$.action') VIRTUAL
) STRICT;

CREATE INDEX audit_events_of_workspace ON audit_events (workspace_id, revision) WHERE workspace_id IS NOT NULL;
CREATE INDEX audit_events_of_target ON audit_events (target_id, revision) WHERE target_id IS NOT NULL;
