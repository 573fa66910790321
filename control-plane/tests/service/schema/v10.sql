-- A database of schema 10, as its versions wrote it: one workspace, two keys, a rotated-out secret.
PRAGMA application_id = 0x4C4B4559;
PRAGMA user_version = 10;
PRAGMA foreign_keys = OFF;
CREATE TABLE admin_tokens (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    digest          BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    last_characters TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    role            TEXT    NOT NULL CHECK (role IN ('platform_admin', 'workspace_admin', 'workspace_member')),
    workspace_id    BLOB    REFERENCES workspaces (id),
    created_at      INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    expires_at      INTEGER,
    last_used_at    INTEGER,
    revoked_at      INTEGER,
    revision        INTEGER NOT NULL,
    CHECK ((role = 'platform_admin') = (workspace_id IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO "admin_tokens" VALUES(X'019AB0C0000370008000000000000004',X'FE06F75C18B121850FEB706656265CC6FD78CDBC649E3F2118D757672F99BCCC','dmin','admin','platform_admin',NULL,1795420800,'platform-admin',NULL,NULL,NULL,5);
CREATE TABLE audit_events (
    revision     INTEGER NOT NULL PRIMARY KEY,
    event        TEXT    NOT NULL,
    hash         BLOB    NOT NULL CHECK (length(hash) = 32),
    workspace_id TEXT    GENERATED ALWAYS AS (event ->> '$.workspace_id') VIRTUAL,
    target_id    TEXT    GENERATED ALWAYS AS (event ->> '$.target.id') VIRTUAL,
    action       TEXT    GENERATED ALWAYS AS (event ->> '$.action') VIRTUAL
) STRICT;
INSERT INTO "audit_events" VALUES(1,'{"revision":1,"at":"2026-11-23T08:00:00Z","actor":{"kind":"token_file","id":"platform-admin","name":"token file"},"action":"catalogue.define","target":null,"workspace_id":null,"before":null,"after":{"scopes":["reviews"],"environments":["live"]},"address":null,"request_id":null}',X'43FA18A25386AABE4C2F753F8DEAA05B85AD4126494F8743AB941500440F8550');
INSERT INTO "audit_events" VALUES(2,'{"revision":2,"at":"2026-11-23T08:00:00Z","actor":{"kind":"token_file","id":"platform-admin","name":"token file"},"action":"workspace.create","target":{"kind":"workspace","id":"ws_019ab0c0000070008000000000000001","name":"Acme"},"workspace_id":"ws_019ab0c0000070008000000000000001","before":null,"after":{"name":"Acme","slug":"acme"},"address":null,"request_id":null}',X'E15FEF1223BCDBC84A0A074C9533D75AB10A1860EBA4F7A3D9EEBEA97059DE65');
INSERT INTO "audit_events" VALUES(3,'{"revision":3,"at":"2026-11-23T08:00:00Z","actor":{"kind":"token_file","id":"platform-admin","name":"token file"},"action":"key.create","target":{"kind":"key","id":"key_019ab0c0000170008000000000000002","name":"first"},"workspace_id":"ws_019ab0c0000070008000000000000001","before":null,"after":{"name":"first"},"address":null,"request_id":null}',X'50861F7A1049559B931D2C4DD3B99D7892FB3C70F0241C7AA34EA7DDF0C69042');
INSERT INTO "audit_events" VALUES(4,'{"revision":4,"at":"2026-11-23T08:00:00Z","actor":{"kind":"token_file","id":"platform-admin","name":"token file"},"action":"key.create","target":{"kind":"key","id":"key_019ab0c0000270008000000000000003","name":"second"},"workspace_id":"ws_019ab0c0000070008000000000000001","before":null,"after":{"name":"second"},"address":null,"request_id":null}',X'CA8EB3D91F610C25A43D6DE9C3ACF0A215CF8567545FF1EB47B4B39966C18796');
INSERT INTO "audit_events" VALUES(5,'{"revision":5,"at":"2026-11-23T08:00:00Z","actor":{"kind":"token_file","id":"platform-admin","name":"token file"},"action":"admin-token.create","target":{"kind":"admin_token","id":"adt_019ab0c0000370008000000000000004","name":"admin"},"workspace_id":null,"before":null,"after":{"name":"admin"},"address":null,"request_id":null}',X'D1166DA60827B449BD58D19FC561CB0DE9B4CF5E1A595EEE23DEC1606E80744C');
INSERT INTO "audit_events" VALUES(6,'{"revision":6,"at":"2026-11-23T08:00:00Z","actor":{"kind":"token_file","id":"platform-admin","name":"token file"},"action":"edge-token.create","target":{"kind":"edge_token","id":"edt_019ab0c0000470008000000000000005","name":"edge"},"workspace_id":null,"before":null,"after":{"name":"edge"},"address":null,"request_id":null}',X'77459A5D2BB6F942E27E55BD2EBC6738EF18A70CCDFF7FCDADB0457D276F522D');
CREATE TABLE changes (
    revision   INTEGER NOT NULL PRIMARY KEY,
    chain_hash BLOB    NOT NULL CHECK (length(chain_hash) = 32),
    body       BLOB    NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;
INSERT INTO "changes" VALUES(1,X'CBA03BE48A9F0639E67CF869A6745A9BFC6A2A1E8C8D5BEC41F09A7E247605D3',X'',1795420800);
INSERT INTO "changes" VALUES(2,X'E96D3F5710C37A03D8BE447435A0A2D9D7052415EE41F0B3C37F8E9F25B39B74',X'',1795420800);
INSERT INTO "changes" VALUES(3,X'3E4F79F05800CA85D76B70321FCF1C03411CA591147F27D7B324D9709C16EFFB',X'',1795420800);
INSERT INTO "changes" VALUES(4,X'5CC0E2F19BAE2F5EB70BCA41CEAABD408DD483C544155186BC7FF8A345D5D230',X'',1795420800);
INSERT INTO "changes" VALUES(5,X'9EFCD0A7B661706D22BB3082C38646572AB2B6B4DD193DC090C076051F287B9A',X'',1795420800);
INSERT INTO "changes" VALUES(6,X'B34D27CF384895DACB83E85519DB853F2C19FBB5C5178526D3A1EDE619FD40A4',X'',1795420800);
CREATE TABLE edge_tokens (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    digest          BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    last_characters TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    edge            TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    last_used_at    INTEGER,
    revoked_at      INTEGER,
    revision        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "edge_tokens" VALUES(X'019AB0C0000470008000000000000005',X'A1CB100F57E971CACF269E7C26E4630A25A8E9D4BDD35E32DF1A80B66B896254','edge','edge','edge-1',1795420800,'platform-admin',NULL,NULL,6);
CREATE TABLE environments (
    number INTEGER NOT NULL PRIMARY KEY CHECK (number BETWEEN 1 AND 255),
    name   TEXT    NOT NULL UNIQUE
) STRICT;
INSERT INTO "environments" VALUES(1,'live');
CREATE TABLE import_steps (
    step INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    keys TEXT    NOT NULL
, import BLOB NOT NULL DEFAULT x'', written_at INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE imports (
    one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1)
, decided BLOB NOT NULL DEFAULT x'') STRICT;
INSERT INTO "imports" VALUES(1,X'');
CREATE TABLE instances (
    id                 TEXT    NOT NULL PRIMARY KEY,
    edge               TEXT    NOT NULL,
    token              TEXT    NOT NULL,
    address            TEXT,
    version            TEXT,
    format             INTEGER NOT NULL,
    acknowledged       INTEGER NOT NULL CHECK (acknowledged IN (0, 1)),
    max_staleness_secs INTEGER,
    workers            TEXT    NOT NULL,
    first_seen_at      INTEGER NOT NULL,
    last_seen_at       INTEGER NOT NULL,
    ended_at           INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "instances" VALUES('i1','edge-1','token-file','192.0.2.7','0.1.0',1,1,60,'[{"id":"w1","started_at":1795420800}]',1795420800,1795420800,NULL);
CREATE TABLE key_denials (
    key_id BLOB NOT NULL PRIMARY KEY,
    latest TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE key_usage (
    key_id                       BLOB NOT NULL PRIMARY KEY CHECK (length(key_id) = 16),
    workspace_id                 BLOB NOT NULL,
    last_used_at                 INTEGER,
    last_used_ip                 TEXT,
    secret                       BLOB NOT NULL CHECK (length(secret) = 4),
    secret_last_used_at          INTEGER,
    previous_secret              BLOB CHECK (length(previous_secret) = 4),
    previous_secret_last_used_at INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "key_usage" VALUES(X'019AB0C0000170008000000000000002',X'019AB0C0000070008000000000000001',NULL,NULL,X'A7937B64',NULL,NULL,NULL);
INSERT INTO "key_usage" VALUES(X'019AB0C0000270008000000000000003',X'019AB0C0000070008000000000000001',NULL,NULL,X'16367AAC',NULL,NULL,NULL);
CREATE TABLE keys (
    workspace_id BLOB    NOT NULL REFERENCES workspaces (id),
    id           BLOB    NOT NULL CHECK (length(id) = 16),
    name         TEXT    NOT NULL COLLATE NOCASE,
    environment  TEXT    NOT NULL REFERENCES environments (name),
    active       INTEGER NOT NULL CHECK (active IN (0, 1)),
    scopes       TEXT    NOT NULL,
    ip_allowlist TEXT,
    expires_at   INTEGER,
    metadata     TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    updated_at   INTEGER NOT NULL,
    rotated_at   INTEGER,
    deleted_at   INTEGER,
    revision     INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, id)
) STRICT, WITHOUT ROWID;
INSERT INTO "keys" VALUES(X'019AB0C0000070008000000000000001',X'019AB0C0000170008000000000000002','first','live',1,'{"reviews":"read"}','["192.0.2.0/24"]',NULL,'{}',1795420800,'platform-admin',1795420800,NULL,NULL,3);
INSERT INTO "keys" VALUES(X'019AB0C0000070008000000000000001',X'019AB0C0000270008000000000000003','second','live',0,'{"reviews":"read"}','["192.0.2.0/24"]',NULL,'{}',1795420800,'platform-admin',1795420800,NULL,NULL,4);
CREATE TABLE made_once (
    nonce    BLOB    NOT NULL PRIMARY KEY CHECK (length(nonce) = 32),
    revision INTEGER NOT NULL,
    made_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE position (
    one            INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch          BLOB    NOT NULL CHECK (length(epoch) = 16),
    first_revision INTEGER NOT NULL,
    revision       INTEGER NOT NULL CHECK (revision >= first_revision),
    head           BLOB    NOT NULL CHECK (length(head) = 32)
, reported_revision INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO "position" VALUES(1,X'019AB0C0000070008000000000000009',0,6,X'B34D27CF384895DACB83E85519DB853F2C19FBB5C5178526D3A1EDE619FD40A4',0);
CREATE TABLE scopes (
    number INTEGER NOT NULL PRIMARY KEY CHECK (number BETWEEN 1 AND 32767),
    name   TEXT    NOT NULL UNIQUE
) STRICT;
INSERT INTO "scopes" VALUES(1,'reviews');
INSERT INTO "scopes" VALUES(2,'workspaces');
INSERT INTO "scopes" VALUES(3,'credentials');
INSERT INTO "scopes" VALUES(4,'webhooks');
INSERT INTO "scopes" VALUES(5,'repositories');
INSERT INTO "scopes" VALUES(6,'security_scans');
CREATE TABLE secrets (
    digest          BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    workspace_id    BLOB    NOT NULL,
    key_id          BLOB    NOT NULL,
    last_characters TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    superseded_at   INTEGER,
    previous_until  INTEGER CHECK (previous_until IS NULL OR superseded_at IS NOT NULL),
    at_edge         INTEGER NOT NULL CHECK (at_edge IN (0, 1)),
    FOREIGN KEY (workspace_id, key_id) REFERENCES keys (workspace_id, id)
) STRICT, WITHOUT ROWID;
INSERT INTO "secrets" VALUES(X'16367AACB67A4A017C8DA8AB95682CCB390863780F7114DDA0A0E0C55644C7C4',X'019AB0C0000070008000000000000001',X'019AB0C0000270008000000000000003','ond2',1795420800,NULL,NULL,1);
INSERT INTO "secrets" VALUES(X'A7937B64B8CAA58F03721BB6BACF5C78CB235FEBE0E70B1B84CD99541461A08E',X'019AB0C0000070008000000000000001',X'019AB0C0000170008000000000000002','rst1',1795420800,NULL,NULL,1);
INSERT INTO "secrets" VALUES(X'E7750A68401D490F935BA00BA2075BA2AA0D04FE2791EAF408FEDC8C2F29D1F8',X'019AB0C0000070008000000000000001',X'019AB0C0000170008000000000000002','ldA1',1795420800,1795420800,NULL,1);
CREATE TABLE sessions (
    digest       BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    token        BLOB    NOT NULL CHECK (length(token) = 32),
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE usage_days (
    day     INTEGER NOT NULL,
    key_id  BLOB    NOT NULL,
    outcome TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (day, key_id, outcome)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage_hours (
    hour    INTEGER NOT NULL,
    key_id  BLOB    NOT NULL,
    outcome TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (hour, key_id, outcome)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage_rounds (
    id        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    folded_to BLOB    NOT NULL
) STRICT;
CREATE TABLE usage_workers (
    instance TEXT    NOT NULL,
    worker   TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    round    INTEGER NOT NULL,
    noted_at INTEGER NOT NULL,
    PRIMARY KEY (instance, worker)
) STRICT, WITHOUT ROWID;
CREATE TABLE workspaces (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    slug       TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    updated_at INTEGER NOT NULL,
    revision   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "workspaces" VALUES(X'019AB0C0000070008000000000000001','acme','Acme',1795420800,'platform-admin',1795420800,2);
CREATE INDEX keys_by_name ON keys (workspace_id, name, id) WHERE deleted_at IS NULL;
CREATE INDEX keys_deleted ON keys (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX secrets_of_key ON secrets (workspace_id, key_id);
CREATE UNIQUE INDEX secrets_one_current ON secrets (workspace_id, key_id) WHERE superseded_at IS NULL;
CREATE UNIQUE INDEX secrets_one_previous ON secrets (workspace_id, key_id) WHERE previous_until IS NOT NULL;
CREATE INDEX secrets_leaving_edge ON secrets (superseded_at) WHERE superseded_at IS NOT NULL AND at_edge = 1;
CREATE INDEX audit_events_of_workspace ON audit_events (workspace_id, revision) WHERE workspace_id IS NOT NULL;
CREATE INDEX audit_events_of_target ON audit_events (target_id, revision) WHERE target_id IS NOT NULL;
CREATE INDEX admin_tokens_of_workspace ON admin_tokens (workspace_id, id);
CREATE INDEX secrets_by_last_characters ON secrets (workspace_id, last_characters, key_id) WHERE superseded_at IS NULL;
CREATE INDEX audit_events_of_action ON audit_events (action, revision);
CREATE INDEX audit_events_of_workspace_action ON audit_events (workspace_id, action, revision) WHERE workspace_id IS NOT NULL;
CREATE INDEX sessions_of_token ON sessions (token);
CREATE INDEX import_steps_of_import ON import_steps (import, step);
