-- A change that is made once may be a request's with an idempotency key, too: what it asked for, as a digest, and the ids of
-- what it made, separated by spaces, so that a repeat is answered with those.
ALTER TABLE made_once
    ADD COLUMN body BYTEA CHECK (length(body) = 32),
    ADD COLUMN made TEXT COLLATE "C" NOT NULL DEFAULT '';

CREATE INDEX made_once_by_age ON made_once (made_at);
