-- What several control planes over one database tell each other of instances.

-- Taken while the position's row is locked, so that the order of numbers is the order of commits.
CREATE SEQUENCE instance_changes;

-- The number of the row's last change, and the replica that made it. `told`: an instance that has ended was told so.
ALTER TABLE instances
    ADD COLUMN changed    BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN changed_by TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN told       BIGINT NOT NULL DEFAULT 0 CHECK (told IN (0, 1));

CREATE INDEX instances_changed ON instances (changed);
