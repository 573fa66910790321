//! Alerts and dashboard name only metrics and labels that a control plane or an Envoy has.

use std::collections::{BTreeMap, BTreeSet};

use end_to_end::{Stack, eventually, root};
use serde_json::Value;

/// Names of metrics, each with its labels.
type Metrics = BTreeMap<String, BTreeSet<String>>;

/// Prometheus adds these to what it scrapes.
const ADDED: [&str; 2] = ["instance", "job"];

/// Adds what a scrape of this text finds.
fn scraped(text: &str, into: &mut Metrics) {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name: String = line.chars().take_while(|c| is_word(*c)).collect();
        let labels = into.entry(name).or_default();
        if let Some((_, rest)) = line.split_once('{') {
            labels.extend(
                rest.split(['{', ',']).filter_map(|part| part.split_once("=\"")).map(|(label, _)| label.to_owned()),
            );
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Our metrics and Envoy's in an expression, and the labels that it uses.
fn named(expression: &str) -> (Vec<String>, Vec<String>) {
    let words: Vec<&str> = expression.split(|c| !is_word(c)).collect();
    let ours =
        |word: &&&str| word.starts_with("latchkey_") || word.starts_with("envoy_") && *word != &"envoy_cluster_name";
    let metrics = words.iter().filter(ours).map(|word| (*word).to_owned()).collect();
    let mut labels = Vec::new();
    for (before, _) in expression.match_indices("=\"").chain(expression.match_indices("=~\"")) {
        let start = &expression[..before];
        labels.push(start[start.rfind(|c| !is_word(c)).map_or(0, |at| at + 1)..].to_owned());
    }
    for (at, _) in expression.match_indices("by (") {
        let inside = expression[at + 4..].split(')').next().unwrap_or_default();
        labels.extend(inside.split(',').map(|label| label.trim().to_owned()));
    }
    labels.retain(|label| !ADDED.contains(&label.as_str()));
    (metrics, labels)
}

/// All values of `key` in a document.
fn all<'a>(value: &'a Value, key: &str, into: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            into.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|field| all(field, key, into));
        }
        Value::Array(items) => items.iter().for_each(|item| all(item, key, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn read(file: &str) -> Value {
    let text = std::fs::read_to_string(root().join(file)).expect(file);
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn alerts_and_dashboard_name_only_existing_metrics_and_labels() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "counted");
    stack.wait_known(&key);
    // A code becomes a label once it is reported, which takes a worker up to ten seconds.
    let metrics = eventually("an edge has reported a denial", || {
        let mut metrics = Metrics::new();
        stack.envoy.connections(2)[0].get("/v1/reviews", &[]);
        let (_, ours) = stack.admin.send("GET", "/metrics", None).ok_or("no answer")?;
        scraped(ours.as_str().expect("text"), &mut metrics);
        let theirs = end_to_end::Connection::open(stack.envoy.admin_port).get("/stats/prometheus", &[]);
        scraped(&theirs.body, &mut metrics);
        let is_there = metrics.get("latchkey_usage_denied_total").is_some_and(|labels| labels.contains("code"));
        if is_there { Ok(metrics) } else { Err("no code".to_owned()) }
    });
    for (file, least) in [("monitoring/prometheus-alerts.yaml", 13), ("monitoring/grafana-dashboard.json", 16)] {
        let document = read(file);
        let mut expressions = Vec::new();
        all(&document, "expr", &mut expressions);
        assert!(expressions.len() >= least, "{file}: {} expressions", expressions.len());
        for expression in expressions {
            let (names, labels) = named(expression);
            for name in &names {
                assert!(metrics.contains_key(name), "{file}: `{expression}` names {name}, which doesn't exist");
            }
            for label in labels {
                let has = |name: &String| metrics.get(name).is_some_and(|labels| labels.contains(&label));
                assert!(
                    names.iter().any(has),
                    "{file}: `{expression}` uses the label {label}, which none of {names:?} has"
                );
            }
        }
    }
}
