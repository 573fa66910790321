-- The highest revision that an edge has shown and this file never had: it is an older copy of one that served. A restore
-- begins above it.
ALTER TABLE position ADD COLUMN reported_revision INTEGER NOT NULL DEFAULT 0;

-- Imports that are not carried out yet: a row for each step, JSON, in their order. Empty but for some seconds.
CREATE TABLE import_steps (
    step INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    keys TEXT    NOT NULL
) STRICT;

-- Steps up to this one are decided. Later ones are of an import that is being written down, or broke off while it was.
CREATE TABLE imports (
    one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    decided_to INTEGER NOT NULL
) STRICT;

INSERT INTO imports VALUES (1, 0);
