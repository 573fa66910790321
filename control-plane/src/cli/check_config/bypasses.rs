//! Ways around the filter: to its upstreams, to the control plane, or to Envoy's admin pages.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Finding;
use super::chain::{Chains, Manager, Reach};
use super::clusters::{Clusters, address_of, cluster_references};
use super::reference::ReferenceConfig;
use super::routes::{Host, RouteTarget};
use crate::cli::json::{part, string};

/// What must not be reachable around the filter.
pub(super) struct ProtectedTargets<'a> {
    pub clusters: &'a Clusters,
    /// Clusters of routes that need a key.
    pub upstreams: BTreeSet<String>,
    /// The control plane's clusters, which add the edge token to every request.
    pub control_planes: BTreeSet<String>,
    pub shipped: &'a ReferenceConfig,
}

impl ProtectedTargets<'_> {
    /// The protected upstream that this cluster leads to, under any name.
    fn upstream(&self, cluster: &str) -> Option<&String> {
        self.upstreams.iter().find(|name| self.clusters.share_upstream(name, cluster))
    }

    /// True for a cluster that adds the edge token. It is found by name, because another cluster at the same address
    /// adds none.
    fn is_control_plane(&self, cluster: &str) -> bool {
        let targets = self.clusters.reachable_from(cluster);
        self.control_planes.iter().any(|name| targets.contains(name))
    }
}

/// The clusters of routes that need a key.
pub(super) fn upstreams(hosts: &[Host<'_>]) -> BTreeSet<String> {
    let mut upstreams = BTreeSet::new();
    for entry in hosts.iter().flat_map(|host| &host.entries).filter(|entry| !entry.requirement.is_public()) {
        if let RouteTarget::Clusters(names) = &entry.target {
            upstreams.extend(names.iter().cloned());
        }
    }
    upstreams
}

pub(super) fn check_bypasses(
    file: &Value,
    chains: &Chains<'_>,
    protected: &ProtectedTargets<'_>,
    findings: &mut Vec<Finding>,
) {
    for manager in &chains.managers {
        if manager.has_ours() {
            check_guarded(manager, chains, protected, findings);
        } else {
            let routes = ["route_config", "scoped_routes"].map(|name| (name, part(manager.fields, &[name])));
            for (name, routes) in routes {
                check_unguarded(routes, &format!("{}.{name}", manager.place), protected, findings);
            }
            if !manager.chains.is_empty()
                && ["rds", "scoped_routes"].iter().any(|name| manager.fields.get(name).is_some())
            {
                let message = "has no Latchkey filter, and its routes come from elsewhere: none of them may lead to an upstream that is behind the filter";
                findings.push(Finding::warning(&manager.place, message));
            }
        }
    }
    for filter in &chains.others {
        check_unguarded(filter.message.fields, &filter.message.place, protected, findings);
    }
    check_admin_exposure(file, chains, protected, findings);
}

/// Checks a part of the file that doesn't have our filter.
fn check_unguarded(value: &Value, place: &str, protected: &ProtectedTargets<'_>, findings: &mut Vec<Finding>) {
    for reference in cluster_references(value, place) {
        let cluster = reference.cluster;
        if protected.is_control_plane(cluster) {
            let message = format!(
                "leads to the control plane (cluster `{cluster}`), which accepts such requests as this edge's: remove it"
            );
            findings.push(Finding::refused(reference.place, message));
        } else if let Some(upstream) = protected.upstream(cluster) {
            let message = format!(
                "leads to the cluster `{cluster}` without the filter, although `{upstream}` needs a key elsewhere: put the filter and its guard into this chain, or remove it"
            );
            findings.push(Finding::refused(reference.place, message));
        }
    }
}

/// Checks the routes behind our filter for targets that no client may reach.
fn check_guarded(
    manager: &Manager<'_>,
    chains: &Chains<'_>,
    protected: &ProtectedTargets<'_>,
    findings: &mut Vec<Finding>,
) {
    let hosts = super::routes::hosts(manager, None);
    for entry in hosts.iter().flat_map(|host| &host.entries) {
        if entry.route.to_string().contains("\"cluster_header\"") {
            let message =
                "lets a header of the request name the cluster, the control plane's too: name the cluster here";
            findings.push(Finding::refused(format!("{}.route.cluster_header", entry.place), message));
        }
        for reference in cluster_references(entry.route, &entry.place) {
            if !protected.is_control_plane(reference.cluster) {
                continue;
            }
            let is_local = manager.reach == Reach::Local && !is_reached_by_others(manager, chains, protected);
            if !is_local {
                let message = "leads to the control plane, which accepts such requests as this edge's, from a listener that others reach: bind the listener to 127.0.0.1, or remove the route";
                findings.push(Finding::refused(reference.place, message));
            } else if part(entry.route, &["match"]) != &protected.shipped.retire {
                let message = "leads to the control plane, which accepts such requests as this edge's, for more than envoy/leave needs: match as the listener `local` of `latchkey envoy-config` does";
                findings.push(Finding::refused(reference.place, message));
            }
        }
        let tunnels = entry.route.to_string().contains("\"connect_config\"");
        if let RouteTarget::Clusters(names) = &entry.target
            && tunnels
            && names.iter().any(|name| protected.upstream(name).is_some())
        {
            let message = "is a tunnel (`connect_config`) to an upstream whose routes need keys: what goes through it is not decided; remove it";
            findings.push(Finding::refused(&entry.place, message));
        }
    }
}

/// True if a listener that others can reach sends to this local one.
fn is_reached_by_others(manager: &Manager<'_>, chains: &Chains<'_>, protected: &ProtectedTargets<'_>) -> bool {
    let others = chains.managers.iter().filter(|other| other.reach == Reach::Anyone).map(|other| other.fields);
    let filters = chains.others.iter().filter(|other| other.reach == Reach::Anyone).map(|other| other.message.fields);
    others.chain(filters).any(|value| {
        cluster_references(value, "").iter().any(|reference| {
            let targets = protected.clusters.reachable_from(reference.cluster);
            manager.addresses.iter().any(|address| targets.contains(address))
        })
    })
}

/// A listener that others can reach exposes the admin pages if it leads to them.
fn check_admin_exposure(
    file: &Value,
    chains: &Chains<'_>,
    protected: &ProtectedTargets<'_>,
    findings: &mut Vec<Finding>,
) {
    let Some(admin) = address_of(part(file, &["admin", "address"])) else { return };
    let leads_there = |cluster: &str| protected.clusters.reachable_from(cluster).contains(&admin);
    let message = "leads to Envoy's admin pages, which can shut it down: match `path: /stats/prometheus` or `path: /ready` only, or remove it";
    for manager in chains.managers.iter().filter(|manager| manager.reach == Reach::Anyone) {
        for entry in super::routes::hosts(manager, None).iter().flat_map(|host| &host.entries) {
            let path = string(part(entry.route, &["match"]), "path");
            let is_harmless = path == "/ready" || path == "/stats" || path == "/stats/prometheus";
            let there = cluster_references(entry.route, &entry.place)
                .into_iter()
                .filter(|reference| leads_there(reference.cluster));
            findings.extend(there.filter(|_| !is_harmless).map(|reference| Finding::refused(reference.place, message)));
        }
    }
    for filter in chains.others.iter().filter(|filter| filter.reach == Reach::Anyone) {
        let there = cluster_references(filter.message.fields, &filter.message.place);
        findings.extend(
            there
                .into_iter()
                .filter(|reference| leads_there(reference.cluster))
                .map(|reference| Finding::refused(reference.place, message)),
        );
    }
}
