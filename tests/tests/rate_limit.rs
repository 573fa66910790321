//! A rate limit for each key, by Envoy's own filter.

use end_to_end::{Connection, Stack, root};

/// How many requests envoy/rate-limit.yaml allows a key before it has to wait.
const BURST: usize = 20;

#[test]
fn a_key_over_its_rate_limit_waits_and_the_others_do_not() {
    let stack = Stack::start_with(|config| {
        // One worker, so that no two of them race for the buckets' first fill.
        config.workers = 1;
        let limit = std::fs::read_to_string(root().join("envoy/rate-limit.yaml")).expect("envoy/rate-limit.yaml");
        let limit: String =
            limit.lines().filter(|line| !line.starts_with('#')).map(|line| format!("          {line}\n")).collect();
        let router = "          - name: envoy.filters.http.router\n";
        config.replace(router, &format!("{limit}{router}"));
    });
    let busy = stack.admin.create_key("acme", "busy");
    let calm = stack.admin.create_key("acme", "calm");
    let mut connection = Connection::open(stack.envoy.port);
    let mut verdict = |secret: &str| connection.get("/v1/reviews", &[("x-api-key", secret)]).verdict();
    end_to_end::eventually("the later key is known, and so is the earlier", || match verdict(&calm.secret) {
        seen if seen == "200 -" => Ok(()),
        seen => Err(seen),
    });
    let seen: Vec<String> = (0..=BURST).map(|_| verdict(&busy.secret)).collect();
    assert!(seen[..BURST].iter().all(|verdict| verdict == "200 -"), "{seen:?}");
    assert_eq!(seen[BURST], "429 -", "{seen:?}");
    assert_eq!(verdict(&calm.secret), "200 -", "another key has its own bucket");
    assert_eq!(verdict("nonsense"), "401 malformed-key", "a denied request takes no token");
    assert_eq!(connection.get("/healthz", &[]).verdict(), "200 -", "requests without a key have their own bucket, too");
}
