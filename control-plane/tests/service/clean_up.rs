//! Cleaning up: keys that nobody needs any more.

use serde_json::{Value, json};

use crate::harness::Service;

const DAY: u64 = 86_400;
const KEYS: &str = "/v1/workspaces/acme/keys";

/// The names of keys, sorted.
fn names(items: &Value) -> Vec<String> {
    let mut names: Vec<_> =
        items.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// A workspace a hundred days old, with keys of all sorts.
async fn start() -> Service {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    service.key("other", json!({"name": "old"})).await;
    let key = async |name: &str, more: Value| {
        let mut more = more;
        more["name"] = json!(name);
        service.key("acme", more).await.0
    };
    key("old", json!({})).await;
    let stopped = key("old, stopped", json!({})).await;
    assert_eq!(service.post(&format!("{stopped}/deactivate"), Value::Null).await.status, 200);
    let rotated = key("old, rotated", json!({})).await;
    key("ends in 5 days", json!({"expires_at": "2027-03-08T08:00:00Z"})).await;
    key("ended", json!({"expires_at": "2026-11-24T08:00:00Z"})).await;
    let deleted = key("deleted", json!({})).await;
    assert_eq!(service.delete(&deleted).await.status, 204);
    service.advance(100 * DAY);
    assert_eq!(service.post(&format!("{rotated}/rotate"), Value::Null).await.status, 200);
    key("100%_new", json!({})).await;
    service
}

#[tokio::test]
async fn a_list_and_a_dry_run_match_the_same_keys() {
    let service = start().await;
    for (filter, expected) in [
        (json!({"unrotated_days": 100}), vec!["ended", "ends in 5 days", "old", "old, stopped"]),
        (json!({"unrotated_days": 101}), vec![]),
        (json!({"expiring_days": 5}), vec!["ends in 5 days"]),
        (json!({"expiring_days": 4}), vec![]),
        (json!({"status": "expired"}), vec!["ended"]),
        (json!({"status": "inactive", "unrotated_days": 1}), vec!["old, stopped"]),
        (json!({"name": "OLD*"}), vec!["old", "old, rotated", "old, stopped"]),
        (json!({"name": "ol?"}), vec!["old"]),
        (json!({"name": "old"}), vec!["old"]),
        (json!({"name": "*%_*"}), vec!["100%_new"]),
        (json!({"name": "*", "unrotated_days": 7, "status": "active"}), vec!["ends in 5 days", "old"]),
    ] {
        let before = service.revision();
        let query: Vec<_> = filter
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), |text| text.replace('%', "%25").replace(' ', "%20"));
                format!("{name}={text}")
            })
            .collect();
        let listed = service.get(&format!("{KEYS}?{}", query.join("&"))).await;
        assert_eq!(listed.status, 200, "{filter}: {}", listed.text());
        assert_eq!(names(&listed.json()["items"]), expected, "{filter}");
        let mut body = filter.clone();
        body["dry_run"] = json!(true);
        let found = service.post(&format!("{KEYS}/delete-matching"), body.clone()).await;
        assert_eq!(found.status, 200, "{filter}: {}", found.text());
        assert_eq!(
            (names(&found.json()["keys"]), &found.json()["dry_run"]),
            (expected.iter().map(|&name| name.to_owned()).collect(), &json!(true))
        );
        assert_eq!(found.json()["matched"], expected.len(), "{filter}");
        assert_eq!((found.revision(), service.revision()), (before, before), "{filter}");
        // Keys that are already inactive can't be deactivated.
        let found = service.post(&format!("{KEYS}/deactivate-matching"), body).await.json();
        let expected: Vec<_> = expected.into_iter().filter(|name| *name != "old, stopped").collect();
        assert_eq!(names(&found["keys"]), expected, "{filter}");
    }
}

#[tokio::test]
async fn each_key_that_fits_is_a_change_of_its_own() {
    let service = start().await;
    for n in 0..120 {
        service.key("acme", json!({"name": format!("batch {n}")})).await;
    }
    let mut table = service.table().await;
    let before = service.revision();
    let body = json!({"name": "batch *", "dry_run": false});
    let stopped = service.post(&format!("{KEYS}/deactivate-matching"), body.clone()).await;
    assert_eq!((stopped.status.as_u16(), &stopped.json()["matched"]), (200, &json!(120)), "{}", stopped.text());
    assert_eq!((stopped.revision(), service.revision()), (before + 120, before + 120));
    let listed = service.get(&format!("{KEYS}?q=batch&status=active")).await.json();
    assert_eq!(listed["items"], json!([]));
    service.catch_up(&mut table).await;
    assert_eq!(table.position(), *service.store.head().borrow());

    let again = service.post(&format!("{KEYS}/deactivate-matching"), body.clone()).await;
    assert_eq!((&again.json()["matched"], again.revision()), (&json!(0), before + 120));
    let deleted = service.post(&format!("{KEYS}/delete-matching"), body).await;
    assert_eq!((&deleted.json()["matched"], deleted.revision()), (&json!(120), before + 240));
    let id = deleted.json()["keys"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(service.get(&format!("{KEYS}/{id}")).await.status, 404);
    let events = service.get(&format!("/v1/audit-events?target={id}")).await.json();
    let actions: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["key.delete", "key.deactivate", "key.create"]);
    // The other workspace is unchanged.
    assert_eq!(names(&service.get("/v1/workspaces/other/keys?status=active").await.json()["items"]), ["old"]);
}

#[tokio::test]
async fn what_would_fit_all_keys_or_is_no_filter_is_refused() {
    let service = start().await;
    let before = service.revision();
    for action in ["deactivate-matching", "delete-matching"] {
        for (body, expected) in [
            (json!({"dry_run": false}), " required"),
            (json!({"name": "*"}), "dry_run required"),
            (json!({"name": "*", "dry_run": "no"}), "dry_run wrong-type"),
            (json!({"name": "", "dry_run": false}), "name empty"),
            (json!({"name": "x".repeat(101), "dry_run": false}), "name too-long"),
            (json!({"unrotated_days": 0, "dry_run": false}), "unrotated_days out-of-range"),
            (json!({"unrotated_days": 1.5, "dry_run": false}), "unrotated_days out-of-range"),
            (json!({"expiring_days": 36_501, "dry_run": false}), "expiring_days out-of-range"),
            (json!({"expiring_days": null, "dry_run": false}), "expiring_days out-of-range"),
            (json!({"status": "dead", "dry_run": false}), "status unknown-status"),
        ] {
            let refused = service.post(&format!("{KEYS}/{action}"), body.clone()).await;
            assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec![expected.to_owned()]), "{body}");
        }
    }
    assert_eq!(service.revision(), before);
}
