//! The tables and columns that a copy transfers, the same on both engines.

use self::Kind::{Blob, Integer, Text};
use crate::store::db::sql::{Column, Kind, Param, Row, SqlError};

/// A table, without the columns that an engine computes or that only replicas over one database need.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// The primary key. Rows are read in its order; both engines order it by bytes.
    key: &'static str,
}

/// All tables. A table comes after those that it references.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "position",
        columns: &[
            ("one", Integer),
            ("epoch", Blob),
            ("first_revision", Integer),
            ("revision", Integer),
            ("head", Blob),
            ("reported_revision", Integer),
        ],
        key: "one",
    },
    Table {
        name: "changes",
        columns: &[("revision", Integer), ("chain_hash", Blob), ("body", Blob), ("changed_at", Integer)],
        key: "revision",
    },
    Table { name: "scopes", columns: &[("number", Integer), ("name", Text)], key: "number" },
    Table { name: "environments", columns: &[("number", Integer), ("name", Text)], key: "number" },
    Table {
        name: "workspaces",
        columns: &[
            ("id", Blob),
            ("slug", Text),
            ("name", Text),
            ("created_at", Integer),
            ("created_by", Text),
            ("updated_at", Integer),
            ("revision", Integer),
            ("key_count", Integer),
            ("edge_bytes", Integer),
        ],
        key: "id",
    },
    Table {
        name: "keys",
        columns: &[
            ("workspace_id", Blob),
            ("id", Blob),
            ("name", Text),
            ("environment", Text),
            ("active", Integer),
            ("scopes", Text),
            ("ip_allowlist", Text),
            ("expires_at", Integer),
            ("metadata", Text),
            ("created_at", Integer),
            ("created_by", Text),
            ("updated_at", Integer),
            ("rotated_at", Integer),
            ("deleted_at", Integer),
            ("revision", Integer),
            ("folded_name", Text),
        ],
        key: "workspace_id, id",
    },
    Table {
        name: "secrets",
        columns: &[
            ("digest", Blob),
            ("workspace_id", Blob),
            ("key_id", Blob),
            ("last_characters", Text),
            ("created_at", Integer),
            ("superseded_at", Integer),
            ("previous_until", Integer),
            ("at_edge", Integer),
            ("edge_bytes", Integer),
        ],
        key: "digest",
    },
    Table { name: "audit_events", columns: &[("revision", Integer), ("event", Text), ("hash", Blob)], key: "revision" },
    Table {
        name: "admin_tokens",
        columns: &[
            ("id", Blob),
            ("digest", Blob),
            ("last_characters", Text),
            ("name", Text),
            ("role", Text),
            ("workspace_id", Blob),
            ("created_at", Integer),
            ("created_by", Text),
            ("expires_at", Integer),
            ("last_used_at", Integer),
            ("revoked_at", Integer),
            ("revision", Integer),
            ("ip_allowlist", Text),
            ("may_make", Text),
        ],
        key: "id",
    },
    Table {
        name: "edge_tokens",
        columns: &[
            ("id", Blob),
            ("digest", Blob),
            ("last_characters", Text),
            ("name", Text),
            ("edge", Text),
            ("created_at", Integer),
            ("created_by", Text),
            ("last_used_at", Integer),
            ("revoked_at", Integer),
            ("revision", Integer),
        ],
        key: "id",
    },
    Table {
        name: "instances",
        columns: &[
            ("id", Text),
            ("edge", Text),
            ("token", Text),
            ("address", Text),
            ("version", Text),
            ("format", Integer),
            ("acknowledged", Integer),
            ("max_staleness_secs", Integer),
            ("workers", Text),
            ("first_seen_at", Integer),
            ("last_seen_at", Integer),
            ("ended_at", Integer),
        ],
        key: "id",
    },
    Table {
        name: "key_usage",
        columns: &[
            ("key_id", Blob),
            ("workspace_id", Blob),
            ("last_used_at", Integer),
            ("last_used_ip", Text),
            ("secret", Blob),
            ("secret_last_used_at", Integer),
            ("previous_secret", Blob),
            ("previous_secret_last_used_at", Integer),
        ],
        key: "key_id",
    },
    Table {
        name: "usage_hours",
        columns: &[("hour", Integer), ("key_id", Blob), ("outcome", Text), ("count", Integer)],
        key: "hour, key_id, outcome",
    },
    Table {
        name: "usage_days",
        columns: &[("day", Integer), ("key_id", Blob), ("outcome", Text), ("count", Integer)],
        key: "day, key_id, outcome",
    },
    Table { name: "key_denials", columns: &[("key_id", Blob), ("latest", Text)], key: "key_id" },
    Table { name: "usage_rounds", columns: &[("id", Integer), ("folded_to", Blob)], key: "id" },
    Table {
        name: "usage_workers",
        columns: &[
            ("instance", Text),
            ("worker", Text),
            ("sequence", Integer),
            ("round", Integer),
            ("noted_at", Integer),
        ],
        key: "instance, worker",
    },
    Table {
        name: "import_steps",
        columns: &[("step", Integer), ("keys", Text), ("import", Blob), ("written_at", Integer)],
        key: "step",
    },
    Table { name: "imports", columns: &[("one", Integer), ("decided", Blob)], key: "one" },
    Table {
        name: "sessions",
        columns: &[("digest", Blob), ("token", Blob), ("created_at", Integer), ("last_used_at", Integer)],
        key: "digest",
    },
    Table { name: "retention", columns: &[("one", Integer), ("horizon", Integer)], key: "one" },
    Table {
        name: "made_once",
        columns: &[("nonce", Blob), ("revision", Integer), ("made_at", Integer), ("body", Blob), ("made", Text)],
        key: "nonce",
    },
];

/// Tables whose rows the engine numbers, with the column of the number. A number is never reused, even after its row is
/// deleted.
pub(super) const NUMBERED: [(&str, &str); 2] = [("usage_rounds", "id"), ("import_steps", "step")];

impl Table {
    /// The columns in order, as a list for a statement.
    pub(super) fn column_list(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// Selects all rows in an order that is the same on both engines.
    pub(super) fn select(&self) -> String {
        format!("SELECT {} FROM {} ORDER BY {}", self.column_list(), self.name, self.key)
    }

    /// A row of [`Self::select`], as parameters.
    pub(super) fn row<'r>(&self, row: &'r Row<'_>) -> Result<Vec<Param<'r>>, SqlError> {
        let values = self.columns.iter().enumerate().map(|(at, (_, kind))| match (row.column(at)?, kind) {
            (Column::Null, kind) => Ok(Param::Null(*kind)),
            (Column::Integer(number), Integer) => Ok(Param::Integer(number)),
            (Column::Text(text), Text) => Ok(Param::Text(text.into())),
            (Column::Blob(bytes), Blob) => Ok(Param::Blob(bytes.into())),
            (Column::Integer(_) | Column::Text(_) | Column::Blob(_), _) => {
                Err(SqlError::invalid_column(at, format!("a column of {} has another type", self.name)))
            }
        });
        values.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::sqlite_schema::open_copy;
    use test_support::databases::{is_postgres, of, on_server};

    /// `table.column`, sorted.
    fn all_columns() -> Vec<String> {
        let columns =
            TABLES.iter().flat_map(|table| table.columns.iter().map(|(name, _)| format!("{}.{name}", table.name)));
        let mut columns: Vec<_> = columns.collect();
        columns.sort_unstable();
        columns
    }

    #[test]
    fn every_column_of_a_file_is_copied() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let connection = open_copy(file.path()).unwrap();
        let columns = "SELECT t.name || '.' || c.name AS it FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c
            WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND c.hidden = 0 ORDER BY it";
        let mut columns = connection.prepare(columns).unwrap();
        let found: Vec<String> = columns.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, all_columns());
    }

    #[tokio::test]
    async fn every_column_in_postgresql_is_copied_except_those_for_replicas() {
        if !is_postgres() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let url = of(directory.path());
        let database = url.parse().unwrap();
        let epoch = policy::Epoch::from_bytes([1; 16]);
        tokio::task::spawn_blocking(move || crate::store::engine::Engine::open(&database, epoch).map(drop))
            .await
            .unwrap()
            .unwrap();
        let columns = "SELECT (table_name || '.' || column_name)::text FROM information_schema.columns
            WHERE table_schema = current_schema() AND is_generated = 'NEVER' AND table_name <> 'latchkey_schema'
                AND NOT (table_name = 'instances' AND column_name IN ('changed', 'changed_by', 'told'))";
        let rows = on_server(&url, |server| server.query(columns, &[]).unwrap());
        let mut found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        found.sort_unstable();
        assert_eq!(found, all_columns());
    }
}
