//! Databases of older versions: each schema as its versions left it, migrated to the current one.

use std::sync::Arc;

use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use latchkey::store::{ChangeContext, LostChanges, NewSecret, Restore, RestorePlan, StoreError, restore, verify_audit};
use policy::{Digest, Epoch, UnixSeconds};
use rusqlite::Connection;

use crate::harness::Service;

const FIXTURES: [&str; 10] = [
    include_str!("schema/v1.sql"),
    include_str!("schema/v2.sql"),
    include_str!("schema/v3.sql"),
    include_str!("schema/v4.sql"),
    include_str!("schema/v5.sql"),
    include_str!("schema/v6.sql"),
    include_str!("schema/v7.sql"),
    include_str!("schema/v8.sql"),
    include_str!("schema/v9.sql"),
    NEWEST,
];

/// The newest schema.
pub(crate) const NEWEST: &str = include_str!("schema/v10.sql");

const FIRST: &str = "/v1/workspaces/acme/keys/key_019ab0c0000170008000000000000002";
const SECOND: &str = "/v1/workspaces/acme/keys/key_019ab0c0000270008000000000000003";

async fn assert_whole(service: &Service, name: &str) {
    let (first, second) = (service.get(FIRST).await.json(), service.get(SECOND).await.json());
    assert_eq!((&first["name"], &first["status"]), (&"first".into(), &"active".into()), "{name}: {first}");
    assert_eq!((&second["name"], &second["status"]), (&"second".into(), &"inactive".into()), "{name}: {second}");
    let table = service.table().await;
    let found = |secret: &str| table.find(&Digest::of(secret.as_bytes()));
    assert!(found("first").unwrap().is_active() && !found("second").unwrap().is_active(), "{name}");
    assert!(found("rotated-out").unwrap().superseded_at().is_reached(UnixSeconds(0)), "{name}");
    // SQL finds names until a sweep has folded them, and they are found afterwards too.
    for swept in [false, true] {
        if swept {
            service.sweep().await;
        }
        let found = service.get("/v1/workspaces/acme/keys?q=FIRST").await.json();
        assert_eq!(found["items"][0]["name"], "first", "{name}: {found}");
    }
    let rotated = service.post(&format!("{FIRST}/rotate"), serde_json::Value::Null).await;
    assert_eq!(rotated.status, 200, "{name}: {}", rotated.text());
}

#[tokio::test]
async fn a_database_of_each_older_schema_goes_on() {
    for (fixture, version) in FIXTURES.into_iter().zip(1..) {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let path = directory.path().join("latchkey.db");
        Connection::open(&path).unwrap().execute_batch(fixture).unwrap();
        let service = Service::start_in(directory, Config::default(), Entropy::system()).await;
        let sizes = "SELECT key_count, edge_bytes FROM workspaces";
        let sizes = Connection::open(&path).unwrap().query_row(sizes, [], |row| Ok((row.get(0)?, row.get(1)?)));
        // Two current secrets with a scope and a network, and one that was rotated out.
        assert_eq!(sizes, Ok((2_i64, 2_i64 * (76 + 2 + 18) + 76)), "schema {version}");
        assert_whole(&service, &format!("schema {version}")).await;
        service.store.close().await;
        verify_audit(&path, None).unwrap();
    }
}

#[tokio::test]
async fn a_backup_of_each_older_schema_is_restored() {
    for (fixture, version) in FIXTURES.into_iter().zip(1..) {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let (database, from) = (directory.path().join("latchkey.db"), directory.path().join("backup.db"));
        Connection::open(&from).unwrap().execute_batch(fixture).unwrap();
        let bytes = std::fs::read(&from).unwrap();
        let plan = RestorePlan {
            log: None,
            reported: None,
            lost_changes: LostChanges::Accepted,
            epoch: Epoch::from_bytes([9; 16]),
            context: ChangeContext::system(UnixSeconds(1_795_420_800)),
        };
        let what = Restore { from: &from, database: &database, plan };
        restore(&what, &mut || Err::<NewSecret, _>(StoreError::NotFound)).unwrap();
        assert_eq!(std::fs::read(&from).unwrap(), bytes, "schema {version}: the backup was written to");
        let service = Service::start_in(directory, Config::default(), Entropy::system()).await;
        assert_whole(&service, &format!("schema {version}")).await;
        service.store.close().await;
        verify_audit(&database, None).unwrap();
    }
}
