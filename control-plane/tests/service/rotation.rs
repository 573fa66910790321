//! Rotation, overlap, and that no secret ever comes back.

use std::sync::atomic::{AtomicU64, Ordering};

use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use policy::table::Table;
use policy::{Digest, UnixSeconds};
use serde_json::{Value, json};

use crate::harness::{Service, last_four};

/// What an edge that has caught up knows of a secret.
fn superseded_at(table: &Table, secret: &str) -> Option<UnixSeconds> {
    table.find(&Digest::of(secret.as_bytes())).map(|record| record.superseded_at())
}

async fn rotated(service: &Service, path: &str, body: Value) -> (String, Value) {
    let rotated = service.post(&format!("{path}/rotate"), body).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    let json = rotated.json();
    assert_eq!(json["key"]["revision"], rotated.revision());
    (json["secret"].as_str().unwrap().to_owned(), json["key"].clone())
}

#[tokio::test]
async fn without_overlap_the_old_secret_ends_at_once() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, old) = service.key("acme", json!({"expires_in": "1d"})).await;
    service.advance(60);
    let (new, key) = rotated(&service, &path, Value::Null).await;
    assert_ne!(new, old);
    assert_eq!(key["rotated_at"], "2026-11-23T08:01:00Z");
    assert_eq!(key["expires_at"], "2026-11-24T08:00:00Z");
    assert_eq!(key["previous_secret_expires_at"], Value::Null);
    assert_eq!(key["last_characters"], last_four(&new));
    let table = service.table().await;
    assert_eq!(superseded_at(&table, &new), Some(UnixSeconds::DISTANT_FUTURE));
    assert_eq!(superseded_at(&table, &old), Some(UnixSeconds::DISTANT_PAST));
}

#[tokio::test]
async fn an_overlap_keeps_the_old_secret_until_its_end() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, old) = service.key("acme", json!({})).await;
    let (_, key) = rotated(&service, &path, json!({"overlap": "30m"})).await;
    assert_eq!(key["previous_secret_expires_at"], "2026-11-23T08:30:00Z");
    let table = service.table().await;
    assert_eq!(superseded_at(&table, &old), Some(UnixSeconds(1_795_420_800 + 1_800)));
    service.advance(1_800);
    assert_eq!(service.get(&path).await.json()["previous_secret_expires_at"], Value::Null);
}

#[tokio::test]
async fn a_rotation_in_the_overlap_ends_the_older_secret() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, first) = service.key("acme", json!({})).await;
    let mut table = service.table().await;
    let (second, _) = rotated(&service, &path, json!({"overlap": "7d"})).await;
    let (third, _) = rotated(&service, &path, json!({"overlap": "1h"})).await;
    service.catch_up(&mut table).await;
    assert_eq!(superseded_at(&table, &first), Some(UnixSeconds::DISTANT_PAST));
    assert_eq!(superseded_at(&table, &second), Some(UnixSeconds(1_795_420_800 + 3_600)));
    assert_eq!(superseded_at(&table, &third), Some(UnixSeconds::DISTANT_FUTURE));
}

#[tokio::test]
async fn a_replacement_ends_the_current_secret_and_leaves_the_previous_one() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, first) = service.key("acme", json!({})).await;
    let mut table = service.table().await;
    let (lost, key) = rotated(&service, &path, json!({"overlap": "7d"})).await;
    let until = key["previous_secret_expires_at"].clone();
    service.advance(60);
    let mut last = lost;
    // An answer may be lost twice.
    for _ in 0..2 {
        let (new, key) = rotated(&service, &path, json!({"replace": true})).await;
        assert_eq!(key["previous_secret_expires_at"], until);
        service.catch_up(&mut table).await;
        assert_eq!(superseded_at(&table, &first), Some(UnixSeconds(1_795_420_800 + 7 * 86_400)));
        assert_eq!(superseded_at(&table, &last), Some(UnixSeconds::DISTANT_PAST));
        assert_eq!(superseded_at(&table, &new), Some(UnixSeconds::DISTANT_FUTURE));
        last = new;
    }
    assert_eq!(service.table().await.len(), table.len());
    for (secret, status) in [(&first, "previous"), (&last, "current")] {
        let found = service.post("/v1/keys/identify", json!({"secret": secret})).await.json();
        assert_eq!(found["status"], status);
    }
    let ended = service.post(&format!("{path}/end-overlap"), Value::Null).await;
    assert_eq!(ended.json()["previous_secret_expires_at"], Value::Null);
    service.catch_up(&mut table).await;
    assert_eq!(superseded_at(&table, &first), Some(UnixSeconds::DISTANT_PAST));
}

#[tokio::test]
async fn a_replacement_without_an_overlap_is_a_rotation_and_goes_with_no_new_one() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, first) = service.key("acme", json!({})).await;
    let (second, _) = rotated(&service, &path, json!({"replace": true})).await;
    let table = service.table().await;
    assert_eq!(superseded_at(&table, &first), Some(UnixSeconds::DISTANT_PAST));
    assert_eq!(superseded_at(&table, &second), Some(UnixSeconds::DISTANT_FUTURE));
    let before = service.revision();
    for (body, error) in [
        (json!({"replace": true, "overlap": "1h"}), "replace ambiguous"),
        (json!({"replace": "yes"}), "replace wrong-type"),
        (json!({"replace": null}), "replace wrong-type"),
    ] {
        let refused = service.post(&format!("{path}/rotate"), body).await;
        assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec![error.to_owned()]));
    }
    assert_eq!(service.revision(), before);
    // An overlap works as usual, with or without a `replace` that is false.
    let (_, key) = rotated(&service, &path, json!({"replace": false, "overlap": "1h"})).await;
    assert_ne!(key["previous_secret_expires_at"], Value::Null);
}

#[tokio::test]
async fn end_overlap_ends_the_previous_secret_and_a_repeat_changes_nothing() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, old) = service.key("acme", json!({})).await;
    let nothing_to_end = service.post(&format!("{path}/end-overlap"), Value::Null).await;
    assert_eq!((nothing_to_end.status.as_u16(), nothing_to_end.revision()), (200, service.revision()));
    rotated(&service, &path, json!({"overlap": "1h"})).await;
    let ended = service.post(&format!("{path}/end-overlap"), Value::Null).await;
    assert_eq!(ended.json()["previous_secret_expires_at"], Value::Null);
    assert_eq!(ended.revision(), service.revision());
    let repeated = service.post(&format!("{path}/end-overlap"), Value::Null).await;
    assert_eq!(repeated.revision(), ended.revision());
    assert_eq!(superseded_at(&service.table().await, &old), Some(UnixSeconds::DISTANT_PAST));
}

#[tokio::test]
async fn an_expired_key_can_not_be_rotated_and_an_inactive_one_stays_inactive() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({"expires_in": "1h"})).await;
    service.post(&format!("{path}/deactivate"), Value::Null).await;
    let (_, key) = rotated(&service, &path, json!({})).await;
    assert_eq!(key["status"], "inactive");
    service.advance(3_600);
    let refused = service.post(&format!("{path}/rotate"), Value::Null).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "expired-key"));
}

#[tokio::test]
async fn a_change_of_the_key_reaches_both_secrets_in_overlap() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, old) = service.key("acme", json!({"scopes": {"reviews": "write"}})).await;
    let mut table = service.table().await;
    let (new, _) = rotated(&service, &path, json!({"overlap": "1h"})).await;
    service.post(&format!("{path}/deactivate"), Value::Null).await;
    service.patch(&path, json!({"scopes": {}, "ip_allowlist": ["192.0.2.1"]})).await;
    service.catch_up(&mut table).await;
    for secret in [&old, &new] {
        let record = table.find(&Digest::of(secret.as_bytes())).unwrap();
        assert!(!record.is_active() && record.has_allowlist() && record.levels().count() == 0, "{secret}");
    }
}

#[tokio::test]
async fn rotated_out_digests_leave_the_edge_after_thirty_days_and_deleted_ones_at_once() {
    const DAY: u64 = 86_400;
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, first) = service.key("acme", json!({})).await;
    let (second, _) = rotated(&service, &path, json!({"overlap": "7d"})).await;
    let (doomed, doomed_secret) = service.key("acme", json!({})).await;
    let (_, _) = rotated(&service, &doomed, json!({})).await;
    let mut table = service.table().await;
    assert_eq!(table.len(), 4);
    service.delete(&doomed).await;
    service.catch_up(&mut table).await;
    assert_eq!((table.len(), superseded_at(&table, &doomed_secret)), (2, None));

    // The 30 days begin when the overlap ends.
    service.advance(37 * DAY - 60);
    let before = service.revision();
    service.sweep().await;
    assert_eq!(service.revision(), before);
    service.advance(60);
    service.sweep().await;
    assert_eq!(service.revision(), before + 1);
    service.catch_up(&mut table).await;
    assert_eq!(superseded_at(&table, &first), None);
    assert!(superseded_at(&table, &second).is_some());
    assert_eq!(table.len(), service.table().await.len());
}

/// Draws the same secret whenever the counter has the same value.
fn repeating(draws: &'static AtomicU64) -> Entropy {
    Entropy::from_fill(move |bytes| {
        // Ids take 10 bytes, secrets 32.
        let number = if bytes.len() == 32 { draws.load(Ordering::SeqCst) as u8 } else { rand_byte() };
        bytes.fill(number);
        Ok(())
    })
}

fn rand_byte() -> u8 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::SeqCst) as u8
}

#[tokio::test]
async fn a_secret_that_any_key_ever_had_is_never_taken_again() {
    static DRAWS: AtomicU64 = AtomicU64::new(0);
    let directory = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let service = Service::start_in(directory, Config::default(), repeating(&DRAWS)).await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let draw = |number| DRAWS.store(number, Ordering::SeqCst);

    // 1 is rotated out, 2 current; 3 belonged to a key that is deleted.
    draw(1);
    let (path, _) = service.key("acme", json!({})).await;
    draw(2);
    rotated(&service, &path, Value::Null).await;
    draw(3);
    let (deleted, _) = service.key("acme", json!({})).await;
    service.delete(&deleted).await;
    service.advance(364 * 86_400);
    service.sweep().await;

    let before = (service.revision(), service.get(&path).await.json());
    for number in [1, 2, 3] {
        draw(number);
        let made = service.post("/v1/workspaces/other/keys", json!({"name": "x", "expires_in": "none"})).await;
        assert_eq!((made.status.as_u16(), made.code().as_str()), (500, "internal"), "create with {number}");
        let again = service.post(&format!("{path}/rotate"), Value::Null).await;
        assert_eq!((again.status.as_u16(), again.code().as_str()), (500, "internal"), "rotate to {number}");
    }
    assert_eq!((service.revision(), service.get(&path).await.json()), before);
    draw(4);
    assert_eq!(rotated(&service, &path, Value::Null).await.1["active"], true);
}
