-- What an event is looked for by, of events that hold U+0000 too: no text of PostgreSQL's can, so a space is read in its place. The
-- event itself stays as it is.
ALTER TABLE audit_events
    DROP COLUMN workspace_id,
    DROP COLUMN target_id,
    DROP COLUMN action;

ALTER TABLE audit_events
    ADD COLUMN workspace_id TEXT COLLATE "C"
        GENERATED ALWAYS AS (replace(event, '\u0000', '\u0020')::json ->> 'workspace_id') STORED,
    ADD COLUMN target_id    TEXT COLLATE "C"
        GENERATED ALWAYS AS (replace(event, '\u0000', '\u0020')::json #>> '{target,id}') STORED,
    ADD COLUMN action       TEXT COLLATE "C"
        GENERATED ALWAYS AS (replace(event, '\u0000', '\u0020')::json ->> 'action') STORED;

CREATE INDEX audit_events_of_workspace ON audit_events (workspace_id, revision) WHERE workspace_id IS NOT NULL;
CREATE INDEX audit_events_of_target ON audit_events (target_id, revision) WHERE target_id IS NOT NULL;
CREATE INDEX audit_events_of_action ON audit_events (action, revision);
CREATE INDEX audit_events_of_workspace_action ON audit_events (workspace_id, action, revision) WHERE workspace_id IS NOT NULL;
