-- A key's name as searches compare it. Of keys that are there already the hourly sweep folds it, some at a time.
ALTER TABLE keys ADD COLUMN folded_name TEXT COLLATE "C";

CREATE INDEX keys_to_fold ON keys (id) WHERE folded_name IS NULL;
