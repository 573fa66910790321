//! Golden messages: what edges and control planes in the field exchange. A byte that changes here needs a new format.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::value::RawValue;

use super::acknowledgement::{Acknowledgement, AcknowledgementAnswer, WorkerReport};
use super::feed::{FeedRequest, QueryError};
use super::usage::{DenialReport, DroppedUsage, KeyUsage, SecretMark, SecretUse, UsageBatch};
use super::{is_name, page_path, timing};
use crate::digest::Digest;
use crate::fixtures::{EPOCH, test};
use crate::id::KeyId;
use crate::position::{ChainHash, Position, Revision};
use crate::time::UnixSeconds;

const KEY: KeyId = KeyId::from_bytes([0x6b; 16]);

/// Reads a query of plain parameters.
fn read(query: &str) -> Result<FeedRequest<'static>, QueryError> {
    let parameters = query.split('&').filter_map(|parameter| parameter.split_once('='));
    FeedRequest::read(parameters.map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value))))
}

fn request() -> FeedRequest<'static> {
    FeedRequest {
        edge: "edge-1".into(),
        instance: "0123".into(),
        wait_secs: 20,
        max_staleness_secs: Some(60),
        position: Some(Position { epoch: EPOCH, revision: Revision(7), head: ChainHash([1; 32]) }),
        applied: Some(Revision(6)),
    }
}

#[test]
fn a_feed_request_is_what_the_query_states() {
    let (epoch, head) = ("e0".repeat(16), "01".repeat(32));
    let who = "/edge/v1/feed?format=1&edge=edge-1&instance=0123";
    let bare = FeedRequest { wait_secs: 0, max_staleness_secs: None, position: None, applied: None, ..request() };
    // `applied` means nothing without a position.
    let unplaced = FeedRequest { applied: Some(Revision(6)), ..bare.clone() };
    for (request, expected) in [
        (request(), format!("{who}&wait=20&max_staleness=60&epoch={epoch}&since=7&head={head}&applied=6")),
        (bare.clone(), format!("{who}&wait=0")),
        (unplaced, format!("{who}&wait=0")),
    ] {
        let path = request.path();
        assert_eq!(path, expected);
        let (_, query) = path.split_once('?').unwrap();
        let back = read(query).unwrap();
        assert_eq!(back, FeedRequest { applied: request.position.and(request.applied), ..request });
    }
    assert_eq!(page_path(EPOCH, Revision(7), 3), format!("/edge/v1/snapshots/{epoch}/7/3"));
}

#[test]
fn a_wrong_query_is_refused_by_the_parameter_name() {
    let who = "format=1&edge=e&instance=i";
    for (query, named) in [
        ("edge=e&instance=i".to_owned(), "format=1"),
        ("format=1&edge=e".to_owned(), "`instance`"),
        ("format=1&edge=a/b&instance=i".to_owned(), "`edge`"),
        (format!("{who}&wait=soon"), "`wait`"),
        (format!("{who}&wait=1&wait=2"), "`wait` is given twice"),
        (format!("{who}&max_staleness=0"), "`max_staleness`"),
        (format!("{who}&since=-1"), "`since`"),
        (format!("{who}&epoch=1"), "`epoch`"),
        (format!("{who}&head=1"), "`head`"),
        (format!("{who}&applied=x"), "`applied`"),
    ] {
        let refused = read(&query).unwrap_err().to_string();
        assert!(refused.contains(named), "{query}: {refused}");
    }
    for format in ["2", "x", ""] {
        assert_eq!(read(&format!("format={format}&edge=/")), Err(QueryError::Format), "{format}");
    }
}

#[test]
fn an_acknowledgement_has_these_bytes() {
    let worker =
        |id: &str, applied, ended| WorkerReport { id: id.to_owned(), applied, started_at: 1_795_420_800, ended };
    let acknowledgement = Acknowledgement {
        edge: "edge-1".to_owned(),
        instance: "0123".to_owned(),
        epoch: EPOCH.to_string(),
        version: Some("0.1.0".to_owned()),
        max_staleness_secs: None,
        workers: vec![worker("a", 7, false), worker("b", 0, true)],
    };
    let text = format!(
        r#"{{"edge":"edge-1","instance":"0123","epoch":"{EPOCH}","version":"0.1.0","max_staleness_secs":null,"workers":[{{"id":"a","applied":7,"started_at":1795420800}},{{"id":"b","applied":0,"started_at":1795420800,"ended":true}}]}}"#
    );
    assert_eq!(serde_json::to_string(&acknowledgement).unwrap(), text);
    assert_eq!(serde_json::from_str::<Acknowledgement>(&text).unwrap(), acknowledgement);
    let forgotten = text.replace(r#""max_staleness_secs":null,"#, "");
    assert!(serde_json::from_str::<Acknowledgement>(&forgotten).is_err(), "a bound is never forgotten");

    let answer = AcknowledgementAnswer { epoch: EPOCH, head: Revision(9), chain_hash: "01".repeat(32) };
    let text = format!(r#"{{"epoch":"{EPOCH}","head":9,"chain_hash":"{}"}}"#, "01".repeat(32));
    assert_eq!(serde_json::to_string(&answer).unwrap(), text);
}

#[test]
fn a_batch_of_usage_has_these_bytes() {
    let full = KeyUsage {
        key: KEY,
        hour: UnixSeconds(3_600),
        allowed: 5,
        denied: BTreeMap::from([("missing-scope".into(), 2)]),
        used: vec![SecretUse { secret: SecretMark::of(&Digest([0xab; 32])), at: UnixSeconds(3_700) }],
        address: Some(IpAddr::from([192, 0, 2, 1])),
    };
    let bare = KeyUsage { allowed: 1, denied: BTreeMap::new(), used: Vec::new(), address: None, ..full.clone() };
    assert_eq!((full.requests(), bare.requests()), (7, 1));
    let batch = UsageBatch {
        edge: "edge-1".to_owned(),
        instance: "0123".to_owned(),
        worker: "w".to_owned(),
        sequence: 3,
        keys: vec![full, bare],
        denials: vec![DenialReport {
            key: KEY,
            code: "missing-scope".into(),
            address: None,
            at: UnixSeconds(3_701),
            method: "GET".to_owned(),
            path: "/v1/reviews".to_owned(),
        }],
        denied: BTreeMap::from([("unknown-key".into(), 4)]),
        dropped: Some(DroppedUsage { requests: 1, denials: 0 }),
    };
    let text = format!(
        r#"{{"edge":"edge-1","instance":"0123","worker":"w","sequence":3,"keys":[{{"key":"{KEY}","hour":3600,"allowed":5,"denied":{{"missing-scope":2}},"used":[{{"secret":"abababab","at":3700}}],"address":"192.0.2.1"}},{{"key":"{KEY}","hour":3600,"allowed":1}}],"denials":[{{"key":"{KEY}","code":"missing-scope","address":null,"at":3701,"method":"GET","path":"/v1/reviews"}}],"denied":{{"unknown-key":4}},"dropped":{{"requests":1,"denials":0}}}}"#
    );
    assert_eq!(serde_json::to_string(&batch).unwrap(), text);
    assert_eq!(serde_json::from_str::<UsageBatch>(&text).unwrap(), batch);

    // An entry that can't be read costs no other, where each is read by itself.
    type Unread<'a> = UsageBatch<&'a RawValue, &'a RawValue, &'a RawValue, &'a RawValue>;
    let damaged = text.replacen("\"allowed\":5", "\"allowed\":-5", 1);
    assert!(serde_json::from_str::<UsageBatch>(&damaged).is_err());
    let unread = serde_json::from_str::<Unread<'_>>(&damaged).unwrap();
    let readable: Vec<_> =
        unread.keys.iter().map(|entry| serde_json::from_str::<KeyUsage>(entry.get()).is_ok()).collect();
    assert_eq!(readable, [false, true]);
    assert!(
        serde_json::from_str::<SecretMark>("\"abababa\"").is_err()
            && serde_json::from_str::<SecretMark>("\"+bababab\"").is_err()
    );
}

#[test]
fn a_name_has_1_to_64_of_few_characters() {
    for (text, expected) in
        [("edge-1.eu_west", true), (&"x".repeat(64), true), (&"x".repeat(65), false), ("", false), ("a/b", false)]
    {
        assert_eq!(is_name(text), expected, "{text}");
    }
}

#[test]
fn a_wait_ends_well_before_a_table_is_stale() {
    for (bound, expected) in
        [(None, 20), (Some(86_400), 20), (Some(60), 20), (Some(59), 19), (Some(10), 3), (Some(0), 0)]
    {
        assert_eq!(timing::wait_secs(bound), expected, "{bound:?}");
    }
}
