//! Finds the rule for a request's path and method by templates.

mod template;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::template::{Binding, MAX_PARAMETERS, MAX_TEMPLATE_BYTES, Template};
use self::template::{pattern, spellings};
use crate::path::RequestPath;
use crate::rule::{Rule, RuleText};

/// One entry of `routes` in the plugin configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Request methods, as in the request; an empty list means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// A template: `{name}` matches one segment, `{*name}` at the end matches the rest of the path.
    pub path: String,
    /// What requests with these methods and this path require.
    pub rule: RuleText,
}

/// What a route requires of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteRule<'a> {
    /// A rule, and the workspace that the path names where its template has `{workspace}`.
    Rule {
        /// What the route requires of a key.
        rule: Rule<'a>,
        /// The path's text for `{workspace}`, a slug or an id that is not checked yet; `None` without `{workspace}`.
        workspace: Option<&'a str>,
    },
    /// A path that Envoy or an upstream may read differently.
    BadPath,
    /// No route matches the request, or the route's text isn't a rule.
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
    templates: Vec<TemplateRoutes>,
}

/// All routes of one template.
#[derive(Clone, Debug)]
struct TemplateRoutes {
    template: String,
    routes: Vec<MethodRoute>,
}

#[derive(Clone, Debug)]
struct MethodRoute {
    methods: Vec<String>,
    rule: RuleText,
}

/// What is wrong with `routes`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A text that isn't a template, or a template that the router can't tell from another one.
    #[error("`{path}` is not a path template: {reason}")]
    Template {
        /// The text of the template; a text that isn't one is cut after 100 characters.
        path: String,
        /// What is wrong with it, for the operator: a clause, or the router's message.
        reason: String,
    },
    /// Two routes of one template share a method, or are both for all methods.
    #[error("`{path}` is given twice for the same methods")]
    Duplicate {
        /// The template, as the second of the routes has it.
        path: String,
    },
    /// A template would match paths that another one binds to a workspace, so that requests could bypass the binding.
    #[error("`{path}` shadows `{workspace}`, which binds the same paths to a workspace; give both the same shape")]
    ShadowsWorkspace {
        /// The template that matches without the binding.
        path: String,
        /// The template with `{workspace}`.
        workspace: String,
    },
    /// A method is empty, or has a character that is neither a capital letter nor `-`.
    #[error("`{path}` has a method that is not a word of capital letters")]
    Method {
        /// The template of the method's route.
        path: String,
    },
}

impl Routes {
    /// Compiles the routes of a configuration; their order doesn't matter.
    pub fn compile(routes: &[Route]) -> Result<Self, RouteError> {
        let mut by_pattern: BTreeMap<String, TemplateRoutes> = BTreeMap::new();
        for Route { methods, path, rule } in routes {
            let is_method =
                |method: &String| !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
            if !methods.iter().all(is_method) {
                return Err(RouteError::Method { path: path.clone() });
            }
            let new = || TemplateRoutes { template: path.clone(), routes: Vec::new() };
            let same_template = &mut by_pattern.entry(pattern(path)?).or_insert_with(new).routes;
            let overlaps = |other: &MethodRoute| {
                (other.methods.is_empty() && methods.is_empty())
                    || other.methods.iter().any(|method| methods.contains(method))
            };
            if same_template.iter().any(overlaps) {
                return Err(RouteError::Duplicate { path: path.clone() });
            }
            same_template.push(MethodRoute { methods: methods.clone(), rule: rule.clone() });
        }
        refuse_shadowed_workspaces(&by_pattern)?;
        let mut compiled = Self::default();
        for (pattern, template_routes) in &by_pattern {
            let number = compiled.templates.len();
            // A prefix that has a route of its own keeps it.
            let is_free = |spelling: &String| spelling == pattern || !by_pattern.contains_key(spelling);
            for spelling in spellings(pattern).filter(is_free) {
                let template = |error: matchit::InsertError| RouteError::Template {
                    path: template_routes.template.clone(),
                    reason: error.to_string(),
                };
                compiled.router.insert(spelling, number).map_err(template)?;
            }
            compiled.templates.push(template_routes.clone());
        }
        Ok(compiled)
    }

    /// True when there is no template at all.
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// The rule for a request, or `unmatched` where no template matches its path. A path that has rules for other
    /// methods only is [`RouteRule::Unknown`]; one whose two readings find different rules is [`RouteRule::BadPath`].
    /// Allocates nothing for templates without parameters.
    pub fn find<'a>(&'a self, method: &[u8], path: &'a RequestPath<'_>, unmatched: Rule<'a>) -> RouteRule<'a> {
        let (plain, decoded) = path.readings();
        let rule = self.find_one(method, plain, unmatched);
        let agrees = decoded.is_none_or(|decoded| self.find_one(method, decoded, unmatched) == rule);
        if agrees { rule } else { RouteRule::BadPath }
    }

    fn find_one<'a>(&'a self, method: &[u8], path: &'a str, unmatched: Rule<'a>) -> RouteRule<'a> {
        let Ok(found) = self.router.at(path) else { return RouteRule::Rule { rule: unmatched, workspace: None } };
        let routes = self.templates.get(*found.value).map(|template| template.routes.as_slice()).unwrap_or_default();
        let exact = routes.iter().find(|route| route.methods.iter().any(|own| own.as_bytes() == method));
        match exact.or_else(|| routes.iter().find(|route| route.methods.is_empty())) {
            Some(route) => RouteRule::Rule { rule: route.rule.rule(), workspace: found.params.get("workspace") },
            None => RouteRule::Unknown,
        }
    }

    /// The template that matches a path, whatever the method, for an explanation of the decision.
    pub fn template(&self, path: &RequestPath<'_>) -> Option<&str> {
        let found = self.router.at(path.readings().0).ok()?;
        self.templates.get(*found.value).map(|template| template.template.as_str())
    }
}

/// The requirement of a route whose metadata contains its rule. `binding` is how the path matches the metadata's
/// template, if there is one. A text that isn't a rule, and a path that doesn't match, deny.
pub fn rule_from_metadata<'a>(rule: &'a str, binding: Option<Binding<'a>>) -> RouteRule<'a> {
    let Ok(rule) = Rule::parse(rule) else { return RouteRule::Unknown };
    match binding {
        None => RouteRule::Rule { rule, workspace: None },
        Some(Binding::Match { workspace }) => RouteRule::Rule { rule, workspace },
        Some(Binding::Ambiguous) => RouteRule::BadPath,
        Some(Binding::NoMatch) => RouteRule::Unknown,
    }
}

/// `matchit` treats two templates of one shape as the same only if their parameters have the same names. Where one
/// binds a workspace and another matches the same paths without binding it, a request could bypass the binding.
fn refuse_shadowed_workspaces(by_pattern: &BTreeMap<String, TemplateRoutes>) -> Result<(), RouteError> {
    let binds = |pattern: &str| pattern.split('/').any(|segment| segment == "{workspace}");
    for (workspace, bound) in by_pattern.iter().filter(|(pattern, _)| binds(pattern)) {
        let shadowing = by_pattern.iter().find(|(pattern, _)| *pattern != workspace && shadows(pattern, workspace));
        if let Some((_, other)) = shadowing {
            let (path, workspace) = (other.template.clone(), bound.template.clone());
            return Err(RouteError::ShadowsWorkspace { path, workspace });
        }
    }
    Ok(())
}

/// True when `other` may match a path that `workspace` would bind, without binding it.
///
/// From the left, the router prefers plain text to a parameter, a parameter with text around it to a bare one, and a
/// bare one to `{*rest}`. A preference in an earlier segment decides, whatever comes later.
fn shadows(other: &str, workspace: &str) -> bool {
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
            // The text that `workspace` has here wins, unless the router already prefers `other`.
            (true, false) if !is_narrower => return false,
            (true, false) => {}
            (_, true) => is_narrower |= !own.starts_with('{') || !own.ends_with('}'),
        }
    }
    false
}

#[cfg(test)]
mod tests;
