//! A dump that is restored into PostgreSQL: missing changes are reported, and edges take it as a new history.
//!
//! Without LATCHKEY_TEST_DATABASE=postgres there is no server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use axum::http::Method;
use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use latchkey::base::secret::LastCharacters;
use latchkey::store::{
    ChangeContext, Database, LostChanges, NewSecret, RestoreError, RestorePlan, RestoreSummary, StoreError,
    restore_in_place, verify_audit,
};
use policy::wire::Delta;
use policy::{Digest, Epoch, Position, Revision, UnixSeconds};
use serde_json::{Value, json};

use crate::harness::{EDGE, Service};
use crate::visitor::Visitor;
use crate::waiting::until;
use test_support::databases::{self, is_postgres, on_server};

const EPOCH: Epoch = Epoch::from_bytes([9; 16]);

/// A service on PostgreSQL with a dump of an earlier hour.
struct DumpedDatabase {
    service: Service,
    url: String,
    dump: PathBuf,
}

/// One of PostgreSQL's own tools, of the version that the tests run.
fn tool(name: &str) -> Command {
    let newest = std::fs::read_dir("/usr/lib/postgresql").ok().and_then(|versions| {
        let tools = versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(name)));
        tools.filter(|path| path.exists()).max()
    });
    Command::new(newest.unwrap_or_else(|| name.into()))
}

fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl DumpedDatabase {
    async fn dumped(service: Service) -> Self {
        let url = databases::of(service.directory.path());
        let dump = service.directory.path().join("latchkey.dump");
        let mut command = tool("pg_dump");
        let schema: String =
            on_server(&url, |server| server.query_one("SELECT current_schema()::text", &[]).unwrap().get(0));
        command.args(["--format=custom", "--schema", &schema, "--dbname", &url, "--file"]).arg(&dump);
        run(command);
        Self { service, url, dump }
    }

    /// Stops the service, and replaces its database with the dump.
    async fn restore_dump(&self) {
        self.service.store.close().await;
        let drop = "DO $$ BEGIN EXECUTE 'DROP SCHEMA ' || current_schema() || ' CASCADE'; END $$";
        on_server(&self.url, |server| server.batch_execute(drop).unwrap());
        let mut command = tool("pg_restore");
        command.args(["--exit-on-error", "--dbname", &self.url]).arg(&self.dump);
        run(command);
    }

    async fn restore(
        &self,
        log: Option<&Path>,
        lost_changes: LostChanges,
        reported: Option<Revision>,
    ) -> Result<RestoreSummary, RestoreError> {
        let (url, log) = (self.url.clone(), log.map(Path::to_owned));
        let restoring = move || {
            let context = ChangeContext::system(UnixSeconds(1_795_420_800));
            let plan = RestorePlan { log: log.as_deref(), reported, lost_changes, epoch: EPOCH, context };
            let mut secret = || {
                let digest = Digest::of(b"nobody's");
                Ok::<_, StoreError>(NewSecret { digest, last_characters: LastCharacters(String::new()) })
            };
            restore_in_place(&url, None, &plan, &mut secret)
        };
        tokio::task::spawn_blocking(restoring).await.unwrap()
    }

    async fn start(&self) -> Service {
        Service::start_in(Arc::clone(&self.service.directory), Config::default(), Entropy::system()).await
    }
}

#[tokio::test]
async fn a_dump_that_lacks_changes_is_refused_and_with_the_audit_log_nothing_that_was_revoked_comes_back() {
    if !is_postgres() {
        return;
    }
    let service = Service::start().await;
    service.workspace("acme").await;
    let (dropped, secret) = service.key("acme", json!({})).await;
    let (rotated, leaked) = service.key("acme", json!({})).await;
    let cookie = Visitor::admin(&service).await.cookie;
    let site = DumpedDatabase::dumped(service).await;
    let service = &site.service;
    let before = service.revision();
    assert_eq!(service.post(&format!("{dropped}/deactivate"), Value::Null).await.status, 200);
    assert_eq!(service.post(&format!("{rotated}/rotate"), json!({})).await.status, 200);
    let (head, mut table) = (Revision(service.revision()), service.table().await);
    let log = service.directory.path().join("audit.jsonl");
    let kind = [("accept", "application/jsonl")];
    std::fs::write(&log, service.call_with(Method::GET, "/v1/audit-events", Value::Null, &kind).await.bytes).unwrap();
    site.restore_dump().await;

    let error = site.restore(None, LostChanges::Refused, None).await.unwrap_err();
    assert!(
        matches!(error, RestoreError::Unknown { .. }) && error.to_string().contains("--reported-revision"),
        "{error}"
    );
    let error = site.restore(None, LostChanges::Refused, Some(head)).await.unwrap_err();
    let RestoreError::Lost { backup, reached, .. } = &error else { panic!("{error}") };
    assert_eq!((backup.0, *reached), (before, head));
    let restored = site.restore(Some(&log), LostChanges::Refused, Some(head)).await.unwrap();
    let replayed = restored.replayed.as_ref().unwrap();
    assert_eq!((replayed.deactivated, replayed.rotated.len(), restored.kept_as.is_none()), (1, 1, true));

    let service = site.start().await;
    let position = *service.store.head().borrow();
    assert_eq!((position.epoch, position.revision), (EPOCH, restored.revision));
    assert!(position.revision > head);
    assert_eq!(service.get(&dropped).await.json()["status"], "inactive");
    let answer = service.poll(Some(table.position()), 0).await;
    assert!(answer.status == 200 && !Delta::is_delta(&answer.bytes), "an edge loads all of the new history");
    table = service.table().await;
    assert!(!table.find(&Digest::of(secret.as_bytes())).unwrap().is_active());
    assert!(table.find(&Digest::of(leaked.as_bytes())).unwrap().superseded_at().is_reached(UnixSeconds(1_795_420_800)));
    assert_ne!(Visitor { service: &service, cookie }.get("/console/edges").await.status, 200, "nobody is signed in");
    service.key("acme", json!({})).await;
    service.store.close().await;
    let database: Database = site.url.parse().unwrap();
    tokio::task::spawn_blocking(move || verify_audit(database, None)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dump_that_was_put_back_by_hand_is_noticed_though_all_control_planes_were_stopped() {
    if !is_postgres() {
        return;
    }
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    let site = DumpedDatabase::dumped(service).await;
    assert_eq!(site.service.post(&format!("{key}/deactivate"), Value::Null).await.status, 200);
    let edge = site.service.table().await.position();
    site.restore_dump().await;

    let service = site.start().await;
    let answer = service.poll(Some(edge), 0).await;
    assert!(answer.status == 200 && !Delta::is_delta(&answer.bytes), "the edge takes what is there as a whole");
    let metrics = service.get("/metrics").await.text();
    assert!(metrics.lines().any(|line| line == "latchkey_database_went_back 1"), "{metrics}");
    let in_use =
        async || matches!(site.restore(None, LostChanges::Accepted, None).await, Err(RestoreError::Served { .. }));
    until("it is known to serve", in_use).await;
    assert_eq!(service.get(&key).await.json()["status"], "active", "what was revoked is valid again");
    service.store.close().await;

    let error = site.restore(None, LostChanges::Refused, None).await.unwrap_err();
    let RestoreError::Lost { reached, .. } = &error else { panic!("{error}") };
    assert_eq!(*reached, edge.revision);
    let restored = site.restore(None, LostChanges::Accepted, None).await.unwrap();
    assert_eq!(restored.revision.0, edge.revision.0 + 1);
}

#[tokio::test]
async fn acknowledgements_of_the_lost_history_do_not_count_for_the_new_one() {
    if !is_postgres() {
        return;
    }
    let service = Service::start().await;
    let known = service.table().await.position();
    let body = json!({"edge": "edge-1", "instance": "i1", "epoch": known.epoch.to_string(), "version": "1", "max_staleness_secs": 60,
        "workers": [{"id": "0", "applied": known.revision.0, "started_at": 1_795_420_800}]});
    assert_eq!(service.call_as(EDGE, Method::POST, "/edge/v1/acknowledgements", body, &[]).await.status, 200);
    let site = DumpedDatabase::dumped(service).await;
    site.service.workspace("lost").await;
    let edge = site.service.table().await.position();
    site.restore_dump().await;
    site.restore(None, LostChanges::Accepted, Some(edge.revision)).await.unwrap();
    let service = site.start().await;
    service.workspace("new").await;
    let Position { epoch, revision, head } = edge;
    let asks = format!(
        "/edge/v1/feed?format=1&edge=edge-1&instance=i1&epoch={epoch}&since={revision}&head={head}&applied={revision}"
    );
    assert_eq!(service.edge(&asks).await.status, 200);
    let enforcement = service.get("/v1/enforcement").await.json();
    assert_eq!(
        (&enforcement["enforced"], enforcement["edges"].as_array().unwrap().len()),
        (&json!(false), 1),
        "{enforcement}"
    );
}

#[tokio::test]
async fn where_nothing_was_put_back_there_is_nothing_to_restore() {
    if !is_postgres() {
        return;
    }
    let service = Service::start().await;
    service.store.close().await;
    let url = databases::of(service.directory.path());
    let site = DumpedDatabase { service, dump: PathBuf::new(), url };
    on_server(&site.url, |server| server.batch_execute("DROP TABLE latchkey_schema").unwrap());
    let error = site.restore(None, LostChanges::Accepted, None).await.unwrap_err();
    assert!(matches!(error, RestoreError::NoDatabase { .. }), "{error}");
}

#[test]
fn a_restore_of_a_file_names_its_backup() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    let output = command.env_clear().args(["restore", "--database", "nowhere.db"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--from"), "{stderr}");
}
