//! The entry point of the fuzz targets. It exists only in their builds.

use axum::body::Bytes;
use policy::UnixSeconds;
use policy::protocol::is_name;

use super::{acknowledge, query, usage};

/// Reads these bytes as each kind of request that an edge sends.
pub fn request(bytes: &[u8]) {
    if let Ok(query) = str::from_utf8(bytes).map_err(|_| ()).and_then(|query| query::read(query).map_err(|_| ())) {
        assert!(is_name(&query.edge) && is_name(&query.instance));
        assert!(query::wait(&query).as_secs() <= 20);
    }
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(report) = acknowledge::read(&bytes) {
        assert!(is_name(&report.edge) && is_name(&report.instance));
        assert!(report.ended.iter().all(|id| !report.workers.contains_key(id)));
    }
    if let Ok((edge, _)) = usage::read(&bytes, UnixSeconds(1_795_420_800)) {
        assert!(is_name(&edge));
    }
}
