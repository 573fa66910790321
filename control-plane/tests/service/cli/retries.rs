//! Lost answers: what the command line retries, and what it reports when a secret is lost with one.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use serde_json::json;

use super::{Cli, CommandOutput};

/// The beginnings of two headers, of which the answer to every change has at least one.
const LATCHKEY_HEADER: &[u8] = b"\r\nlatchkey-";
const REQUEST_ID_HEADER: &[u8] = b"\r\nx-request";

/// What happens to a request on its way.
#[derive(Clone, Copy)]
enum ProxyAction {
    /// It is carried out, but its answer is lost.
    AnswerLost,
    /// It doesn't arrive: the proxy answers that the server is unavailable.
    Unavailable,
    Passes,
}

/// A proxy in front of the control plane of `cli`. It applies these actions to the first connections in turn, later
/// ones pass.
fn proxy(cli: &Cli, actions: &'static [ProxyAction]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = cli.running.address.clone();
    std::thread::spawn(move || {
        let mut actions = actions.iter().copied();
        for client in listener.incoming().map_while(Result::ok) {
            let action = actions.next().unwrap_or(ProxyAction::Passes);
            let server = TcpStream::connect(&server).unwrap();
            std::thread::spawn(move || forward(action, client, server));
        }
    });
    url
}

fn forward(action: ProxyAction, mut client: TcpStream, mut server: TcpStream) {
    if matches!(action, ProxyAction::Unavailable) {
        let _ = client.read(&mut [0; 65_536]);
        let body =
            r#"{"status":503,"code":"timeout","title":"Service Unavailable","detail":"the request took too long"}"#;
        let head =
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nconnection: close\r\n";
        let _ = client.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
        return;
    }
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    if matches!(action, ProxyAction::AnswerLost) {
        let mut answer = Vec::new();
        let mut some = [0; 65_536];
        let is_header = |part: &[u8]| part == LATCHKEY_HEADER || part == REQUEST_ID_HEADER;
        // A request to continue is no answer yet.
        while !answer.windows(LATCHKEY_HEADER.len()).any(is_header) {
            match server.read(&mut some) {
                Ok(count @ 1..) => answer.extend_from_slice(&some[..count]),
                _ => break,
            }
            if answer.starts_with(b"HTTP/1.1 100") {
                client.write_all(&answer).unwrap();
                answer.clear();
            }
        }
    } else {
        let _ = std::io::copy(&mut server, &mut client);
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn run(cli: &Cli, url: &str, arguments: &[&str], input: &str) -> CommandOutput {
    let remote = ["--url", url, "--token-file", "admin.token"];
    cli.run_with(&[arguments, &remote].concat(), input)
}

fn keys(cli: &Cli) -> Vec<String> {
    let keys = cli.json(&["keys", "list", "-w", "acme"]);
    keys.as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_change_whose_answer_is_lost_is_made_once_and_its_secret_replaced() {
    let cli = Cli::start();
    let create = ["keys", "create", "-w", "acme", "CI", "--expires-in", "none"];
    let made = run(&cli, &proxy(&cli, &[ProxyAction::AnswerLost]), &create, "");
    let [id] = keys(&cli).try_into().expect("one key");
    assert!(made.code == 1 && made.stdout.is_empty(), "{made:?}");
    assert!(made.stderr.contains(&format!("latchkey keys rotate {id} --replace")), "{made:?}");
    let replaced = cli.ok(&["keys", "rotate", "-w", "acme", &id, "--replace"]);
    assert!(replaced.starts_with("lk_live_"), "{replaced}");

    // The overlap continues after a rotation whose answer was lost.
    let rotate = ["keys", "rotate", "-w", "acme", &id, "--overlap", "7d"];
    let lost = run(&cli, &proxy(&cli, &[ProxyAction::AnswerLost]), &rotate, "");
    assert!(lost.code == 1 && lost.stderr.contains("--replace"), "{lost:?}");
    let found = cli.ok_with(&["keys", "identify"], &replaced);
    assert!(found.contains("status           previous"), "{found}");
    cli.ok(&["keys", "rotate", "-w", "acme", &id, "--replace"]);
    let found = cli.ok_with(&["keys", "identify"], &replaced);
    assert!(found.contains("status           previous"), "{found}");

    for (arguments, list) in [
        (&["tokens", "create", "ops", "--role", "platform_admin"][..], ["tokens", "list"]),
        (&["edge-tokens", "create", "eu", "--edge", "eu-1"], ["edge-tokens", "list"]),
    ] {
        let lost = run(&cli, &proxy(&cli, &[ProxyAction::AnswerLost]), arguments, "");
        assert!(lost.code == 1 && lost.stderr.contains("revoke it, and create another one"), "{lost:?}");
        assert_eq!(cli.json(&list).as_array().unwrap().len(), 1, "{arguments:?}");
    }
    let workspace = ["workspaces", "create", "Other", "--slug", "other"];
    let made = run(&cli, &proxy(&cli, &[ProxyAction::AnswerLost]), &workspace, "");
    assert!(made.code == 0 && made.stdout.contains("other"), "{made:?}");
}

#[test]
fn an_import_whose_answer_is_lost_is_sent_again() {
    let cli = Cli::start();
    let line =
        |n: u32| format!("{}\n", json!({"digest": format!("{n:064x}"), "name": format!("k{n}"), "expires_in": "none"}));
    let lines: String = (0..300).map(line).collect();
    let actions = &[ProxyAction::AnswerLost, ProxyAction::Unavailable];
    let made = run(&cli, &proxy(&cli, actions), &["keys", "import", "-w", "acme", "-"], &lines);
    assert!(made.code == 0 && made.stdout.starts_with("imported 300 keys"), "{made:?}");
    assert_eq!(keys(&cli).len(), 300);
}

#[test]
fn a_change_that_nobody_carried_out_is_made_by_the_next_try() {
    let cli = Cli::start();
    let create = ["keys", "create", "-w", "acme", "CI", "--expires-in", "none"];
    let made = run(&cli, &proxy(&cli, &[ProxyAction::Unavailable, ProxyAction::Unavailable]), &create, "");
    assert!(made.code == 0 && made.stdout.starts_with("lk_live_"), "{made:?}");
    assert_eq!(keys(&cli).len(), 1);
    // A change without an idempotency key isn't retried.
    let id = &keys(&cli)[0];
    let once = run(&cli, &proxy(&cli, &[ProxyAction::Unavailable]), &["keys", "deactivate", "-w", "acme", id], "");
    assert!(once.code == 4 && once.stderr.contains("(timeout)"), "{once:?}");
}
