//! The routes of a connection manager: which paths each matches, what it requires, and where it leads.

use policy::Config;
use policy::config::Unmatched;
use policy::route::Route;
use serde_json::Value;

use super::chain::Manager;
use super::clusters::cluster_references;
use super::message::walk;
use super::path_set::PathSet;
use super::requirement::Requirement;
use crate::cli::json::{list, part, string};

/// A virtual host.
pub(super) struct Host<'a> {
    /// The place of its manager.
    pub manager: String,
    pub place: String,
    pub entries: Vec<Entry<'a>>,
}

/// A route, or an entry of the plugin configuration's `routes` that decides it.
pub(super) struct Entry<'a> {
    pub place: String,
    pub route: &'a Value,
    /// The paths that it matches.
    pub paths: PathSet,
    /// The paths that the upstream reads; `None` if they can't be known.
    pub upstream_paths: Option<PathSet>,
    /// True if more than the path decides whether it matches.
    pub is_conditional: bool,
    /// True if it matches only requests with the method OPTIONS, which read and change nothing.
    pub is_preflight: bool,
    pub requirement: Requirement,
    pub source: Source,
    pub target: RouteTarget,
}

/// Where the requirement comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The route's metadata: Envoy's matching decides.
    Metadata,
    /// An entry of `routes`: the filter's matching decides.
    Template,
    /// The route states no rule, and gets `unmatched`.
    Unmatched,
}

/// Where requests go.
pub(super) enum RouteTarget {
    /// To these clusters.
    Clusters(Vec<String>),
    /// The request or a plugin chooses it.
    Unknown,
    /// Envoy answers itself.
    LocalReply,
}

impl Entry<'_> {
    /// True if no request passes it and goes on to the next route.
    pub(super) fn takes_all(&self) -> bool {
        !self.is_conditional && self.paths.is_all() && self.source != Source::Template
    }

    /// True unless the upstream is known to read the path that Envoy matched.
    pub(super) fn is_rewritten(&self) -> bool {
        self.upstream_paths.as_ref() != Some(&self.paths)
    }
}

/// The hosts whose routes are in the file.
pub(super) fn hosts<'a>(manager: &Manager<'a>, config: Option<&Config>) -> Vec<Host<'a>> {
    let place = format!("{}.route_config.virtual_hosts", manager.place);
    let hosts = list(part(manager.fields, &["route_config"]), "virtual_hosts").iter().enumerate();
    hosts.map(|(at, host)| read_host(manager, format!("{place}[{at}]"), host, config)).collect()
}

/// True if all routes of the manager are in the file, in an order that can be read.
pub(super) fn has_all_routes(manager: &Manager<'_>) -> bool {
    let routes = part(manager.fields, &["route_config"]);
    let is_whole = routes.is_object() && part(routes, &["vhds"]).is_null();
    is_whole && list(routes, "virtual_hosts").iter().all(|host| host.get("matcher").is_none())
}

fn read_host<'a>(manager: &Manager<'_>, place: String, host: &'a Value, config: Option<&Config>) -> Host<'a> {
    let mut entries = Vec::new();
    for (at, route) in list(host, "routes").iter().enumerate() {
        entries.extend(read_route(format!("{place}.routes[{at}]"), route, config));
    }
    walk(part(host, &["matcher"]), &format!("{place}.matcher"), &mut |place, value| {
        if part(value, &["match"]).is_object() {
            let read = read_route(place.to_owned(), value, config);
            entries.extend(read.into_iter().map(|entry| Entry { is_conditional: true, ..entry }));
        }
    });
    Host { manager: manager.place.clone(), place, entries }
}

fn read_route<'a>(place: String, route: &'a Value, config: Option<&Config>) -> Vec<Entry<'a>> {
    let matched = part(route, &["match"]);
    let paths = PathSet::of_match(matched);
    let metadata = part(route, &["metadata", "filter_metadata", "latchkey"]);
    let (requirement, source) = if metadata.is_null() {
        (unmatched(config), Source::Unmatched)
    } else {
        (Requirement::stated(metadata), Source::Metadata)
    };
    let own = Entry {
        upstream_paths: paths.rewritten_by(part(route, &["route"])),
        is_conditional: is_conditional(matched),
        is_preflight: list(matched, "headers").iter().any(is_preflight),
        target: route_target(route),
        place,
        route,
        paths,
        requirement,
        source,
    };
    if source == Source::Metadata {
        return vec![own];
    }
    // A route that states no rule is decided by the templates that match, then by `unmatched`.
    let templates = config.map_or(&[][..], |config| &config.routes);
    let mut entries: Vec<Entry<'a>> = templates
        .iter()
        .enumerate()
        .filter(|(_, line)| own.paths.may_intersect(&PathSet::of_template(&line.path)))
        .map(|(at, line)| Entry {
            place: format!("`routes[{at}]` on {}", own.place),
            target: route_target(route),
            ..of_template(line, own.route)
        })
        .collect();
    entries.push(own);
    entries
}

/// An entry of the plugin configuration's `routes`, for any cluster.
fn of_template<'a>(line: &Route, route: &'a Value) -> Entry<'a> {
    let paths = PathSet::of_template(&line.path);
    Entry {
        place: String::new(),
        route,
        upstream_paths: Some(paths.clone()),
        paths,
        is_conditional: !line.methods.is_empty(),
        is_preflight: line.methods == ["OPTIONS"],
        requirement: Requirement::of_line(line),
        source: Source::Template,
        target: RouteTarget::Unknown,
    }
}

/// A plugin configuration without an Envoy file, as a host with one upstream.
pub(super) fn host_of_plugin<'a>(config: &Config, nothing: &'a Value) -> Host<'a> {
    let target = || RouteTarget::Clusters(vec!["upstream".to_owned()]);
    let lines = config.routes.iter().enumerate().map(|(at, line)| Entry {
        place: format!("`routes[{at}]`"),
        target: target(),
        ..of_template(line, nothing)
    });
    let rest = Entry {
        place: "`unmatched`".to_owned(),
        route: nothing,
        paths: PathSet::all(),
        upstream_paths: Some(PathSet::all()),
        is_conditional: false,
        is_preflight: false,
        requirement: unmatched(Some(config)),
        source: Source::Unmatched,
        target: target(),
    };
    Host { manager: String::new(), place: String::new(), entries: lines.chain(std::iter::once(rest)).collect() }
}

fn unmatched(config: Option<&Config>) -> Requirement {
    match config.map_or(Unmatched::Deny, |config| config.unmatched) {
        Unmatched::Deny => Requirement::deny(),
        Unmatched::Key => Requirement::key(),
    }
}

/// True if a request needs more than its path to match.
fn is_conditional(matched: &Value) -> bool {
    let conditions = [
        "headers",
        "query_parameters",
        "runtime_fraction",
        "grpc",
        "tls_context",
        "dynamic_metadata",
        "filter_state",
        "cookies",
        "connect_matcher",
    ];
    conditions.iter().any(|name| matched.get(name).is_some())
}

/// A header matcher for the method OPTIONS only.
fn is_preflight(header: &Value) -> bool {
    let exact = [part(header, &["string_match", "exact"]), part(header, &["exact_match"])];
    string(header, "name") == ":method"
        && header.get("invert_match").is_none()
        && exact.iter().any(|method| *method == "OPTIONS")
}

fn route_target(route: &Value) -> RouteTarget {
    let action = part(route, &["route"]);
    if !action.is_object() {
        return RouteTarget::LocalReply;
    }
    let chosen = ["cluster_header", "cluster_specifier_plugin", "inline_cluster_specifier_plugin"];
    if chosen.iter().any(|name| action.get(name).is_some()) {
        return RouteTarget::Unknown;
    }
    RouteTarget::Clusters(cluster_references(action, "").iter().map(|reference| reference.cluster.to_owned()).collect())
}

/// The name of a route in messages: its path, or its place if it has none.
pub(super) fn name_of(entry: &Entry<'_>) -> String {
    match &entry.paths {
        PathSet::Unknown => {
            let matched = part(entry.route, &["match"]);
            let regex = string(part(matched, &["safe_regex"]), "regex");
            if regex.is_empty() { "a route that is matched by no path".to_owned() } else { format!("`{regex}`") }
        }
        paths => format!("`{}`", paths.text()),
    }
}
