//! GET /edge/v1/snapshots/{epoch}/{revision}/{page}: a page of a snapshot, which never changes.

use axum::extract::{RawPathParams, State};
use axum::http::request::Parts;
use axum::response::Response;
use policy::{Epoch, Revision};

use super::Feed;
use super::access::PresentedToken;
use crate::web::problem::Problem;

/// A page never changes, and only the edge itself may cache it.
const CACHE: &str = "private, max-age=86400, immutable";

pub(crate) async fn page(State(feed): State<Feed>, path: RawPathParams, request: Parts) -> Result<Response, Problem> {
    if let PresentedToken::Revoked(_) = feed.presented_token(&request)? {
        // The edge then requests the feed again, and is notified there that its instance has ended.
        return Err(Problem::snapshot_gone());
    }
    let parameter = |name| path.iter().find(|(own, _)| *own == name).map(|(_, value)| value).unwrap_or_default();
    let epoch = parameter("epoch").parse::<Epoch>().ok();
    let revision = parameter("revision").parse().ok().map(Revision);
    let number = parameter("page").parse::<usize>().ok();
    let (Some(epoch), Some(revision), Some(number)) = (epoch, revision, number) else {
        return Err(Problem::unknown_path());
    };
    let bytes = feed.snapshots.page(epoch, revision, number).ok_or_else(Problem::snapshot_gone)?;
    Ok(feed.message(bytes, CACHE))
}
