//! Unix sockets and names to listen on, as the binary serves them.

use std::fs::{metadata, read_to_string};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::start::{Running, command, failed};

/// A client of the control plane at this socket.
fn client(socket: &Path) -> Client {
    Client::builder().unix_socket(socket).build().unwrap()
}

fn token(directory: &Path, name: &str) -> String {
    read_to_string(directory.join(name)).unwrap().trim_end().to_owned()
}

/// The one line that explains why it doesn't start, and its exit code.
fn refused(directory: &Path, more: &[&str]) -> (String, Option<i32>) {
    let mut child = command(directory, more).spawn().unwrap();
    let mut printed = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut printed).unwrap();
    if !printed.is_empty() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(printed, "", "it serves");
    let printed = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = printed.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(lines.len(), 1, "{printed}");
    (lines[0].to_owned(), output.status.code())
}

/// Makes a workspace over this socket, and returns the address that the audit log has of the client.
async fn address_of_a_change(directory: &Path, socket: &Path) -> Value {
    let (client, token) = (client(socket), token(directory, "admin.token"));
    let made = client
        .post("http://localhost/v1/workspaces")
        .bearer_auth(&token)
        .header("x-forwarded-for", "198.51.100.7, 203.0.113.9")
        .json(&json!({"name": "Acme", "slug": "acme"}));
    assert_eq!(made.send().await.unwrap().status(), 201);
    let events = client.get("http://localhost/v1/audit-events").bearer_auth(&token).send().await.unwrap();
    events.json::<Value>().await.unwrap()["items"][0]["address"].clone()
}

#[tokio::test]
async fn a_unix_socket_is_served_to_its_group_and_goes_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let listen = format!("unix:{}", socket.display());
    let serve = |more: &[&str]| command(directory.path(), &[&["--listen", &listen], more].concat());
    let mut running = Running::start(serve(&[]));
    assert_eq!(Path::new(&running.address), socket);
    assert_eq!(metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(address_of_a_change(directory.path(), &socket).await, Value::Null, "its clients have no address");

    // A second process with another database is refused, and leaves the socket alone.
    let other = tempfile::tempdir().unwrap();
    let (printed, code) = refused(other.path(), &["--listen", &listen]);
    assert!(
        code == Some(1) && printed.contains(&listen) && printed.contains("another program listens there"),
        "{printed}"
    );
    assert_eq!(client(&socket).get("http://localhost/healthz").send().await.unwrap().status(), StatusCode::OK);

    running.signal("-TERM");
    assert!(running.child.wait().unwrap().success());
    assert!(!socket.exists());

    // A killed process leaves its socket, and the next one takes its place.
    let mut running = Running::start(serve(&[]));
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert!(socket.exists());
    let mut running = Running::start(serve(&[]));
    assert_eq!(client(&socket).get("http://localhost/readyz").send().await.unwrap().status(), StatusCode::OK);
    running.signal("-TERM");
    assert!(running.child.wait().unwrap().success());

    // A start that fails later leaves no socket.
    let (printed, code) = refused(directory.path(), &["--listen", &listen, "--database", "nowhere/latchkey.db"]);
    assert!(code == Some(1) && printed.contains("nowhere/latchkey.db") && !socket.exists(), "{printed}");
}

#[tokio::test]
async fn clients_of_a_unix_socket_are_proxies_only_if_configured() {
    for (trusted, expected) in [("127.0.0.0/8", Value::Null), ("unix:", json!("203.0.113.9"))] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let listen = format!("unix:{}", socket.display());
        let _running = Running::start(command(directory.path(), &["--listen", &listen, "--trusted-proxies", trusted]));
        assert_eq!(address_of_a_change(directory.path(), &socket).await, expected, "trusted: {trusted}");
    }
}

#[tokio::test]
async fn connections_without_a_token_on_a_unix_socket_count_as_one_address() {
    for (trusted, expected) in [("127.0.0.0/8", 503), ("unix:", 200)] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("latchkey.toml"), "[limits]\nconnections_per_address = 2\n").unwrap();
        let socket = directory.path().join("admin.sock");
        let listen = format!("unix:{}", socket.display());
        let flags = ["--listen", &listen, "--trusted-proxies", trusted, "--config", "latchkey.toml"];
        let _running = Running::start(command(directory.path(), &flags));
        let idle = [
            tokio::net::UnixStream::connect(&socket).await.unwrap(),
            tokio::net::UnixStream::connect(&socket).await.unwrap(),
        ];
        // Connections are accepted in the order in which they came.
        let answer = client(&socket).get("http://localhost/healthz").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "trusted: {trusted}");
        // A valid token is let in nevertheless.
        let workspaces =
            client(&socket).get("http://localhost/v1/workspaces").bearer_auth(token(directory.path(), "admin.token"));
        assert_eq!(workspaces.send().await.unwrap().status(), StatusCode::OK);
        drop(idle);
    }
}

#[tokio::test]
async fn edges_on_a_unix_socket_are_served_beside_admins_on_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("edges.sock");
    let mut running =
        Running::start(command(directory.path(), &["--edge-listen", &format!("unix:{}", socket.display())]));
    assert_eq!(Path::new(&running.next_address()), socket);
    let (edges, feed) = (client(&socket), "/edge/v1/feed?format=1&edge=e&instance=i");
    let ask = |client: &Client, url: String| client.get(url).bearer_auth(token(directory.path(), "edge.token")).send();
    assert_eq!(ask(&edges, format!("http://localhost{feed}")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(ask(&edges, "http://localhost/v1/workspaces".to_owned()).await.unwrap().status(), StatusCode::NOT_FOUND);
    let by_address = ask(&Client::new(), format!("http://{}{feed}", running.address)).await.unwrap();
    assert_eq!(by_address.status(), StatusCode::NOT_FOUND);
}

#[test]
fn tls_that_no_socket_would_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (admin, edges) = (directory.path().join("admin.sock"), directory.path().join("edges.sock"));
    let (admin, edges) = (format!("unix:{}", admin.display()), format!("unix:{}", edges.display()));
    let tls = ["--tls-certificate", "server.pem", "--tls-key", "server.key"];
    for (more, expected) in [
        (&["--listen", &admin][..], "--tls-certificate: a Unix socket has no TLS"),
        (&["--listen", &admin, "--edge-listen", &edges], "--tls-certificate: a Unix socket has no TLS"),
        (&["--edge-listen", &edges, "--edge-client-ca", "ca.pem"], "--edge-client-ca: a Unix socket has no TLS"),
    ] {
        let (printed, code) = refused(directory.path(), &[&tls, more].concat());
        assert!(code == Some(1) && printed.contains(expected), "{printed}");
    }
}

#[tokio::test]
async fn of_a_name_all_addresses_are_listened_on_with_one_port() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(command(directory.path(), &["--listen", "localhost:0"]));
    let port = running.address.parse::<SocketAddr>().unwrap().port();
    // This machine's own addresses, which are what the name resolves to.
    let own = ["127.0.0.1:0", "[::1]:0"].into_iter().filter(|address| TcpListener::bind(address).is_ok());
    let hosts = read_to_string("/etc/hosts").unwrap_or_default();
    let is_named = |ip: &str| {
        hosts.lines().any(|line| line.starts_with(ip) && line.split_whitespace().any(|name| name == "localhost"))
    };
    let own: Vec<_> =
        own.map(|address| address.replace(":0", "")).filter(|ip| is_named(ip.trim_matches(['[', ']']))).collect();
    assert!(!own.is_empty(), "{hosts}");
    for ip in own {
        let probe = Client::new().get(format!("http://{ip}:{port}/healthz")).send().await;
        assert_eq!(probe.unwrap_or_else(|error| panic!("{ip}: {error}")).status(), StatusCode::OK);
    }
    running.signal("-TERM");
    assert!(running.child.wait().unwrap().success());

    let (printed, code) = refused(directory.path(), &["--listen", "nowhere.invalid:8080"]);
    assert!(code == Some(1) && printed.contains("nowhere.invalid:8080: the name cannot be resolved"), "{printed}");
    for text in ["unix:admin.sock", ":8080", "8080"] {
        let output = failed(directory.path(), &["--listen", text]);
        assert_eq!(output.status.code(), Some(2), "{text}");
    }
}
