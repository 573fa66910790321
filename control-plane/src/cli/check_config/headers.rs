//! Filters and routes that set what is reserved for our filter or the client: identity headers, filter state, keys.

use policy::Config;
use policy::credential_source::CredentialSource;
use serde_json::Value;

use super::Finding;
use super::message::{messages, walk};
use crate::cli::json::{list, part, string};

/// Why a credential that Envoy adds is refused.
pub(super) const ADDS_CREDENTIAL: &str =
    "adds a header that carries keys, and so gives a key to clients that have none: remove it";

/// The prefix of our filter state, which the guard and logs read.
const STATE: &str = "wasm.latchkey_";

const IDENTITY: &str = "x-latchkey-";

/// Refuses anything in the file that imitates the output of our filter.
pub(super) fn check_headers(file: &Value, findings: &mut Vec<Finding>) {
    for (place, header) in added_headers(file, "") {
        let name = string(header, "key").to_ascii_lowercase();
        if name.starts_with(IDENTITY) {
            let message = format!("sets `{name}`, which upstreams trust as the filter's: remove it");
            findings.push(Finding::refused(place, message));
        } else if name.starts_with(':') && place.contains("http_filters[") {
            let message = format!(
                "sets `{name}` after Envoy has chosen the route: the upstream reads a different request than was decided; remove it, or let the route rewrite it"
            );
            findings.push(Finding::refused(place, message));
        }
    }
    walk(file, "", &mut |place, value| {
        if string(value, "object_key").starts_with(STATE) {
            let message = "sets filter state of our filter's, by which the guard lets requests pass: remove it";
            findings.push(Finding::refused(format!("{place}.object_key"), message));
        }
    });
    for message in messages(file) {
        let is_lua = message.kind.starts_with("envoy.extensions.filters.http.lua.v3.");
        if is_lua && (message.contains_text(IDENTITY) || message.contains_text(STATE)) {
            let text = "names what only our filter may set (`x-latchkey-` headers, `wasm.latchkey_` filter state): remove that from the script";
            findings.push(Finding::refused(&message.place, text));
        }
        if message.kind.starts_with("envoy.extensions.access_loggers.") && message.contains_text("wasm.latchkey_digest")
        {
            let text = "logs `wasm.latchkey_digest`, which identifies a key: log `wasm.latchkey_key_id`";
            findings.push(Finding::warning(&message.place, text));
        }
    }
}

/// The places where a message adds a header that our filter would take for a client's key.
pub(super) fn added_credentials(message: &Value, place: &str, config: &Config) -> Vec<String> {
    let is_credential = |header: &Value| {
        config.credentials.iter().any(|source| match source {
            CredentialSource::Header { name, .. } => string(header, "key").eq_ignore_ascii_case(name),
            CredentialSource::Query { .. } => false,
            CredentialSource::Cookie { .. } => string(header, "key").eq_ignore_ascii_case("cookie"),
        })
    };
    // A value that is copied from the request is the client's own.
    let is_fixed = |header: &Value| !string(header, "value").contains("%REQ");
    let added = added_headers(message, place);
    added.into_iter().filter(|(_, header)| is_credential(header) && is_fixed(header)).map(|(place, _)| place).collect()
}

/// Headers that are added to requests below this value, each with its place.
fn added_headers<'a>(value: &'a Value, place: &str) -> Vec<(String, &'a Value)> {
    let mut added = Vec::new();
    walk(value, place, &mut |place, value| {
        // Of `request_headers_to_add` and of mutations: `{header: {key, value}}`.
        let header = part(value, &["header"]);
        if header.get("key").is_some_and(Value::is_string) && !place.contains("response_") {
            added.push((place.to_owned(), header));
        }
    });
    added
}

/// Checks that a client's identity headers are removed before Envoy chooses a route.
pub(super) fn check_early_removal(place: &str, manager: &Value, findings: &mut Vec<Finding>) {
    let early = list(manager, "early_header_mutation_extensions");
    let removes = early.iter().any(|extension| extension.to_string().contains(IDENTITY));
    if !removes {
        let message = "don't remove `x-latchkey-` headers: a route could be chosen by those that a client sends";
        findings.push(Finding::warning(format!("{place}.early_header_mutation_extensions"), message));
    }
}
