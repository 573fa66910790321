//! Sessions of the console: how they begin, what ends them, and what is stored of them.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request};
use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use latchkey::store::{ChangeContext, LostChanges, NewSecret, Restore, RestorePlan, StoreError, back_up, restore};
use policy::{Epoch, UnixSeconds};
use serde_json::{Value, json};

use crate::data_at_rest::data_at_rest;
use crate::harness::{ADMIN, PUBLIC_URL, Service};
use crate::visitor::{Form as _, Visitor};

/// Whether a visitor is still signed in.
async fn is_in(visitor: &Visitor<'_>) -> bool {
    visitor.get("/console/edges").await.status == 200
}

#[tokio::test]
async fn a_session_is_a_cookie_that_only_the_browser_and_only_this_address_has() {
    let service = Service::start().await;
    let request = Request::post("/console/sign-in").header("origin", PUBLIC_URL);
    let answer = service.send(request.form(&[("token", &format!(" {ADMIN}\n")), ("next", "/console/audit")])).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (303, Some("/console/sign-in/check?next=%2Fconsole%2Faudit"))
    );
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-latchkey-session="), "{cookie}");
    for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain") && !cookie.contains(ADMIN), "{cookie}");
    // Each sign-in has its own cookie.
    assert_ne!(Visitor::admin(&service).await.cookie, Visitor::admin(&service).await.cookie);
}

#[tokio::test]
async fn a_browser_that_drops_the_cookie_gets_an_error_instead_of_the_form_again() {
    let service = Service::start().await;
    let answer =
        Visitor { service: &service, cookie: String::new() }.get("/console/sign-in/check?next=%2Fconsole").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (400, None));
    assert!(answer.text().contains("did not keep you signed in"), "{}", answer.text());
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_and_in_any_case_after_half_a_day() {
    let service = Service::start().await;
    let (idle, busy) = (Visitor::admin(&service).await, Visitor::admin(&service).await);
    // A use is recorded outside the request, in the writer's queue before the `ready` that follows.
    let noted = async || {
        tokio::task::yield_now().await;
        service.store.ready().await.unwrap();
    };
    for minutes in [30, 60, 90] {
        service.advance(1_800);
        assert!(is_in(&busy).await, "{minutes} minutes");
        noted().await;
    }
    assert!(!is_in(&idle).await);
    for _ in 0..20 {
        service.advance(1_800);
        assert!(is_in(&busy).await);
        noted().await;
    }
    service.advance(1_800);
    assert!(!is_in(&busy).await, "twelve hours have passed");
    assert!(is_in(&Visitor::admin(&service).await).await);
}

#[tokio::test]
async fn signing_out_ends_one_session_and_signing_out_everywhere_all_of_the_token() {
    let service = Service::start().await;
    let (_, token) = service.token("platform_admin", None).await;
    let (one, two, other) =
        (Visitor::admin(&service).await, Visitor::admin(&service).await, Visitor::sign_in(&service, &token).await);
    let out = one.post("/console/sign-out", &[]).await;
    assert_eq!((out.status.as_u16(), out.header("location")), (303, Some("/console/sign-in?out=here")));
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert!(!is_in(&one).await && is_in(&two).await && is_in(&other).await);
    let three = Visitor::admin(&service).await;
    assert_eq!(two.post("/console/sign-out-everywhere", &[]).await.status, 303);
    assert!(!is_in(&two).await && !is_in(&three).await && is_in(&other).await);
}

#[tokio::test]
async fn a_session_ends_with_the_token_that_opened_it() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (id, revoked) = service.token("workspace_admin", Some("acme")).await;
    let expiring = json!({"name": "e", "role": "platform_admin", "expires_in": "1h"});
    let expiring = service.post("/v1/admin-tokens", expiring).await.json()["secret"].as_str().unwrap().to_owned();
    let (revoked, expiring) = (Visitor::sign_in(&service, &revoked).await, Visitor::sign_in(&service, &expiring).await);
    assert!(is_in(&revoked).await && is_in(&expiring).await);
    service.delete(&format!("/v1/admin-tokens/{id}")).await;
    assert!(!is_in(&revoked).await && is_in(&expiring).await);
    service.advance(1_800);
    assert!(is_in(&expiring).await);
    service.advance(1_801);
    assert!(!is_in(&expiring).await);
}

#[tokio::test]
async fn wrong_tokens_are_refused_counted_and_rate_limited_and_a_right_one_never_is() {
    let service = Service::start().await;
    let send = async |token: &str| {
        service.send(Request::post("/console/sign-in").header("origin", PUBLIC_URL).form(&[("token", token)])).await
    };
    let (id, revoked) = service.token("platform_admin", None).await;
    service.delete(&format!("/v1/admin-tokens/{id}")).await;
    for (token, expected) in [
        ("", "Paste your admin token"),
        ("hello", "Unknown token"),
        (revoked.as_str(), "was revoked"),
        ("lk_live_000000000000000000000000000000004cjNQE", "This is an API key"),
        ("lkedge_edge", "This is an edge token"),
    ] {
        let answer = send(token).await;
        assert!(answer.status == 403 && answer.text().contains(expected), "{token}: {}", answer.text());
    }
    let mut last = send("lkadm_wrong").await;
    for _ in 0..200 {
        if last.status == 429 {
            break;
        }
        last = send("lkadm_wrong").await;
    }
    let wait: u64 = last.header("retry-after").expect("seconds to wait").parse().unwrap();
    assert!(last.status == 429 && wait > 0, "{} {wait}", last.status);
    // The console and REST share one limit.
    assert_eq!(service.call_as("lkadm_wrong", Method::GET, "/v1/workspaces", Value::Null, &[]).await.status, 429);
    assert_eq!(send(ADMIN).await.status, 303);
}

#[tokio::test]
async fn a_session_outlives_a_restart_and_goes_when_it_is_over() {
    let service = Service::start().await;
    let cookie = Visitor::admin(&service).await.cookie;
    let service = service.restart().await;
    let visitor = Visitor { service: &service, cookie };
    assert!(is_in(&visitor).await);
    let (session, _) = visitor.cookie.split_once('=').map(|(_, text)| (text.to_owned(), ())).unwrap();
    let stored = || data_at_rest(service.directory.path());
    let holds = |text: &[u8]| stored().iter().any(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text));
    assert!(!holds(session.as_bytes()), "only a digest of the cookie is kept");
    assert!(holds(&policy::Digest::of(session.as_bytes()).0));
    service.advance(13 * 3_600);
    service.sweep().await;
    assert!(!is_in(&visitor).await);
}

#[tokio::test]
async fn the_first_address_is_the_console() {
    let service = Service::start().await;
    for path in ["/", "/console/"] {
        let answer = service.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, Some("/console")), "{path}");
    }
}

#[tokio::test]
async fn a_restored_backup_signs_nobody_in() {
    let service = Service::of_a_file().await;
    let cookie = Visitor::admin(&service).await.cookie;
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let (database, from) = (directory.path().join("latchkey.db"), directory.path().join("backup.db"));
    back_up(&service.directory.path().join("latchkey.db"), &from).unwrap();
    let plan = RestorePlan {
        log: None,
        reported: None,
        lost_changes: LostChanges::Accepted,
        epoch: Epoch::from_bytes([9; 16]),
        context: ChangeContext::system(UnixSeconds(1_795_420_800)),
    };
    let what = Restore { from: &from, database: &database, plan };
    restore(&what, &mut || Err::<NewSecret, _>(StoreError::NotFound)).unwrap();
    let restored = Service::start_in(directory, Config::default(), Entropy::system()).await;
    assert!(!is_in(&Visitor { service: &restored, cookie }).await);
    assert!(is_in(&Visitor::admin(&restored).await).await);
}
