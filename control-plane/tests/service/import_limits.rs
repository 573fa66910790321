//! Concurrent imports: how many may run, how further ones are refused, and when a place is free again.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use futures_util::future::join_all;
use futures_util::stream;
use serde_json::{Value, json};

use crate::harness::{ADMIN, Answer, Service};
use crate::import::{ACME, ANYWHERE, import, line};
use crate::openapi::assert_documented;

const DEADLINE: Duration = Duration::from_secs(20);

/// Enough keys that their import takes much longer than a few other answers.
const LONG: u32 = 1_500;

fn path(workspace: &str) -> String {
    format!("/v1/workspaces/{workspace}/keys/import")
}

fn file(name: &str, keys: u32) -> Vec<Value> {
    (0..keys).map(|number| line(&format!("{name}-{number}"), json!({"workspace": "acme"}))).collect()
}

fn assert_no_place(answer: &Answer, limit: &str, maximum: u64) {
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "limit-reached"), "{}", answer.text());
    let problem = answer.json();
    assert_eq!((&problem["limit"], &problem["maximum"]), (&json!(limit), &json!(maximum)));
    assert_eq!(answer.header("retry-after"), Some("10"));
    assert!(problem["detail"].as_str().unwrap().contains(&format!("raise `{limit}`")), "{}", answer.text());
}

/// Waits until this number of imports runs.
async fn running(service: &Service, number: u64) {
    let began = Instant::now();
    while service.imports.running() != number {
        assert!(began.elapsed() < DEADLINE, "{} imports run, not {number}", service.imports.running());
        tokio::task::yield_now().await;
    }
}

/// An import with an idempotency key.
async fn import_once(service: &Service, key: &str, lines: &[Value]) -> Answer {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let request = Request::post(ACME)
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("content-type", "application/jsonl")
        .header("idempotency-key", key);
    let answer = service.send(request.body(body.into()).unwrap()).await;
    assert_documented("POST /v1/workspaces/{workspace}/keys/import", &answer);
    answer
}

#[tokio::test]
async fn a_workspace_has_one_import_at_a_time_and_a_second_is_refused_immediately() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let lines = file("first", LONG);
    let meanwhile = async {
        running(&service, 1).await;
        assert_no_place(&import(&service, ACME, &file("second", 1)).await, "imports_per_workspace", 1);
        let elsewhere = import(&service, &path("other"), &[line("elsewhere", json!({}))]).await;
        assert_eq!(elsewhere.status, 200, "{}", elsewhere.text());
        let naming = import(&service, ANYWHERE, &file("naming", 1)).await;
        assert_eq!(naming.status, 200, "where lines name it, it has no place of its own: {}", naming.text());
    };
    let (first, ()) = tokio::join!(import(&service, ACME, &lines), meanwhile);
    assert_eq!((first.status.as_u16(), &first.json()["imported"]), (200, &json!(LONG)));
    let again = import(&service, ACME, &file("again", 1)).await;
    assert_eq!(again.status, 200, "its place is free again: {}", again.text());
}

#[tokio::test]
async fn four_imports_run_at_a_time_and_a_fifth_is_refused_immediately() {
    let service = Service::start().await;
    for slug in ["acme", "b2", "c3", "d4", "e5"] {
        service.workspace(slug).await;
    }
    let into = async |slug: &str| {
        let lines: Vec<_> = (0..LONG).map(|number| line(&format!("{slug}-{number}"), json!({}))).collect();
        import(&service, &path(slug), &lines).await
    };
    let four = join_all(["b2", "c3", "d4", "e5"].map(into));
    let fifth = async {
        running(&service, 4).await;
        for path in [ACME, ANYWHERE] {
            assert_no_place(&import(&service, path, &file("fifth", 1)).await, "imports_at_once", 4);
        }
    };
    let (four, ()) = tokio::join!(four, fifth);
    assert!(four.iter().all(|answer| answer.status == 200));
    let again = import(&service, ACME, &file("again", 1)).await;
    assert_eq!(again.status, 200, "their places are free again: {}", again.text());
}

#[tokio::test]
async fn an_import_whose_client_went_away_keeps_its_place_until_it_is_done_and_then_gives_it_back() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let lines = file("gone", LONG);
    {
        let sending = import_once(&service, "k", &lines);
        tokio::select! {
            answer = sending => panic!("it was answered: {}", answer.text()),
            () = running(&service, 1) => {}
        }
    }
    let other = import(&service, ACME, &file("other", 1)).await;
    assert_no_place(&other, "imports_per_workspace", 1);
    let again = import_once(&service, "k", &lines).await;
    assert_eq!((again.status.as_u16(), again.code().as_str()), (409, "in-progress"), "it still runs");
    running(&service, 0).await;
    let other = import(&service, ACME, &file("other", 1)).await;
    assert_eq!(other.status, 200, "its place is free again: {}", other.text());
    let again = import_once(&service, "k", &lines).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(again.json()["imported"], LONG);
}

#[tokio::test]
async fn a_token_that_is_revoked_while_the_body_comes_imports_nothing() {
    let service = Service::start().await;
    service.workspace("acme").await;
    for is_revoked in [false, true] {
        let (id, token) = service.token("workspace_admin", Some("acme")).await;
        let (rest, pieces) = tokio::sync::mpsc::channel(1);
        let pieces = stream::unfold(pieces, async |mut pieces| Some((pieces.recv().await?, pieces)));
        let request = Request::post(ACME)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/jsonl");
        let sending = service.send(request.body(Body::from_stream(pieces)).unwrap());
        let line = line(&format!("revoked-{is_revoked}"), json!({})).to_string();
        let (begin, end) = line.split_at(10);
        let trickle = async {
            rest.send(Ok::<_, std::io::Error>(begin.to_owned())).await.unwrap();
            // The channel has room once the body is being read, so the token was accepted before.
            drop(rest.reserve().await.unwrap());
            if is_revoked {
                assert_eq!(service.delete(&format!("/v1/admin-tokens/{id}")).await.status, 204);
            }
            rest.send(Ok(end.to_owned())).await.unwrap();
            drop(rest);
        };
        let (answer, ()) = tokio::join!(sending, trickle);
        let keys = service.get("/v1/workspaces/acme/keys").await.json()["items"].as_array().unwrap().len();
        assert_eq!((answer.status.as_u16(), keys), if is_revoked { (401, 1) } else { (200, 1) }, "{}", answer.text());
        assert!(!is_revoked || answer.code() == "revoked-token", "{}", answer.text());
    }
}

#[tokio::test]
async fn a_repeat_is_answered_also_when_there_is_no_place() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (made, other, lines) = (file("made", 3), file("other", 3), file("more", LONG));
    let first = import_once(&service, "k", &made).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let meanwhile = async {
        running(&service, 1).await;
        let again = import_once(&service, "k", &made).await;
        assert_eq!((again.status.as_u16(), &again.json()["key_ids"]), (200, &first.json()["key_ids"]));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        let reused = import_once(&service, "k", &other).await;
        assert_eq!((reused.status.as_u16(), reused.code().as_str()), (422, "idempotency-key-reused"));
        assert_no_place(&import_once(&service, "another", &made).await, "imports_per_workspace", 1);
    };
    let (more, ()) = tokio::join!(import(&service, ACME, &lines), meanwhile);
    assert_eq!(more.status, 200, "{}", more.text());
}
