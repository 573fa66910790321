//! A door for the fuzz targets, which is there in their builds alone.

use axum::body::Bytes;
use policy::UnixSeconds;
use policy::protocol::is_name;

use super::{acknowledge, query, usage};

/// Reads these bytes as each thing that an edge sends.
pub fn request(bytes: &[u8]) {
    if let Ok(asked) = str::from_utf8(bytes).map_err(|_| ()).and_then(|query| query::read(query).map_err(|_| ())) {
        assert!(is_name(&asked.edge) && is_name(&asked.instance));
        assert!(query::wait(&asked).as_secs() <= 20);
    }
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(said) = acknowledge::read(&bytes) {
        assert!(is_name(&said.edge) && is_name(&said.instance));
        assert!(said.ended.iter().all(|id| !said.workers.contains_key(id)));
    }
    if let Ok((edge, _)) = usage::read(&bytes, UnixSeconds(1_795_420_800)) {
        assert!(is_name(&edge));
    }
}
