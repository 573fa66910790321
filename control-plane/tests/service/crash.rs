//! Killed under load, again and again: what was answered is there, whole, and nothing is there by half.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use latchkey::config::Config;
use latchkey::entropy::Entropy;
use latchkey::store::{Database, verify_audit};
use policy::Digest;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::databases;
use crate::harness::Service;
use crate::start::{Running, command};

const KILLS: usize = 50;
const CLIENTS: usize = 8;

/// What a client was answered: the key's id, the revision, the secret.
type Answered = (String, u64, String);

/// Makes keys until the control plane is gone.
async fn make_keys(url: String, token: String, count: Arc<AtomicUsize>) -> Vec<Answered> {
    let (client, mut answered) = (reqwest::Client::new(), Vec::new());
    let key = json!({"name": "key", "expires_in": "none"});
    while let Ok(answer) = client.post(&url).bearer_auth(&token).json(&key).send().await {
        assert_eq!(answer.status(), 201);
        let Ok(made) = answer.json::<Value>().await else { break };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let revision = made["key"]["revision"].as_u64().unwrap();
        answered.push((text(&made["key"]["id"]), revision, text(&made["secret"])));
        count.fetch_add(1, Ordering::SeqCst);
    }
    answered
}

/// Ids and revisions of all items of a list.
async fn all(service: &Service, path: &str, id: impl Fn(&Value) -> &Value) -> BTreeMap<String, u64> {
    let (mut all, mut page) = (BTreeMap::new(), service.get(path).await.json());
    loop {
        let items = page["items"].as_array().unwrap().iter();
        all.extend(items.map(|item| (id(item).as_str().unwrap().to_owned(), item["revision"].as_u64().unwrap())));
        match page["next_cursor"].as_str() {
            Some(cursor) => page = service.get(&format!("{path}&cursor={cursor}")).await.json(),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_change_outlives_fifty_kills_with_its_event_and_its_revision() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let mut answered = Vec::new();
    for kill in 0..KILLS {
        let mut running = Running::start(command(directory.path(), &[]));
        let token = std::fs::read_to_string(directory.path().join("admin.token")).unwrap().trim_end().to_owned();
        let workspaces = format!("http://{}/v1/workspaces", running.address);
        if kill == 0 {
            let body = json!({"name": "Acme", "slug": "acme"});
            let made = reqwest::Client::new().post(&workspaces).bearer_auth(&token).json(&body).send().await;
            assert_eq!(made.unwrap().status(), 201);
        }
        let (count, mut clients) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for _ in 0..CLIENTS {
            clients.spawn(make_keys(format!("{workspaces}/acme/keys"), token.clone(), Arc::clone(&count)));
        }
        // At another place of the load each time.
        while count.load(Ordering::SeqCst) < kill % 10 {
            tokio::task::yield_now().await;
        }
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        answered.extend(clients.join_all().await.into_iter().flatten());
    }
    assert!(answered.len() > KILLS, "there was a load");
    let database: Database = databases::of(directory.path()).parse().unwrap();
    tokio::task::spawn_blocking(|| verify_audit(database, None)).await.unwrap().unwrap();

    let service = Service::start_in(Arc::clone(&directory), Config::default(), Entropy::system()).await;
    let events = all(&service, "/v1/audit-events?action=key.create&limit=200", |event| &event["target"]["id"]).await;
    let keys = all(&service, "/v1/workspaces/acme/keys?limit=200", |key| &key["id"]).await;
    assert_eq!(keys, events, "a key without its event, or an event without its key");
    let table = service.table().await;
    for (id, revision, secret) in &answered {
        assert_eq!(keys.get(id), Some(revision), "{id} was answered");
        assert!(table.find(&Digest::of(secret.as_bytes())).is_some(), "{id} is not in the feed");
    }
}
