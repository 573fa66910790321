//! How a connection manager reads requests, and how long they may last.

use policy::Config;
use policy::path::PathKind;
use serde_json::Value;

use super::Finding;
use super::message::below;
use super::values::{count, is_enum_value, is_zero};
use crate::cli::json::{is_true, part};

/// Large enough for any key that a client sends by mistake; the value in envoy/sidecar.yaml.
const HEADERS_KB: u64 = 96;

/// Checks the settings of a manager with our filter: unsafe ones are refused, weak ones get a warning. A patch, as in a
/// mesh's manifest, contains only the fields that it changes.
pub(super) fn check_settings(
    place: &str,
    manager: &Value,
    config: Option<&Config>,
    is_patch: bool,
    findings: &mut Vec<Finding>,
) {
    check_paths(place, manager, config, is_patch, findings);
    let common = part(manager, &["common_http_protocol_options"]);
    if common.is_null() && is_patch {
        return;
    }
    let mut refuse = |name: &str, message: &str| {
        let place = format!("{place}.common_http_protocol_options.{name}");
        findings.push(Finding::refused(place, message));
    };
    if !is_enum_value(common, "headers_with_underscores_action", &[("REJECT_REQUEST", 1), ("DROP_HEADER", 2)]) {
        refuse(
            "headers_with_underscores_action",
            "is not REJECT_REQUEST: a client's `x_latchkey_key_id` reaches upstreams that take it for `x-latchkey-key-id`; set it to REJECT_REQUEST",
        );
    }
    if is_zero(part(common, &["max_stream_duration"])) {
        refuse(
            "max_stream_duration",
            "is missing: a stream that runs when its key is revoked runs on forever; set it, for example to 3600s",
        );
    }
    if !is_patch {
        check_limits(place, manager, findings);
    }
}

fn check_limits(place: &str, manager: &Value, findings: &mut Vec<Finding>) {
    let mut warn = |name: &str, message: &str| findings.push(Finding::warning(below(place, name), message));
    if is_zero(part(manager, &["request_headers_timeout"])) {
        warn(
            "request_headers_timeout",
            "is missing: a client that sends its headers byte by byte holds a connection as long as it likes; set it, for example to 10s",
        );
    }
    let idle = part(manager, &["stream_idle_timeout"]);
    if !idle.is_null() && is_zero(idle) {
        warn(
            "stream_idle_timeout",
            "is 0: a stream on which nothing happens is never ended; set it, for example to 300s",
        );
    }
    if count(manager, "max_request_headers_kb").is_none_or(|size| size > HEADERS_KB) {
        warn("max_request_headers_kb", "is above 96: each request may use this much memory before a key is checked");
    }
}

fn check_paths(place: &str, manager: &Value, config: Option<&Config>, is_patch: bool, findings: &mut Vec<Finding>) {
    // The spellings in `paths.allow` must reach the filter unchanged.
    let is_allowed = |name: &str| {
        config.is_some_and(|config| {
            config.paths.allow.iter().any(|kind| match kind {
                PathKind::DoubleSlash => name == "merge_slashes",
                PathKind::EncodedSlash => name == "path_with_escaped_slashes_action",
                PathKind::Semicolon | PathKind::EncodedUnreserved | PathKind::EncodedQuery => false,
            })
        })
    };
    let is_unset = |name: &str| is_allowed(name) || (is_patch && manager.get(name).is_none());
    for (name, why) in [
        (
            "normalize_path",
            "is not true: paths with dot segments are refused by the filter, where Envoy could normalise them",
        ),
        ("merge_slashes", "is not true: `//` can lead past a route"),
    ] {
        if !is_true(manager, name) && !is_unset(name) {
            findings.push(Finding::warning(below(place, name), why));
        }
    }
    let name = "path_with_escaped_slashes_action";
    let refusals = [("REJECT_REQUEST", 2), ("UNESCAPE_AND_REDIRECT", 3), ("UNESCAPE_AND_FORWARD", 4)];
    if !is_enum_value(manager, name, &refusals) && !is_unset(name) {
        let message = "is not set: `%2F` can lead past a route; REJECT_REQUEST refuses it";
        findings.push(Finding::warning(below(place, name), message));
    }
}
