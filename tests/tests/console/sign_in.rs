//! Signing in and out, with browsers that keep or drop the session.

use end_to_end::{Browser, ControlPlane, Scripts, serve_command};
use end_to_end::{Process, eventually, free_port};

#[test]
fn signing_in_leads_to_the_requested_page_and_signing_out_ends_the_session() {
    for scripts in [Scripts::On, Scripts::Off] {
        let control_plane = ControlPlane::start();
        control_plane.admin().create_workspace("acme");
        let browser = Browser::start(&control_plane.url(), scripts);
        browser.open("/console/workspaces/acme/keys?q=export");
        browser.wait_text("Sign in");
        browser.fill("#token", "lkadm_nobody");
        browser.press("Sign in");
        browser.wait_text("Unknown token.");
        assert_eq!(browser.value("#token"), "", "a token is never filled in again");
        browser.fill("#token", &control_plane.admin_token());
        browser.press("Sign in");
        browser.wait_text("No matching keys");
        assert_eq!(browser.path(), "/console/workspaces/acme/keys?q=export");
        browser.click("details.account summary");
        browser.press("Sign out everywhere");
        browser.wait_text("You are signed out everywhere.");
        browser.back();
        browser.open("/console/workspaces/acme/keys");
        browser.wait_text("Admin token");
    }
}

#[test]
fn a_browser_that_drops_the_cookie_gets_the_reason() {
    // Plain HTTP at a name that isn't this machine's, which browsers treat as insecure.
    let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
    let url = format!("http://console.test:{port}");
    let mut command = serve_command(folder.path(), port, &[("public-url", &url)]);
    let _process = Process::start("the control plane", &mut command, &folder.path().join("log"));
    let token = eventually("the control plane has created its token", || {
        std::fs::read_to_string(folder.path().join("admin-token")).map_err(|error| error.to_string())
    });
    let browser = Browser::start_with_hosts(&url, Scripts::Off, "MAP console.test 127.0.0.1");
    eventually("the console answers", || {
        browser.open("/console/sign-in");
        let seen = browser.text();
        if seen.contains("Browsers don't keep you signed in over plain HTTP") { Ok(()) } else { Err(seen) }
    });
    browser.fill("#token", token.trim());
    browser.press("Sign in");
    browser.wait_text("Your browser did not keep you signed in");
    browser.wait_text("Put HTTPS in front of it");
}

#[test]
fn a_member_sees_keys_and_changes_nothing() {
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let key = admin.create_key("acme", "seen");
    let body = serde_json::json!({"name": "m", "role": "workspace_member", "workspace": "acme"});
    let (_, created) = admin.send("POST", "/v1/admin-tokens", Some(&body)).expect("an answer");
    let browser = Browser::start(&control_plane.url(), Scripts::Off);
    browser.sign_in(created["secret"].as_str().expect("a token"));
    assert_eq!(browser.path(), "/console/workspaces/acme/keys");
    assert!(browser.text().contains("seen") && browser.count("a[href$='/keys/new'], .row-actions") == 0);
    browser.press("seen");
    browser.wait_text("Details");
    assert_eq!(browser.count("main form, main a[href$='/rotate'], dialog"), 0);
    assert!(!browser.text().contains("Audit trail"));
    browser.open(&format!("/console/workspaces/acme/keys/{}/rotate", key.id));
    browser.wait_text("Forbidden");
    browser.open("/console/audit");
    browser.wait_text("Forbidden");
}
