//! A paginated list, read as a whole.

use serde_json::Value;

use super::client::{Call, Client};
use super::json::part;

/// The most items that REST puts on a page.
const PAGE: u64 = 200;

/// All items, or the first `limit`. `page` makes the request for a page, without limit and cursor.
pub(super) fn fetch_all(client: &Client, limit: Option<u64>, page: impl Fn() -> Call) -> anyhow::Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let missing = limit.map_or(PAGE, |limit| limit.saturating_sub(items.len() as u64).min(PAGE));
        if missing == 0 {
            return Ok(items);
        }
        let mut answer = client.send(page().query("limit", Some(missing)).query("cursor", cursor.as_ref()))?;
        if let Some(Value::Array(new)) = answer.body.get_mut("items") {
            items.append(new);
        }
        cursor = part(&answer.body, &["next_cursor"]).as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(items);
        }
    }
}
