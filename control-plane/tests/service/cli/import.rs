//! `latchkey keys import`: all or none, and which lines are refused.

use serde_json::{Value, json};

use super::Cli;
use crate::import;

fn line(secret: &str, more: Value) -> String {
    format!("{}\n", import::line(secret, more))
}

#[test]
fn refused_lines_are_listed_by_number_and_nothing_is_imported() {
    let cli = Cli::start();
    let taken = cli.key("ours", &[]).1;
    let file = [
        line("a", json!({})),
        "\n".to_owned(),
        line("b", json!({"expires_in": "2d", "scopes": {"orders": "read"}})),
        line("c", json!({})),
        "no JSON\n".to_owned(),
        line("a", json!({})),
    ];
    std::fs::write(cli.at("keys.jsonl"), file.concat()).unwrap();
    let refused = cli.run(&["keys", "import", "-w", "acme", "keys.jsonl"]);
    assert!(refused.code == 1 && refused.stdout.is_empty(), "{refused:?}");
    let lines: Vec<&str> = refused.stderr.lines().collect();
    assert!(
        lines[0].contains("3 lines are refused, so nothing was done") && lines[0].ends_with("(refused-lines)"),
        "{refused:?}"
    );
    for (line, expected) in lines[1..].iter().zip(["  line 3: ", "  line 5: ", "  line 6: digest is also in line 1"]) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert!(lines[1].contains("expires_in") && lines[1].contains("scopes"), "{refused:?}");
    assert_eq!(lines.len(), 4, "{refused:?}");

    // A digest that already exists here, in any workspace.
    let file = [line("a", json!({})), line(&taken, json!({"name": "x"}))].concat();
    let refused = cli.run_with(&["keys", "import", "-w", "acme", "-"], &file);
    let expected = "latchkey: 1 line is refused, so nothing was done; correct it, and send all again (refused-lines)\n  line 2: digest is refused\n";
    assert_eq!((refused.code, refused.stderr.as_str()), (1, expected));
    assert_eq!(cli.json(&["keys", "list", "-w", "acme"]).as_array().unwrap().len(), 1);
}

#[test]
fn lines_may_name_their_workspaces_and_come_from_standard_input() {
    let cli = Cli::start();
    cli.ok(&["workspaces", "create", "Umbrella", "--slug", "umbrella"]);
    let lines = [line("a", json!({"workspace": "acme"})), line("b", json!({"workspace": "umbrella"}))].concat();
    let printed = cli.run_with(&["keys", "import", "-"], &lines);
    assert!(printed.code == 0 && printed.stdout.starts_with("imported 2 keys, up to revision "), "{printed:?}");
    // No progress bar is drawn without a terminal.
    assert_eq!(printed.stderr, "");
    for (workspace, name) in [("acme", "a"), ("umbrella", "b")] {
        assert_eq!(cli.json(&["keys", "list", "-w", workspace])[0]["name"], name);
    }
    let found = cli.ok_with(&["keys", "identify"], "a");
    assert!(found.contains("status        current"), "{found}");
}

#[test]
fn lines_that_have_expired_are_left_out_when_asked() {
    let cli = Cli::start();
    let mut old = line("old", json!({"expires_at": "2020-01-01T00:00:00Z"}));
    old = old.replace("\"expires_in\":\"none\",", "");
    let lines = [old, line("new", json!({"active": false}))].concat();
    let refused = cli.run_with(&["keys", "import", "-w", "acme", "-"], &lines);
    assert!(refused.code == 1 && refused.stderr.contains("line 1: expires_at"), "{refused:?}");
    let printed = cli.ok_with(&["keys", "import", "-w", "acme", "-", "--skip-expired"], &lines);
    assert!(printed.starts_with("imported 1 key, ") && printed.ends_with("; 1 expired line left out\n"), "{printed}");
    assert_eq!(cli.json(&["keys", "list", "-w", "acme"])[0]["status"], "inactive");
}

#[test]
fn progress_is_shown_on_a_terminal() {
    let cli = Cli::start();
    let lines: String = (0..5_000).map(|n| line(&n.to_string(), json!({}))).collect();
    std::fs::write(cli.at("keys.jsonl"), lines).unwrap();
    let (code, shown) = cli.on_terminal(&["keys", "import", "-w", "acme", "keys.jsonl"], "", "");
    assert!(code == 0 && shown.contains("imported 5000 keys"), "{shown}");
    assert!(shown.contains("the control plane imports them"), "{shown}");
}

#[test]
fn what_is_too_much_for_one_time_is_not_sent_in_parts() {
    let cli = Cli::start();
    let lines: String = (0..100_001).map(|n| format!("{{\"digest\":\"{n:064x}\"}}\n")).collect();
    let refused = cli.run_with(&["keys", "import", "-w", "acme", "-"], &lines);
    assert!(refused.code == 1 && refused.stderr.contains("100001 lines; at most 100000"), "{refused:?}");
    assert!(cli.json(&["keys", "list", "-w", "acme"]).as_array().unwrap().is_empty());
    let none = cli.run(&["keys", "import", "-w", "acme", "nowhere.jsonl"]);
    assert!(none.code == 1 && none.stderr.contains("nowhere.jsonl: cannot read it"), "{none:?}");
}

#[test]
fn an_unauthorized_import_is_refused_before_the_lines_are_sent() {
    let cli = Cli::start();
    let made = cli.ok(&["tokens", "create", "viewer", "--role", "workspace_member", "-w", "acme"]);
    // More than all buffers in between take.
    let lines: String = (0..50_000).map(|n| line(&n.to_string(), json!({}))).collect();
    std::fs::write(cli.at("keys.jsonl"), lines).unwrap();
    let url = cli.url();
    let refused =
        cli.run_with(&["keys", "import", "-w", "acme", "keys.jsonl", "--url", &url, "--token-file", "-"], &made);
    assert!(refused.code == 1 && refused.stderr.contains("(forbidden)"), "{refused:?}");
}
