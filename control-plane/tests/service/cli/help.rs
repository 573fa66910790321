//! Snapshots of help texts and errors, as a person reviewed them. `INSTA_UPDATE=always cargo test -p latchkey --test
//! service help` accepts new ones; read them before you commit them.

use super::Cli;

/// `help` of each command, and of those below it.
fn collect(cli: &Cli, path: &[&str], text: &mut String) {
    let help = cli.ok(&[path, &["--help"]].concat());
    text.push_str(&format!("$ latchkey {}\n{help}\n", [path, &["--help"]].concat().join(" ")));
    let commands = help.split_once("\nCommands:\n").map(|(_, rest)| rest.split("\n\n").next().unwrap_or_default());
    let names = commands
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next().filter(|_| !line.starts_with("   ")));
    for name in names.filter(|name| *name != "help") {
        collect(cli, &[path, &[name]].concat(), text);
    }
}

#[test]
fn help_texts_are_as_somebody_read_them() {
    let cli = Cli::start_unsigned(&[]);
    let mut text = String::new();
    collect(&cli, &[], &mut text);
    assert!(text.matches("\n$ latchkey ").count() > 40, "some command is missing");
    insta::assert_snapshot!("help", text);
}

#[test]
fn errors_are_as_somebody_read_them() {
    let cli = Cli::start();
    let (id, _) = cli.key("CI", &[]);
    let expired = cli.run(&["keys", "create", "-w", "acme", "x", "--expires-at", "2020-01-01T00:00:00Z"]);
    assert_eq!(expired.code, 1);
    let mut text = String::new();
    for arguments in [
        &[
            "keys",
            "create",
            "-w",
            "acme",
            "CI",
            "--expires-in",
            "91d",
            "--allow",
            "10.0.0.1/8",
            "--scope",
            "orders:read",
        ][..],
        &["keys", "create", "-w", "acme", "CI"],
        &["keys", "create", "-w", "acme", "CI", "--expires-in", "none", "--scope", "reviews"],
        &["keys", "create", "-w", "acme", "CI", "--expires-in", "none", "--metadata", "[]"],
        &["keys", "create", "-w", "nowhere", "CI", "--expires-in", "none"],
        &["keys", "list"],
        &["keys", "show", "-w", "acme", "key_0"],
        &["keys", "rotate", "-w", "acme", "ID", "--overlap", "8d"],
        &["keys", "edit", "-w", "acme", "ID"],
        &["keys", "edit", "-w", "acme", "ID", "--name", "x", "--if-revision", "1"],
        &["keys", "deactivate", "-w", "acme"],
        &["keys", "deactivate", "-w", "acme", "--name", "C*"],
        &["keys", "delete", "-w", "acme", "--unused-days", "0", "--yes"],
        &["keys", "import", "-w", "acme", "-"],
        &["tokens", "create", "x", "--role", "workspace_admin"],
        &["tokens", "show", "adt_0"],
        &["edge-tokens", "create", "x", "--edge", "a b"],
        &["edges", "remove", "nowhere"],
        &["enforcement", "--revision", "99"],
        &["enforcement", "--wait=61"],
        &["audit", "list", "-w", "nowhere"],
        &["explain", "GET", "/", "--key", "ID"],
        &["workspaces", "list", "--url", "keys.example.com"],
        &["workspaces", "list", "--url", "http://keys.example.com", "--token-file", "admin.token"],
        &["workspaces", "list", "--url", "http://127.0.0.1:1", "--token-file", "admin.token"],
        &["workspaces", "list", "--url", "http://127.0.0.1:1"],
        &["lst"],
    ] {
        let arguments: Vec<&str> =
            arguments.iter().map(|argument| if *argument == "ID" { &id } else { *argument }).collect();
        let ended = cli.run_with(&arguments, "");
        assert_ne!(ended.code, 0, "{arguments:?}: {ended:?}");
        text.push_str(&format!("$ latchkey {}\n{}ends with {}\n\n", arguments.join(" "), ended.stderr, ended.code));
    }
    insta::assert_snapshot!("errors", text.replace(&id, "key_…"));
}
