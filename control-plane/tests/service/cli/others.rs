//! Workspaces, tokens, edge tokens, the audit log and completions.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::Cli;

#[test]
fn workspaces_are_made_shown_listed_and_renamed() {
    let cli = Cli::start();
    cli.ok(&["workspaces", "edit", "acme", "--name", "Acme Ltd"]);
    let shown = cli.ok(&["workspaces", "show", "acme"]);
    assert!(shown.contains("name        Acme Ltd") && shown.contains("slug        acme"), "{shown}");
    assert_eq!(cli.ok(&["workspaces", "list"]).lines().count(), 2);
    assert_eq!(cli.json(&["workspaces", "list"])[0]["name"], "Acme Ltd");
    let taken = cli.run(&["workspaces", "create", "Another", "--slug", "acme"]);
    assert!(taken.code == 1 && taken.stderr.contains("slug-taken"), "{taken:?}");
}

#[test]
fn tokens_are_made_for_a_role_and_revoked() {
    let cli = Cli::start();
    let made =
        cli.run(&["tokens", "create", "deploy", "--role", "workspace_admin", "-w", "acme", "--expires-in", "7d"]);
    assert!(made.code == 0 && made.stdout.starts_with("lkadm_") && !made.stderr.contains("lkadm_"), "{made:?}");
    let id = cli.json(&["tokens", "list"])[0]["id"].as_str().unwrap().to_owned();
    let shown = cli.ok(&["tokens", "show", &id]);
    assert!(shown.contains("workspace_admin") && shown.contains("deploy"), "{shown}");

    // With the new token.
    let as_it = |arguments: &[&str]| {
        let url = cli.url();
        cli.run_with(&[arguments, &["--url", &url, "--token-file", "-"]].concat(), &made.stdout)
    };
    assert_eq!(as_it(&["keys", "list", "-w", "acme"]).code, 0);
    let refused = as_it(&["workspaces", "create", "More", "--slug", "more"]);
    assert!(refused.code == 1 && refused.stderr.contains("(forbidden)"), "{refused:?}");
    assert_eq!(cli.ok(&["tokens", "revoke", &id]), format!("revoked {id}\n"));
    let refused = as_it(&["keys", "list", "-w", "acme"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("latchkey login") && refused.stderr.contains("revoked-token"),
        "{refused:?}"
    );
}

#[test]
fn edge_tokens_are_made_for_an_edge_and_revoked() {
    let cli = Cli::start();
    let made = cli.run(&["edge-tokens", "create", "eu", "--edge", "eu-1"]);
    assert!(made.code == 0 && made.stdout.starts_with("lkedge_"), "{made:?}");
    let listed = cli.json(&["edge-tokens", "list"]);
    assert_eq!(listed[0]["edge"], "eu-1");
    let id = listed[0]["id"].as_str().unwrap();
    assert!(cli.ok(&["edge-tokens", "show", id]).contains("eu-1"));
    cli.ok(&["edge-tokens", "revoke", id]);
    assert_eq!(cli.json(&["edge-tokens", "list"]), json!([]));
}

#[test]
fn the_dead_instances_of_an_edge_are_removed_by_its_name_or_one_by_its_own() {
    let cli = Cli::start();
    assert_eq!(cli.ok(&["edges", "remove", "--edge", "eu-1"]), "0 instances of eu-1 removed; 0 connected\n");
    let removed = cli.json(&["edges", "remove", "--edge", "eu-1"]);
    assert_eq!(removed, json!({"edge": "eu-1", "removed": 0, "connected": 0}));
    let unknown = cli.run(&["edges", "remove", "i9"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("unknown-instance"), "{unknown:?}");
    for arguments in [&["edges", "remove"][..], &["edges", "remove", "i9", "--edge", "eu-1"]] {
        assert_eq!(cli.run(arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn the_audit_log_is_listed_exported_and_verified() {
    let cli = Cli::start();
    let (id, _) = cli.key("CI", &["--scope", "reviews:write"]);
    cli.ok(&["keys", "edit", "-w", "acme", &id, "--scope", "reviews:read"]);
    let table = cli.ok(&["audit", "list", "-w", "acme"]);
    let newest = table.lines().nth(1).unwrap();
    for part in ["key.update", "token file", &format!("CI ({id})"), "scopes: reviews:write -> reviews:read"] {
        assert!(newest.contains(part), "{newest}");
    }
    assert_eq!(cli.ok(&["audit", "list", "--limit", "2"]).lines().count(), 3);
    assert_eq!(cli.json(&["audit", "list", "--action", "key.create", "--target", &id]).as_array().unwrap().len(), 1);

    let count = |filter: &[&str]| cli.json(&[&["audit", "list"], filter].concat()).as_array().unwrap().len();
    assert_eq!(count(&["--actor", "token file", "--address", "127.0.0.0/8", "--since", "2026-01-01T00:00:00Z"]), 3);
    assert_eq!(count(&["--address", "127.0.0.1", "--until", "3"]), 2);
    let refused = cli.run(&["audit", "list", "--since", "yesterday"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("since") && refused.stderr.contains("an instant"),
        "{refused:?}"
    );

    let export = cli.run(&["audit", "export"]);
    let events: Vec<Value> = export.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.len() == 4 && events[0]["revision"] == 1, "{export:?}");
    assert_eq!(export.stderr, "exported 4 events\n");
    let since = cli.ok(&["audit", "export", "--since", "3"]);
    assert_eq!(since.lines().collect::<Vec<_>>(), export.stdout.lines().skip(3).collect::<Vec<_>>());
    let head = events[3]["hash"].as_str().unwrap();
    let verified = cli.ok(&["audit", "verify", "--expect-head", head]);
    assert!(verified.starts_with("4 audit events"), "{verified}");
}

#[test]
fn an_export_that_breaks_off_is_not_taken_for_a_whole_one() {
    let cli = Cli::start();
    for answer in ["10\r\n{\"revision\":1}\n\n\r\n", "b\r\n{\"revision\"\r\n0\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/jsonl\r\ntransfer-encoding: chunked\r\n\r\n";
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(format!("{head}{answer}").as_bytes()).unwrap();
        });
        let ended = cli.run(&["audit", "export", "--url", &url, "--token-file", "admin.token"]);
        server.join().unwrap();
        assert!(ended.code == 4 && ended.stderr.contains("broke off"), "{ended:?}");
    }
}

#[test]
fn completions_are_written_for_each_shell() {
    let cli = Cli::start_unsigned(&[]);
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef latchkey"), ("fish", "complete -c latchkey")] {
        let script = cli.ok(&["completions", shell]);
        assert!(script.contains(part) && script.contains("end-overlap"), "{shell}");
    }
}
