//! The query of a page's URL: the parameters of a list, and the action that was just completed.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use policy::Revision;
use serde_json::{Map, Value};

use super::form::instant_of;
use crate::base::instant;
use crate::operations::fields::Fields;
use crate::web::problem::Problem;

/// The parameters of a URL. Empty ones count as absent, because forms send them for empty fields.
pub(super) struct PageQuery {
    params: Map<String, Value>,
    /// The action that redirected here.
    pub(super) completed: Option<CompletedAction>,
}

/// The action that redirected to a page. Its sentence is fixed, so a crafted URL can't put text into a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CompletedAction {
    pub(super) sentence: &'static str,
    /// The change whose enforcement can be shown; `None` for a change that edges don't receive.
    pub(super) revision: Option<Revision>,
}

/// Actions: the value of `done`, the sentence, and whether edges have to enforce the change.
const COMPLETED_ACTIONS: [(&str, &str, bool); 11] = [
    ("saved", "The changes are saved.", true),
    ("deactivated", "The key is deactivated.", true),
    ("activated", "The key is active again.", true),
    ("deleted", "The key is deleted.", true),
    ("overlap-ended", "The overlap has ended: the old secret no longer works.", true),
    ("workspace-created", "The workspace is created. You can now create keys in it.", false),
    ("renamed", "The workspace is renamed.", false),
    ("token-revoked", "The token is revoked.", false),
    ("edge-token-revoked", "The edge token is revoked. Edges that use it no longer receive changes.", false),
    ("edge-removed", "The instance is removed. Changes count as enforced without it.", false),
    ("unchanged", "Nothing was changed: the key already had these values.", false),
];

impl PageQuery {
    /// The parameters, for REST's functions to read.
    pub(super) fn fields(&self) -> Fields {
        Fields::new(self.params.clone())
    }

    /// The text of a parameter; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.params.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Converts what browsers send for these `datetime-local` fields, in UTC, to instants.
    pub(super) fn with_instants(mut self, names: [&str; 2]) -> Self {
        for (name, value) in &mut self.params {
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

    /// An instant as a `datetime-local` field expects it.
    pub(super) fn datetime_local(&self, name: &str) -> &str {
        let text = self.text(name);
        text.strip_suffix('Z').unwrap_or(text)
    }

    /// Removes a parameter and returns it.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        match self.params.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The URL of the same list with one parameter changed.
    pub(super) fn url_with(&self, path: &str, name: &str, value: &str) -> String {
        let kept = self.params.iter().filter(|(own, _)| *own != name && *own != "cursor");
        let kept = kept.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
        let all = kept.chain((!value.is_empty()).then_some((name, value)));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }
}

impl<S: Sync> FromRequestParts<S> for PageQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut params = Map::new();
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            if !value.is_empty() {
                params.insert(name.into_owned(), Value::from(value.into_owned()));
            }
        }
        let mut query = Self { params, completed: None };
        let (word, revision) = (query.take("done"), query.take("revision"));
        let action = COMPLETED_ACTIONS.iter().find(|(own, ..)| Some(*own) == word.as_deref());
        query.completed = action.map(|(_, sentence, is_enforced_by_edges)| {
            let revision = revision.and_then(|text| text.parse().ok()).map(Revision).filter(|_| *is_enforced_by_edges);
            CompletedAction { sentence, revision }
        });
        Ok(query)
    }
}
