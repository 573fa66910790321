//! Protocol upgrades: WebSocket and CONNECT are decided on their headers, like any other request.

use std::io::{Read, Write};
use std::net::TcpListener;

use end_to_end::{Connection, Stack};

/// An upstream that accepts an upgrade and then echoes what it receives.
fn upgrading_upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let Ok(length) = stream.read(&mut buffer) else { return };
                let head = String::from_utf8_lossy(&buffer[..length]).to_ascii_lowercase();
                let answer = if head.starts_with("connect ") {
                    "HTTP/1.1 200 OK\r\n\r\n".to_owned()
                } else {
                    let identity =
                        head.lines().find(|line| line.starts_with("x-latchkey-key-id:")).unwrap_or("").to_owned();
                    format!(
                        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nseen: {identity}\r\n\r\n"
                    )
                };
                let _ = stream.write_all(answer.as_bytes());
                while let Ok(length) = stream.read(&mut buffer) {
                    if length == 0 || stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

const WEBSOCKET: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

#[test]
fn a_websocket_is_opened_with_a_key_and_not_without() {
    let upstream = upgrading_upstream();
    let stack = Stack::start_with(|config| config.upstream_port = upstream);
    let key = stack.admin.create_key("acme", "stream");
    let mut connection = Connection::open(stack.envoy.port);
    assert_eq!(connection.get("/v1/reviews", &WEBSOCKET).verdict(), "401 missing-key");
    let with_key: Vec<(&str, &str)> = WEBSOCKET.into_iter().chain([("x-api-key", key.secret.as_str())]).collect();
    let answer = end_to_end::eventually("the key is known", || {
        let mut connection = Connection::open(stack.envoy.port);
        let answer = connection.try_get("/v1/reviews", &with_key)?;
        if answer.status == 101 { Ok((connection, answer)) } else { Err(answer.verdict()) }
    });
    let (mut connection, answer) = answer;
    assert!(answer.headers["seen"].contains(&key.id), "{answer:?}");
    connection.send(b"hello").expect("the connection is open");
    assert_eq!(connection.read_bytes(5), b"hello", "what follows goes through");
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn a_connect_is_opened_with_a_key_and_not_without() {
    let upstream = upgrading_upstream();
    let stack = Stack::start_with(|config| {
        config.upstream_port = upstream;
        config.replace(
            "              # Each route states",
            "              - match: {connect_matcher: {}}\n                metadata: {filter_metadata: {latchkey: {rule: key}}}\n                route: {cluster: upstream, upgrade_configs: [{upgrade_type: CONNECT}]}\n              # Each route states",
        );
        config.replace("upgrade_configs: [{upgrade_type: websocket}]", "upgrade_configs: [{upgrade_type: CONNECT}]");
    });
    let key = stack.admin.create_key("acme", "tunnel");
    let connect = |headers: &str| format!("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n{headers}\r\n").into_bytes();
    assert_eq!(Connection::open(stack.envoy.port).raw(&connect("")).verdict(), "401 missing-key");
    end_to_end::eventually("the key is known", || {
        let mut connection = Connection::open(stack.envoy.port);
        connection.send(&connect(&format!("x-api-key: {}\r\n", key.secret)))?;
        let answer = connection.read_head()?;
        if answer.status != 200 {
            return Err(answer.verdict());
        }
        connection.send(b"hello")?;
        assert_eq!(connection.read_bytes(5), b"hello");
        Ok(())
    });
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn a_denied_upgrade_never_reaches_the_upstream() {
    let stack = Stack::start_with(|config| {
        config.replace(
            "              # Each route states",
            "              - match: {connect_matcher: {}}\n                metadata: {filter_metadata: {latchkey: {rule: key}}}\n                route: {cluster: upstream, upgrade_configs: [{upgrade_type: CONNECT}]}\n              # Each route states",
        );
        config.replace(
            "upgrade_configs: [{upgrade_type: websocket}]",
            "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]",
        );
    });
    let reader = stack.admin.create_key("acme", "may only read reviews");
    stack.wait_known(&reader);
    let before = stack.echo.seen();
    for (path, key, expected) in [
        ("/v1/reviews", None, "401 missing-key"),
        ("/v1/reviews", Some("x"), "401 malformed-key"),
        ("/v1/webhooks", Some(reader.secret.as_str()), "403 missing-scope"),
        ("/elsewhere", Some(reader.secret.as_str()), "403 no-route-rule"),
    ] {
        let headers: Vec<(&str, &str)> = WEBSOCKET.into_iter().chain(key.map(|key| ("x-api-key", key))).collect();
        let answer = Connection::open(stack.envoy.port).get(path, &headers);
        assert_eq!(answer.verdict(), expected, "{path}");
    }
    // What a client sends after its request, before any answer, is no second request and reaches no upstream.
    let request = "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(Connection::open(stack.envoy.port).raw(request.as_bytes()).verdict(), "401 missing-key");
    // An upgrade that no config names is decided like any other request.
    let h2c = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")];
    let answer = Connection::open(stack.envoy.port).get("/v1/reviews", &h2c);
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert_eq!(stack.echo.seen(), before, "the upstream saw one of them");
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn a_running_stream_ends_at_max_stream_duration() {
    let upstream = upgrading_upstream();
    let stack = Stack::start_with(|config| {
        config.upstream_port = upstream;
        config.replace("max_stream_duration: 3600s", "max_stream_duration: 1s");
    });
    let key = stack.admin.create_key("acme", "stream");
    let with_key: Vec<(&str, &str)> = WEBSOCKET.into_iter().chain([("x-api-key", key.secret.as_str())]).collect();
    let mut connection = end_to_end::eventually("the key is known", || {
        let mut connection = Connection::open(stack.envoy.port);
        let answer = connection.try_get("/v1/reviews", &with_key)?;
        if answer.status == 101 { Ok(connection) } else { Err(answer.verdict()) }
    });
    end_to_end::eventually("the stream ends", || match connection.send(b"x") {
        Ok(()) if connection.try_read_bytes(1).is_ok() => Err("it runs".to_owned()),
        Ok(()) | Err(_) => Ok(()),
    });
    assert_eq!(stack.envoy.stat_ending("http.public.downstream_rq_max_duration_reached"), 1);
}
