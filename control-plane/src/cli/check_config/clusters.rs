//! Clusters by their upstream: two names of one upstream count as one cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::message::{below, walk};
use crate::cli::json::{list, number, part, word};

/// The clusters of a file.
pub struct Clusters {
    /// For each cluster, its addresses and the clusters that it aggregates.
    ways: BTreeMap<String, BTreeSet<String>>,
}

impl Clusters {
    pub fn read(file: &Value) -> Self {
        let mut ways: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        walk(file, "", &mut |place, value| {
            let is_cluster = value.get("load_assignment").is_some()
                || (place.starts_with("static_resources.clusters[") && place.ends_with(']') && !place.contains("]."));
            if is_cluster {
                ways.entry(word(value, "name").to_owned()).or_default().extend(ways_of(value));
            }
        });
        Self { ways }
    }

    /// Its own name, its addresses, and those of the clusters that it aggregates.
    pub fn leads_to(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::from([name.to_owned()]);
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            for way in self.ways.get(&name).into_iter().flatten() {
                if found.insert(way.clone()) {
                    open.push(way.clone());
                }
            }
        }
        found
    }

    /// True if both lead to the same upstream, or share one of its addresses.
    pub fn are_one(&self, name: &str, other: &str) -> bool {
        name == other || !self.leads_to(name).is_disjoint(&self.leads_to(other))
    }
}

/// The addresses of a cluster, and the names of the clusters that it aggregates.
fn ways_of(cluster: &Value) -> BTreeSet<String> {
    let mut ways = BTreeSet::new();
    walk(part(cluster, &["load_assignment"]), "", &mut |_, value| ways.extend(address_of(value)));
    let others = list(part(cluster, &["cluster_type", "typed_config"]), "clusters");
    ways.extend(others.iter().filter_map(Value::as_str).map(str::to_owned));
    ways
}

/// An address as a string.
pub fn address_of(value: &Value) -> Option<String> {
    let socket = part(value, &["socket_address"]);
    if socket.is_object() {
        return Some(format!("{}:{}", word(socket, "address"), number(socket, "port_value")));
    }
    part(value, &["pipe", "path"]).as_str().map(|path| format!("file {path}"))
}

/// A place that sends requests or connections to a cluster.
pub struct Mention<'a> {
    pub place: String,
    pub cluster: &'a str,
}

/// All places below this value that send to a cluster.
pub fn mentions<'a>(value: &'a Value, place: &str) -> Vec<Mention<'a>> {
    let mut found = Vec::new();
    walk(value, place, &mut |place, value| {
        if let Some(cluster) = value.get("cluster").and_then(Value::as_str) {
            found.push(Mention { place: below(place, "cluster"), cluster });
        }
        let weighted = list(part(value, &["weighted_clusters"]), "clusters");
        found.extend(weighted.iter().enumerate().map(|(at, one)| Mention {
            place: format!("{place}.weighted_clusters.clusters[{at}]"),
            cluster: word(one, "name"),
        }));
    });
    found
}
