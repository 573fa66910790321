//! The query of a page's URL: the parameters of a list, and what was just done.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use policy::Revision;
use serde_json::{Map, Value};

use super::form::instant_of;
use crate::api::fields::Fields;
use crate::instant;
use crate::problem::Problem;

/// The parameters of a URL. Empty ones count as absent, because forms send them for empty fields.
pub(super) struct Asked {
    given: Map<String, Value>,
    /// The change that redirected here.
    pub(super) done: Option<Done>,
}

/// What was done before a page was opened. The sentence is fixed, so a crafted URL can't put words into a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) sentence: &'static str,
    /// The change whose enforcement can be shown; `None` for a change that edges don't receive.
    pub(super) revision: Option<Revision>,
}

/// What can have been done, its sentence, and whether edges have to enforce it.
const WORDS: [(&str, &str, bool); 11] = [
    ("saved", "The changes are saved.", true),
    ("deactivated", "The key is deactivated.", true),
    ("activated", "The key is active again.", true),
    ("deleted", "The key is deleted.", true),
    ("overlap-ended", "The overlap is over: the old secret no longer works.", true),
    ("workspace-created", "The workspace is there. Now it can have keys.", false),
    ("renamed", "The workspace has its new name.", false),
    ("token-revoked", "The token is revoked.", false),
    ("edge-token-revoked", "The edge token is revoked. Edges that used it get nothing more.", false),
    ("edge-removed", "The instance no longer counts.", false),
    ("unchanged", "Nothing was changed: it was so already.", false),
];

impl Asked {
    /// The parameters, for REST's functions to read.
    pub(super) fn fields(&self) -> Fields {
        Fields::new(self.given.clone())
    }

    /// A parameter as it was given; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.given.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Converts the days and times, UTC, that browsers send for these fields to instants.
    pub(super) fn with_instants(mut self, names: [&str; 2]) -> Self {
        for (name, value) in &mut self.given {
            if let Value::String(text) = value
                && names.contains(&name.as_str())
                && text.contains('T')
                && instant::parse(text).is_none()
            {
                *text = instant_of(text);
            }
        }
        self
    }

    /// An instant in the form that a browser's field expects.
    pub(super) fn day_and_time(&self, name: &str) -> &str {
        let text = self.text(name);
        text.strip_suffix('Z').unwrap_or(text)
    }

    /// Removes a parameter and returns it.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        match self.given.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The URL of the same list with one parameter changed.
    pub(super) fn with(&self, path: &str, name: &str, value: &str) -> String {
        let kept = self.given.iter().filter(|(own, _)| *own != name && *own != "cursor");
        let kept = kept.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
        let all = kept.chain((!value.is_empty()).then_some((name, value)));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut given = Map::new();
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            if !value.is_empty() {
                given.insert(name.into_owned(), Value::from(value.into_owned()));
            }
        }
        let mut asked = Self { given, done: None };
        let (word, revision) = (asked.take("done"), asked.take("revision"));
        asked.done = WORDS.iter().find(|(own, ..)| Some(*own) == word.as_deref()).map(|(_, sentence, is_theirs)| {
            let revision = revision.and_then(|text| text.parse().ok()).map(Revision).filter(|_| *is_theirs);
            Done { sentence, revision }
        });
        Ok(asked)
    }
}
