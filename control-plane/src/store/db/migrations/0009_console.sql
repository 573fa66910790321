-- Who is signed in to the console, by the digest of what the browser's cookie says. `token` is the digest of the token that
-- was shown: the session ends with it.
CREATE TABLE sessions (
    digest       BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    token        BLOB    NOT NULL CHECK (length(token) = 32),
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_of_token ON sessions (token);

-- Changes that are made once, however often their form is sent: the digest of the form's nonce, and what came of it.
CREATE TABLE made_once (
    nonce    BLOB    NOT NULL PRIMARY KEY CHECK (length(nonce) = 32),
    revision INTEGER NOT NULL,
    made_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
