//! Which changes after a backup an audit log brings back, and which must not come back.

use super::*;

#[tokio::test]
async fn what_was_revoked_in_an_audit_log_is_revoked_after_its_replay() {
    let service = Service::of_a_file().await;
    service.workspace("acme").await;
    let (_, stays) = service.key("acme", json!({})).await;
    let (stopped_key, stopped_secret) = service.key("acme", json!({})).await;
    let (rotated, rotated_secret) = service.key("acme", json!({"environment": "live"})).await;
    let (deleted, deleted_secret) = service.key("acme", json!({})).await;
    let (narrowed, _) = service.key("acme", json!({"scopes": {"reviews": "write", "webhooks": "read"}})).await;
    let (again, again_secret) = service.key("acme", json!({})).await;
    let (overlap, _) = service.key("acme", json!({})).await;
    let first = service.post(&format!("{overlap}/rotate"), json!({"overlap": "7d"})).await;
    assert_eq!(first.status, 200);
    let (inactive, _) = service.key("acme", json!({})).await;
    post(&service, &inactive, "deactivate").await;
    let (admin, admin_secret) = service.token("platform_admin", None).await;
    let edge = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "e"})).await.json();
    let site = BackedUpService::backed_up(service);

    let service = &site.service;
    post(service, &stopped_key, "deactivate").await;
    service.post(&format!("{rotated}/rotate"), json!({"overlap": "7d"})).await;
    let lost =
        service.post(&format!("{rotated}/rotate"), json!({})).await.json()["secret"].as_str().unwrap().to_owned();
    service.delete(&deleted).await;
    service
        .patch(&narrowed, json!({"scopes": {"reviews": "read"}, "ip_allowlist": ["192.0.2.0/24"], "name": "n"}))
        .await;
    post(service, &again, "deactivate").await;
    post(service, &again, "activate").await;
    post(service, &overlap, "end-overlap").await;
    post(service, &inactive, "activate").await;
    service.delete(&format!("/v1/admin-tokens/{admin}")).await;
    service.delete(&format!("/v1/edge-tokens/{}", edge["token"]["id"].as_str().unwrap())).await;
    let (made, made_secret) = service.key("acme", json!({})).await;
    let head = service.revision();
    let newest = service.get("/v1/audit-events?limit=1").await.json()["items"][0]["hash"].as_str().unwrap().to_owned();
    let log = site.export().await;
    let stopped = site.stop().await;

    let restored = stopped.restore(Some(&log), LostChanges::Refused).unwrap();
    let replayed = restored.replayed.unwrap();
    assert_eq!(replayed.until, Some(Revision(head)));
    assert_eq!((replayed.deactivated, replayed.deleted, replayed.updated, replayed.revoked_tokens), (1, 1, 1, 2));
    assert_eq!((replayed.rotated.len(), replayed.lost_keys), (1, 1));
    assert!(restored.revision.0 > head);
    // Once more, within the same second: the replaced database is kept each time.
    let again_at_once = stopped.restore(Some(&log), LostChanges::Accepted).unwrap();
    let (first, second) = (restored.kept_as.unwrap(), again_at_once.kept_as.unwrap());
    assert!(first != second && first.exists() && second.exists(), "{first:?} {second:?}");

    let service = stopped.start().await;
    let position = *service.store.head().borrow();
    assert_eq!(position.epoch, Epoch::from_bytes([9; 16]));
    let status = async |path: &str| service.get(path).await.json()["status"].as_str().map(str::to_owned);
    assert_eq!(status(&stopped_key).await.as_deref(), Some("inactive"));
    assert_eq!(status(&again).await.as_deref(), Some("active"));
    // A deactivation is undone only if it is in the log itself.
    assert_eq!(status(&inactive).await.as_deref(), Some("inactive"));
    assert_eq!(service.get(&deleted).await.status, 404);
    assert_eq!(service.get(&made).await.status, 404);
    let key = service.get(&narrowed).await.json();
    assert_eq!((&key["scopes"], &key["ip_allowlist"]), (&json!({"reviews": "read"}), &json!(["192.0.2.0/24"])));
    assert_eq!(service.get(&overlap).await.json()["previous_secret_expires_at"], Value::Null);
    let refused = service.call_as(&admin_secret, Method::GET, "/v1/workspaces", Value::Null, &[]).await;
    assert_eq!(refused.code(), "revoked-token");
    let feed = "/edge/v1/feed?format=1&edge=e&instance=i";
    assert_eq!(
        service.call_as(edge["secret"].as_str().unwrap(), Method::GET, feed, Value::Null, &[]).await.code(),
        "bad-token"
    );

    let table = service.table().await;
    let ends =
        |secret: &str| table.find(&Digest::of(secret.as_bytes())).map(|found| found.superseded_at().is_reached(NOW));
    assert_eq!(ends(&stays), Some(false));
    assert_eq!(ends(&again_secret), Some(false));
    assert_eq!(ends(&rotated_secret), Some(true));
    assert!(!table.find(&Digest::of(stopped_secret.as_bytes())).unwrap().is_active());
    for gone in [&lost, &deleted_secret, &made_secret] {
        assert_eq!(ends(gone), None);
    }
    // The key whose secret was lost gets a new one.
    let fresh = service.post(&format!("{rotated}/rotate"), json!({})).await;
    assert_eq!(fresh.status, 200, "{}", fresh.text());

    // The events after the backup are kept, and a hash that was noted then is still in the log.
    let expected: ChainHash = newest.parse().unwrap();
    service.store.close().await;
    let verified = verify_audit(&stopped.database, Some(expected)).unwrap();
    assert!(verified.head.unwrap().revision.0 > head);
}

#[tokio::test]
async fn a_log_that_does_not_lead_on_from_the_backup_is_refused() {
    let (site, [(path, _), (other, _)]) = BackedUpService::start().await;
    post(&site.service, &path, "deactivate").await;
    post(&site.service, &other, "deactivate").await;
    post(&site.service, &other, "activate").await;
    let log = site.export().await;
    let own = site.audit_events("/v1/workspaces/acme/audit-events").await.text();
    let all = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = all.lines().collect();
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().join("\n");
    let changed = all.replacen("key.deactivate", "key.activates!", 1);
    let other_service = Service::of_a_file().await;
    for name in ["a", "b", "c", "d"] {
        other_service.workspace(&format!("{name}{name}")).await;
    }
    let foreign = other_service
        .call_with(Method::GET, "/v1/audit-events", Value::Null, &[("accept", "application/jsonl")])
        .await
        .text();
    let stopped = site.stop().await;
    for (name, text, expected) in [
        ("an event is missing", without(lines.len() - 2), "Broken"),
        ("an event was changed", changed, "Broken"),
        ("the first after the backup is missing", without(4), "Broken"),
        ("the other way round", lines.iter().rev().copied().collect::<Vec<_>>().join("\n"), "Broken"),
        ("another database's", foreign, "Foreign"),
        ("no log", "{}".to_owned(), "NoEvent"),
        ("half a line", all.trim_end_matches(|end| end != ':').to_owned(), "NoEvent"),
    ] {
        std::fs::write(&log, text).unwrap();
        let error = stopped.restore(Some(&log), LostChanges::Refused).unwrap_err();
        let RestoreError::Log { cause, .. } = &error else { panic!("{name}: {error}") };
        let found = match cause {
            LogError::Read(_) => "Read",
            LogError::NoEvent(_) => "NoEvent",
            LogError::Broken(_) => "Broken",
            LogError::Foreign(_) => "Foreign",
        };
        assert_eq!(found, expected, "{name}: {error}");
    }
    // A single workspace's log is complete only if nothing else was changed: the catalogue belongs to no workspace.
    std::fs::write(&log, own).unwrap();
    stopped.restore(Some(&log), LostChanges::Refused).unwrap();
}

#[tokio::test]
async fn a_log_that_ends_too_early_is_refused() {
    let (site, [(path, _), (other, _)]) = BackedUpService::start().await;
    post(&site.service, &path, "deactivate").await;
    let log = site.export().await;
    post(&site.service, &other, "deactivate").await;
    let stopped = site.stop().await;
    let error = stopped.restore(Some(&log), LostChanges::Refused).unwrap_err();
    assert!(matches!(error, RestoreError::Lost { .. }), "{error}");
}
