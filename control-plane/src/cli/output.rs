//! Output of commands: tables and cards of REST's answers for people, JSON for scripts.

use std::io::{self, Write as _};

use serde_json::Value;
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use super::json;
use super::redact::without_secrets;

/// Shown in place of a missing value.
pub(super) const NO_VALUE: &str = "-";

/// Writes to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a line to standard error, for people only, so that standard output contains only what scripts read.
#[expect(clippy::disallowed_methods, reason = "a command reports to its user; nothing else waits for it")]
pub(super) fn print_note(line: &str) {
    // If standard error is closed, there is nobody to inform.
    let _ = writeln!(io::stderr(), "{}", without_secrets(&without_controls(line)));
}

/// JSON for scripts.
pub(super) fn print_json(value: &Value) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// One column for each heading, one line for each row; the last column may have any length.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Builder::new();
    table.push_record(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.push_record(row.iter().map(|cell| without_controls(cell)));
    }
    let mut table = table.build();
    table.with((Style::empty(), Padding::new(0, 2, 0, 0)));
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// One line for each field: `name  value`.
pub(super) fn card(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    fields.iter().map(|(name, value)| format!("{name:<width$}  {}\n", without_controls(value))).collect()
}

/// A column of a list: its heading, and the field of each item in it.
pub(super) type Column = (&'static str, &'static str);

/// A list of an answer, one line for each item.
pub(super) fn field_table(columns: &[Column], items: &Value) -> String {
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let row = |item: &Value| columns.iter().map(|(_, name)| field(item, name)).collect();
    table(&headings, &json::items(items).iter().map(row).collect::<Vec<_>>())
}

/// An object of an answer, one line for each of these fields.
pub(super) fn field_card(names: &[&'static str], value: &Value) -> String {
    card(&fields(names, value))
}

/// The names and values of these fields, for [`card`].
pub(super) fn fields(names: &[&'static str], value: &Value) -> Vec<(&'static str, String)> {
    names.iter().map(|name| (*name, field(value, name))).collect()
}

/// The field of an answer, for people.
pub(super) fn field(value: &Value, name: &str) -> String {
    value.get(name).map_or_else(|| NO_VALUE.to_owned(), text)
}

/// A value of an answer, for people.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => NO_VALUE.to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => NO_VALUE.to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(fields) if fields.is_empty() => NO_VALUE.to_owned(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}:{}", text(value))).collect::<Vec<_>>().join(" ")
        }
    }
}

/// `1 key`, `2 keys`.
pub(super) fn pluralize(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// The text without control characters: names that others chose must not control the terminal.
fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_contents() {
        let rows = [vec!["größer".to_owned(), "1".to_owned()], vec!["b".to_owned(), "\u{1b}[2J".to_owned()]];
        assert_eq!(table(&["name", "id"], &rows), "NAME    ID\ngrößer  1\nb       \u{fffd}[2J\n");
        assert_eq!(table(&["name"], &[]), "NAME\n");
        let wide = [vec!["東京".to_owned(), "1".to_owned()], vec![String::new(), String::new()]];
        assert_eq!(table(&["a", "b"], &wide), "A     B\n東京  1\n\n");
    }

    #[test]
    fn values_are_words() {
        for (value, expected) in [
            (json!(null), "-"),
            (json!({}), "-"),
            (json!([]), "-"),
            (json!(true), "yes"),
            (json!({"reviews": "read", "webhooks": "write"}), "reviews:read webhooks:write"),
            (json!(["10.0.0.0/8", "::1"]), "10.0.0.0/8, ::1"),
        ] {
            assert_eq!(text(&value), expected);
        }
    }
}
