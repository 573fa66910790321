//! Backup and restore: what a copy has, and where a restored database begins.

mod replay;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::Method;
use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use latchkey::base::secret::LastCharacters;
use latchkey::store::{
    BackupError, ChangeContext, LogError, LostChanges, NewSecret, OpenError, Restore, RestoreError, RestorePlan,
    RestoreSummary, StoreError, back_up, restore, verify_audit,
};
use policy::{ChainHash, Digest, Epoch, Position, Revision, UnixSeconds};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::{Answer, Service};

const NOW: UnixSeconds = UnixSeconds(1_795_420_800);

/// A service whose backup was made between two sets of changes.
struct BackedUpService {
    service: Service,
    backup: PathBuf,
}

impl BackedUpService {
    /// With two keys in the backup, `acme/kept` and `acme/dropped`; returns their paths and secrets, too.
    async fn start() -> (Self, [(String, String); 2]) {
        let service = Service::of_a_file().await;
        service.workspace("acme").await;
        let keys = [service.key("acme", json!({})).await, service.key("acme", json!({})).await];
        (Self::backed_up(service), keys)
    }

    fn backed_up(service: Service) -> Self {
        let backup = service.directory.path().join("backup.db");
        let made = back_up(&database(&service), &backup).unwrap();
        assert_eq!(made.revision.0, service.revision());
        Self { service, backup }
    }

    async fn export(&self) -> PathBuf {
        let lines = self.audit_events("/v1/audit-events").await;
        let path = self.service.directory.path().join("audit.jsonl");
        std::fs::write(&path, lines.bytes).unwrap();
        path
    }

    async fn audit_events(&self, path: &str) -> Answer {
        self.service.call_with(Method::GET, path, Value::Null, &[("accept", "application/jsonl")]).await
    }

    /// Stops the service; returns what a restore needs.
    async fn stop(self) -> StoppedService {
        self.service.store.close().await;
        let directory = Arc::clone(&self.service.directory);
        StoppedService { database: database(&self.service), backup: self.backup, directory }
    }
}

struct StoppedService {
    database: PathBuf,
    backup: PathBuf,
    directory: Arc<tempfile::TempDir>,
}

impl StoppedService {
    fn restore(&self, log: Option<&Path>, lost_changes: LostChanges) -> Result<RestoreSummary, RestoreError> {
        self.restore_with(log, lost_changes, None)
    }

    fn restore_with(
        &self,
        log: Option<&Path>,
        lost_changes: LostChanges,
        reported: Option<u64>,
    ) -> Result<RestoreSummary, RestoreError> {
        let mut made = 0_u64;
        let mut secret = || {
            made += 1;
            let digest = Digest::of(format!("nobody's {made}").as_bytes());
            Ok::<_, StoreError>(NewSecret { digest, last_characters: LastCharacters(String::new()) })
        };
        let plan = RestorePlan {
            log,
            reported: reported.map(Revision),
            lost_changes,
            epoch: Epoch::from_bytes([9; 16]),
            context: ChangeContext::system(NOW),
        };
        let what = Restore { from: &self.backup, database: &self.database, plan };
        restore(&what, &mut secret)
    }

    async fn start(&self) -> Service {
        Service::start_in(Arc::clone(&self.directory), Config::default(), Entropy::system()).await
    }
}

fn database(service: &Service) -> PathBuf {
    service.directory.path().join("latchkey.db")
}

async fn post(service: &Service, path: &str, action: &str) -> Answer {
    let answer = service.post(&format!("{path}/{action}"), Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

#[tokio::test]
async fn a_copy_of_a_database_in_use_has_all_that_was_answered() {
    use std::os::unix::fs::PermissionsExt as _;
    let (site, [(path, _), _]) = BackedUpService::start().await;
    let mode = site.backup.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let left: Vec<_> =
        std::fs::read_dir(site.service.directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("unfinished")), "{left:?}");
    let key = site.service.get(&path).await.json();
    let bytes = std::fs::read(&site.backup).unwrap();
    assert!(matches!(back_up(&database(&site.service), &site.backup), Err(BackupError::Taken { .. })));
    assert_eq!(std::fs::read(&site.backup).unwrap(), bytes);
    verify_audit(&site.backup, None).unwrap();

    // It is a database of its own.
    let elsewhere = Arc::new(tempfile::tempdir().unwrap());
    std::fs::copy(&site.backup, elsewhere.path().join("latchkey.db")).unwrap();
    let copy = Service::start_in(elsewhere, Config::default(), Entropy::system()).await;
    assert_eq!(copy.get(&path).await.json(), key);
}

#[test]
fn what_is_no_database_of_ours_is_not_copied() {
    let directory = tempfile::tempdir().unwrap();
    let (theirs, to) = (directory.path().join("theirs.db"), directory.path().join("copy.db"));
    assert!(matches!(back_up(&theirs, &to), Err(BackupError::Read { .. })));
    Connection::open(&theirs).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(back_up(&theirs, &to), Err(BackupError::NotOurs { .. })));
    assert!(!to.exists());
}

#[tokio::test]
async fn a_backup_that_lacks_changes_is_refused_and_leaves_all_as_it_was() {
    let (site, [(path, _), (other, _)]) = BackedUpService::start().await;
    let before = site.service.revision();
    post(&site.service, &path, "deactivate").await;
    post(&site.service, &other, "rotate").await;
    let head = site.service.revision();
    let stopped = site.stop().await;
    let bytes = std::fs::read(&stopped.database).unwrap();
    let error = stopped.restore(None, LostChanges::Refused).unwrap_err();
    let RestoreError::Lost { backup, reached, undone, .. } = &error else { panic!("{error}") };
    assert_eq!((backup.0, reached.0, undone.as_str()), (before, head, " (deactivations: 1, rotations: 1)"));
    let message = error.to_string();
    assert!(message.contains("--replay-audit") && message.contains("--accept-lost-changes"), "{message}");
    assert_eq!(std::fs::read(&stopped.database).unwrap(), bytes);
    let left: Vec<_> = std::fs::read_dir(stopped.directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("unfinished")), "{left:?}");

    // Taken as it is, it revives a revoked key, which is why it was refused.
    let restored = stopped.restore(None, LostChanges::Accepted).unwrap();
    assert_eq!((restored.backup.0, restored.reached), (before, Some(Revision(head))));
    let service = stopped.start().await;
    assert_eq!(service.get(&path).await.json()["status"], "active");
}

#[tokio::test]
async fn without_a_database_to_compare_with_somebody_has_to_say_how_far_it_came() {
    let (site, [(path, _), _]) = BackedUpService::start().await;
    let before = site.service.revision();
    post(&site.service, &path, "deactivate").await;
    let head = site.service.revision();
    let log = site.export().await;
    let stopped = site.stop().await;
    std::fs::remove_file(&stopped.database).unwrap();
    let error = stopped.restore(None, LostChanges::Refused).unwrap_err();
    assert!(matches!(error, RestoreError::Unknown { .. }), "{error}");
    assert!(error.to_string().contains("--reported-revision"), "{error}");
    assert!(!stopped.database.exists());
    let error = stopped.restore(Some(&log), LostChanges::Refused).unwrap_err();
    assert!(matches!(error, RestoreError::Unknown { .. }), "{error}");
    let error = stopped.restore_with(None, LostChanges::Refused, Some(head)).unwrap_err();
    assert!(matches!(error, RestoreError::Lost { .. }), "{error}");

    // A backup that no edge is ahead of loses nothing.
    let elsewhere = StoppedService {
        database: stopped.directory.path().join("a.db"),
        backup: stopped.backup.clone(),
        directory: Arc::clone(&stopped.directory),
    };
    let restored = elsewhere.restore_with(None, LostChanges::Refused, Some(before)).unwrap();
    assert_eq!((restored.revision.0, restored.kept_as), (before + 1, None));
    // If nobody knows, it begins above everything that an edge can have seen.
    let elsewhere = StoppedService { database: stopped.directory.path().join("b.db"), ..elsewhere };
    assert!(elsewhere.restore(None, LostChanges::Accepted).unwrap().revision.0 > 1_000_000_000);
    let restored = stopped.restore_with(Some(&log), LostChanges::Refused, Some(head)).unwrap();
    assert!(restored.revision.0 > head);
    assert_eq!(stopped.start().await.get(&path).await.json()["status"], "inactive");
}

#[tokio::test]
async fn a_restore_begins_above_what_an_edge_has_shown() {
    let (site, [(path, _), _]) = BackedUpService::start().await;
    let before = site.service.revision();
    post(&site.service, &path, "deactivate").await;
    let edge = site.service.table().await.position();
    let mut stopped = site.stop().await;
    // Somebody copies yesterday's file back by hand, and an edge polls from its position.
    std::fs::copy(&stopped.backup, &stopped.database).unwrap();
    let service = stopped.start().await;
    assert_eq!(service.poll(Some(edge), 0).await.status, 200);
    let mad = Position { revision: Revision(u64::MAX / 4), ..edge };
    assert_eq!(service.poll(Some(mad), 0).await.status, 200);
    assert_eq!(service.revision(), before);
    let again = service.directory.path().join("again.db");
    back_up(&database(&service), &again).unwrap();
    service.store.close().await;

    stopped.backup = again;
    let error = stopped.restore(None, LostChanges::Refused).unwrap_err();
    let RestoreError::Lost { reached, .. } = &error else { panic!("{error}") };
    assert_eq!(*reached, edge.revision);
    let restored = stopped.restore(None, LostChanges::Accepted).unwrap();
    assert_eq!(restored.revision.0, edge.revision.0 + 1);
}

#[tokio::test]
async fn an_instance_that_the_database_knew_is_waited_for_after_a_restore() {
    let (site, _) = BackedUpService::start().await;
    site.service.table().await;
    let known = site.service.get("/v1/edges").await.json()["items"].as_array().unwrap().len();
    assert_eq!(known, 1);
    let stopped = site.stop().await;
    stopped.restore(None, LostChanges::Refused).unwrap();
    let service = stopped.start().await;
    let enforcement = service.get("/v1/enforcement").await.json();
    assert_eq!((&enforcement["enforced"], enforcement["edges"].as_array().unwrap().len()), (&json!(false), 1));
}

#[tokio::test]
async fn what_can_not_be_restored_is_named() {
    let (site, _) = BackedUpService::start().await;
    let (database, backup) = (database(&site.service), site.backup.clone());
    let directory = Arc::clone(&site.service.directory);
    let in_use =
        StoppedService { database: database.clone(), backup: backup.clone(), directory: Arc::clone(&directory) };
    let error = in_use.restore(None, LostChanges::Accepted).unwrap_err();
    assert!(matches!(error, RestoreError::Open(OpenError::InUse { .. })), "{error}");
    let stopped = site.stop().await;

    let from =
        |backup: PathBuf| StoppedService { database: database.clone(), backup, directory: Arc::clone(&directory) };
    let error = from(database.clone()).restore(None, LostChanges::Accepted).unwrap_err();
    assert!(matches!(error, RestoreError::SameFile { .. }), "{error}");
    let error = from(directory.path().join("none.db")).restore(None, LostChanges::Accepted).unwrap_err();
    assert!(matches!(error, RestoreError::Read { .. }), "{error}");
    let theirs = directory.path().join("theirs.db");
    Connection::open(&theirs).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let error = from(theirs).restore(None, LostChanges::Accepted).unwrap_err();
    assert!(matches!(error, RestoreError::NotOurs { .. }), "{error}");
    let newer = directory.path().join("newer.db");
    std::fs::copy(&backup, &newer).unwrap();
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = from(newer).restore(None, LostChanges::Accepted).unwrap_err();
    assert!(error.to_string().contains("start the newer version"), "{error}");
    stopped.restore(None, LostChanges::Refused).unwrap();
}

#[tokio::test]
async fn a_wal_that_was_left_behind_gets_into_no_other_database() {
    let (site, [(path, _), _]) = BackedUpService::start().await;
    post(&site.service, &path, "deactivate").await;
    // As after a crash: the database, and a WAL with what isn't in it yet.
    let crashed = Arc::new(tempfile::tempdir().unwrap());
    for name in ["latchkey.db", "latchkey.db-wal", "backup.db"] {
        std::fs::copy(site.service.directory.path().join(name), crashed.path().join(name)).unwrap();
    }
    let at = |name: &str| crashed.path().join(name);
    assert!(at("latchkey.db-wal").metadata().unwrap().len() > 0);
    let stopped =
        StoppedService { database: at("latchkey.db"), backup: at("backup.db"), directory: Arc::clone(&crashed) };
    let error = stopped.restore(None, LostChanges::Refused).unwrap_err();
    assert!(matches!(error, RestoreError::Lost { .. }), "{error}");
    let restored = stopped.restore(None, LostChanges::Accepted).unwrap();
    let kept = Connection::open(restored.kept_as.unwrap()).unwrap();
    let active: i64 = kept.query_row("SELECT min(active) FROM keys", [], |row| row.get(0)).unwrap();
    assert_eq!(active, 0, "what is kept has lost its newest change");
    assert_eq!(stopped.start().await.get(&path).await.json()["status"], "active");
}
