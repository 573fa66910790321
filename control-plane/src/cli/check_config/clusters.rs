//! Clusters by what they lead to: two names of one upstream are one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::message::{below, walk};
use crate::cli::json::{list, number, part, word};

/// The clusters of a file.
pub struct Clusters {
    /// The addresses of each, and the clusters that it stands for.
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

    /// Its own name, its addresses, and those of the clusters that it stands for.
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

    /// True when both lead to the same upstream, or one of its addresses.
    pub fn are_one(&self, name: &str, other: &str) -> bool {
        name == other || !self.leads_to(name).is_disjoint(&self.leads_to(other))
    }
}

/// Addresses, and names of other clusters.
fn ways_of(cluster: &Value) -> BTreeSet<String> {
    let mut ways = BTreeSet::new();
    walk(part(cluster, &["load_assignment"]), "", &mut |_, value| ways.extend(address_of(value)));
    let others = list(part(cluster, &["cluster_type", "typed_config"]), "clusters");
    ways.extend(others.iter().filter_map(Value::as_str).map(str::to_owned));
    ways
}

/// An address as one text.
pub fn address_of(value: &Value) -> Option<String> {
    let socket = part(value, &["socket_address"]);
    if socket.is_object() {
        return Some(format!("{}:{}", word(socket, "address"), number(socket, "port_value")));
    }
    part(value, &["pipe", "path"]).as_str().map(|path| format!("file {path}"))
}

/// A mention of a cluster where requests, or connections, are sent to it.
pub struct Mention<'a> {
    pub place: String,
    pub cluster: &'a str,
}

/// All clusters that are sent to from below this value.
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
