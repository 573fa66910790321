//! Pagination cursors: the last item of a page, as opaque text that clients send back.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::OperationError;
use super::fields::{Fields, InvalidValue};
use super::values::{DEFAULT_LIMIT, limit, string};
use crate::store::Page;

/// A page of a list, and the cursor of the next one.
pub(crate) struct CursorPage<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_cursor: Option<String>,
}

impl<T> CursorPage<T> {
    /// The page, with the cursor of the position after its last item.
    pub(crate) fn new<P: Serialize>(page: Page<T>, position: impl FnOnce(&T) -> P) -> Self {
        let next_cursor = page.items.last().filter(|_| page.more).map(|last| encode(&position(last)));
        Self { items: page.items, next_cursor }
    }
}

/// The fields `limit` and `cursor`, and no others: the items of a page, and where the previous one ended.
pub(crate) fn page_fields<P: DeserializeOwned>(mut fields: Fields) -> Result<(NonZeroU32, Option<P>), OperationError> {
    let limit = fields.optional("limit", limit).unwrap_or(DEFAULT_LIMIT);
    let after = fields.optional("cursor", |value| decode(&string(value)?));
    fields.finish(|| Some((limit, after)))
}

/// The cursor for the position where a page ended.
pub(crate) fn encode<T: Serialize>(position: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// The position that a cursor contains.
pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, InvalidValue> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let position = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    position.ok_or_else(|| InvalidValue::new("bad-cursor", "must be the `next_cursor` of a page of the same list"))
}
