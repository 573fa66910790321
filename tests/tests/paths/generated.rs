//! Twenty thousand generated paths: none passes that an upstream model dispatches to a route with another rule.

use end_to_end::{ReceivedRequest, UpstreamModel, send_all};

use crate::generator;
use crate::site::{Site, request};

/// A path that passed, and that an upstream model dispatches to another rule.
struct PathMismatch {
    sent: Vec<u8>,
    received: Vec<u8>,
    rule: &'static str,
    model: &'static str,
    dispatched: Vec<u8>,
    other: &'static str,
}

/// The paths that passed, without a key and with one for reviews, and that a model dispatches to another rule: how
/// many there are, and the first of them.
pub fn mismatches(site: &Site<'_>) -> Vec<String> {
    let paths = generator::all();
    let of = |(who, key): (&str, Option<&str>)| {
        let passed = passed(site, &paths, key);
        assert!(passed.len() > 100, "{who}: {} passed, which shows nothing", passed.len());
        let mismatches: Vec<PathMismatch> =
            passed.iter().flat_map(|(sent, request)| by_models(site, sent, request)).collect();
        (!mismatches.is_empty()).then(|| format!("with {who} {}", report(&mismatches, passed.len())))
    };
    [("no key", None), ("a key for reviews", Some(site.key.secret.as_str()))].into_iter().filter_map(of).collect()
}

/// The paths that reached the upstream, and what it received.
fn passed<'a>(site: &Site<'_>, paths: &'a [Vec<u8>], key: Option<&str>) -> Vec<(&'a [u8], ReceivedRequest)> {
    let requests: Vec<Vec<u8>> = paths.iter().map(|path| request(path, key)).collect();
    let mut passed = Vec::new();
    for (path, answer) in paths.iter().zip(send_all(site.port, &requests)) {
        // Envoy may close instead of answering a request that it can't read.
        let Some(answer) = answer else { continue };
        match (answer.status, ReceivedRequest::parse(&answer.body)) {
            (200, Some(received)) => passed.push((path.as_slice(), received)),
            (400 | 401 | 403, _) => {}
            _ => panic!("{}: {answer:?}", path.escape_ascii()),
        }
    }
    passed
}

/// The models that dispatch a path that passed to another rule.
fn by_models(site: &Site<'_>, sent: &[u8], request: &ReceivedRequest) -> Vec<PathMismatch> {
    let received = &request.target;
    let rule = site.setup.rule(UpstreamModel::path_of(received));
    let is_public = rule == "public";
    assert_eq!(is_public, !request.is_identified, "{} is not what Envoy matched", received.escape_ascii());
    let of = |model: &UpstreamModel| {
        let dispatched = model.resolve(received)?;
        let other = site.setup.rule(&dispatched);
        let (sent, received) = (sent.to_vec(), received.clone());
        (other != rule).then_some(PathMismatch { sent, received, rule, model: model.name, dispatched, other })
    };
    UpstreamModel::ALL.iter().filter_map(of).collect()
}

/// How many there are, and the first of them.
fn report(mismatches: &[PathMismatch], passed: usize) -> String {
    let mut paths: Vec<&[u8]> = mismatches.iter().map(|mismatch| mismatch.sent.as_slice()).collect();
    paths.dedup();
    let lines = mismatches.iter().take(40).map(|PathMismatch { sent, received, rule, model, dispatched, other }| {
        let [sent, received, dispatched] = [sent, received, dispatched].map(|path| path.escape_ascii());
        format!("\n  {sent} passed by `{rule}` as {received}: {model} dispatches to {dispatched}, which is `{other}`")
    });
    format!("{} of {passed} that passed are mismatches:{}", paths.len(), lines.collect::<String>())
}
