//! Case folding of names for searches: the same in every script and on both engines.

use policy::{KeyId, WorkspaceId};

use crate::store::StoreError;
use crate::store::db::sql::params;
use crate::store::history::retention::{BATCH_ROWS, Progress, Removal, progress};

/// Folds the case of a name: `ẞ`, `ß` and `SS` become `ss`, as `ς` and `Σ` become `σ`. The first step is for `ẞ`, whose
/// upper case is itself.
pub(crate) fn fold_case(name: &str) -> String {
    let lower = name.chars().flat_map(char::to_lowercase);
    lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// The SQL expression that searches compare: the folded name or, for a key of an older version that isn't folded yet,
/// SQL's `lower`.
pub(crate) const FOLDED_NAME: &str = "coalesce(k.folded_name, lower(k.name))";

/// Folds the names of keys that an older version created. This is not a change: it has no revision and no audit event.
pub(crate) fn fold_old_names(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let sql = removal.sql();
    let mut due = sql.prepare("SELECT workspace_id, id, name FROM keys WHERE folded_name IS NULL LIMIT ?1")?;
    let keys = due.query_map(params![BATCH_ROWS], |row| {
        Ok((row.get::<WorkspaceId>(0)?, row.get::<KeyId>(1)?, row.get::<String>(2)?))
    })?;
    let mut update = sql.prepare("UPDATE keys SET folded_name = ?3 WHERE workspace_id = ?1 AND id = ?2")?;
    for (workspace, id, name) in &keys {
        update.execute(params![workspace, id, fold_case(name)])?;
    }
    Ok(progress(keys.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_equal_in_every_script() {
        for (one, other) in [
            ("CI", "ci"),
            ("ÄRGER", "ärger"),
            ("STRASSE", "straße"),
            ("GROẞ", "groß"),
            ("ΟΔΥΣΣΕΎΣ", "Οδυσσεύς"),
            ("ПРИВЕТ", "привет"),
            ("\u{212a}elvin", "KELVIN"),
            ("ﬁne", "FINE"),
        ] {
            assert_eq!(fold_case(one), fold_case(other), "{one} {other}");
        }
        for (one, other) in [("a", "ä"), ("CI 1", "CI 2"), ("о", "o")] {
            assert_ne!(fold_case(one), fold_case(other), "{one} {other}");
        }
    }
}
