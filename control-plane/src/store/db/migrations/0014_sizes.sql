-- What each workspace takes of what all share: keys that aren't deleted, and the bytes of its records at an edge, which are those of
-- its secrets. Kept up by each change. A record has 76 bytes, 2 a scope and 18 a network; one that was rotated out has neither.
ALTER TABLE secrets ADD COLUMN edge_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN key_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN edge_bytes INTEGER NOT NULL DEFAULT 0;

UPDATE secrets SET edge_bytes = 76 + CASE WHEN superseded_at IS NOT NULL AND previous_until IS NULL THEN 0 ELSE (
    SELECT 2 * (SELECT count(*) FROM json_each(k.scopes)) + 18 * coalesce(json_array_length(k.ip_allowlist), 0)
    FROM keys k WHERE k.workspace_id = secrets.workspace_id AND k.id = secrets.key_id) END
WHERE at_edge = 1;

UPDATE workspaces SET
    key_count = (SELECT count(*) FROM keys k WHERE k.workspace_id = workspaces.id AND k.deleted_at IS NULL),
    edge_bytes = (SELECT coalesce(sum(s.edge_bytes), 0) FROM secrets s WHERE s.workspace_id = workspaces.id);
