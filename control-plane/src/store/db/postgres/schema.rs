//! The schema in PostgreSQL: one replica creates or migrates it while the others wait.

use policy::{ChainHash, Epoch, Position, Revision};

use crate::store::db::lock::OpenError;
use crate::store::db::sql::{NONE, Sql, SqlError, params};

use crate::store::db::sql::Session;

/// Each migration leads from one version to the next. There are no downgrades.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/postgres/0001_first.sql"),
    include_str!("../migrations/postgres/0002_replicas.sql"),
    include_str!("../migrations/postgres/0003_imports.sql"),
    include_str!("../migrations/postgres/0004_audit.sql"),
    include_str!("../migrations/postgres/0005_idempotency.sql"),
    include_str!("../migrations/postgres/0006_folded_names.sql"),
    include_str!("../migrations/postgres/0007_retention.sql"),
    include_str!("../migrations/postgres/0008_sizes.sql"),
    include_str!("../migrations/postgres/0009_audit_searches.sql"),
    include_str!("../migrations/postgres/0010_roles.sql"),
];

/// "LKEY", the application id of our SQLite files. Replicas that prepare the schema exclude each other by this lock.
const LOCK: i64 = 0x4C4B_4559;

/// The lock that control planes share while they serve from this schema; `?1` is [`LOCK`].
const SERVING: &str = "(?1 << 32) | (SELECT oid FROM pg_namespace WHERE nspname = current_schema())::bigint";

/// The oldest major version: the tests run on it, and it is the oldest that PostgreSQL's project maintains.
const MIN_MAJOR_VERSION: u32 = 15;

/// Creates the schema, or migrates it to this version. The history of a new database begins with `epoch`. A database of
/// another program, or of a newer version, is left as it is.
pub(super) fn prepare(session: &Session, database: &str, epoch: Epoch) -> Result<(), OpenError> {
    prepare_uncommitted(session, database, epoch)?;
    let failed = |cause: SqlError| OpenError::Server { database: database.to_owned(), cause: cause.to_string() };
    session.execute_batch("COMMIT").map_err(failed)
}

/// Like [`prepare`], but leaves the transaction open for the caller to end. Control planes that start meanwhile wait.
pub(crate) fn prepare_uncommitted(session: &Session, database: &str, epoch: Epoch) -> Result<(), OpenError> {
    let failed = |cause: SqlError| OpenError::Server { database: database.to_owned(), cause: cause.to_string() };
    let sql = Sql::Postgres(session);
    let server_version: String = sql.query_row("SHOW server_version_num", NONE, |row| row.get(0)).map_err(failed)?;
    if let Some(cause) = too_old(&server_version) {
        return Err(OpenError::Server { database: database.to_owned(), cause });
    }
    let encoding: String = sql.query_row("SHOW server_encoding", NONE, |row| row.get(0)).map_err(failed)?;
    if encoding != "UTF8" {
        let cause = format!("its encoding is {encoding}; make one with ENCODING 'UTF8'");
        return Err(OpenError::Server { database: database.to_owned(), cause });
    }
    // The server rolls it back if the session is dropped before the commit.
    session.execute_batch("BEGIN").map_err(failed)?;
    // Wait as long as the other replica needs; one that hangs loses the lock. A start may wait longer than a change.
    session.execute_batch("SET LOCAL lock_timeout = 0").map_err(failed)?;
    sql.query_row("SELECT pg_advisory_xact_lock(?1) IS NULL", params![LOCK], |row| row.get::<bool>(0))
        .map_err(failed)?;
    session.execute_batch("SET LOCAL lock_timeout = '5s'").map_err(failed)?;
    let found = version(sql, database)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(OpenError::Newer { database: database.to_owned(), found, known });
    }
    if found < known {
        let applied = usize::try_from(found).unwrap_or_default();
        for migration in MIGRATIONS.iter().skip(applied) {
            session.execute_batch(migration).map_err(failed)?;
        }
        sql.execute("UPDATE latchkey_schema SET version = ?1", params![known]).map_err(failed)?;
    }
    let first = Position::first(epoch, Revision(0));
    let head = ChainHash::first(epoch, first.revision);
    let statement = "INSERT INTO position (one, epoch, first_revision, revision, head) VALUES (1, ?1, 0, 0, ?2)
                     ON CONFLICT DO NOTHING";
    sql.execute(statement, params![first.epoch, head]).map_err(failed)?;
    Ok(())
}

/// Why a server can't be used, from its `server_version_num` (the major version times 10,000, plus the minor one).
fn too_old(version: &str) -> Option<String> {
    let major = version.parse::<u32>().ok().map(|number| number / 10_000);
    match major {
        Some(major) if major >= MIN_MAJOR_VERSION => None,
        Some(major) => Some(format!(
            "it is PostgreSQL {major}; version {MIN_MAJOR_VERSION} or newer is needed; upgrade the server"
        )),
        None => {
            Some(format!("its version is unknown ({version:?}); PostgreSQL {MIN_MAJOR_VERSION} or newer is needed"))
        }
    }
}

/// Marks this schema as served by a control plane, for as long as the connection lasts.
pub(crate) fn serve(session: &Session) -> Result<(), SqlError> {
    let share = format!("SELECT pg_advisory_lock_shared({SERVING}) IS NULL");
    Sql::Postgres(session).query_row(&share, params![LOCK], |_| Ok(()))
}

/// Whether no control plane serves from this schema. If so, none can begin to until the transaction ends.
pub(crate) fn is_idle(sql: Sql<'_>) -> Result<bool, SqlError> {
    let take = format!("SELECT pg_try_advisory_xact_lock({SERVING})");
    sql.query_row(&take, params![LOCK], |row| row.get(0))
}

/// The schema's version, and this program's.
pub(crate) fn versions(sql: Sql<'_>) -> Result<(i64, i64), SqlError> {
    let found = sql.query_row("SELECT version FROM latchkey_schema WHERE one = 1", NONE, |row| row.get(0))?;
    Ok((found, i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)))
}

/// The schema's version; 0 for a schema that was empty until now.
fn version(sql: Sql<'_>, database: &str) -> Result<i64, OpenError> {
    let failed = |cause: SqlError| OpenError::Server { database: database.to_owned(), cause: cause.to_string() };
    if !is_ours(sql).map_err(failed)? {
        let others = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace";
        if sql.query_row(others, NONE, |row| row.get::<i64>(0)).map_err(failed)? > 0 {
            return Err(OpenError::NotOurs { database: database.to_owned() });
        }
        let create = "CREATE TABLE latchkey_schema (one BIGINT PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL);
                    INSERT INTO latchkey_schema VALUES (1, 0)";
        sql.execute_batch(create).map_err(failed)?;
    }
    sql.query_row("SELECT version FROM latchkey_schema WHERE one = 1", NONE, |row| row.get(0)).map_err(failed)
}

/// True for a schema that Latchkey created.
pub(crate) fn is_ours(sql: Sql<'_>) -> Result<bool, SqlError> {
    sql.query_row("SELECT to_regclass('latchkey_schema') IS NOT NULL", NONE, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_the_oldest_version_are_refused() {
        for version in ["150000", "150018", "180001"] {
            assert_eq!(too_old(version), None, "{version}");
        }
        for (version, why) in
            [("149999", "PostgreSQL 14;"), ("90624", "PostgreSQL 9;"), ("", "is unknown"), ("15.1", "is unknown")]
        {
            let cause = too_old(version).unwrap_or_default();
            assert!(cause.contains(why) && cause.contains("15 or newer"), "{version}: {cause}");
        }
    }
}
