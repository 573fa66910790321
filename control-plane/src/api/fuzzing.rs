//! The entry point for the fuzz targets, compiled only into their builds.

use policy::{Allowlist, UnixSeconds};

use super::body::object;
use super::fields::Fields;
use super::{expiration, keys, values};
use crate::base::config::Config;

/// An arbitrary instant.
const NOW: UnixSeconds = UnixSeconds(1_795_420_800);

/// Reads these bytes as the body of each request that has its own fields.
pub fn body(bytes: &[u8]) {
    let config = Config::default();
    let read = |take: &dyn Fn(&mut Fields)| {
        let Ok(mut fields) = object(bytes) else { return };
        take(&mut fields);
        for error in fields.errors() {
            assert!(!error.code.is_empty() && !error.message.is_empty());
        }
    };
    read(&|fields| {
        fields.required("name", values::name);
        if let Some(Some(at)) = expiration::parse(fields, NOW) {
            assert!(at > NOW, "a new key has not expired");
        }
        fields.optional("scopes", |value| values::scopes(value, &config));
        if let Some(Allowlist::Only(networks)) = fields.optional("ip_allowlist", values::allowlist) {
            assert!(!networks.as_slice().is_empty(), "an empty list is no allowlist");
        }
        fields.optional("environment", |value| values::environment(value, &config));
        fields.optional("metadata", values::metadata);
    });
    read(&|fields| {
        fields.optional("metadata", values::metadata_patch);
        fields.required("slug", values::slug);
        fields.optional("edge", values::edge);
    });
    read(&|fields| {
        if let Some(Some(secs)) = fields.optional("overlap", expiration::overlap) {
            assert!((1..=7 * 86_400).contains(&secs), "an overlap of {secs} s");
        }
    });
    read(&|fields| drop(keys::filter::read(fields, NOW)));
}
