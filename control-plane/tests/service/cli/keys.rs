//! `latchkey keys`: each of its commands, and its output for scripts.

use serde_json::json;

use super::Cli;
use crate::harness::last_four;

#[test]
fn a_secret_alone_goes_to_standard_output() {
    let cli = Cli::start();
    let made = cli.run(&["keys", "create", "-w", "acme", "CI", "--expires-in", "90d", "--scope", "reviews:read"]);
    assert_eq!(made.code, 0, "{made:?}");
    let secret = made.stdout.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("lk_live_") && !secret.contains('\n'), "{made:?}");
    assert!(made.stderr.contains("reviews:read") && !made.stderr.contains(secret), "{made:?}");

    let id = cli.json(&["keys", "list", "-w", "acme"])[0]["id"].as_str().unwrap().to_owned();
    let rotated = cli.run(&["keys", "rotate", "-w", "acme", &id, "--overlap", "12h"]);
    let other = rotated.stdout.trim_end();
    assert!(rotated.code == 0 && other.starts_with("lk_live_") && other != secret, "{rotated:?}");
    assert_eq!(rotated.stdout.lines().count(), 1);

    for (secret, status) in [(secret, "previous"), (other, "current")] {
        let found = cli.ok_with(&["keys", "identify"], secret);
        assert!(found.contains(&format!("status           {status}")) && found.contains(&id), "{found}");
        assert!(!found.contains(secret));
    }
    let unknown = cli.run_with(&["keys", "identify"], "nobody's");
    assert!(unknown.code == 1 && unknown.stderr.contains("unknown-secret"), "{unknown:?}");
}

#[test]
fn a_secret_that_can_not_be_written_is_an_error_with_the_next_step() {
    let cli = Cli::start();
    let mut command = cli.command(&["keys", "create", "-w", "acme", "CI", "--expires-in", "none"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = super::CommandOutput::from(command.stdout(full).output().unwrap());
    assert!(ended.code == 1 && ended.stderr.contains("rotate it"), "{ended:?}");
}

#[test]
fn every_field_of_a_key_can_be_given_and_changed() {
    let cli = Cli::start();
    let (id, secret) = cli.key(
        "CI",
        &[
            "--scope",
            "reviews:write,webhooks:read",
            "--allow",
            "10.0.0.0/8",
            "--allow",
            "::1",
            "--environment",
            "live",
            "--metadata",
            r#"{"team": "a", "cost": 7}"#,
        ],
    );
    let show = || cli.json(&["keys", "show", "-w", "acme", &id]);
    let key = show();
    assert_eq!(key["scopes"], json!({"reviews": "write", "webhooks": "read"}));
    assert_eq!(key["ip_allowlist"], json!(["10.0.0.0/8", "::1"]));
    assert_eq!(key["metadata"], json!({"team": "a", "cost": 7}));
    assert_eq!(key["last_characters"], json!(last_four(&secret)));

    cli.ok(&["keys", "edit", "-w", "acme", &id, "--scope", "reviews:read", "--metadata", r#"{"cost": null}"#]);
    let key = show();
    assert_eq!((&key["scopes"], &key["metadata"]), (&json!({"reviews": "read"}), &json!({"team": "a"})));
    assert_eq!(key["ip_allowlist"], json!(["10.0.0.0/8", "::1"]));
    let before = key["revision"].to_string();
    cli.ok(&[
        "keys",
        "edit",
        "-w",
        "acme",
        &id,
        "--no-scopes",
        "--any-address",
        "--name",
        "CI 2",
        "--if-revision",
        &before,
    ]);
    let key = show();
    assert_eq!((&key["scopes"], &key["ip_allowlist"], &key["name"]), (&json!({}), &json!(null), &json!("CI 2")));
    let stale = cli.run(&["keys", "edit", "-w", "acme", &id, "--name", "CI 3", "--if-revision", &before]);
    assert!(stale.code == 1 && stale.stderr.contains("stale"), "{stale:?}");
    assert_eq!(cli.run(&["keys", "edit", "-w", "acme", &id]).code, 2);

    for (action, status) in [("deactivate", "inactive"), ("activate", "active"), ("end-overlap", "active")] {
        let printed = cli.json(&["keys", action, "-w", "acme", &id]);
        assert_eq!(printed["status"], status, "{action}");
    }
    assert_eq!(cli.ok(&["keys", "delete", "-w", "acme", &id]), format!("deleted {id}\n"));
    let gone = cli.run(&["keys", "show", "-w", "acme", &id]);
    assert!(gone.code == 1 && gone.stderr.contains("unknown-key"), "{gone:?}");
}

#[test]
fn a_list_is_whole_however_many_pages_it_has() {
    let cli = Cli::start();
    let line = |n: u32| {
        format!("{}\n", json!({"digest": format!("{n:064x}"), "name": format!("k{n:03}"), "expires_in": "none"}))
    };
    cli.ok_with(&["keys", "import", "-w", "acme", "-"], &(0..450).map(line).collect::<String>());
    let names = |more: &[&str]| -> Vec<String> {
        let keys = cli.json(&[&["keys", "list", "-w", "acme"], more].concat());
        keys.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["--sort", "name"]), (0..450).map(|n| format!("k{n:03}")).collect::<Vec<_>>());
    assert_eq!(names(&["--limit", "201"]).len(), 201);
    assert_eq!(
        names(&["--search", "44", "--sort", "name"]),
        [
            "k044", "k144", "k244", "k344", "k440", "k441", "k442", "k443", "k444", "k445", "k446", "k447", "k448",
            "k449"
        ]
    );
    assert_eq!(names(&["--name", "k44?", "--sort", "-name"]).first().unwrap(), "k449");
    let table = cli.ok(&["keys", "list", "-w", "acme", "--status", "active"]);
    assert_eq!(table.lines().count(), 451);
    assert!(table.starts_with("ID "), "{table}");
    // `head` reads no more than it needs, which isn't an error to report.
    let mut command = cli.command(&["keys", "list", "-w", "acme"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let ended = super::CommandOutput::from(child.wait_with_output().unwrap());
    assert!(ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn a_workspace_is_named_by_flag_or_environment() {
    let cli = Cli::start();
    let refused = cli.run(&["keys", "list"]);
    assert!(refused.code == 2 && refused.stderr.contains("LATCHKEY_WORKSPACE"), "{refused:?}");
    assert!(cli.command(&["keys", "list"]).env("LATCHKEY_WORKSPACE", "acme").output().unwrap().status.success());
    let id = cli.json(&["workspaces", "show", "acme"])["id"].as_str().unwrap().to_owned();
    cli.ok(&["keys", "list", "-w", &id]);
}

#[test]
fn usage_of_a_key_that_was_never_used_is_nothing() {
    let cli = Cli::start();
    let (id, _) = cli.key("CI", &[]);
    let printed = cli.ok(&["keys", "usage", "-w", "acme", &id]);
    assert!(
        printed.contains("last used  never") && printed.contains("allowed    0") && printed.contains("denied     0"),
        "{printed}"
    );
    assert_eq!(cli.json(&["keys", "usage", "-w", "acme", &id])["totals"], json!({"allowed": 0, "denied": {}}));
}

/// An instance that polled the feed and never acknowledged.
#[tokio::test]
async fn a_change_that_is_not_enforced_in_time_is_made_and_ends_with_3() {
    let cli = Cli::start();
    let nobody = cli.run(&["keys", "create", "-w", "acme", "CI", "--expires-in", "none", "--wait=1"]);
    assert!(nobody.code == 3 && nobody.stdout.starts_with("lk_live_"), "{nobody:?}");
    assert!(nobody.stderr.contains("no edge is known"), "{nobody:?}");

    let token = std::fs::read_to_string(cli.at("edge.token")).unwrap();
    let feed = format!("{}/edge/v1/feed?format=1&edge=eu&instance=i1&wait=0&max_staleness=3600", cli.url());
    assert_eq!(reqwest::Client::new().get(feed).bearer_auth(token.trim()).send().await.unwrap().status(), 200);
    let (id, _) = cli.key("CI", &[]);
    let late = cli.run(&["keys", "deactivate", "-w", "acme", &id, "--wait=0"]);
    assert_eq!(late.code, 3, "{late:?}");
    assert!(late.stdout.contains("status                        inactive"), "{late:?}");
    assert!(
        late.stderr.starts_with(
            "not enforced after 0 ms: 0 of 0 workers of 1 edge have it; eu i1 is behind; it is enforced at 2"
        ),
        "{late:?}"
    );
    let enforcement = cli.run(&["enforcement"]);
    assert!(
        enforcement.code == 3 && enforcement.stdout.contains("is not enforced: 0 of 0 workers of 1 edge"),
        "{enforcement:?}"
    );
    assert_eq!(cli.run(&["enforcement", "--revision", "999999"]).code, 1);
    assert_eq!(cli.json(&["edges", "list"])[0]["instance"], "i1");
    let connected = cli.run(&["edges", "remove", "i1"]);
    assert!(connected.code == 1 && connected.stderr.contains("edge-connected"), "{connected:?}");
}
