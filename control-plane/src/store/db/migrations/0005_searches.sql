-- A search for the last characters of a secret finds them, instead of asking each key for its own.
CREATE INDEX secrets_by_last_characters ON secrets (workspace_id, last_characters, key_id) WHERE superseded_at IS NULL;

-- The audit log of one action, of all and of a workspace: an action that nothing did costs no walk over what others did.
CREATE INDEX audit_events_of_action ON audit_events (action, revision);
CREATE INDEX audit_events_of_workspace_action ON audit_events (workspace_id, action, revision) WHERE workspace_id IS NOT NULL;
