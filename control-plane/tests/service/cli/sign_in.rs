//! Signing in: what `login` stores, and which servers receive it.

use std::fs::{Permissions, metadata, read_to_string, set_permissions, write};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use super::Cli;
use crate::tls::Authority;

const STORED: &str = "home/.config/latchkey/config.toml";

#[test]
fn login_stores_url_and_token_for_its_owner_alone_and_logout_forgets_them() {
    let cli = Cli::start_unsigned(&[]);
    let refused = cli.run(&["workspaces", "list"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("latchkey login"), "{refused:?}");

    let printed = cli.ok_with(&["login", "--url", &cli.url()], &format!("{}\n", cli.token()));
    assert!(printed.contains(&cli.url()) && printed.contains(STORED), "{printed}");
    assert_eq!(metadata(cli.at(STORED)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata(cli.at("home/.config/latchkey")).unwrap().permissions().mode() & 0o777, 0o700);
    cli.ok(&["workspaces", "list"]);
    // Again, over the stored token.
    cli.ok(&["login", "--url", &cli.url(), "--token-file", "admin.token"]);
    cli.ok(&["workspaces", "list"]);

    set_permissions(cli.at(STORED), Permissions::from_mode(0o640)).unwrap();
    let refused = cli.run(&["workspaces", "list"]);
    assert!(refused.code == 1 && refused.stderr.contains("chmod 600"), "{refused:?}");
    set_permissions(cli.at(STORED), Permissions::from_mode(0o600)).unwrap();

    cli.ok(&["logout"]);
    assert!(!cli.at(STORED).exists());
    assert_eq!(cli.run(&["workspaces", "list"]).code, 2);
    assert_eq!(cli.ok(&["logout"]), "not signed in\n");
}

#[test]
fn a_token_that_is_refused_is_not_stored() {
    let cli = Cli::start_unsigned(&[]);
    let other = "lkadm_00000000000000000000000000000000";
    let whole = ["lkadm_000000000000000000000000000000000MYEIm", other];
    for token in [whole[1].to_owned(), cli.token().to_lowercase(), String::new(), format!("{0}\n{0}", cli.token())] {
        let refused = cli.run_with(&["login", "--url", &cli.url()], &token);
        assert!(refused.code == 1 && refused.stderr.contains("expected one admin token"), "{refused:?}");
        assert!(token.is_empty() || !refused.stderr.contains(&token), "{refused:?}");
    }
    // Of the right shape, but from another control plane.
    let elsewhere = Cli::start_unsigned(&[]);
    let refused = cli.run_with(&["login", "--url", &cli.url()], &elsewhere.token());
    assert!(refused.code == 1 && refused.stderr.contains("bad-token"), "{refused:?}");
    assert!(!cli.at(STORED).exists());
}

#[test]
fn a_token_that_is_typed_is_not_shown() {
    let cli = Cli::start_unsigned(&[]);
    let (url, token) = (cli.url(), cli.token());
    let (code, shown) = cli.on_terminal(&["login", "--url", &url], "(not shown): ", &token);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("signed in to") && !shown.contains(&token), "{shown}");
    cli.ok(&["workspaces", "list"]);
}

#[test]
fn environment_and_flags_take_the_place_of_what_is_stored() {
    let cli = Cli::start_unsigned(&[]);
    let mut by_environment = cli.command(&["workspaces", "list"]);
    by_environment.env("LATCHKEY_URL", cli.url()).env("LATCHKEY_TOKEN_FILE", "admin.token");
    assert!(by_environment.output().unwrap().status.success());
    cli.ok(&["workspaces", "list", "--url", &cli.url(), "--token-file", "admin.token"]);
    cli.ok_with(&["workspaces", "list", "--url", &cli.url(), "--token-file", "-"], &cli.token());

    set_permissions(cli.at("admin.token"), Permissions::from_mode(0o644)).unwrap();
    let refused = cli.run(&["workspaces", "list", "--url", &cli.url(), "--token-file", "admin.token"]);
    assert!(refused.code == 1 && refused.stderr.contains("chmod 600"), "{refused:?}");
}

#[test]
fn a_stored_token_goes_to_nobody_but_the_control_plane_that_it_was_stored_for() {
    let cli = Cli::start();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let url = format!("http://{}", other.local_addr().unwrap());
    let refused = cli.run(&["workspaces", "list", "--url", &url]);
    assert!(refused.code == 2 && refused.stderr.contains("no token for"), "{refused:?}");
    assert!(other.accept().is_err(), "somebody else was asked");
    // Plain HTTP would show it to the network.
    for url in ["http://192.0.2.1", "http://keys.example.com:8080"] {
        let refused = cli.run(&["workspaces", "list", "--url", url, "--token-file", "admin.token"]);
        assert!(refused.code == 1 && refused.stderr.contains("https://"), "{refused:?}");
    }
}

#[test]
fn a_redirect_is_not_followed_with_a_token() {
    let cli = Cli::start();
    let (asked, elsewhere) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    elsewhere.set_nonblocking(true).unwrap();
    let to = format!("http://{}/v1/workspaces", elsewhere.local_addr().unwrap());
    let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let url = format!("http://{}", asked.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = asked.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let refused = cli.run(&["workspaces", "list", "--url", &url, "--token-file", "admin.token"]);
    server.join().unwrap();
    assert!(refused.code == 4 && refused.stderr.contains(&to), "{refused:?}");
    assert!(elsewhere.accept().is_err(), "the redirect was followed");
}

#[test]
fn no_answer_and_a_refusal_end_with_different_codes() {
    let cli = Cli::start();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = cli.run(&["workspaces", "list", "--url", &format!("http://{closed}"), "--token-file", "admin.token"]);
    assert!(refused.code == 4 && refused.stderr.contains("no answer from"), "{refused:?}");
    assert_eq!(cli.run(&["workspaces", "show", "nowhere"]).code, 1);
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named_and_remembered() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(files.path(), "server");
    let at = |name: &str| files.path().join(name).display().to_string();
    write(files.path().join("ca.pem"), authority.pem()).unwrap();
    let (certificate, key) = (at("server.pem"), at("server.key"));
    let cli = Cli::start_unsigned(&["--tls-certificate", &certificate, "--tls-key", &key]);
    let url = format!("https://localhost:{}", cli.running.address.rsplit(':').next().unwrap());

    let refused = cli.run(&["login", "--url", &url, "--token-file", "admin.token"]);
    assert!(refused.code == 4 && refused.stderr.contains("--ca-certificate"), "{refused:?}");
    cli.ok(&["login", "--url", &url, "--token-file", "admin.token", "--ca-certificate", &at("ca.pem")]);
    cli.ok(&["workspaces", "create", "Acme Inc", "--slug", "acme"]);
    // At most 256 KiB go as one body; this one is large enough for many writes over TLS.
    let lines: String =
        (0..2_000).map(|n| format!("{{\"digest\":\"{n:064x}\",\"name\":\"{n}\",\"expires_in\":\"none\"}}\n")).collect();
    assert_eq!(
        cli.ok_with(&["keys", "import", "-w", "acme", "-"], &lines).split(',').next(),
        Some("imported 2000 keys")
    );

    write(files.path().join("empty.pem"), "").unwrap();
    let refused = cli.run(&["workspaces", "list", "--ca-certificate", &at("empty.pem")]);
    assert!(refused.code == 1 && refused.stderr.contains("no certificate"), "{refused:?}");
    assert!(read_to_string(cli.at(STORED)).unwrap().contains("ca.pem"));
}
