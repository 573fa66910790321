//! Concurrent imports at several control planes on one PostgreSQL.
//!
//! Without LATCHKEY_TEST_DATABASE=postgres there is no server, and these tests do nothing.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::{Value, json};

use crate::harness::{Answer, Service};
use crate::import::{ACME, ANYWHERE, import, line, refused};
use crate::postgres::{replica, url};
use crate::replicas::two;
use crate::waiting::until;
use test_support::databases::on_server;

fn file(round: u32, keys: Range<u32>) -> Vec<Value> {
    keys.map(|number| line(&format!("theirs-{round}-{number}"), json!({"workspace": "acme"}))).collect()
}

/// Asserts that all keys of a file are there as of the revision in the answer, with the ids in the answer and their
/// digests.
fn assert_imported(at: &Service, answer: &Answer, lines: &[Value]) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ids = answer.json()["key_ids"].as_array().unwrap().clone();
    let statement = "SELECT 'key_' || encode(k.id, 'hex'), encode(s.digest, 'hex'), k.name FROM keys k
                     JOIN secrets s ON s.workspace_id = k.workspace_id AND s.key_id = k.id WHERE k.revision <= $1";
    let revision = i64::try_from(answer.revision()).unwrap();
    let found: HashSet<[String; 3]> = on_server(&url(at), |server| {
        let rows = server.query(statement, &[&revision]).unwrap();
        rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect()
    });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let expected: Vec<_> =
        ids.iter().zip(lines).map(|(id, line)| [text(id), text(&line["digest"]), text(&line["name"])]).collect();
    assert_eq!((expected.len(), ids.len()), (lines.len(), lines.len()));
    assert!(expected.iter().all(|key| found.contains(key)), "not all are there at {revision}");
}

fn count(service: &Service, table: &'static str) -> i64 {
    on_server(&url(service), |server| server.query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().get(0))
}

#[tokio::test]
async fn of_files_that_overlap_one_is_imported_at_whichever_replica_and_the_other_refused_by_line() {
    let Some((first, second)) = two().await else { return };
    first.workspace("acme").await;
    let mut keys = 0;
    for round in 0..4 {
        let (ones, others) = (file(round, 0..230), file(round, 200..430));
        let (one, other) = tokio::join!(import(&first, ACME, &ones), import(&second, ACME, &others));
        let (made, lines, refusal, overlap) =
            if one.status == 200 { (&one, &ones, &other, 1..=30) } else { (&other, &others, &one, 201..=230) };
        assert_imported(&first, made, lines);
        let expected: Vec<_> = overlap.map(|line| format!("{line} digest refused")).collect();
        assert_eq!(refused(refusal), expected, "round {round}");
        keys += 230;
        assert_eq!((count(&first, "keys"), count(&first, "import_steps")), (keys, 0), "round {round}");
    }
}

#[tokio::test]
async fn files_of_their_own_are_imported_at_all_replicas_at_once_and_a_start_meanwhile_takes_nothing_away() {
    let Some((first, second)) = two().await else { return };
    first.workspace("acme").await;
    for round in 0..2 {
        let files = [0..210, 210..500, 500..600].map(|keys| file(round, keys));
        let [one, two, three] = &files;
        let starts = async {
            for _ in 0..3 {
                replica(&first).await.store.close().await;
            }
        };
        // A control plane has one place for imports into a workspace, and separate ones for those whose lines name
        // their workspaces.
        let (one, two, three, ()) = tokio::join!(
            import(&first, ACME, one),
            import(&second, ACME, two),
            import(&second, ANYWHERE, three),
            starts
        );
        for (answer, lines) in [one, two, three].iter().zip(&files) {
            assert_imported(&first, answer, lines);
        }
    }
    assert_eq!((count(&first, "keys"), count(&first, "import_steps")), (1_200, 0));
    until("both know of all", async || first.revision() == second.revision()).await;
    let (ones, others) = (first.table().await, second.table().await);
    assert_eq!((ones.len(), others.len(), ones.position()), (1_200, 1_200, others.position()));
}
