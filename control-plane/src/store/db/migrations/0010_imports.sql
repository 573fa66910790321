-- Several control planes may import at once, in PostgreSQL, and this is the same there. A step says which import it is of, by the
-- id of that import's first key, and when it was written down.
ALTER TABLE import_steps ADD COLUMN import BLOB NOT NULL DEFAULT x'';
ALTER TABLE import_steps ADD COLUMN written_at INTEGER NOT NULL DEFAULT 0;

-- The import that was decided last. Its steps will be carried out before another one is decided; the others' are drafts.
ALTER TABLE imports ADD COLUMN decided BLOB NOT NULL DEFAULT x'';

UPDATE import_steps SET import = x'00' WHERE step > (SELECT decided_to FROM imports);
ALTER TABLE imports DROP COLUMN decided_to;

CREATE INDEX import_steps_of_import ON import_steps (import, step);
