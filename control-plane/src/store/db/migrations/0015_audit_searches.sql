-- What events are looked for by, besides: who acted, from which address, and when. Read out of the event, as the columns before.
ALTER TABLE audit_events ADD COLUMN actor_id    TEXT GENERATED ALWAYS AS (event ->> '$.actor.id') VIRTUAL;
ALTER TABLE audit_events ADD COLUMN actor_name  TEXT GENERATED ALWAYS AS (event ->> '$.actor.name') VIRTUAL;
ALTER TABLE audit_events ADD COLUMN address     TEXT GENERATED ALWAYS AS (event ->> '$.address') VIRTUAL;
ALTER TABLE audit_events ADD COLUMN happened_at TEXT GENERATED ALWAYS AS (event ->> '$.at') VIRTUAL;

CREATE INDEX audit_events_of_actor_id ON audit_events (actor_id, revision);
CREATE INDEX audit_events_of_actor_name ON audit_events (actor_name, revision);
CREATE INDEX audit_events_of_address ON audit_events (address, revision) WHERE address IS NOT NULL;
CREATE INDEX audit_events_of_time ON audit_events (happened_at, revision);
