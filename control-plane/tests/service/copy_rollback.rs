//! Copies that are refused or interrupted leave nothing.
//!
//! Without LATCHKEY_TEST_DATABASE=postgres there is no server to move to.

use std::process::{Command, Stdio};

use latchkey::store::{CopyError, CopyStep, OpenError};
use rusqlite::Connection;

use crate::copy::{copy_database, copy_database_with, empty_target, file, serve, small_file};
use crate::harness::Service;
use crate::schema::NEWEST;
use crate::waiting::until;
use test_support::databases::{self, is_postgres, on_server};

/// The tables that the tests count rows of.
const COUNTED: &str =
    "SELECT (SELECT count(*) FROM workspaces) + (SELECT count(*) FROM keys) + (SELECT count(*) FROM sessions)";

/// How many tables a schema has.
fn tables(url: &str) -> i64 {
    let count = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace";
    on_server(url, |server| server.query_one(count, &[]).unwrap().get(0))
}

fn rows(url: &str) -> i64 {
    on_server(url, |server| server.query_one(&format!("SELECT ({COUNTED})::bigint"), &[]).unwrap().get(0))
}

#[tokio::test]
async fn a_target_that_is_used_or_served_or_another_program_s_is_refused_and_left_as_it_is() {
    if !is_postgres() {
        return;
    }
    let (_kept, from) = small_file().await;
    let service = Service::start().await;
    let url = databases::of(service.directory.path());
    until("it is known to serve", async || matches!(copy_database(&from, &url).await, Err(CopyError::Served { .. })))
        .await;
    service.workspace("theirs").await;
    let head = *service.store.head().borrow();
    service.store.close().await;
    let Err(error) = copy_database(&from, &url).await else { panic!("it was copied over") };
    assert!(matches!(error, CopyError::Taken { .. }) && error.to_string().contains("workspaces"), "{error}");
    let service = serve(&url, &service.directory).await;
    assert_eq!(*service.store.head().borrow(), head);

    let (_directory, url) = empty_target();
    on_server(&url, |server| server.batch_execute("CREATE TABLE theirs (x int)").unwrap());
    assert!(matches!(copy_database(&from, &url).await, Err(CopyError::Open(OpenError::NotOurs { .. }))));
    assert_eq!(tables(&url), 1);
}

#[tokio::test]
async fn a_file_that_is_served_or_older_or_damaged_or_not_there_is_refused_and_left_as_it_is() {
    if !is_postgres() {
        return;
    }
    let (_directory, url) = empty_target();
    let service = Service::of_a_file().await;
    let served = file(&service.directory);
    assert!(matches!(copy_database(&served, &url).await, Err(CopyError::Served { .. })));
    service.workspace("acme").await;
    service.store.close().await;
    let tampering = "UPDATE audit_events SET event = replace(event, 'acme', 'acmf') WHERE revision = 2";
    Connection::open(&served).unwrap().execute_batch(tampering).unwrap();
    let Err(CopyError::Audit(error)) = copy_database(&served, &url).await else { panic!("a changed log was copied") };
    assert!(error.to_string().contains("revision 2 ") && error.to_string().contains(&served), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let (older, nothing) = (directory.path().join("older.db"), directory.path().join("nothing.db"));
    Connection::open(&older).unwrap().execute_batch(NEWEST).unwrap();
    let bytes = std::fs::read(&older).unwrap();
    let Err(error) = copy_database(older.to_str().unwrap(), &url).await else { panic!("an older one was copied") };
    assert!(matches!(error, CopyError::Older { found: 10, known: 16, .. }), "{error}");
    assert_eq!(std::fs::read(&older).unwrap(), bytes);
    assert!(matches!(copy_database(nothing.to_str().unwrap(), &url).await, Err(CopyError::Read { .. })));
    assert!(!nothing.exists());
    assert_eq!(tables(&url), 0, "no attempt left anything");
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_the_target_as_it_was() {
    if !is_postgres() {
        return;
    }
    let (_kept, from) = small_file().await;
    let (directory, url) = empty_target();
    let name = url.split_once("application_name=").unwrap().1.split('&').next().unwrap().to_owned();
    let admin = url.clone();
    let cut = move |step| {
        if matches!(step, CopyStep::Checking { table: "keys", .. }) {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()";
            on_server(&admin, |server| drop(server.query(end, &[&name]).unwrap()));
        }
    };
    let Err(error) = copy_database_with(&from, &url, cut).await else { panic!("nothing was cut") };
    assert!(matches!(error, CopyError::Write { .. }), "{error}");
    assert_eq!(tables(&url), 0);
    copy_database(&from, &url).await.unwrap();
    assert_eq!(serve(&url, &directory).await.get("/v1/workspaces/acme").await.status, 200);
}

/// A target of a first start, in which a trigger does something when rows come.
async fn with_trigger(when: &str, body: &str) -> (Service, String) {
    let service = Service::start().await;
    let url = databases::of(service.directory.path());
    service.store.close().await;
    let trigger = format!(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NEW; END $$;
         CREATE TRIGGER meddling {when} EXECUTE FUNCTION meddle()"
    );
    on_server(&url, |server| server.batch_execute(&trigger).unwrap());
    (service, url)
}

#[tokio::test]
async fn rows_that_arrive_changed_are_detected_and_nothing_is_kept() {
    if !is_postgres() {
        return;
    }
    let (_kept, from) = small_file().await;
    let (_service, url) = with_trigger("BEFORE INSERT ON workspaces FOR EACH ROW", "NEW.name = 'Acmf'").await;
    let Err(error) = copy_database(&from, &url).await else { panic!("another row was taken") };
    assert!(matches!(error, CopyError::Differs { table: "workspaces", found: 1, expected: 1, .. }), "{error}");
    assert_eq!(rows(&url), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_interrupted_leaves_the_target_as_it_was() {
    if !is_postgres() {
        return;
    }
    let (_kept, from) = small_file().await;
    let waits = "PERFORM pg_advisory_xact_lock(4711, current_schema()::regnamespace::oid::int)";
    let (service, url) = with_trigger("BEFORE INSERT ON made_once FOR EACH STATEMENT", waits).await;
    on_server(&url, |holder| {
        holder.batch_execute("SELECT pg_advisory_lock(4711, current_schema()::regnamespace::oid::int)").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
        command.args(["copy", "--from", &from, "--to", &url]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let waiting = "SELECT count(*) FROM pg_locks WHERE classid = 4711 AND NOT granted
            AND objid = current_schema()::regnamespace::oid";
        while holder.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == 0 {
            assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        }
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        assert!(!child.wait().unwrap().success());
    });
    until("the server has noticed", async || {
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = current_setting('application_name')";
        on_server(&url, |server| server.query_one(busy, &[]).unwrap().get::<_, i64>(0)) == 1
    })
    .await;
    assert_eq!(rows(&url), 0);
    assert_eq!(serve(&url, &service.directory).await.revision(), 1);
}
