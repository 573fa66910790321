//! No secret and no token in an error, a log, or the arguments of a process.

use std::io::Write as _;

use super::{Cli, CommandOutput};

/// The random part of a secret.
fn random(secret: &str) -> &str {
    secret.rsplit('_').next().unwrap()
}

#[test]
fn no_secret_is_in_an_error_or_a_log() {
    let cli = Cli::start();
    let admin = cli.token();
    let (id, secret) = cli.key("CI", &["--scope", "reviews:read"]);
    let rotated = cli.ok(&["keys", "rotate", "-w", "acme", &id, "--overlap", "7d"]);
    let token = cli.ok(&["tokens", "create", "ops", "--role", "platform_admin"]);
    let edge = cli.ok(&["edge-tokens", "create", "eu", "--edge", "eu-1"]);
    let secrets = [admin.as_str(), secret.as_str(), rotated.trim(), token.trim(), edge.trim()];

    let mut outputs: Vec<CommandOutput> = Vec::new();
    for secret in secrets {
        // Where it belongs, and where people put it by mistake.
        outputs.push(cli.run_with(&["keys", "identify"], secret));
        outputs.push(cli.run_with(&["keys", "identify"], &format!("{secret} and more")));
        outputs.push(cli.run_with(&["keys", "identify", "--json"], secret));
        for arguments in [
            &["keys", "identify", secret][..],
            &["keys", "show", "-w", "acme", secret],
            &["keys", "list", "-w", secret],
            &["keys", "rotate", "-w", "acme", &id, "--overlap", secret],
            &["keys", "create", "-w", "acme", "CI", "--expires-in", secret],
            &["keys", "create", "-w", "acme", "CI", "--expires-in", "none", "--scope", secret],
            &["keys", "create", "-w", "acme", "CI", "--expires-in", "none", "--allow", secret],
            &["keys", "import", "-w", "acme", secret],
            &["login", secret],
            &["login", "--token", secret],
            &["login", &format!("--token={secret}")],
            &["login", "--url", secret],
            &["login", "--token-file", secret, "--url", "http://127.0.0.1:1"],
            &["tokens", "revoke", secret],
            &["edge-tokens", "create", "eu", "--edge", secret],
            &["audit", "list", "--target", secret],
            &["explain", "GET", "/", "-w", "acme", "--key", secret],
            &["check-config", secret],
            &["workspaces", "list", "--url", "http://127.0.0.1:1", "--token-file", "admin.token"],
            &[secret],
        ] {
            outputs.push(cli.run(arguments));
        }
    }
    assert!(outputs.iter().filter(|ended| ended.code != 0).count() > 80, "most of these are refused");
    let log = cli.log();
    assert!(log.contains("/v1/keys/identify"), "the requests are logged");
    for secret in secrets {
        for ended in &outputs {
            assert!(!ended.stderr.contains(random(secret)), "{}", ended.stderr);
            assert!(!ended.stdout.contains(random(secret)), "{}", ended.stdout);
        }
        assert!(!log.contains(random(secret)), "the control plane's log holds a secret");
    }
    let warned = cli.run(&["keys", "identify", &secret]);
    assert!(
        warned.code == 2 && warned.stderr.contains("[removed]") && warned.stderr.contains("replace it"),
        "{warned:?}"
    );
}

#[test]
fn a_token_is_read_from_standard_input_and_is_in_no_process_s_arguments_or_environment() {
    let cli = Cli::start_unsigned(&[]);
    let (url, token) = (cli.url(), cli.token());
    let mut child = cli.command(&["login", "--url", &url]).spawn().unwrap();
    let about = format!("/proc/{}", child.id());
    let mut input = child.stdin.take().unwrap();
    // It has the token, and waits for the end of its input.
    input.write_all(token.as_bytes()).unwrap();
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("{about}/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(random(&token)), "{file}");
    }
    drop(input);
    let ended = CommandOutput::from(child.wait_with_output().unwrap());
    assert!(ended.code == 0 && !ended.stdout.contains(random(&token)), "{ended:?}");
}
