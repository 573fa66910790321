//! Wrong tokens over several control planes on one PostgreSQL.
//!
//! Without LATCHKEY_TEST_DATABASE=postgres there is no server, and these tests do nothing.

use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::http::Method;
use postgres::fallible_iterator::FallibleIterator as _;
use serde_json::Value;

use crate::harness::{ADMIN, EDGE, Service};
use crate::postgres::url;
use crate::replicas::two;
use crate::waiting::until;
use test_support::databases::on_server;

/// Listens to the replicas' reports of wrong tokens until they add up to `tokens`; returns the lines.
fn collect_reports(url: String, tokens: u32) -> JoinHandle<Vec<String>> {
    let (ready, is_ready) = channel();
    let thread = std::thread::spawn(move || {
        on_server(&url, |server| {
            server.batch_execute("LISTEN latchkey_words").unwrap();
            ready.send(()).unwrap();
            let (mut lines, mut counted, mut notifications) = (Vec::new(), 0, server.notifications());
            let mut messages = notifications.timeout_iter(Duration::from_secs(20));
            while counted < tokens {
                let message = messages.next().unwrap().expect("a report of wrong tokens");
                for line in message.payload().lines().filter_map(|line| line.strip_prefix("wrong ")) {
                    let (number, addresses) = line.split_once(' ').unwrap();
                    counted += number.parse::<u32>().unwrap() * u32::try_from(addresses.split(' ').count()).unwrap();
                    lines.push(line.to_owned());
                }
            }
            lines
        })
    });
    is_ready.recv().unwrap();
    thread
}

#[tokio::test]
async fn wrong_tokens_at_one_replica_count_at_all_with_few_messages_and_a_right_one_is_never_refused() {
    let Some((first, second)) = two().await else { return };
    let (_, admin) = first.token("platform_admin", None).await;
    let feed = "/edge/v1/feed?format=1&edge=e&instance=i";
    let ask = async |replica: &Service, token: &str, path: &str| {
        replica.call_as(token, Method::GET, path, Value::Null, &[]).await.status.as_u16()
    };
    let reports = collect_reports(url(&first), 100);
    let began = Instant::now();
    // The clocks stand still, so nothing expires in the meantime.
    let mut let_through = 0;
    while ask(&first, "lkadm_wrong", "/v1/workspaces").await == 401 {
        let_through += 1;
    }
    assert_eq!(let_through, 100);
    let lines = tokio::task::spawn_blocking(|| reports.join().unwrap()).await.unwrap();
    let tenths = began.elapsed().as_millis() / 100;
    assert!(lines.len() as u128 <= tenths + 1, "one message covers a tenth of a second: {lines:?} in {tenths}");

    let mut let_through = 0;
    until("the other counts them", async || {
        let status = ask(&second, "lkedge_wrong", feed).await;
        let_through += u32::from(status == 401);
        status == 429
    })
    .await;
    assert!(let_through < 100, "it has counted only its own");
    for replica in [&first, &second] {
        for (token, path) in [(ADMIN, "/v1/workspaces"), (&admin, "/v1/workspaces"), (EDGE, feed)] {
            assert_eq!(ask(replica, token, path).await, 200, "{path}");
        }
    }
    second.advance(150);
    assert_eq!(ask(&second, "lkadm_wrong", "/v1/workspaces").await, 401, "what others counted is forgotten, too");
}
