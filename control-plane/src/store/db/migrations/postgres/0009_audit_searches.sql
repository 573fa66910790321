-- What events are looked for by, besides: who acted, from which address, and when. Read out of the event, as the columns before.
ALTER TABLE audit_events
    ADD COLUMN actor_id    TEXT COLLATE "C"
        GENERATED ALWAYS AS (replace(event, '\u0000', '\u0020')::json #>> '{actor,id}') STORED,
    ADD COLUMN actor_name  TEXT COLLATE "C"
        GENERATED ALWAYS AS (replace(event, '\u0000', '\u0020')::json #>> '{actor,name}') STORED,
    ADD COLUMN address     TEXT COLLATE "C"
        GENERATED ALWAYS AS (replace(event, '\u0000', '\u0020')::json ->> 'address') STORED,
    ADD COLUMN happened_at TEXT COLLATE "C"
        GENERATED ALWAYS AS (replace(event, '\u0000', '\u0020')::json ->> 'at') STORED;

CREATE INDEX audit_events_of_actor_id ON audit_events (actor_id, revision);
CREATE INDEX audit_events_of_actor_name ON audit_events (actor_name, revision);
CREATE INDEX audit_events_of_address ON audit_events (address, revision) WHERE address IS NOT NULL;
CREATE INDEX audit_events_of_time ON audit_events (happened_at, revision);
