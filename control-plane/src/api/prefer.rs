//! `Prefer: wait=S` (RFC 7240): delays the response to a change until it is enforced, or for S seconds.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use super::Api;
use super::enforcement::{MAX_WAIT_SECS, bounded_at};
use super::response::ChangedAt;

const LATCHKEY_ENFORCEMENT: HeaderName = HeaderName::from_static("latchkey-enforcement");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Delays the response to a change. Ignores other preferences, as the RFC requires.
pub(super) async fn wait(State(api): State<Api>, request: Request, next: Next) -> Response {
    let wanted = wait_secs(request.headers());
    let mut response = next.run(request).await;
    // The commit was a moment ago.
    let committed_at = Instant::now();
    let changed_at = response.extensions().get().copied();
    let (Some(secs), Some(ChangedAt(revision))) = (wanted, changed_at) else { return response };
    let waited = api.edges.wait_until_enforced(revision, committed_at.checked_add(Duration::from_secs(secs))).await;
    let (found, elapsed_ms) = (waited.enforcement, waited.elapsed.as_millis());
    let mut enforcement = format!(
        "enforced={}, edges={}, workers={}, disconnected={}, elapsed_ms={elapsed_ms}",
        found.is_enforced(),
        found.edges,
        found.workers,
        found.disconnected,
    );
    if let Some(at) = bounded_at(&api.edges, &found) {
        enforcement.push_str(&format!(", bounded_at={at}"));
    }
    for (name, value) in [(LATCHKEY_ENFORCEMENT, enforcement), (PREFERENCE_APPLIED, format!("wait={secs}"))] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The first `wait` of the request, at most [`MAX_WAIT_SECS`].
fn wait_secs(headers: &HeaderMap) -> Option<u64> {
    let given = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = given.flat_map(|value| value.split(','));
    let wait = preferences.find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse::<u64>().ok())
    });
    wait.flatten().map(|secs| secs.min(MAX_WAIT_SECS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_that_can_not_be_read_is_none() {
        for (given, expected) in [
            (&["wait=5"][..], Some(5)),
            (&["respond-async, Wait = \"7\"; x=y"], Some(7)),
            (&["respond-async", "wait=7"], Some(7)),
            (&["wait=5, wait=7"], Some(5)),
            (&["wait=3600"], Some(60)),
            (&["wait=soon"], None),
            (&["wait=-1"], None),
            (&["wait"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append("prefer", value.parse().unwrap());
            }
            assert_eq!(wait_secs(&headers), expected, "{given:?}");
        }
    }
}
