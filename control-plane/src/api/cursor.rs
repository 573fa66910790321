//! Pagination cursors: the last item of a page, as opaque text that clients send back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fields::InvalidValue;

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
