//! `latchkey keys usage`: how often a key was used and denied, and why.

use serde_json::Value;

use super::WorkspaceSession;
use crate::cli::client::Call;
use crate::cli::failure::Outcome;
use crate::cli::json::{list, part};
use crate::cli::output::{NO_VALUE, card, field, field_table, print, print_json, table};

/// The recent hours that are shown: a day.
const HOURS: usize = 24;

pub(super) fn run(at: &WorkspaceSession<'_>, key: &str) -> anyhow::Result<Outcome> {
    let client = &at.session.client;
    let usage = client.send(Call::get(&at.path(&[key, "usage"])))?.body;
    if at.session.json {
        print_json(&usage)?;
        return Ok(Outcome::Done);
    }
    let key = client.send(Call::get(&at.path(&[key])))?.body;
    print(&text(&key, &usage))?;
    Ok(Outcome::Done)
}

fn text(key: &Value, usage: &Value) -> String {
    let mut text = card(&[
        ("key", format!("{} ({})", field(key, "name"), field(key, "id"))),
        ("status", field(key, "status")),
        ("last used", last_used(key)),
        ("allowed", field(part(usage, &["totals"]), "allowed")),
        ("denied", denied(part(usage, &["totals"]))),
    ]);
    let (hours, denials) = (list(usage, "hours"), list(usage, "denials"));
    let recent = hours.get(hours.len().saturating_sub(HOURS)..).unwrap_or_default();
    if hours.is_empty() && denials.is_empty() {
        text.push_str("\nno edge has reported any use of it in the last week\n");
        return text;
    }
    text.push_str("\nrecent hours with requests\n");
    let row = |hour: &Value| vec![field(hour, "at"), field(hour, "allowed"), denied(hour)];
    text.push_str(&table(&["from", "allowed", "denied"], &recent.iter().map(row).collect::<Vec<_>>()));
    text.push_str("\nlatest denials\n");
    let columns = ["at", "code", "address", "method", "path"].map(|name| (name, name));
    text.push_str(&field_table(&columns, part(usage, &["denials"])));
    text
}

fn last_used(key: &Value) -> String {
    match (field(key, "last_used_at").as_str(), field(key, "last_used_ip").as_str()) {
        (NO_VALUE, _) => "never".to_owned(),
        (at, NO_VALUE) => at.to_owned(),
        (at, address) => format!("{at} from {address}"),
    }
}

/// `3 (inactive-key:1 missing-scope:2)`
fn denied(counts: &Value) -> String {
    let by_code = part(counts, &["denied"]).as_object();
    let total: u64 = by_code.map_or(0, |codes| codes.values().filter_map(Value::as_u64).sum());
    if total == 0 { "0".to_owned() } else { format!("{total} ({})", field(counts, "denied")) }
}
