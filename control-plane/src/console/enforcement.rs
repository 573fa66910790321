//! The part of a page that shows whether a change is enforced, which refreshes automatically.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::{Revision, UnixSeconds};
use tokio::time::Instant;

use super::display::{Moment, item_count};
use super::page::html;
use super::query::{CompletedAction, PageQuery};
use crate::api::Api;
use crate::api::authority::Anywhere;
use crate::edges::{EnforcementDeadline, State as EdgeState};
use crate::operations::permissions::may;
use crate::web::problem::Problem;

/// How long the page after a change waits for its enforcement: connected edges take some milliseconds.
const REDIRECT_WAIT: Duration = Duration::from_millis(400);

/// How long an automatic refresh waits for the enforcement.
const REFRESH_WAIT: Duration = Duration::from_secs(10);

/// The completed action, and whether edges enforce it.
#[derive(Clone)]
pub(super) struct Banner {
    pub(super) sentence: &'static str,
    pub(super) enforcement: Option<EnforcementStatus>,
}

/// Whether a revision is enforced.
#[derive(Clone, Template)]
#[template(path = "enforcement.html")]
pub(super) struct EnforcementStatus {
    pub(super) revision: Revision,
    pub(super) is_enforced: bool,
    /// No instance is known.
    pub(super) has_no_edges: bool,
    pub(super) sentence: String,
    pub(super) behind: Vec<LaggingInstance>,
    /// When it is enforced everywhere at the latest; `None` if it is already, or if an edge has no staleness bound.
    pub(super) deadline: Option<Moment>,
}

/// An instance that hasn't applied the revision on every worker.
#[derive(Clone)]
pub(super) struct LaggingInstance {
    pub(super) edge: String,
    pub(super) instance: String,
    pub(super) reason: String,
}

impl Banner {
    /// For a page that a change redirected to with `?done=`.
    pub(super) async fn of(api: &Api, completed: Option<CompletedAction>) -> Option<Self> {
        let CompletedAction { sentence, revision } = completed?;
        let enforcement = match revision {
            // Only for a revision that exists and that the store can look up.
            Some(revision) if api.store.newest(Some(revision)).await.is_ok_and(|newest| revision <= newest) => {
                Some(EnforcementStatus::wait(api, revision, REDIRECT_WAIT).await)
            }
            Some(_) | None => None,
        };
        Some(Self { sentence, enforcement })
    }
}

impl EnforcementStatus {
    /// The state now, without waiting.
    pub(super) async fn now(api: &Api, revision: Revision) -> Self {
        Self::wait(api, revision, Duration::ZERO).await
    }

    /// The state of a change that was just made.
    pub(super) async fn after_change(api: &Api, revision: Revision) -> Self {
        Self::wait(api, revision, REDIRECT_WAIT).await
    }

    /// Waits until the revision is enforced, at most for `timeout`, and returns the state.
    async fn wait(api: &Api, revision: Revision, timeout: Duration) -> Self {
        let enforcement =
            api.edges.wait_until_enforced(revision, Instant::now().checked_add(timeout)).await.enforcement;
        let (mut acknowledged, mut behind) = (0_usize, Vec::new());
        for view in api.edges.views(revision) {
            let workers = view.instance.workers.len();
            let current =
                view.applied.iter().filter(|applied| applied.is_some_and(|applied| applied >= revision)).count();
            acknowledged = acknowledged.saturating_add(if view.is_enforced { workers } else { current });
            if !view.is_enforced {
                let reason = match view.state {
                    EdgeState::Disconnected => {
                        format!("no contact since {}", super::display::date_time(view.instance.last_seen_at))
                    }
                    EdgeState::Current | EdgeState::Behind | EdgeState::Stale if workers == 0 => {
                        "its workers haven't reported yet".to_owned()
                    }
                    EdgeState::Current | EdgeState::Behind | EdgeState::Stale => {
                        format!("{current} of {} have it", item_count(workers, "worker"))
                    }
                };
                behind.push(LaggingInstance { edge: view.instance.edge, instance: view.instance.id, reason });
            }
        }
        let (edges, workers) = (item_count(enforcement.edges, "edge"), item_count(enforcement.workers, "worker"));
        let sentence = match (enforcement.is_enforced(), api.edges.enforcement_duration(revision)) {
            (true, Some(took)) => {
                format!("Enforced on {acknowledged} of {workers} of {edges}, after {}.", elapsed(took))
            }
            (true, None) => format!("Enforced on {acknowledged} of {workers} of {edges}."),
            (false, _) if enforcement.edges == 0 => "No edges yet: no edge enforces this change.".to_owned(),
            (false, _) => format!("Not enforced everywhere yet: {acknowledged} of {workers} of {edges} have it."),
        };
        let now: UnixSeconds = api.clock.now();
        let deadline = match enforcement.deadline {
            EnforcementDeadline::At(at) => Some(Moment::new(api.edges.wall_clock(at), now)),
            EnforcementDeadline::Already | EnforcementDeadline::Never => None,
        };
        let (is_enforced, has_no_edges) = (enforcement.is_enforced(), enforcement.edges == 0);
        Self { revision, is_enforced, has_no_edges, sentence, behind, deadline }
    }

    /// Whether a later refresh can show something else.
    pub(super) fn may_change(&self) -> bool {
        !self.is_enforced && !self.has_no_edges
    }
}

/// `9 ms`, `1.4 s`, `3 minutes`
fn elapsed(took: Duration) -> String {
    match took.as_millis() {
        millis @ ..1_000 => format!("{millis} ms"),
        millis @ 1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => super::display::duration(took.as_secs()),
    }
}

/// The same part, once the revision is enforced, or after [`REFRESH_WAIT`].
pub(super) async fn fragment(
    State(api): State<Api>,
    _: Anywhere<may::ReadEdges>,
    mut params: PageQuery,
) -> Result<Response, Problem> {
    let revision = params.take("of").and_then(|text| text.parse().ok()).map(Revision);
    let head = api.store.newest(revision).await?;
    let revision = revision.filter(|revision| *revision <= head).ok_or_else(|| Problem::unknown_revision(head))?;
    html(StatusCode::OK, &EnforcementStatus::wait(&api, revision, REFRESH_WAIT).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_is_shown_with_the_precision_that_matters() {
        for (millis, expected) in
            [(9, "9 ms"), (999, "999 ms"), (1_450, "1.4 s"), (60_000, "1 minute"), (61_000, "61 seconds")]
        {
            assert_eq!(elapsed(Duration::from_millis(millis)), expected);
        }
    }
}
