//! Ways around the filter: to its upstreams, to the control plane, or to Envoy's admin pages.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Finding;
use super::chain::{Chains, Manager, Reach};
use super::clusters::{Clusters, address_of, mentions};
use super::routes::{Goal, Host};
use super::shipped::Shipped;
use crate::cli::json::{part, word};

/// What must not be reachable around the filter.
pub struct Behind<'a> {
    pub clusters: &'a Clusters,
    /// Clusters of routes that need a key.
    pub upstreams: BTreeSet<String>,
    /// The control plane's clusters, which add the edge token to every request.
    pub control_planes: BTreeSet<String>,
    pub shipped: &'a Shipped,
}

impl Behind<'_> {
    /// The protected upstream that this cluster leads to, under any name.
    fn upstream(&self, cluster: &str) -> Option<&String> {
        self.upstreams.iter().find(|name| self.clusters.are_one(name, cluster))
    }

    /// True for a cluster that adds the edge token. It is found by name, because another cluster at the same address
    /// adds none.
    fn is_control_plane(&self, cluster: &str) -> bool {
        let ways = self.clusters.leads_to(cluster);
        self.control_planes.iter().any(|name| ways.contains(name))
    }
}

/// The clusters of routes that need a key.
pub fn upstreams(hosts: &[Host<'_>]) -> BTreeSet<String> {
    let mut upstreams = BTreeSet::new();
    for entry in hosts.iter().flat_map(|host| &host.entries).filter(|entry| !entry.need.is_public()) {
        if let Goal::Clusters(names) = &entry.goal {
            upstreams.extend(names.iter().cloned());
        }
    }
    upstreams
}

pub fn check_ways(file: &Value, chains: &Chains<'_>, behind: &Behind<'_>, findings: &mut Vec<Finding>) {
    for manager in &chains.managers {
        if manager.has_ours() {
            check_guarded(manager, chains, behind, findings);
        } else {
            let routes = ["route_config", "scoped_routes"].map(|name| (name, part(manager.fields, &[name])));
            for (name, routes) in routes {
                check_unguarded(routes, &format!("{}.{name}", manager.place), behind, findings);
            }
            if !manager.chains.is_empty()
                && ["rds", "scoped_routes"].iter().any(|name| manager.fields.get(name).is_some())
            {
                let message = "has no filter of ours, and its routes come from elsewhere: none of them may lead to an upstream that is behind the filter";
                findings.push(Finding::warning(&manager.place, message));
            }
        }
    }
    for filter in &chains.others {
        check_unguarded(filter.message.fields, &filter.message.place, behind, findings);
    }
    check_admin_ways(file, chains, behind, findings);
}

/// Checks a part of the file that doesn't have our filter.
fn check_unguarded(value: &Value, place: &str, behind: &Behind<'_>, findings: &mut Vec<Finding>) {
    for mention in mentions(value, place) {
        let cluster = mention.cluster;
        if behind.is_control_plane(cluster) {
            let message = format!(
                "leads to the control plane (cluster `{cluster}`), which takes what comes for this edge: take it out"
            );
            findings.push(Finding::refused(mention.place, message));
        } else if let Some(upstream) = behind.upstream(cluster) {
            let message = format!(
                "leads to the cluster `{cluster}` without the filter, by which `{upstream}` needs a key elsewhere: put the filter and its guard into this chain, or take it out"
            );
            findings.push(Finding::refused(mention.place, message));
        }
    }
}

/// Checks the routes behind our filter for targets that no client may reach.
fn check_guarded(manager: &Manager<'_>, chains: &Chains<'_>, behind: &Behind<'_>, findings: &mut Vec<Finding>) {
    let hosts = super::routes::hosts(manager, None);
    for entry in hosts.iter().flat_map(|host| &host.entries) {
        if entry.route.to_string().contains("\"cluster_header\"") {
            let message =
                "lets a header of the request name the cluster, the control plane's too: name the cluster here";
            findings.push(Finding::refused(format!("{}.route.cluster_header", entry.place), message));
        }
        for mention in mentions(entry.route, &entry.place) {
            if !behind.is_control_plane(mention.cluster) {
                continue;
            }
            let is_local = manager.reach == Reach::Local && !is_led_to(manager, chains, behind);
            if !is_local {
                let message = "leads to the control plane, which takes what comes for this edge, from a listener that others reach: bind the listener to 127.0.0.1, or take the route out";
                findings.push(Finding::refused(mention.place, message));
            } else if part(entry.route, &["match"]) != &behind.shipped.retire {
                let message = "leads to the control plane, which takes what comes for this edge, by more than the way of envoy/leave: match as the listener `local` of `latchkey envoy-config` does";
                findings.push(Finding::refused(mention.place, message));
            }
        }
        let tunnels = entry.route.to_string().contains("\"connect_config\"");
        if let Goal::Clusters(names) = &entry.goal
            && tunnels
            && names.iter().any(|name| behind.upstream(name).is_some())
        {
            let message = "is a tunnel (`connect_config`) to an upstream whose routes need keys: what goes through it is not decided; take it out";
            findings.push(Finding::refused(&entry.place, message));
        }
    }
}

/// True if a listener that others can reach sends to this local one.
fn is_led_to(manager: &Manager<'_>, chains: &Chains<'_>, behind: &Behind<'_>) -> bool {
    let others = chains.managers.iter().filter(|other| other.reach == Reach::Anyone).map(|other| other.fields);
    let filters = chains.others.iter().filter(|other| other.reach == Reach::Anyone).map(|other| other.message.fields);
    others.chain(filters).any(|value| {
        mentions(value, "").iter().any(|mention| {
            let ways = behind.clusters.leads_to(mention.cluster);
            manager.addresses.iter().any(|address| ways.contains(address))
        })
    })
}

/// A listener that others can reach exposes the admin pages if it leads to them.
fn check_admin_ways(file: &Value, chains: &Chains<'_>, behind: &Behind<'_>, findings: &mut Vec<Finding>) {
    let Some(admin) = address_of(part(file, &["admin", "address"])) else { return };
    let leads_there = |cluster: &str| behind.clusters.leads_to(cluster).contains(&admin);
    let message = "leads to Envoy's admin pages, by which it can be ended: match `path: /stats/prometheus` or `path: /ready` only, or take it out";
    for manager in chains.managers.iter().filter(|manager| manager.reach == Reach::Anyone) {
        for entry in super::routes::hosts(manager, None).iter().flat_map(|host| &host.entries) {
            let path = word(part(entry.route, &["match"]), "path");
            let is_harmless = path == "/ready" || path == "/stats" || path == "/stats/prometheus";
            let there = mentions(entry.route, &entry.place).into_iter().filter(|mention| leads_there(mention.cluster));
            findings.extend(there.filter(|_| !is_harmless).map(|mention| Finding::refused(mention.place, message)));
        }
    }
    for filter in chains.others.iter().filter(|filter| filter.reach == Reach::Anyone) {
        let there = mentions(filter.message.fields, &filter.message.place);
        findings.extend(
            there
                .into_iter()
                .filter(|mention| leads_there(mention.cluster))
                .map(|mention| Finding::refused(mention.place, message)),
        );
    }
}
