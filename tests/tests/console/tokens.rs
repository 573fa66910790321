//! Workspaces, tokens, edges and leaked keys, in a browser.

use end_to_end::{Browser, ControlPlane, Scripts, Stack};

#[test]
fn a_leaked_key_is_found_and_stopped() {
    for scripts in [Scripts::On, Scripts::Off] {
        let control_plane = ControlPlane::start();
        let admin = control_plane.admin();
        admin.create_workspace("acme");
        let key = admin.create_key("acme", "Leaked");
        let browser = Browser::start(&control_plane.url(), scripts);
        browser.sign_in(&control_plane.admin_token());
        browser.press("Found a leaked key?");
        browser.fill("#secret", "lk_live_000000000000000000000000000000004cjNQE");
        browser.press("Find out");
        browser.wait_text("No key or token matches this text");
        browser.fill("#secret", &key.secret);
        browser.press("Find out");
        browser.wait_text("A key that works.");
        assert!(browser.value("#secret").is_empty() && !browser.source().contains(&key.secret));
        browser.press("Deactivate the key");
        browser.press("Deactivate key");
        browser.wait_text("The key is deactivated.");
        // There is no edge to enforce it.
        browser.wait_text("No edges yet");
        assert_eq!(admin.key(&key)["status"], "inactive");
    }
}

#[test]
fn workspaces_and_tokens_are_made_shown_once_and_revoked() {
    for scripts in [Scripts::On, Scripts::Off] {
        let control_plane = ControlPlane::start();
        let browser = Browser::start(&control_plane.url(), scripts);
        browser.sign_in(&control_plane.admin_token());
        browser.wait_text("No workspaces yet");
        browser.press("New workspace");
        browser.fill("#name", "Umbrella Corporation");
        browser.fill("#slug", "Umbrella!");
        browser.press("Create workspace");
        browser.wait_text("The slug must be a lower-case letter");
        assert_eq!(browser.value("#name"), "Umbrella Corporation");
        browser.fill("#slug", "umbrella");
        browser.press("Create workspace");
        browser.wait_text("The workspace is created.");
        browser.press("Settings");
        browser.fill("#name", "Umbrella");
        browser.press("Save the name");
        browser.wait_text("The workspace is renamed.");

        browser.press("Admin tokens");
        browser.press("New admin token");
        browser.fill("#name", "Jo");
        browser.press("Create token");
        browser.wait_text("Choose a workspace");
        browser.click("#workspace option[value=umbrella]");
        browser.press("7 days");
        browser.press("Create token");
        browser.wait_text("You won't see this again");
        let token = browser.text_of("#secret");
        let other = Browser::start(&control_plane.url(), Scripts::Off);
        other.sign_in(&token);
        other.wait_text("No keys yet");
        browser.press("I have copied it: back to the tokens");
        browser.back();
        assert!(!browser.source().contains(&token), "going back shows the token");
        browser.open("/console/admin-tokens");
        browser.press("Revoke");
        browser.press("Revoke token");
        browser.wait_text("The token is revoked.");
        other.reload();
        other.wait_text("Sign in");

        browser.press("Edge tokens");
        browser.press("New edge token");
        browser.fill("#name", "edge-1, since today");
        browser.fill("#edge", "edge-1");
        browser.press("Create token");
        browser.wait_text("export LATCHKEY_EDGE_TOKEN=");
        browser.press("I have copied it: back to the tokens");
        browser.press("Revoke");
        browser.press("Revoke token");
        browser.wait_text("The edge token is revoked.");
    }
}

#[test]
fn the_edges_page_lists_each_instance_and_removes_no_connected_one() {
    let mut stack = Stack::start();
    let browser = Browser::start(&stack.control_plane.url(), Scripts::Off);
    browser.sign_in(&stack.control_plane.admin_token());
    browser.press("Edges");
    browser.wait_text("3 of 3");
    browser.wait_text("current");
    browser.wait_text("1 day");
    assert_eq!(browser.count("a[href$='/remove']"), 0, "a connected instance can't be removed");
    let edges = stack.admin.get("/v1/edges");
    let instance = edges["items"][0]["instance"].as_str().expect("an instance").to_owned();
    browser.open(&format!("/console/edges/{instance}/remove"));
    browser.press("It is gone");
    browser.wait_text("sent a request less than 30 s ago");
    stack.envoy.process.kill();
}

#[test]
fn a_copied_secret_is_the_secret() {
    let control_plane = ControlPlane::start();
    control_plane.admin().create_workspace("acme");
    let browser = Browser::start(&control_plane.url(), Scripts::On);
    browser.sign_in(&control_plane.admin_token());
    browser.allow_clipboard();
    browser.open("/console/workspaces/acme/keys/new");
    browser.fill("#name", "copied");
    browser.press("Create key");
    browser.wait_text("You won't see this again");
    let secret = browser.text_of("#secret");
    browser.click("[data-copies=secret]");
    browser.wait_text("Copied");
    assert_eq!(
        browser.run_async("navigator.clipboard.readText().then(done, (error) => done(String(error)))"),
        secret.as_str()
    );
}
