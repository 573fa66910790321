//! The editor of an allowlist: a choice, and a list with one address or range on each line.

use policy::Allowlist;
use serde_json::Value;

use crate::api::values;
use crate::console::form::Posted;
use crate::console::problems::said;
use crate::console::words;

/// The allowlist in a form.
pub(super) struct AllowlistField {
    pub(super) is_any: bool,
    /// The lines.
    pub(super) text: String,
    /// The result of the check, if one was requested.
    pub(super) found: Option<Found>,
}

/// The result of checking the list.
pub(super) struct Found {
    pub(super) is_good: bool,
    pub(super) sentence: String,
}

impl AllowlistField {
    pub(super) fn any() -> Self {
        Self { is_any: true, text: String::new(), found: None }
    }

    pub(super) fn of(allowlist: &Allowlist) -> Self {
        let networks = words::networks(allowlist);
        Self { is_any: networks.is_empty(), text: networks.join("\n"), found: None }
    }

    pub(super) fn typed(form: &Posted) -> Self {
        Self { is_any: form.text("allow") != "only", text: form.text("ip_allowlist").to_owned(), found: None }
    }

    /// As REST expects it.
    pub(super) fn given(&self) -> Value {
        if self.is_any {
            return Value::Null;
        }
        let entries = self.text.split([',', ';']).flat_map(str::split_whitespace);
        Value::from(entries.map(ToOwned::to_owned).collect::<Vec<_>>())
    }

    /// Checks the list, and writes it as it would be stored.
    pub(super) fn checked(mut self) -> Self {
        self.found = Some(match values::allowlist(self.given()) {
            Ok(Allowlist::Any) => Found { is_good: true, sentence: "Any address may use the key.".to_owned() },
            Ok(only @ Allowlist::Only(_)) => {
                let networks = words::networks(&only);
                self.text = networks.join("\n");
                let count = words::counted(networks.len(), "network");
                Found { is_good: true, sentence: format!("{count}, written as they will be kept.") }
            }
            Err(refused) => Found { is_good: false, sentence: said("ip_allowlist", refused.code, &refused.message) },
        });
        self
    }
}
