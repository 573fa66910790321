-- More roles than three: the program knows their names, the table only which are bound to a workspace. NULL as
-- `ip_allowlist` is any address, and as `may_make` any role that the token's own includes.
ALTER TABLE admin_tokens DROP CONSTRAINT admin_tokens_role_check;
ALTER TABLE admin_tokens DROP CONSTRAINT admin_tokens_check;
ALTER TABLE admin_tokens
    ADD COLUMN ip_allowlist TEXT COLLATE "C",
    ADD COLUMN may_make TEXT COLLATE "C",
    ADD CHECK ((role IN ('workspace_admin', 'workspace_member')) = (workspace_id IS NOT NULL));
