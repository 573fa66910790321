//! The editor of an allowlist: a choice, and a list with one address or range on each line.

use policy::Allowlist;
use serde_json::Value;

use crate::console::display;
use crate::console::form::VerifiedForm;
use crate::console::problems::allowlist_message;
use crate::operations::values;

/// The allowlist in a form.
pub(super) struct AllowlistField {
    pub(super) is_any: bool,
    /// The list, an address or range on each line.
    pub(super) text: String,
    /// The result of the check, if one was requested.
    pub(super) check: Option<AllowlistCheck>,
}

/// The result of checking the list.
pub(super) struct AllowlistCheck {
    pub(super) is_good: bool,
    pub(super) sentence: String,
}

impl AllowlistField {
    pub(super) fn any() -> Self {
        Self { is_any: true, text: String::new(), check: None }
    }

    pub(super) fn of(allowlist: &Allowlist) -> Self {
        let networks = display::networks(allowlist);
        Self { is_any: networks.is_empty(), text: networks.join("\n"), check: None }
    }

    pub(super) fn from_form(form: &VerifiedForm) -> Self {
        Self { is_any: form.text("allow") != "only", text: form.text("ip_allowlist").to_owned(), check: None }
    }

    /// As REST expects it.
    pub(super) fn to_json(&self) -> Value {
        if self.is_any {
            return Value::Null;
        }
        let entries = self.text.split([',', ';']).flat_map(str::split_whitespace);
        Value::from(entries.map(ToOwned::to_owned).collect::<Vec<_>>())
    }

    /// Checks the list, and rewrites its lines as they would be stored.
    pub(super) fn validated(mut self) -> Self {
        self.check = Some(match values::allowlist(self.to_json()) {
            Ok(Allowlist::Any) => {
                AllowlistCheck { is_good: true, sentence: "The key may be used from any address.".to_owned() }
            }
            Ok(only @ Allowlist::Only(_)) => {
                let networks = display::networks(&only);
                self.text = networks.join("\n");
                let count = display::item_count(networks.len(), "network");
                AllowlistCheck { is_good: true, sentence: format!("{count}, shown as they will be stored.") }
            }
            Err(refused) => AllowlistCheck { is_good: false, sentence: allowlist_message(refused.allowlist.as_ref()) },
        });
        self
    }
}
