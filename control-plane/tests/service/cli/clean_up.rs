//! Cleaning up keys: list them first, then deactivate or delete them.

use super::Cli;

fn statuses(cli: &Cli) -> Vec<String> {
    let keys = cli.json(&["keys", "list", "-w", "acme", "--sort", "name"]);
    keys.as_array()
        .unwrap()
        .iter()
        .map(|key| format!("{} {}", key["name"].as_str().unwrap(), key["status"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_dry_run_lists_what_would_be_hit_and_changes_nothing() {
    let cli = Cli::start();
    for name in ["old 1", "old 2", "new"] {
        cli.key(name, &[]);
    }
    let before = statuses(&cli);
    for action in ["deactivate", "delete"] {
        let dry = cli.run(&["keys", action, "-w", "acme", "--name", "old *", "--dry-run"]);
        assert_eq!((dry.code, dry.stdout.lines().count()), (0, 3), "{dry:?}");
        assert!(dry.stdout.contains("old 1") && dry.stdout.contains("old 2") && !dry.stdout.contains("new"), "{dry:?}");
        assert!(dry.stderr.starts_with("2 keys would be d") && dry.stderr.contains("nothing was changed"), "{dry:?}");
        // There is no terminal to ask on.
        let unsure = cli.run(&["keys", action, "-w", "acme", "--name", "old *"]);
        assert!(unsure.code == 2 && unsure.stderr.contains("--yes"), "{unsure:?}");
    }
    assert_eq!(statuses(&cli), before);

    let done = cli.run(&["keys", "deactivate", "-w", "acme", "--name", "old *", "--status", "active", "--yes"]);
    assert!(done.code == 0 && done.stderr == "2 keys deactivated now\n", "{done:?}");
    assert_eq!(statuses(&cli), ["new active", "old 1 inactive", "old 2 inactive"]);
    let done = cli.json(&["keys", "delete", "-w", "acme", "--status", "inactive", "--yes"]);
    assert_eq!((&done["matched"], &done["dry_run"]), (&2.into(), &false.into()));
    assert_eq!(statuses(&cli), ["new active"]);
}

#[test]
fn a_terminal_lists_the_keys_and_asks_for_confirmation() {
    let cli = Cli::start();
    cli.key("old", &[]);
    cli.key("new", &[]);
    let delete = ["keys", "delete", "-w", "acme", "--name", "old"];
    let question = "delete 1 key? [y/N] ";
    for answer in ["n", "", "yep"] {
        let (code, shown) = cli.on_terminal(&delete, question, answer);
        assert!(code == 0 && shown.contains("nothing was changed"), "{shown}");
        assert!(shown.split(question).next().unwrap().contains("  old"), "{shown}");
    }
    assert_eq!(statuses(&cli), ["new active", "old active"]);
    let (code, shown) = cli.on_terminal(&delete, question, "y");
    assert!(code == 0 && shown.contains("1 key deleted now"), "{shown}");
    assert_eq!(statuses(&cli), ["new active"]);
}

#[test]
fn a_command_without_a_filter_never_means_all_keys() {
    let cli = Cli::start();
    let (id, _) = cli.key("CI", &[]);
    for arguments in [
        &["keys", "delete", "-w", "acme"][..],
        &["keys", "delete", "-w", "acme", "--yes"],
        &["keys", "delete", "-w", "acme", &id, "--status", "active"],
        &["keys", "delete", "-w", "acme", "--dry-run", "--yes", "--status", "active"],
    ] {
        let refused = cli.run(arguments);
        assert_eq!(refused.code, 2, "{arguments:?}: {refused:?}");
    }
    let refused = cli.run(&["keys", "delete", "-w", "acme", "--unused-days", "0", "--yes"]);
    assert!(refused.code == 1 && refused.stderr.contains("--unused-days must be"), "{refused:?}");
    assert_eq!(statuses(&cli), ["CI active"]);
    for filter in ["--unused-days", "--unrotated-days", "--expiring-days"] {
        assert_eq!(cli.json(&["keys", "delete", "-w", "acme", filter, "90", "--dry-run"])["matched"], 0, "{filter}");
    }
}
