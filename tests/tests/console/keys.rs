//! The life of a key, managed only in a browser.

use std::process::Command;
use std::time::Duration;

use end_to_end::{Browser, Connection, Scripts, Stack, eventually, eventually_within};

/// Deadline for usage to be reported: workers report every 10 s.
const REPORT_DEADLINE: Duration = Duration::from_secs(40);

const KEYS: &str = "/console/workspaces/acme/keys";

/// The verdict of a request with this secret.
fn verdict(stack: &Stack, secret: &str) -> String {
    Connection::open(stack.envoy.port).get("/v1/reviews", &[("x-api-key", secret)]).verdict()
}

/// Waits until every worker gives this verdict.
fn wait_verdict(stack: &Stack, secret: &str, expected: &str) {
    for mut connection in stack.envoy.connections(8) {
        eventually(&format!("a request is answered {expected}"), || {
            let seen = connection.get("/v1/reviews", &[("x-api-key", secret)]).verdict();
            if seen == expected { Ok(()) } else { Err(seen) }
        });
    }
}

/// A browser in which a platform admin is signed in.
fn browser(stack: &Stack, scripts: Scripts) -> Browser {
    let browser = Browser::start(&stack.control_plane.url(), scripts);
    browser.sign_in(&stack.control_plane.admin_token());
    browser
}

/// The secret on the page that shows one.
fn secret(browser: &Browser) -> String {
    browser.wait_text("You won't see this again");
    browser.text_of("#secret")
}

/// From the list to a working secret, through every action on a key, to its deletion.
fn assert_key_life_cycle(scripts: Scripts) {
    let mut stack = Stack::start();
    let gateway = format!("gateway_url = \"http://127.0.0.1:{}/v1/reviews\"\n", stack.envoy.port);
    std::fs::write(stack.control_plane.folder().join("latchkey.toml"), gateway).expect("the configuration");
    stack.control_plane.process.kill();
    stack.control_plane.restart();
    let browser = browser(&stack, scripts);

    // The list is empty, and explains what a key is for.
    browser.press("acme");
    browser.wait_text("No keys yet");
    browser.wait_text("webhooks");
    browser.press("New API Key");
    browser.fill("#name", "Nightly export");
    browser.press("30 days");
    browser.click("input[name=scope_reviews][value=read]");
    browser.press("Only these addresses and ranges");
    browser.fill("#ip_allowlist", "127.0.0.0/8 ::ffff:192.0.2.1");
    browser.wait_text("Your current address is 127.0.0.1");
    browser.press("Check the list");
    browser.wait_text("2 networks, shown as they will be stored.");
    assert_eq!(browser.value("#ip_allowlist"), "127.0.0.0/8\n192.0.2.1");
    assert_eq!(browser.value("#name"), "Nightly export", "what was typed is kept");
    browser.press("Create key");

    // The secret is shown once. It works, and so does the line to paste.
    let first = secret(&browser);
    wait_verdict(&stack, &first, "200 -");
    let line = browser.text_of("#line");
    let output = Command::new("sh").arg("-c").arg(format!("{line} -s")).output().expect("sh");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200"), "{line}: {output:?}");
    // Reloading the page sends the form again, which creates nothing and shows no secret.
    browser.reload();
    browser.wait_text("Already created");
    assert!(!browser.source().contains(&first));
    browser.press("Open the key");
    browser.wait_text("Details");
    let page = browser.path();
    let key = page.strip_prefix(&format!("{KEYS}/")).expect("a key's page").to_owned();
    for step in [Browser::back, Browser::forward] {
        let before = browser.source();
        step(&browser);
        eventually("another page is there", || if browser.source() == before { Err(before.clone()) } else { Ok(()) });
        assert!(!browser.source().contains(&first), "going back shows the secret again");
    }

    // Edited: the edges enforce the change.
    browser.open(&page);
    browser.press("Edit");
    browser.wait_text("Fixed when the key was created");
    browser.fill("#name", "Nightly export, edited");
    browser.fill("#ip_allowlist", "192.0.2.0/24");
    browser.press("Save changes");
    browser.wait_text("The changes are saved.");
    browser.wait_text("Enforced on 3 of 3 workers of 1 edge");
    assert_eq!(verdict(&stack, &first), "403 address-not-allowed");
    browser.press("Edit");
    browser.press("Any address");
    browser.press("Save changes");
    browser.wait_text("Enforced on 3 of 3 workers of 1 edge");
    assert_eq!(verdict(&stack, &first), "200 -");

    // Rotated without an overlap: the old secret is denied as rotated.
    browser.press("Rotate");
    browser.press("Rotate key");
    let second = secret(&browser);
    browser.wait_text("Enforced on 3 of 3 workers of 1 edge");
    assert_eq!(verdict(&stack, &first), "401 rotated-key");
    wait_verdict(&stack, &second, "200 -");
    browser.press("I have copied it: open the key");
    browser.wait_text("The old secret no longer works.");
    // Straight back to the page that showed it.
    browser.back();
    eventually("another page is there", || match browser.source() {
        source if source.contains("The old secret no longer works.") => Err(source),
        _ => Ok(()),
    });
    assert!(!browser.source().contains(&second), "going back shows the secret again");
    browser.open(&page);

    // Rotated with an overlap: both work, and the page shows which are used.
    browser.press("Rotate");
    browser.press("12 hours");
    browser.press("Rotate key");
    let third = secret(&browser);
    browser.wait_text("End the overlap");
    browser.press("I have copied it: open the key");
    browser.wait_text("The new secret was not used yet.");
    wait_verdict(&stack, &third, "200 -");
    wait_verdict(&stack, &second, "200 -");
    eventually_within(REPORT_DEADLINE, "the page shows that both secrets are used", || {
        if scripts == Scripts::Off {
            browser.reload();
        }
        let seen = browser.text_of("#rotation");
        let both_are_used = seen.contains("The new secret is used") && seen.contains("The old secret was last used");
        if both_are_used { Ok(()) } else { Err(seen) }
    });
    browser.press("End the overlap now");
    browser.wait_text("the old secret no longer works");
    browser.wait_text("Enforced on 3 of 3 workers of 1 edge");
    assert_eq!((verdict(&stack, &second), verdict(&stack, &third)), ("401 rotated-key".to_owned(), "200 -".to_owned()));

    // The key's page shows why it was denied.
    eventually_within(REPORT_DEADLINE, "the page shows why a request was denied", || {
        browser.open(&format!("{KEYS}/{key}"));
        let seen = browser.text();
        let is_there = seen.contains("rotated-key") && seen.contains("GET /v1/reviews") && seen.contains("127.0.0.1");
        if is_there { Ok(()) } else { Err(seen) }
    });
    assert_eq!(browser.count("svg.chart rect.allowed"), 30);

    // Deactivated, activated, from the list.
    browser.open(KEYS);
    browser.press("Deactivate");
    browser.press("Deactivate key");
    browser.wait_text("The key is deactivated.");
    browser.wait_text("Enforced on 3 of 3 workers of 1 edge");
    assert_eq!(verdict(&stack, &third), "401 inactive-key");
    browser.press("Activate");
    browser.wait_text("The key is active again.");
    browser.wait_text("Enforced on 3 of 3 workers of 1 edge");
    assert_eq!(verdict(&stack, &third), "200 -");

    // Deleted, once its name is typed.
    browser.press("Delete");
    browser.fill("#confirm", "something else");
    browser.press("Delete key");
    browser.wait_text("This is not the key's name");
    browser.fill("#confirm", "Nightly export, edited");
    browser.press("Delete key");
    browser.wait_text("The key is deleted.");
    browser.wait_text("Enforced on 3 of 3 workers of 1 edge");
    assert_eq!(verdict(&stack, &third), "401 unknown-key");

    // The audit trail has every action.
    browser.press("Audit trail");
    for action in [
        "Key created",
        "Key changed",
        "Key rotated",
        "Overlap ended",
        "Key deactivated",
        "Key activated",
        "Key deleted",
    ] {
        browser.wait_text(action);
    }
}

#[test]
fn a_key_is_made_used_edited_rotated_stopped_and_deleted_with_scripts() {
    assert_key_life_cycle(Scripts::On);
}

#[test]
fn a_key_is_made_used_edited_rotated_stopped_and_deleted_without_scripts() {
    assert_key_life_cycle(Scripts::Off);
}

#[test]
fn lists_are_searched_filtered_sorted_and_paginated() {
    let control_plane = end_to_end::ControlPlane::start();
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let keys: Vec<_> = (0..60).map(|number| admin.create_key("acme", &format!("key {number:02}"))).collect();
    admin.act(&keys[7], "deactivate");
    let browser = Browser::start(&control_plane.url(), Scripts::Off);
    browser.sign_in(&control_plane.admin_token());
    browser.open(KEYS);
    let rows = |count: usize, first: &str| {
        eventually(&format!("{count} rows, the first of them {first}"), || {
            let seen = (browser.count("table.keys tbody tr"), browser.text_of("tbody tr:first-child th"));
            if seen.0 == count && seen.1.contains(first) { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };
    rows(50, "key 59");
    browser.press("Next page");
    rows(10, "key 09");
    browser.press("First page");
    rows(50, "key 59");
    browser.press("Name");
    rows(50, "key 00");
    browser.press("Name");
    rows(50, "key 59");
    browser.fill("#q", "key 1");
    browser.press("Show");
    rows(10, "key 19");
    assert_eq!(browser.value("#q"), "key 1");
    browser.press("Show all");
    rows(50, "key 59");
    browser.click("#status option[value=inactive]");
    browser.press("Show");
    rows(1, "key 07");
    browser.fill("#q", "nobody");
    browser.press("Show");
    browser.wait_text("No matching keys");
}

#[test]
fn a_page_updates_itself_when_a_change_becomes_enforced() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "watched");
    stack.wait_known(&key);
    let browser = browser(&stack, Scripts::On);
    // Nothing reaches a stopped Envoy, so the change can't be enforced yet.
    stack.envoy.process.signal("STOP");
    browser.open(&format!("{KEYS}/{}/deactivate", key.id));
    browser.press("Deactivate key");
    browser.wait_text("Not enforced everywhere yet: 0 of 3 workers of 1 edge have it.");
    browser.wait_text("0 of 3 workers have it");
    browser.wait_text("It is enforced everywhere by");
    stack.envoy.process.signal("CONT");
    // A worker that was stopped for long isn't counted until it has caught up, and decides nothing before.
    browser.wait_text("Enforced on ");
    let seen = verdict(&stack, &key.secret);
    assert!(["401 inactive-key", "503 not-ready"].contains(&seen.as_str()), "{seen}");
}

#[test]
fn everything_can_be_done_with_the_keyboard_alone() {
    let control_plane = end_to_end::ControlPlane::start();
    control_plane.admin().create_workspace("acme");
    let browser = Browser::start(&control_plane.url(), Scripts::On);
    const TAB: &str = "\u{e004}";
    const ENTER: &str = "\u{e007}";
    const SPACE: &str = " ";
    browser.open("/console/sign-in");
    // The only field has the focus.
    browser.keys(&control_plane.admin_token());
    browser.keys(ENTER);
    browser.wait_text("Workspaces");
    browser.open(&format!("{KEYS}/new"));
    // The first tab stop skips the menu.
    browser.keys(TAB);
    assert_eq!(browser.run("return document.activeElement.className"), "skip");
    browser.keys(ENTER);
    browser.keys(TAB);
    let focus = || {
        browser.run("return document.activeElement.id || document.activeElement.name || document.activeElement.textContent.trim()")
    };
    let mut seen = Vec::new();
    for _ in 0..30 {
        let at = focus().as_str().unwrap_or_default().to_owned();
        match at.as_str() {
            "name" => browser.keys("By keyboard"),
            "scope_reviews" => browser.keys("\u{e015}"),
            "Create key" => {
                browser.keys(ENTER);
                break;
            }
            _ => {}
        }
        seen.push(at);
        browser.keys(TAB);
    }
    let order: Vec<_> = ["name", "expires_in", "scope_reviews", "scope_security_scans", "allow"]
        .iter()
        .map(|name| seen.iter().position(|at| at == name).unwrap_or_else(|| panic!("{name} is not in {seen:?}")))
        .collect();
    assert!(order.is_sorted(), "the focus follows the reading order: {seen:?}");
    browser.wait_text("You won't see this again");
    let key = control_plane.admin().get("/v1/workspaces/acme/keys")["items"][0].clone();
    assert_eq!((&key["name"], &key["scopes"]["reviews"]), (&"By keyboard".into(), &"read".into()));

    // A dialog opens with the focus. Escape closes it and returns the focus.
    browser.open(&format!("{KEYS}/{}", key["id"].as_str().expect("an id")));
    browser.run("document.querySelector('[data-opens]').focus()");
    browser.keys(ENTER);
    assert_eq!(browser.run("return document.querySelector('dialog').contains(document.activeElement)"), true);
    browser.keys("\u{e00c}");
    assert_eq!(browser.run("return document.querySelector('dialog').open"), false);
    assert_eq!(focus(), "Rotate");
    browser.run("document.querySelector('details.account summary').focus()");
    browser.keys(SPACE);
    browser.keys(TAB);
    assert_eq!(focus(), "Sign out");
    browser.keys(ENTER);
    browser.wait_text("You are signed out.");
}
