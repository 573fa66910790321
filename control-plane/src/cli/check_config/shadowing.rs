//! Weaker routes that take requests meant for a stricter one: by their order, by another spelling, or as the last
//! route.

use std::collections::BTreeSet;

use policy::Config;

use super::Finding;
use super::clusters::Clusters;
use super::routes::{Entry, Host, RouteTarget, Source, name_of};
use super::values::is_zero;
use crate::cli::json::part;

/// How many covered routes a message names.
const NAMED: usize = 3;

/// How the hosts of two routes are related.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HostRelation {
    SameHost,
    OtherHost,
    OtherListener,
}

/// Checks the hosts of all managers, or the one host of a plugin configuration.
pub(super) fn check_shadowing(
    hosts: &[Host<'_>],
    config: Option<&Config>,
    clusters: &Clusters,
    findings: &mut Vec<Finding>,
) {
    for (own, host) in hosts.iter().enumerate() {
        check_host(host, findings);
        let end = host.entries.iter().position(Entry::takes_all).map_or(host.entries.len(), |at| at + 1);
        for (at, weak) in host.entries.iter().enumerate().take(end) {
            let mut covered = ShadowedRoutes::default();
            for (other, protected) in
                hosts.iter().enumerate().flat_map(|(other, host)| host.entries.iter().map(move |entry| (other, entry)))
            {
                let is_near = hosts.get(other).is_some_and(|other| other.manager == host.manager);
                let relation = match (own == other, is_near) {
                    (true, _) => HostRelation::SameHost,
                    (false, true) => HostRelation::OtherHost,
                    (false, false) => HostRelation::OtherListener,
                };
                if !std::ptr::eq(weak, protected) && is_weaker(weak, protected, clusters) {
                    covered.add(host, at, protected, relation);
                }
            }
            covered.report(weak, config, findings);
        }
    }
}

/// The stricter routes that one route covers.
#[derive(Default)]
struct ShadowedRoutes {
    /// Covered by the same path.
    taken: BTreeSet<String>,
    /// Covered by another spelling of the path.
    spelled: BTreeSet<String>,
    /// Covered under another host's name.
    hosts: BTreeSet<String>,
    /// Covered at another listener.
    listeners: BTreeSet<String>,
    /// True if only Envoy's own matching keeps the two apart.
    is_by_metadata: bool,
}

impl ShadowedRoutes {
    fn add(&mut self, host: &Host<'_>, at: usize, protected: &Entry<'_>, relation: HostRelation) {
        let Some(weak) = host.entries.get(at) else { return };
        let (Some(sent), Some(target)) = (&weak.upstream_paths, &protected.upstream_paths) else { return };
        let name = format!("{} (`{}`)", name_of(protected), protected.requirement.rule());
        if sent.covers(target) {
            let path = weak.paths.path_to(sent, target).unwrap_or_else(|| weak.paths.clone());
            let first = host.entries.iter().position(|entry| {
                entry.paths.covers(&path)
                    && (!entry.is_conditional || entry.requirement.is_as_strong_as(&protected.requirement))
            });
            let is_taken = !weak.is_conditional && weak.source != Source::Template && first == Some(at);
            match relation {
                HostRelation::SameHost if is_taken => self.taken.insert(name),
                HostRelation::SameHost => self.spelled.insert(name),
                HostRelation::OtherHost => is_taken && self.hosts.insert(name),
                HostRelation::OtherListener => is_taken && self.listeners.insert(name),
            };
        } else if relation == HostRelation::SameHost && sent.to_lowercase().covers(&target.to_lowercase()) {
            self.spelled.insert(name);
        } else {
            return;
        }
        self.is_by_metadata |= protected.source == Source::Metadata && relation == HostRelation::SameHost;
    }

    fn report(self, weak: &Entry<'_>, config: Option<&Config>, findings: &mut Vec<Finding>) {
        let (name, rule) = (name_of(weak), weak.requirement.rule());
        if !self.taken.is_empty() {
            let taken = listed(&self.taken);
            let message = if weak.is_rewritten() {
                format!(
                    "{name} is `{rule}` and leads by another path to the upstream of {taken}: give it their rule, or a narrower path"
                )
            } else {
                format!(
                    "{name} is `{rule}` and takes the requests of {taken}, which is never reached: put it behind that, or narrow it"
                )
            };
            findings.push(Finding::refused(&weak.place, message));
        }
        if !self.hosts.is_empty() {
            let message = format!(
                "{name} is `{rule}` and leads to the same upstream as {} of another host: a client that sends this host's name needs only this rule; give both the same routes, or upstreams of their own",
                listed(&self.hosts)
            );
            findings.push(Finding::warning(&weak.place, message));
        }
        if !self.listeners.is_empty() {
            let message = format!(
                "{name} is `{rule}` and leads to the same upstream as {} of another listener: a client that connects here needs only this rule; give both the same routes, or remove it",
                listed(&self.listeners)
            );
            findings.push(Finding::refused(&weak.place, message));
        }
        let is_last = weak.takes_all();
        if !self.spelled.is_empty() && (weak.requirement.is_open() || is_last) {
            let what = if is_last {
                "remove it and leave `deny` as the last rule"
            } else {
                "match a narrower path, and leave `deny` as the last rule"
            };
            let message = format!(
                "{name} is `{rule}` and covers {}: a path that only the upstream reads as theirs (another case, a suffix) needs only `{rule}`; {what}",
                listed(&self.spelled)
            );
            findings.push(Finding::warning(&weak.place, message));
        }
        let allowed = config.is_some_and(|config| config.paths.allow.iter().any(|kind| kind.is_matched_as_spelled()));
        if allowed && self.is_by_metadata && !(self.spelled.is_empty() && self.taken.is_empty()) {
            let all: BTreeSet<String> = self.spelled.union(&self.taken).cloned().collect();
            let message = format!(
                "{name} is `{rule}` and covers {}, while `paths.allow` allows spellings that Envoy matches as written: requests for the one fall under the other; remove `paths.allow` from the plugin configuration, or make the last rule `deny`",
                listed(&all)
            );
            findings.push(Finding::refused(&weak.place, message));
        }
    }
}

/// True if `weak` requires less than `protected` and leads to the same upstream.
fn is_weaker(weak: &Entry<'_>, protected: &Entry<'_>, clusters: &Clusters) -> bool {
    let (RouteTarget::Clusters(own), RouteTarget::Clusters(other)) = (&weak.target, &protected.target) else {
        return false;
    };
    // Two routes with the same paths differ by their other conditions.
    let is_distinguished = weak.is_conditional && weak.paths == protected.paths;
    // The catch-all that states no rule is only the remainder, and has nothing to protect.
    let is_protected = !(protected.source == Source::Unmatched && protected.paths.is_all());
    // A rewrite to a protected path is intended, as long as it needs a key.
    let is_alias = weak.is_rewritten() && !weak.requirement.is_open();
    !is_distinguished
        && !is_alias
        && !weak.is_preflight
        && is_protected
        && !weak.requirement.is_as_strong_as(&protected.requirement)
        && own.iter().any(|own| other.iter().any(|other| clusters.share_upstream(own, other)))
}

/// Checks the routes of a host one at a time.
fn check_host(host: &Host<'_>, findings: &mut Vec<Finding>) {
    let mut has_template = false;
    for (at, entry) in host.entries.iter().enumerate() {
        match entry.source {
            Source::Template => has_template = true,
            Source::Metadata => has_template = false,
            Source::Unmatched => {
                let is_last = entry.takes_all()
                    && host.entries.iter().skip(at + 1).all(|entry| entry.source == Source::Unmatched);
                let is_reached = !host.entries.iter().take(at).any(Entry::takes_all);
                if !has_template && entry.requirement.is_deny() && !is_last && is_reached && !host.place.is_empty() {
                    let message = format!(
                        "{} states no rule, so all of its requests are denied (`no-route-rule`): give it one, or state `deny`",
                        name_of(entry)
                    );
                    findings.push(Finding::warning(&entry.place, message));
                }
                has_template = false;
            }
        }
        let lasts = part(entry.route, &["route", "max_stream_duration", "max_stream_duration"]);
        if !lasts.is_null() && is_zero(lasts) && !entry.requirement.is_public() {
            let message = "is 0: a stream that runs when its key is revoked runs on forever; remove it, or set it";
            findings.push(Finding::refused(format!("{}.route.max_stream_duration", entry.place), message));
        }
        if matches!(entry.target, RouteTarget::Unknown) && !entry.requirement.is_deny() {
            let message = format!(
                "{} leads to an upstream that the request or a plugin chooses, which can't be checked",
                name_of(entry)
            );
            findings.push(Finding::warning(&entry.place, message));
        }
        if entry.upstream_paths.is_none()
            && entry.requirement.is_open()
            && !matches!(entry.target, RouteTarget::LocalReply)
        {
            let message = format!(
                "{} needs no key, and what the upstream reads of its paths can't be checked: see that it leads to nothing that needs one",
                name_of(entry)
            );
            findings.push(Finding::warning(&entry.place, message));
        }
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    let mut listed = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        listed.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    listed
}
