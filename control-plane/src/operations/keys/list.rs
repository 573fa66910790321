//! Lists the keys of a workspace, a page at a time.

use policy::KeyId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::filter;
use crate::operations::choice::{Choice as _, choice};
use crate::operations::fields::{Fields, InvalidValue};
use crate::operations::principal::InWorkspace;
use crate::operations::{OperationError, Operations, Resource, cursor, values};
use crate::store::{Key, KeyQuery, Page, Sort};

/// The maximum length of a search text, in characters.
const MAX_SEARCH: usize = 100;

/// The position where a page ended: the order of the list, and the name and id of its last key.
#[derive(Serialize, Deserialize)]
struct KeyPosition(String, String, KeyId);

choice!(
    "The order of a list of keys; `-` is descending.",
    Sort as "KeySort",
    "unknown-sort",
    Self::Oldest => "created_at",
    Self::Newest => "-created_at",
    Self::Name => "name",
    Self::NameDescending => "-name",
);

/// A page of keys, with the order of its list.
pub(crate) struct KeyPage {
    pub(crate) page: Page<Key>,
    pub(crate) next_cursor: Option<String>,
    pub(crate) sort: Sort,
}

impl Operations<'_> {
    /// The page of keys that the fields of a query select.
    pub(crate) async fn list_keys(&self, at: &InWorkspace, fields: Fields) -> Result<KeyPage, OperationError> {
        let query = self.key_query(fields)?;
        let sort = query.sort;
        let page = self.store.list_keys(at.workspace.id, query).await;
        let page = page.map_err(OperationError::about(Resource::Workspace))?;
        let last = page.items.last().filter(|_| page.more);
        let position = |last: &Key| KeyPosition(sort.as_str().to_owned(), last.name.clone(), last.id);
        let next_cursor = last.map(|last| cursor::encode(&position(last)));
        Ok(KeyPage { page, next_cursor, sort })
    }

    fn key_query(&self, mut fields: Fields) -> Result<KeyQuery, OperationError> {
        let limit = fields.optional("limit", values::limit).unwrap_or(values::DEFAULT_LIMIT);
        let sort = fields.optional("sort", Sort::from_value).unwrap_or(Sort::Newest);
        let after = fields.optional("cursor", |value| after(value, sort));
        let search = fields.optional("q", search).filter(|search| !search.is_empty());
        let now = self.clock.now();
        let filter = filter::read(&mut fields, now);
        fields.finish(|| Some(KeyQuery { limit, sort, after, filter, search, now }))
    }
}

/// Refuses a cursor of a list in another order, which would skip keys.
fn after(value: Value, sort: Sort) -> Result<(String, KeyId), InvalidValue> {
    let KeyPosition(order, name, id) = cursor::decode(&values::string(value)?)?;
    if order == sort.as_str() {
        Ok((name, id))
    } else {
        Err(InvalidValue::new("bad-cursor", "belongs to a list in another order"))
    }
}

fn search(value: Value) -> Result<String, InvalidValue> {
    let text = values::string(value)?;
    if text.chars().count() > MAX_SEARCH {
        return Err(InvalidValue::new("too-long", format!("must have at most {MAX_SEARCH} characters")));
    }
    Ok(text)
}
