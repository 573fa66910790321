//! Clusters by their upstream: two names of one upstream count as one cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::message::{below, walk};
use crate::cli::json::{list, number, part, string};

/// The clusters of a file.
pub(super) struct Clusters {
    /// For each cluster, its addresses and the clusters that it aggregates.
    targets: BTreeMap<String, BTreeSet<String>>,
}

impl Clusters {
    pub(super) fn read(file: &Value) -> Self {
        let mut targets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        walk(file, "", &mut |place, value| {
            let is_cluster = value.get("load_assignment").is_some()
                || (place.starts_with("static_resources.clusters[") && place.ends_with(']') && !place.contains("]."));
            if is_cluster {
                targets.entry(string(value, "name").to_owned()).or_default().extend(targets_of(value));
            }
        });
        Self { targets }
    }

    /// Its own name, its addresses, and those of the clusters that it aggregates.
    pub(super) fn reachable_from(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::from([name.to_owned()]);
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            for target in self.targets.get(&name).into_iter().flatten() {
                if found.insert(target.clone()) {
                    open.push(target.clone());
                }
            }
        }
        found
    }

    /// True if both lead to the same upstream, or share one of its addresses.
    pub(super) fn share_upstream(&self, name: &str, other: &str) -> bool {
        name == other || !self.reachable_from(name).is_disjoint(&self.reachable_from(other))
    }
}

/// The addresses of a cluster, and the names of the clusters that it aggregates.
fn targets_of(cluster: &Value) -> BTreeSet<String> {
    let mut targets = BTreeSet::new();
    walk(part(cluster, &["load_assignment"]), "", &mut |_, value| targets.extend(address_of(value)));
    let others = list(part(cluster, &["cluster_type", "typed_config"]), "clusters");
    targets.extend(others.iter().filter_map(Value::as_str).map(str::to_owned));
    targets
}

/// An address as a string.
pub(super) fn address_of(value: &Value) -> Option<String> {
    let socket = part(value, &["socket_address"]);
    if socket.is_object() {
        return Some(format!("{}:{}", string(socket, "address"), number(socket, "port_value")));
    }
    part(value, &["pipe", "path"]).as_str().map(|path| format!("file {path}"))
}

/// A place that sends requests or connections to a cluster.
pub(super) struct ClusterReference<'a> {
    pub place: String,
    pub cluster: &'a str,
}

/// All places below this value that send to a cluster.
pub(super) fn cluster_references<'a>(value: &'a Value, place: &str) -> Vec<ClusterReference<'a>> {
    let mut found = Vec::new();
    walk(value, place, &mut |place, value| {
        if let Some(cluster) = value.get("cluster").and_then(Value::as_str) {
            found.push(ClusterReference { place: below(place, "cluster"), cluster });
        }
        let weighted = list(part(value, &["weighted_clusters"]), "clusters");
        found.extend(weighted.iter().enumerate().map(|(at, one)| ClusterReference {
            place: format!("{place}.weighted_clusters.clusters[{at}]"),
            cluster: string(one, "name"),
        }));
    });
    found
}
