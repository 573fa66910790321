//! Tests of PostgreSQL only: several control planes on one database, and connections that break.
//!
//! Without LATCHKEY_TEST_DATABASE=postgres there is no server, and these tests do nothing.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use latchkey::store::{ChangeContext, Database, OpenError, Store, verify_audit};
use policy::wire::Delta;
use policy::{Digest, Epoch, UnixSeconds};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::crash::kill_server;
use crate::database_proxy::{DatabaseProxy, HELD, HOLD_THE_COMMIT, LOSE_THE_ANSWER, LOSE_THE_COMMIT, PASS};
use crate::harness::Service;
use crate::start::failed;
use crate::tls::Authority;
use crate::waiting::until;
use test_support::databases::{self, is_postgres, on_server};

pub(crate) async fn replica(of: &Service) -> Service {
    Service::start_in(Arc::clone(&of.directory), Config::default(), Entropy::system()).await
}

pub(crate) fn url(service: &Service) -> String {
    databases::of(service.directory.path())
}

#[tokio::test]
async fn a_change_at_one_control_plane_wakes_the_edges_that_wait_at_another() {
    if !is_postgres() {
        return;
    }
    let first = Service::start().await;
    let second = replica(&first).await;
    first.workspace("acme").await;
    let (path, secret) = first.key("acme", json!({})).await;
    until("the second control plane hears of it", async || second.revision() == first.revision()).await;
    let mut table = second.table().await;
    assert!(table.find(&Digest::of(secret.as_bytes())).unwrap().is_active());

    let from = table.position();
    let deactivate = format!("{path}/deactivate");
    let (answer, changed) = tokio::join!(second.poll(Some(from), 20), first.post(&deactivate, Value::Null));
    assert_eq!((answer.status.as_u16(), changed.status.as_u16()), (200, 200));
    assert!(Delta::is_delta(&answer.bytes));
    table.apply(&answer.bytes).unwrap();
    assert!(!table.find(&Digest::of(secret.as_bytes())).unwrap().is_active());
    assert_eq!(second.get(&path).await.json()["status"], "inactive");
}

#[tokio::test]
async fn an_edge_token_that_is_made_or_revoked_at_one_control_plane_is_so_at_another() {
    if !is_postgres() {
        return;
    }
    let first = Service::start().await;
    let second = replica(&first).await;
    let made = first.post("/v1/edge-tokens", json!({"name": "e", "edge": "edge-1"})).await.json();
    let (id, token) = (made["token"]["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let feed = "/edge/v1/feed?format=1&edge=edge-1&instance=i1&wait=0";
    let asks = async || second.call_as(token, axum::http::Method::GET, feed, Value::Null, &[]).await.status.as_u16();
    until("the token works", async || asks().await == 200).await;
    assert_eq!(first.delete(&format!("/v1/edge-tokens/{id}")).await.status, 204);
    until("the token is refused", async || asks().await == 410).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_planes_that_start_at_once_make_one_database() {
    if !is_postgres() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let database: Database = databases::of(directory.path()).parse().unwrap();
    let open = |byte| {
        let (database, context) = (database.clone(), ChangeContext::system(UnixSeconds(0)));
        async move { Store::open(database, Epoch::from_bytes([byte; 16]), &Config::default(), context).await.unwrap() }
    };
    let stores = tokio::join!(tokio::spawn(open(1)), tokio::spawn(open(2)), tokio::spawn(open(3)));
    let stores = [stores.0.unwrap(), stores.1.unwrap(), stores.2.unwrap()];
    let heads = stores.each_ref().map(|store| *store.head().borrow());
    assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
    assert_eq!(heads[0].revision.0, 1, "the catalogue was defined once");
    for store in stores {
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_of_all_control_planes_are_one_sequence() {
    if !is_postgres() {
        return;
    }
    let first = Service::start().await;
    let second = replica(&first).await;
    first.workspace("acme").await;
    let before = first.revision();
    let make = async |service: &Service| {
        let mut revisions = Vec::new();
        for _ in 0..50 {
            let made = service.post("/v1/workspaces/acme/keys", json!({"name": "k", "expires_in": "none"})).await;
            assert_eq!(made.status, 201, "{}", made.text());
            revisions.push(made.revision());
        }
        revisions
    };
    // An edge at each, whose revision must never decrease.
    let mut tables = [first.table().await, second.table().await];
    let (ones, others) = tokio::join!(make(&first), make(&second));
    let mut all = [ones, others].concat();
    all.sort_unstable();
    assert_eq!(all, (before + 1..=before + 100).collect::<Vec<_>>());
    until("both know all changes", async || first.revision() == before + 100 && second.revision() == before + 100)
        .await;
    first.catch_up(&mut tables[0]).await;
    second.catch_up(&mut tables[1]).await;
    assert_eq!(tables[0].position(), tables[1].position());
    let database: Database = url(&first).parse().unwrap();
    let verified = tokio::task::spawn_blocking(|| verify_audit(database, None)).await.unwrap().unwrap();
    assert_eq!(verified.events, before + 100);
}

#[tokio::test]
async fn connections_that_were_cut_are_replaced() {
    if !is_postgres() {
        return;
    }
    let first = Service::start().await;
    let second = replica(&first).await;
    first.workspace("acme").await;
    let cut = || {
        on_server(&url(&first), |server| {
            let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()";
            server.query_one(all, &[]).unwrap().get::<_, i64>(0)
        })
    };
    for _ in 0..3 {
        assert!(cut() > 0);
        // The connections were idle, so no request fails.
        let (path, _) = first.key("acme", json!({})).await;
        assert_eq!(second.get(&path).await.status, 200);
        assert_eq!(first.get("/readyz").await.status, 200);
        until("the other follows again", async || second.revision() == first.revision()).await;
    }
}

/// A control plane with a workspace `acme`, and the proxy in front of its database.
async fn behind_a_proxy() -> (DatabaseProxy, Service) {
    let directory = tempfile::tempdir().unwrap();
    let proxy = DatabaseProxy::to(&databases::of(directory.path()));
    let service = behind(&proxy, directory).await;
    (proxy, service)
}

async fn behind(proxy: &DatabaseProxy, directory: TempDir) -> Service {
    let service = Service::start_at(&proxy.url, Arc::new(directory), Config::default(), Entropy::system()).await;
    service.workspace("acme").await;
    service
}

fn is_there(url: &str) -> bool {
    std::thread::scope(|scope| scope.spawn(|| postgres::Client::connect(url, postgres::NoTls).is_ok()).join().unwrap())
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_asked_after_and_neither_lost_nor_made_twice() {
    if !is_postgres() {
        return;
    }
    let (proxy, service) = behind_a_proxy().await;
    let create = async || {
        service.post("/v1/workspaces/acme/keys", json!({"name": "k", "expires_in": "none"})).await.status.as_u16()
    };
    let count = async || {
        let listed = service.get("/v1/workspaces/acme/keys").await.json();
        listed["items"].as_array().unwrap().len()
    };
    for (lost, status, keys) in
        [(LOSE_THE_ANSWER, 201, 1), (LOSE_THE_COMMIT, 503, 1), (PASS, 201, 2), (LOSE_THE_ANSWER, 201, 3)]
    {
        proxy.order.store(lost, Ordering::SeqCst);
        assert_eq!((create().await, count().await), (status, keys));
    }
    service.store.close().await;
}

#[tokio::test]
async fn a_commit_that_a_crash_took_is_not_done_though_another_transaction_gets_its_number() {
    if !is_postgres() {
        return;
    }
    let server = databases::start(&["--again"]);
    let proxy = DatabaseProxy::to(&server.url());
    let service = behind(&proxy, tempfile::tempdir().unwrap()).await;
    proxy.order.store(HOLD_THE_COMMIT, Ordering::SeqCst);
    let create = service.post("/v1/workspaces/acme/keys", json!({"name": "k", "expires_in": "none"}));
    let (made, ()) = tokio::join!(create, async {
        until("it is about to commit", async || proxy.order.load(Ordering::SeqCst) == HELD).await;
        let number = "SELECT backend_xid::text::bigint FROM pg_stat_activity WHERE state = 'idle in transaction'";
        let lost: i64 = on_server(&server.url(), |client| client.query_one(number, &[]).unwrap().get(0));
        proxy.cut();
        kill_server(&server);
        until("it is there again", async || is_there(&server.url())).await;
        on_server(&server.url(), |client| {
            let mut next = || client.query_one("SELECT txid_current()", &[]).unwrap().get::<_, i64>(0);
            while next() < lost {}
        });
        proxy.reconnect();
    });
    assert_eq!(made.code(), "storage-unavailable");
    until("it is ready again", async || service.get("/readyz").await.status == 200).await;
    assert_eq!(service.get("/v1/workspaces/acme/keys").await.json()["items"], json!([]));
}

#[tokio::test]
async fn without_its_database_a_control_plane_is_unready_and_serves_the_feed_it_has() {
    if !is_postgres() {
        return;
    }
    let (proxy, service) = behind_a_proxy().await;
    let (path, secret) = service.key("acme", json!({})).await;
    let table = service.table().await;
    proxy.cut();
    assert_eq!(service.get("/readyz").await.status, 503);
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.post(&format!("{path}/deactivate"), Value::Null).await.code(), "storage-unavailable");
    assert_eq!(service.get(&path).await.status, 503);
    // A current edge stays so for a moment. One without a table may have received something newer from another replica.
    assert_eq!(service.poll(Some(table.position()), 0).await.status, 204);
    assert_eq!(service.poll(None, 0).await.code(), "storage-unavailable");
    assert_eq!(service.get("/readyz?for=edges").await.status, 503, "another one serves edges better");
    assert!(table.find(&Digest::of(secret.as_bytes())).unwrap().is_active());

    proxy.reconnect();
    until("it is ready again", async || service.get("/readyz").await.status == 200).await;
    assert_eq!(service.post(&format!("{path}/deactivate"), Value::Null).await.status, 200);
    let other = Service::start_in(Arc::clone(&service.directory), Config::default(), Entropy::system()).await;
    assert_eq!(other.post(&format!("{path}/activate"), Value::Null).await.status, 200);
    until("it hears of others again", async || service.revision() == other.revision()).await;
}

#[tokio::test]
async fn a_text_with_a_zero_in_it_is_looked_for_and_not_found() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.key("acme", json!({})).await;
    for path in ["/v1/workspaces/acme/keys?q=%00", "/v1/workspaces/acme/keys?name=k%00", "/v1/audit-events?target=%00"]
    {
        let found = service.get(path).await;
        assert!(found.status.is_client_error() || found.json()["items"] == json!([]), "{path}: {}", found.text());
    }
}

#[tokio::test]
async fn the_server_is_reached_over_tls_and_must_prove_its_name() {
    if !is_postgres() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (ours, others) = (Authority::new(), Authority::new());
    ours.issue(directory.path(), "server");
    for (name, content) in [("ours.ca", ours.pem()), ("others.ca", others.pem()), ("password", "hush\n".to_owned())] {
        std::fs::write(at(name), content).unwrap();
    }
    std::fs::set_permissions(at("password"), Permissions::from_mode(0o600)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = [&format!("port={port}"), "listen_addresses=127.0.0.1"];
    let server = databases::start(&["--tls", directory.path().to_str().unwrap(), listen[0], listen[1]]);
    let near = format!("postgres://latchkey@/postgres?host={}&port={port}", server.folder);
    on_server(&near, |server| server.batch_execute("ALTER ROLE latchkey PASSWORD 'hush'").unwrap());

    let open = async |host: &str, authority: &str, password: Option<&str>| {
        let url =
            format!("postgres://latchkey@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={}", at(authority));
        let database = url.parse::<Database>().unwrap().with_password_file(password.map(|name| at(name).into()));
        let context = ChangeContext::system(UnixSeconds(0));
        Store::open(database, Epoch::from_bytes([1; 16]), &Config::default(), context).await
    };
    let store = open("localhost", "ours.ca", Some("password")).await.unwrap();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'latchkey' AND ssl";
    assert!(on_server(&near, |server| server.query_one(encrypted, &[]).unwrap().get::<_, i64>(0)) > 0);
    store.close().await;
    for (host, authority, password, expected) in [
        ("localhost", "others.ca", Some("password"), "invalid peer certificate"),
        ("127.0.0.1", "ours.ca", Some("password"), "not valid for name"),
        ("localhost", "ours.ca", None, "password"),
    ] {
        let Err(error) = open(host, authority, password).await else { panic!("{host} {authority} {password:?}") };
        assert!(error.to_string().contains(expected) && !error.to_string().contains("hush"), "{error}");
    }
}

#[tokio::test]
async fn a_newer_schema_and_another_program_s_are_refused_and_left_alone() {
    if !is_postgres() {
        return;
    }
    let service = Service::start().await;
    let url = url(&service);
    service.store.close().await;
    let open = async || {
        let (database, context) = (url.parse::<Database>().unwrap(), ChangeContext::system(UnixSeconds(0)));
        Store::open(database, Epoch::from_bytes([1; 16]), &Config::default(), context).await.map(drop)
    };
    on_server(&url, |server| server.batch_execute("UPDATE latchkey_schema SET version = 99").unwrap());
    assert!(matches!(open().await, Err(OpenError::Newer { found: 99, known: 10, .. })));
    on_server(&url, |server| server.batch_execute("DROP TABLE latchkey_schema").unwrap());
    assert!(matches!(open().await, Err(OpenError::NotOurs { .. })));
}

#[tokio::test]
async fn a_changed_event_is_found_in_postgresql() {
    if !is_postgres() {
        return;
    }
    let service = Service::start().await;
    service.workspace("acme").await;
    let verify = async || {
        let database: Database = url(&service).parse().unwrap();
        tokio::task::spawn_blocking(|| verify_audit(database, None)).await.unwrap().map_err(|error| error.to_string())
    };
    assert_eq!(verify().await.unwrap().events, 2, "beside a control plane that serves");
    let tampering = "UPDATE audit_events SET event = replace(event, 'acme', 'acmf') WHERE revision = 2";
    on_server(&url(&service), |server| server.batch_execute(tampering).unwrap());
    let found = verify().await.unwrap_err();
    assert!(found.contains("revision 2 ") && found.contains("postgres://"), "{found}");
}

#[test]
fn a_server_that_can_t_be_reached_is_reported_in_one_line_without_the_password() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |rest: &str| format!("postgres://keys:hush@127.0.0.1:{nobody}/latchkey{rest}");
    for (url, expected) in [
        (at(""), format!("database postgres://keys@127.0.0.1:{nobody}/latchkey: ")),
        (at("?sslmode=require"), "verify-full".to_owned()),
        (at("?sslmode=verify-full&sslrootcert=none.pem"), "none.pem".to_owned()),
        ("postgres://keys:hush@/latchkey".to_owned(), "names no host".to_owned()),
        ("postgres://keys:hush@a:b:c/latchkey".to_owned(), "it is not a URL".to_owned()),
    ] {
        let output = failed(directory.path(), &["--database", &url]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("latchkey: ")).collect();
        assert_eq!((output.status.code(), errors.len()), (Some(1), 1), "{stderr}");
        assert!(errors[0].contains(&expected) && !stderr.contains("hush"), "{url}: {stderr}");
        assert!(!directory.path().join("admin.token").exists(), "a start that can't succeed leaves nothing behind");
    }
}

#[test]
fn what_works_on_a_file_only_names_the_tool_for_postgresql() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, instead) in
        [(["backup", "--to", "copy.db"], "pg_dump"), (["restore", "--from", "copy.db"], "pg_restore")]
    {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_latchkey"));
        command.current_dir(directory.path()).env_clear().args(arguments);
        let output = command.env("LATCHKEY_DATABASE", "postgres://keys:hush@db/latchkey").output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(instead) && !stderr.contains("hush"), "{stderr}");
    }
}
