//! After a rotation: the list of remaining steps, with the reported use of both secrets.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::UnixSeconds;

use super::view::href;
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::path::KeyInPath;
use crate::console::display::Moment;
use crate::console::page::html;
use crate::console::session::ConsoleSession;
use crate::operations::permissions::{Permission, may};
use crate::store::{Key, Workspace};
use crate::web::problem::Problem;

/// How long a rotation without an overlap is shown.
const RECENT_SECS: i64 = 86_400;

/// The progress of a rotation.
#[derive(Clone, Template)]
#[template(path = "rotation.html")]
pub(super) struct Rotation {
    pub(super) href: String,
    pub(super) csrf: String,
    pub(super) may_end_overlap: bool,
    pub(super) rotated: Moment,
    /// When the new secret was last used.
    pub(super) new_used: Option<Moment>,
    pub(super) overlap: Option<Overlap>,
}

/// An overlap, in which the old secret still works.
#[derive(Clone)]
pub(super) struct Overlap {
    pub(super) until: Moment,
    pub(super) used: Option<Moment>,
    /// It was used after the rotation.
    pub(super) is_in_use: bool,
}

impl Rotation {
    /// `None` if there is none to show.
    pub(super) fn of(key: &Key, workspace: &Workspace, session: &ConsoleSession, now: UnixSeconds) -> Option<Self> {
        let rotated_at = key.rotated_at?;
        let until = key.previous_secret_expires_at(now);
        if until.is_none() && rotated_at.saturating_add_secs(RECENT_SECS).is_reached(now) {
            return None;
        }
        let used = key.previous_secret_last_used_at(now);
        Some(Self {
            href: href(workspace, key),
            csrf: session.csrf.text().to_owned(),
            may_end_overlap: session.principal.may(Permission::RevokeKeys),
            rotated: Moment::new(rotated_at, now),
            new_used: Moment::optional(key.used.secret_at, now),
            overlap: until.map(|until| Overlap {
                until: Moment::new(until, now),
                used: Moment::optional(used, now),
                is_in_use: used.is_some_and(|used| used > rotated_at),
            }),
        })
    }
}

/// The same part, as it is now.
pub(in crate::console) async fn fragment(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ReadKeys>,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.operations().key(&at, id).await?;
    match Rotation::of(&key, &at.workspace, &session, api.clock.now()) {
        Some(rotation) => html(StatusCode::OK, &rotation),
        None => Err(Problem::unknown_path()),
    }
}
