//! A single compiled path template.

use super::RouteError;
use crate::path::{self, Paths, RequestPath};

/// The most parameters of a template. The router names them by single letters, and fails when it runs out of them.
pub const MAX_PARAMETERS: usize = 16;

/// The most bytes of a template.
pub const MAX_TEMPLATE_BYTES: usize = 1024;

/// A single compiled template: `path` in a route's metadata.
#[derive(Clone, Debug)]
pub struct Template(matchit::Router<()>);

/// How a path matches one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding<'a> {
    /// It matches, and names this workspace if the template has `{workspace}`.
    Match {
        /// The path's text for `{workspace}`, a slug or an id that is not checked yet.
        workspace: Option<&'a str>,
    },
    /// Two readings of the path give different workspaces, or only one of them matches.
    Ambiguous,
    /// The path doesn't match. A request whose route has this template in its metadata is then denied.
    NoMatch,
}

impl Template {
    /// Compiles a template; an error states what is wrong with it.
    pub fn compile(text: &str) -> Result<Self, RouteError> {
        let mut router = matchit::Router::new();
        for spelling in spellings(&pattern(text)?) {
            router.insert(spelling, ()).map_err(|error| refused(text, error.to_string()))?;
        }
        Ok(Self(router))
    }

    /// How a path matches this template.
    pub fn bind<'a>(&self, path: &'a RequestPath<'_>) -> Binding<'a> {
        let at = |path: &'a str| match self.0.at(path) {
            Ok(found) => Binding::Match { workspace: found.params.get("workspace") },
            Err(_) => Binding::NoMatch,
        };
        let (plain, decoded) = path.readings();
        let bound = at(plain);
        if decoded.is_none_or(|decoded| at(decoded) == bound) { bound } else { Binding::Ambiguous }
    }
}

/// A template in the router's form: its escapes are decoded, as in a path.
pub(super) fn pattern(text: &str) -> Result<String, RouteError> {
    check(text)?;
    // A brace that was written as an escape is a literal one, which the router spells as two.
    let mut escaped = text.to_owned();
    for (from, to) in [("%7B", "{{"), ("%7b", "{{"), ("%7D", "}}"), ("%7d", "}}")] {
        escaped = escaped.replace(from, to);
    }
    let pattern = path::decode(&escaped).ok_or_else(|| refused(text, NOT_PLAIN))?;
    Ok(pattern.into_owned())
}

/// `/{*rest}` at the end also matches the bare prefix, with and without its slash.
pub(super) fn spellings(pattern: &str) -> impl Iterator<Item = String> {
    let bare = pattern.rsplit_once("/{*").map(|(bare, _)| bare.to_owned());
    let slash = bare.as_ref().map(|bare| format!("{bare}/"));
    [Some(pattern.to_owned()), bare.filter(|bare| !bare.is_empty()), slash].into_iter().flatten()
}

const NOT_PLAIN: &str = "it contains what no request path may contain (a query, dot segments, `//`, `;`, a backslash \
                         or encoded plain characters)";

fn check(text: &str) -> Result<(), RouteError> {
    let refused = |reason: &str| Err(refused(text, reason));
    if !text.starts_with('/') {
        return refused("it must start with `/`");
    }
    if text.len() > MAX_TEMPLATE_BYTES {
        return refused(&format!("it may have at most {MAX_TEMPLATE_BYTES} bytes"));
    }
    if text.bytes().filter(|byte| *byte == b'{').count() > MAX_PARAMETERS {
        return refused(&format!("it may have at most {MAX_PARAMETERS} parameters"));
    }
    let literal: String = text.chars().filter(|c| !matches!(c, '{' | '}' | '*')).collect();
    if literal.contains(['?', '#']) || Paths::default().read(b"GET", literal.as_bytes()).is_none() {
        return refused(NOT_PLAIN);
    }
    if text.contains("{{") || text.contains("}}") {
        return refused("a brace can't be literal text");
    }
    let mut binding =
        text.split('/').filter(|segment| segment.contains("{workspace}") || segment.contains("{*workspace}"));
    if binding.next().is_some_and(|segment| segment != "{workspace}") || binding.next().is_some() {
        return refused("`{workspace}` must be a whole segment, and occur only once");
    }
    Ok(())
}

fn refused(text: &str, reason: impl Into<String>) -> RouteError {
    // A text that is too long to be a template is too long for a message.
    let path = text.chars().take(100).collect();
    RouteError::Template { path, reason: reason.into() }
}
