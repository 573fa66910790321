//! What rests on disk: digests, and never a secret.

use serde_json::{Value, json};

use crate::harness::Service;

#[tokio::test]
async fn no_secret_is_in_the_bytes_of_the_database_or_its_wal() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, first) = service.key("acme", json!({})).await;
    let rotate = async |body: Value| {
        let rotated = service.post(&format!("{path}/rotate"), body).await.json();
        rotated["secret"].as_str().unwrap().to_owned()
    };
    let secrets = [first, rotate(Value::Null).await, rotate(json!({"overlap": "1h"})).await];
    let (_, admin) = service.token("workspace_admin", Some("acme")).await;
    let edge = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "edge-1"})).await.json();
    let secrets = secrets.into_iter().chain([admin, edge["secret"].as_str().unwrap().to_owned()]).collect::<Vec<_>>();
    service.table().await;
    let mut bytes = Vec::new();
    for name in ["latchkey.db", "latchkey.db-wal"] {
        bytes.extend(std::fs::read(service.directory.path().join(name)).unwrap());
    }
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    for secret in &secrets {
        let digest = policy::Digest::of(secret.as_bytes());
        assert!(holds(&digest.0), "the digest is what is kept");
        // Its random part, too: not even without the prefix.
        assert!(!holds(secret.as_bytes()) && !holds(secret.split('_').next_back().unwrap().as_bytes()));
    }
}
