//! A door for the fuzz targets, which is there in their builds alone.

use axum::body::Bytes;
use policy::UnixSeconds;

use super::query::Asked;
use super::{acknowledge, usage};
use crate::edge_name;

/// Reads these bytes as each thing that an edge sends.
pub fn request(bytes: &[u8]) {
    if let Ok(asked) = str::from_utf8(bytes).map_err(|_| ()).and_then(|query| Asked::read(query).map_err(|_| ())) {
        assert!(edge_name::fits(&asked.edge) && edge_name::fits(&asked.instance));
        assert!(asked.wait.as_secs() <= 20);
    }
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(said) = acknowledge::read(&bytes) {
        assert!(edge_name::fits(&said.edge) && edge_name::fits(&said.instance));
        assert!(said.ended.iter().all(|id| !said.workers.contains_key(id)));
    }
    if let Ok((edge, _)) = usage::read(&bytes, UnixSeconds(1_795_420_800)) {
        assert!(edge_name::fits(&edge));
    }
}
