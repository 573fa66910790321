//! Forms of the console: each takes effect once, and keeps its input when something is wrong with it.

use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::{PUBLIC_URL, Service};
use crate::visitor::{Form as _, Visitor, hidden, shown_secret};

#[tokio::test]
async fn a_secret_is_on_one_answer_and_sending_its_form_again_makes_nothing() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let visitor = Visitor::admin(&service).await;
    let new = visitor.page("/console/workspaces/acme/keys/new").await;
    let (csrf, nonce) = (hidden(&new, "csrf").unwrap(), hidden(&new, "nonce").unwrap());
    let values = [
        ("csrf", csrf.as_str()),
        ("nonce", &nonce),
        ("name", "a key"),
        ("expires_in", "90d"),
        ("scope_reviews", "read"),
    ];
    let send = async |path: &str, values: &[(&str, &str)]| {
        let request = Request::post(path).header("cookie", &visitor.cookie).header("origin", PUBLIC_URL);
        service.send(request.form(values)).await
    };
    let keys = "/console/workspaces/acme/keys";
    let made = send(keys, &values).await;
    assert_eq!((made.status.as_u16(), made.header("cache-control")), (201, Some("no-store")));
    let secret = shown_secret(&made.text()).expect("a secret");
    assert!(secret.starts_with("lk_live_") && made.text().contains("You won"), "{}", made.text());
    let again = send(keys, &values).await;
    assert_eq!((again.status.as_u16(), shown_secret(&again.text())), (409, None));
    assert!(again.text().contains("Already created") && !again.text().contains(&secret), "{}", again.text());
    let items = service.get("/v1/workspaces/acme/keys").await.json()["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 1, "one key was made");
    let id = items[0]["id"].as_str().unwrap();
    assert_eq!((&items[0]["name"], &items[0]["scopes"]), (&json!("a key"), &json!({"reviews": "read"})));
    assert!(again.text().contains(&format!("{keys}/{id}")), "the page leads to the key: {}", again.text());

    // The same for a rotation, and for a form that was invalid at first.
    let key = format!("{keys}/{id}");
    let rotate = visitor.page(&format!("{key}/rotate")).await;
    let nonce = hidden(&rotate, "nonce").unwrap();
    let values = [("csrf", csrf.as_str()), ("nonce", &nonce), ("overlap", "30m")];
    let rotated = send(&format!("{key}/rotate"), &values).await;
    let second = shown_secret(&rotated.text()).expect("a secret");
    assert!(rotated.status == 200 && second != secret);
    let again = send(&format!("{key}/rotate"), &values).await;
    assert_eq!((again.status.as_u16(), shown_secret(&again.text())), (409, None));
    assert!(
        service.get(&format!("/v1/workspaces/acme/keys/{id}")).await.json()["previous_secret_expires_at"].is_string()
    );
    for path in
        [key.clone(), format!("{key}/rotate"), keys.to_owned(), format!("{keys}/new"), "/console/audit".to_owned()]
    {
        let page = visitor.page(&path).await;
        assert!(!page.contains(&secret) && !page.contains(&second), "{path} shows a secret");
    }
}

#[tokio::test]
async fn a_form_that_went_wrong_keeps_what_was_typed_and_never_a_secret() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let visitor = Visitor::admin(&service).await;
    let refused = visitor
        .post_from(
            "/console/workspaces/acme/keys/new",
            "/console/workspaces/acme/keys",
            &[
                ("name", "Kept & typed"),
                ("expires_in", "at"),
                ("expires_at", "2020-01-01T00:00"),
                ("scope_webhooks", "write"),
                ("allow", "only"),
                ("ip_allowlist", "192.0.2.7/24\n192.0.2.9"),
                ("metadata", "{\"team\": \"x\"}"),
            ],
        )
        .await;
    assert_eq!(refused.status, 422);
    let page = refused.text();
    for kept in [
        "value=\"Kept &#38; typed\"",
        "value=\"2020-01-01T00:00\"",
        "name=\"scope_webhooks\" value=\"write\" checked",
        "192.0.2.7/24\n192.0.2.9</textarea>",
        "{&#34;team&#34;: &#34;x&#34;}</textarea>",
        "192.0.2.7/24 has host bits set; the range is 192.0.2.0/24.",
        "must be later than now",
    ] {
        assert!(page.contains(kept), "{kept} is not in {page}");
    }
    let leaked = "lk_live_000000000000000000000000000000004cjNQE";
    for (from, path, field) in
        [("/console/identify", "/console/identify", "secret"), ("/console/sign-in", "/console/sign-in", "token")]
    {
        let answer = if field == "token" {
            let request = Request::post(path).header("origin", PUBLIC_URL);
            service.send(request.form(&[(field, leaked)])).await
        } else {
            visitor.post_from(from, path, &[(field, leaked)]).await
        };
        assert!(!answer.text().contains(leaked), "{path}: {}", answer.text());
    }
    let missing =
        visitor.post_from("/console/workspaces/acme/keys/new", "/console/workspaces/acme/keys", &[("name", " ")]).await;
    assert!(missing.status == 422 && missing.text().contains("Choose how long it is valid."), "{}", missing.text());
}

#[tokio::test]
async fn the_rotate_page_of_an_expired_key_offers_what_to_do_instead() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({"expires_at": "2026-11-23T09:00:00Z"})).await;
    service.advance(3_700);
    let visitor = Visitor::admin(&service).await;
    let key = key.replace("/v1/", "/console/");
    assert!(!visitor.page(&key).await.contains("/rotate\""), "its page offers no rotation");
    let refused = visitor.post_from(&format!("{key}/rotate"), &format!("{key}/rotate"), &[]).await;
    assert!(refused.status == 409 && refused.text().contains("create another key"), "{}", refused.text());
    assert_eq!(service.get("/v1/workspaces/acme/keys").await.json()["items"][0]["rotated_at"], Value::Null);
}
