//! Names as searches compare them: without case, in every script and on both engines.

use super::StoreError;
use super::retention::Removal;
use super::sql::params;
use super::sweep::{Progress, STEP, progress};

/// The name, case-folded: `ẞ`, `ß` and `SS` become `ss`, as `ς` and `Σ` become `σ`. The first step is for `ẞ`, whose
/// upper case is itself.
pub(super) fn folded(name: &str) -> String {
    let lower = name.chars().flat_map(char::to_lowercase);
    lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// What searches compare: the folded name or, for a key of an older version that isn't folded yet, SQL's `lower`.
pub(super) const COMPARED: &str = "coalesce(k.folded_name, lower(k.name))";

/// Folds names of keys that an older version created. This is no change: it has no revision and no event.
pub(super) fn fold(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let sql = removal.sql();
    let mut due = sql.prepare("SELECT workspace_id, id, name FROM keys WHERE folded_name IS NULL LIMIT ?1")?;
    let keys = due.query_map(params![STEP], |row| {
        Ok((row.get::<[u8; 16]>(0)?, row.get::<[u8; 16]>(1)?, row.get::<String>(2)?))
    })?;
    let mut update = sql.prepare("UPDATE keys SET folded_name = ?3 WHERE workspace_id = ?1 AND id = ?2")?;
    for (workspace, id, name) in &keys {
        update.execute(params![workspace, id, folded(name)])?;
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
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        for (one, other) in [("a", "ä"), ("CI 1", "CI 2"), ("о", "o")] {
            assert_ne!(folded(one), folded(other), "{one} {other}");
        }
    }
}
