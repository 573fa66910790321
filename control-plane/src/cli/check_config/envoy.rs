//! All checks of an Envoy file, in order.

use std::collections::BTreeSet;

use policy::Config;
use serde_json::Value;

use super::address::{check_admin, check_client_address, check_proxy_protocol};
use super::bypasses::{ProtectedTargets, check_bypasses, upstreams};
use super::chain::{Chains, HttpFilter, Manager, Reach};
use super::clusters::Clusters;
use super::filter_order::check_filter_order;
use super::guard::{RBAC, USE_SHIPPED_GUARD, fault};
use super::headers::{ADDS_CREDENTIAL, added_credentials, check_early_removal, check_headers};
use super::latchkey_filter::{LatchkeyFilter, latchkey_filters};
use super::manager::check_settings;
use super::message::{messages, walk};
use super::overrides::check_overrides;
use super::reference::ReferenceConfig;
use super::routes::{Host, has_all_routes, hosts};
use super::rules::{Catalogue, check_route};
use super::shadowing::check_shadowing;
use super::wasm::check_filter;
use super::{Finding, mesh};
use crate::cli::json::{list, part};
use crate::cli::output::pluralize;

/// The findings in an Envoy file, and a summary of what was checked.
pub(super) fn check(file: &Value, catalogue: Option<&Catalogue>) -> anyhow::Result<(Vec<Finding>, String)> {
    let mut findings = Vec::new();
    let shipped = ReferenceConfig::read()?;
    let found = latchkey_filters(file);
    let mut configs: Vec<(String, Config)> = Vec::new();
    for filter in &found {
        let config = check_filter(file, filter, catalogue, &mut findings);
        configs.extend(config.map(|config| (filter.place.clone(), config)));
    }
    configs.extend(mesh::check_resources(file, catalogue, &mut findings));

    let chains = Chains::read(file);
    let guarded: Vec<(&Manager<'_>, Option<&Config>)> = chains
        .managers
        .iter()
        .filter(|manager| manager.has_ours())
        .map(|manager| (manager, config_of(manager, &configs)))
        .collect();
    for (manager, config) in &guarded {
        check_manager(manager, *config, &shipped, &mut findings);
    }
    check_patches(file, &chains, &configs, &mut findings);
    check_elsewhere(file, &found, &chains, &shipped, &mut findings);
    check_overrides(file, &chains.managers, &mut findings);
    check_headers(file, &mut findings);
    check_admin(file, &mut findings);
    check_proxy_protocol(&chains.others, &mut findings);

    let clusters = Clusters::read(file);
    let hosts: Vec<(Option<&Config>, Vec<Host<'_>>)> =
        guarded.iter().map(|(manager, config)| (*config, hosts(manager, *config))).collect();
    let protected = ProtectedTargets {
        clusters: &clusters,
        upstreams: hosts.iter().flat_map(|(_, hosts)| upstreams(hosts)).collect(),
        control_planes: configs.iter().map(|(_, config)| config.control_plane.cluster.clone()).collect(),
        shipped: &shipped,
    };
    check_bypasses(file, &chains, &protected, &mut findings);
    let config = hosts.iter().find_map(|(config, _)| *config);
    let hosts: Vec<Host<'_>> = hosts.into_iter().flat_map(|(_, hosts)| hosts).collect();
    check_shadowing(&hosts, config, &clusters, &mut findings);
    check_discovery(file, &mut findings);

    let routes = check_routes(file, catalogue, &mut findings);
    let edges: Vec<String> = configs.iter().map(|(_, config)| format!("`{}`", config.edge)).collect();
    let count = found.len().max(configs.len()) as u64;
    let checked = format!("{} of the edge {}; {routes}", pluralize(count, "filter"), edges.join(", "));
    Ok((findings, checked))
}

/// The plugin configuration that decides the requests of this manager.
fn config_of<'c>(manager: &Manager<'_>, configs: &'c [(String, Config)]) -> Option<&'c Config> {
    let own = manager.chains.iter().flat_map(|chain| &chain.filters).find_map(HttpFilter::ours)?;
    configs.iter().find(|(place, _)| *place == own.place).map(|(_, config)| config)
}

fn check_manager(
    manager: &Manager<'_>,
    config: Option<&Config>,
    shipped: &ReferenceConfig,
    findings: &mut Vec<Finding>,
) {
    let Manager { place, fields, .. } = manager;
    for chain in &manager.chains {
        check_filter_order(chain, config, shipped, findings);
    }
    check_early_removal(place, fields, findings);
    if let Some(config) = config {
        for (at, extension) in list(fields, "early_header_mutation_extensions").iter().enumerate() {
            let here = format!("{place}.early_header_mutation_extensions[{at}]");
            findings.extend(
                added_credentials(extension, &here, config)
                    .into_iter()
                    .map(|place| Finding::refused(place, ADDS_CREDENTIAL)),
            );
        }
    }
    if !has_all_routes(manager) {
        let message = "not all routes are in this file, or their order can't be read: what they state, and which of them covers another, can't be checked";
        findings.push(Finding::warning(place, message));
    }
    // If no route needs a key, the client's address doesn't matter, and no stream can outlive its key.
    let needs_key = !has_all_routes(manager)
        || hosts(manager, config).iter().flat_map(|host| &host.entries).any(|entry| !entry.requirement.is_public());
    if needs_key || manager.reach == Reach::Anyone {
        check_client_address(place, fields, config.map_or(0, |config| config.trusted_hops), false, findings);
        check_settings(place, fields, config, false, findings);
    }
}

/// Checks what a mesh's manifest changes in a connection manager that the mesh generates.
fn check_patches(file: &Value, chains: &Chains<'_>, configs: &[(String, Config)], findings: &mut Vec<Finding>) {
    let config = configs.first().map(|(_, config)| config);
    let hops = config.map_or(0, |config| config.trusted_hops);
    let is_patch = |manager: &&Manager<'_>| {
        manager.chains.is_empty()
            && ["route_config", "rds", "scoped_routes"].iter().all(|name| manager.fields.get(name).is_none())
    };
    for manager in chains.managers.iter().filter(is_patch) {
        check_client_address(&manager.place, manager.fields, hops, true, findings);
        check_settings(&manager.place, manager.fields, config, true, findings);
    }
    if let Some((place, manager)) = mesh::patched_manager(file) {
        check_client_address(&place, &manager, hops, true, findings);
        check_settings(&place, &manager, config, true, findings);
    }
}

/// A file may have our filter without its chain, as a patch does. The guard is then elsewhere in the file, or in
/// another file.
fn check_elsewhere(
    file: &Value,
    found: &[LatchkeyFilter<'_>],
    chains: &Chains<'_>,
    shipped: &ReferenceConfig,
    findings: &mut Vec<Finding>,
) {
    let in_chains: BTreeSet<&str> = chains
        .managers
        .iter()
        .flat_map(|manager| &manager.chains)
        .flat_map(|chain| &chain.filters)
        .filter_map(|filter| filter.message.as_ref())
        .map(|message| message.place.as_str())
        .collect();
    let is_apart = |place: &str| !in_chains.iter().any(|chain| place.starts_with(chain));
    let all = messages(file);
    let mut has_guard = false;
    for guard in all
        .iter()
        .filter(|message| message.is(RBAC) && message.contains_text("wasm.latchkey_") && is_apart(&message.place))
    {
        has_guard = true;
        if let Some(fault) = fault(guard.fields, shipped) {
            findings.push(Finding::refused(&guard.place, format!("the guard {fault}; {USE_SHIPPED_GUARD}")));
        }
    }
    for filter in found.iter().filter(|filter| is_apart(&filter.place)) {
        let discovered = all.iter().find(|message| {
            message.is("envoy.config.core.v3.TypedExtensionConfig") && filter.place.starts_with(&message.place)
        });
        if let Some(resource) = discovered {
            let message = "is for a chain that takes it by `config_discovery`: the chain that it goes into isn't here, so that it can't be checked; write its `typed_config` into the chain";
            findings.push(Finding::refused(&resource.place, message));
        } else if !has_guard {
            let message = "no guard is in this file: see that the RBAC filter of envoy/demo.yaml is behind this one";
            findings.push(Finding::warning(&filter.place, message));
        }
    }
    let resources =
        !has_guard && mesh::has_ours(file) && chains.managers.iter().all(|manager| manager.chains.is_empty());
    if resources {
        let message = "no guard is in this file: see that the RBAC filter of envoy/demo.yaml is behind the filter";
        findings.push(Finding::warning("", message));
    }
}

/// Warns of listeners that Envoy fetches, because they aren't in the file.
fn check_discovery(file: &Value, findings: &mut Vec<Finding>) {
    for name in ["lds_config", "ads_config"] {
        if part(file, &["dynamic_resources"]).get(name).is_some() {
            let message =
                "brings listeners, or clusters, that aren't in this file: check what it brings in the same way";
            findings.push(Finding::warning(format!("dynamic_resources.{name}"), message));
        }
    }
}

/// Checks the metadata of all routes in the file; returns a summary of how many there are.
fn check_routes(file: &Value, catalogue: Option<&Catalogue>, findings: &mut Vec<Finding>) -> String {
    let (mut routes, mut stated) = (0_u64, 0_u64);
    walk(file, "", &mut |place, value| {
        let is_route = part(value, &["match"]).is_object()
            && ["route", "redirect", "direct_response", "metadata"].iter().any(|name| value.get(name).is_some());
        if is_route {
            routes = routes.saturating_add(1);
            stated = stated.saturating_add(u64::from(check_route(place, value, catalogue, findings)));
        }
    });
    format!("{stated} of {} state a rule, the others are `routes`' and `unmatched`'s", pluralize(routes, "route"))
}
