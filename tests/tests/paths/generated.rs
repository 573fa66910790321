//! Twenty thousand generated paths: none passes that a reader dispatches to a route with another rule.

use end_to_end::{Mirrored, Reader, send_all};

use crate::generator;
use crate::site::{Site, request};

/// A path that passed, and how a reader dispatches it.
struct Misread {
    sent: Vec<u8>,
    received: Vec<u8>,
    rule: &'static str,
    reader: &'static str,
    dispatched: Vec<u8>,
    other: &'static str,
}

/// The paths that passed, without a key and with one for reviews, and that a reader dispatches to another rule: how
/// many there are, and the first of them.
pub fn misread(site: &Site<'_>) -> Vec<String> {
    let paths = generator::all();
    let of = |(who, key): (&str, Option<&str>)| {
        let passed = passed(site, &paths, key);
        assert!(passed.len() > 100, "{who}: {} passed, which shows nothing", passed.len());
        let misread: Vec<Misread> =
            passed.iter().flat_map(|(sent, mirrored)| by_readers(site, sent, mirrored)).collect();
        (!misread.is_empty()).then(|| format!("with {who} {}", report(&misread, passed.len())))
    };
    [("no key", None), ("a key for reviews", Some(site.key.secret.as_str()))].into_iter().filter_map(of).collect()
}

/// The paths that reached the upstream, and what it received.
fn passed<'a>(site: &Site<'_>, paths: &'a [Vec<u8>], key: Option<&str>) -> Vec<(&'a [u8], Mirrored)> {
    let requests: Vec<Vec<u8>> = paths.iter().map(|path| request(path, key)).collect();
    let mut passed = Vec::new();
    for (path, answer) in paths.iter().zip(send_all(site.port, &requests)) {
        // Envoy may close instead of answering a request that it can't read.
        let Some(answer) = answer else { continue };
        match (answer.status, Mirrored::parse(&answer.body)) {
            (200, Some(mirrored)) => passed.push((path.as_slice(), mirrored)),
            (400 | 401 | 403, _) => {}
            _ => panic!("{}: {answer:?}", path.escape_ascii()),
        }
    }
    passed
}

/// The readers that dispatch a path that passed to another rule.
fn by_readers(site: &Site<'_>, sent: &[u8], mirrored: &Mirrored) -> Vec<Misread> {
    let received = &mirrored.target;
    let rule = site.setup.rule(Reader::cut(received));
    let is_public = rule == "public";
    assert_eq!(is_public, !mirrored.is_identified, "{} is not what Envoy matched", received.escape_ascii());
    let of = |reader: &Reader| {
        let dispatched = reader.read(received)?;
        let other = site.setup.rule(&dispatched);
        let (sent, received) = (sent.to_vec(), received.clone());
        (other != rule).then_some(Misread { sent, received, rule, reader: reader.name, dispatched, other })
    };
    Reader::ALL.iter().filter_map(of).collect()
}

/// How many there are, and the first of them.
fn report(misread: &[Misread], passed: usize) -> String {
    let mut paths: Vec<&[u8]> = misread.iter().map(|misread| misread.sent.as_slice()).collect();
    paths.dedup();
    let lines = misread.iter().take(40).map(|Misread { sent, received, rule, reader, dispatched, other }| {
        let [sent, received, dispatched] = [sent, received, dispatched].map(|path| path.escape_ascii());
        format!("\n  {sent} passed by `{rule}` as {received}: {reader} dispatches to {dispatched}, which is `{other}`")
    });
    format!("{} of {passed} that passed are misread:{}", paths.len(), lines.collect::<String>())
}
