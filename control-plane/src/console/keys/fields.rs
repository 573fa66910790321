//! The fields that the forms for new and existing keys share: name, scopes, allowlist, metadata.

use policy::{Level, Scopes};
use serde_json::{Map, Value};

use super::allowlist_field::AllowlistField;
use crate::base::config::Config;
use crate::console::display;
use crate::console::form::VerifiedForm;
use crate::console::problems::FormErrors;
use crate::store::Key;

/// An area of the API in the table of scopes.
pub(super) struct ScopeRow {
    /// The scope's name.
    pub(super) name: String,
    pub(super) label: String,
    pub(super) meaning: Option<String>,
    /// `none`, `read` or `write`.
    pub(super) level: String,
}

/// The fields that both forms share, as they were submitted or as the key has them.
pub(super) struct KeyFields {
    pub(super) name: String,
    pub(super) scopes: Vec<ScopeRow>,
    pub(super) allowlist: AllowlistField,
    pub(super) metadata: String,
}

impl KeyFields {
    /// Of a new key.
    pub(super) fn empty(config: &Config) -> Self {
        Self {
            name: String::new(),
            scopes: rows(config, |_| "none".to_owned()),
            allowlist: AllowlistField::any(),
            metadata: String::new(),
        }
    }

    /// As a key has them.
    pub(super) fn of(key: &Key, config: &Config) -> Self {
        Self {
            name: key.name.clone(),
            scopes: rows_with(config, &key.scopes),
            allowlist: AllowlistField::of(&key.allowlist),
            metadata: if key.metadata.is_empty() { String::new() } else { super::view::metadata_text(key) },
        }
    }

    /// As they were submitted.
    pub(super) fn from_form(form: &VerifiedForm, config: &Config) -> Self {
        Self {
            name: form.text("name").to_owned(),
            scopes: rows(config, |name| match form.text(&format!("scope_{name}")) {
                "" => "none".to_owned(),
                level => level.to_owned(),
            }),
            allowlist: AllowlistField::from_form(form),
            metadata: form.text("metadata").to_owned(),
        }
    }

    /// The fields as REST expects them.
    pub(super) fn to_json(&self) -> Result<Map<String, Value>, FormErrors> {
        let granted = self.scopes.iter().filter(|row| row.level != "none");
        let scopes: Map<_, _> = granted.map(|row| (row.name.clone(), Value::from(row.level.clone()))).collect();
        Ok(Map::from_iter([
            ("name".to_owned(), Value::from(self.name.clone())),
            ("scopes".to_owned(), Value::Object(scopes)),
            ("ip_allowlist".to_owned(), self.allowlist.to_json()),
            ("metadata".to_owned(), metadata(&self.metadata)?),
        ]))
    }
}

/// The operator's catalogue, each scope at its level.
fn rows(config: &Config, level: impl Fn(&str) -> String) -> Vec<ScopeRow> {
    let row = |scope: &policy::Scope| ScopeRow {
        name: scope.to_string(),
        label: display::scope_label(scope.as_str()),
        meaning: config.meaning(scope).map(ToOwned::to_owned),
        level: level(scope.as_str()),
    };
    config.scopes.iter().map(row).collect()
}

fn rows_with(config: &Config, scopes: &Scopes) -> Vec<ScopeRow> {
    rows(config, |name| match scopes.get(name) {
        None => "none".to_owned(),
        Some(Level::Read) => "read".to_owned(),
        Some(Level::Write) => "write".to_owned(),
    })
}

/// An empty text is empty metadata.
fn metadata(text: &str) -> Result<Value, FormErrors> {
    if text.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_str(text).map_err(|error| {
        let message = format!("This is not JSON: {error}. Write an object like {{\"team\": \"billing\"}}.");
        FormErrors::single("metadata", message)
    })
}

/// The merge patch that turns `old` into `new` (RFC 7396).
pub(super) fn merge_patch(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let mut patch: Map<_, _> = gone.collect();
    for (name, value) in new {
        let value = match (old.get(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge_patch(old, new)),
            _ => value.clone(),
        };
        patch.insert(name.clone(), value);
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::merge;

    #[test]
    fn merge_patch_leads_from_the_old_metadata_to_the_typed_one() {
        for (old, new) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":3,"c":4}"#),
            (r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"y":3}}"#),
            (r#"{"a":{"x":1}}"#, r#"{"a":[1]}"#),
            (r#"{"a":[1]}"#, r#"{"a":{"x":{"y":1}}}"#),
            (r#"{"a":1}"#, "{}"),
            ("{}", r#"{"a":"b"}"#),
        ] {
            let (mut merged, new): (Map<_, _>, Map<_, _>) =
                (serde_json::from_str(old).unwrap(), serde_json::from_str(new).unwrap());
            let patch = merge_patch(&merged, &new);
            merge(&mut merged, &patch);
            assert_eq!(merged, new, "{old}");
        }
    }
}
