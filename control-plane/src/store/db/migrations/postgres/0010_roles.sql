-- More roles than three: the program knows their names, the table only which are bound to a workspace.
ALTER TABLE admin_tokens DROP CONSTRAINT admin_tokens_role_check;
ALTER TABLE admin_tokens DROP CONSTRAINT admin_tokens_check;
ALTER TABLE admin_tokens
    ADD CHECK ((role IN ('workspace_admin', 'workspace_member')) = (workspace_id IS NOT NULL));
