//! Which rule a request's path and method fall under, by templates.

mod plain;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::plain::plain_path;
use crate::rule::{Rule, RuleText};

/// One line of `routes` in the plugin configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Request methods, as they stand in the request; none given means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// A template: `{name}` takes one segment, `{*name}` at the end takes all the rest.
    pub path: String,
    pub rule: RuleText,
}

/// What a route asks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteRule<'a> {
    /// A rule, and the workspace that the path names where its template has `{workspace}`.
    Rule { rule: Rule<'a>, workspace: Option<&'a str> },
    /// A path that Envoy or an upstream may read in another way than we do.
    BadPath,
    /// No route knows the request, or the rule that was found isn't one.
    Unknown,
}

impl RouteRule<'_> {
    /// True when the request needs no key.
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Rule { rule: Rule::Public, .. })
    }
}

/// The templates of `routes`, compiled.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    router: matchit::Router<usize>,
    templates: Vec<Template>,
}

#[derive(Clone, Debug)]
struct Template {
    path: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    methods: Vec<String>,
    rule: RuleText,
}

/// What is wrong with `routes`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("`{path}` is not a path template: {reason}")]
    Template { path: String, reason: String },
    #[error("`{path}` is given twice for the same methods")]
    Twice { path: String },
    #[error("`{path}` takes paths that `{workspace}` would bind to a workspace; give both the same shape")]
    HidesWorkspace { path: String, workspace: String },
    #[error("`{path}` has a method that is not a word of capital letters")]
    Method { path: String },
}

impl Routes {
    /// Compiles the lines of a configuration; their order doesn't matter.
    pub fn compile(routes: &[Route]) -> Result<Self, RouteError> {
        let mut by_path: BTreeMap<&str, Vec<Line>> = BTreeMap::new();
        for Route { methods, path, rule } in routes {
            let is_method =
                |method: &String| !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
            if !methods.iter().all(is_method) {
                return Err(RouteError::Method { path: path.clone() });
            }
            let lines = by_path.entry(path).or_default();
            let overlaps = |line: &Line| {
                (line.methods.is_empty() && methods.is_empty())
                    || line.methods.iter().any(|method| methods.contains(method))
            };
            if lines.iter().any(overlaps) {
                return Err(RouteError::Twice { path: path.clone() });
            }
            lines.push(Line { methods: methods.clone(), rule: rule.clone() });
        }
        let paths: Vec<&str> = by_path.keys().copied().collect();
        refuse_hidden_workspaces(&paths)?;
        let mut compiled = Self::default();
        for (path, lines) in by_path {
            check_template(path)?;
            let number = compiled.templates.len();
            // A prefix that has a line of its own keeps it.
            for spelling in spellings(path).filter(|spelling| spelling == path || !paths.contains(&spelling.as_str())) {
                let template = |error: matchit::InsertError| RouteError::Template {
                    path: path.to_owned(),
                    reason: error.to_string(),
                };
                compiled.router.insert(spelling, number).map_err(template)?;
            }
            compiled.templates.push(Template { path: path.to_owned(), lines });
        }
        Ok(compiled)
    }

    /// True when there is no template at all.
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// The rule for a request, `unmatched` where no template fits its path. A path that is known with other methods only
    /// is [`RouteRule::Unknown`]. Allocates nothing for templates without parameters.
    pub fn find<'a>(&'a self, method: &[u8], path: &'a [u8], unmatched: Rule<'a>) -> RouteRule<'a> {
        let Some(path) = plain_path(path) else { return RouteRule::BadPath };
        let Ok(found) = self.router.at(path) else { return RouteRule::Rule { rule: unmatched, workspace: None } };
        let lines = self.templates.get(*found.value).map(|template| template.lines.as_slice()).unwrap_or_default();
        let exact = lines.iter().find(|line| line.methods.iter().any(|own| own.as_bytes() == method));
        match exact.or_else(|| lines.iter().find(|line| line.methods.is_empty())) {
            Some(line) => RouteRule::Rule { rule: line.rule.rule(), workspace: found.params.get("workspace") },
            None => RouteRule::Unknown,
        }
    }

    /// The template that a path falls under, whatever the method: for whoever asks why.
    pub fn template(&self, path: &[u8]) -> Option<&str> {
        let found = self.router.at(plain_path(path)?).ok()?;
        self.templates.get(*found.value).map(|template| template.path.as_str())
    }
}

/// What a route asks of a request that states its rule itself, as route metadata does, with the template that binds a
/// workspace if there is one. What isn't a rule, and a path that doesn't fit, deny.
pub fn stated<'a>(rule: &'a str, template: Option<&str>, path: &'a [u8]) -> RouteRule<'a> {
    let Ok(rule) = Rule::parse(rule) else { return RouteRule::Unknown };
    let Some(template) = template else { return RouteRule::Rule { rule, workspace: None } };
    match bind(template, path) {
        RouteRuleBinding::Fits { workspace } => RouteRule::Rule { rule, workspace },
        RouteRuleBinding::BadPath => RouteRule::BadPath,
        RouteRuleBinding::NoFit => RouteRule::Unknown,
    }
}

/// The workspace that `path` names by one template, as route metadata has it: `Ok(None)` when the template has no
/// `{workspace}`, `Err` when the path doesn't fit the template.
pub fn bind<'a>(template: &str, path: &'a [u8]) -> RouteRuleBinding<'a> {
    let Some(path) = plain_path(path) else { return RouteRuleBinding::BadPath };
    if check_template(template).is_err() {
        return RouteRuleBinding::NoFit;
    }
    let mut router = matchit::Router::new();
    for spelling in spellings(template) {
        if router.insert(spelling, ()).is_err() {
            return RouteRuleBinding::NoFit;
        }
    }
    match router.at(path) {
        Ok(found) => RouteRuleBinding::Fits { workspace: found.params.get("workspace") },
        Err(_) => RouteRuleBinding::NoFit,
    }
}

/// How a path stands to one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteRuleBinding<'a> {
    Fits { workspace: Option<&'a str> },
    BadPath,
    NoFit,
}

/// `/{*rest}` at the end takes the bare prefix too, with and without its slash.
fn spellings(path: &str) -> impl Iterator<Item = String> {
    let bare = path.rsplit_once("/{*").map(|(bare, _)| bare.to_owned());
    let slash = bare.as_ref().map(|bare| format!("{bare}/"));
    [Some(path.to_owned()), bare.filter(|bare| !bare.is_empty()), slash].into_iter().flatten()
}

fn check_template(path: &str) -> Result<(), RouteError> {
    let refused = |reason: &str| Err(RouteError::Template { path: path.to_owned(), reason: reason.to_owned() });
    if !path.starts_with('/') {
        return refused("it must start with `/`");
    }
    let literal: String = path.chars().filter(|c| !matches!(c, '{' | '}' | '*')).collect();
    if plain_path(literal.as_bytes()) != Some(literal.as_str()) {
        return refused(
            "it holds what no request path may hold (a query, dot segments, `//`, `;`, a backslash or encoded plain characters)",
        );
    }
    if path.contains("{{") || path.contains("}}") {
        return refused("a brace can't stand for itself");
    }
    let mut binding =
        path.split('/').filter(|segment| segment.contains("{workspace}") || segment.contains("{*workspace}"));
    if binding.next().is_some_and(|segment| segment != "{workspace}") || binding.next().is_some() {
        return refused("`{workspace}` must be a whole segment, and stand once");
    }
    Ok(())
}

/// Two templates of one shape are one place to `matchit` only if their parameters have the same names; where one binds a
/// workspace and the other takes the same paths without binding it, the binding could be passed by.
fn refuse_hidden_workspaces(paths: &[&str]) -> Result<(), RouteError> {
    for workspace in paths.iter().filter(|path| path.split('/').any(|segment| segment == "{workspace}")) {
        for path in paths.iter().filter(|path| *path != workspace) {
            if hides(path, workspace) {
                return Err(RouteError::HidesWorkspace {
                    path: (*path).to_owned(),
                    workspace: (*workspace).to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// True when `other` may take a path that `workspace` would bind, without binding it.
///
/// From the left, the router prefers plain text to a parameter, a parameter with text around it to a bare one, and a bare
/// one to `{*rest}`; what was preferred in an earlier segment wins whatever comes later.
fn hides(other: &str, workspace: &str) -> bool {
    let mut is_narrower = false;
    for (own, bound) in other.split('/').zip(workspace.split('/')) {
        let is_parameter = own.contains('{');
        let takes_all = own.starts_with("{*") && !is_narrower;
        if own == bound && bound != "{workspace}" {
            continue;
        }
        if bound == "{workspace}" || own.contains("{*") {
            let may_fit = is_narrower || bound.contains('{');
            return is_parameter && may_fit && !takes_all && own != bound;
        }
        match (is_parameter, bound.contains('{')) {
            (false, false) => return false,
            // The text that `workspace` has here wins, unless the router is on `other`'s side already.
            (true, false) if !is_narrower => return false,
            (true, false) => {}
            (_, true) => is_narrower |= !own.starts_with('{') || !own.ends_with('}'),
        }
    }
    false
}

#[cfg(test)]
mod tests;
