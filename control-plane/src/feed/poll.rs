//! GET /edge/v1/feed: answers when there is something new for the edge, or when it has waited long enough.

use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::response::Response;
use policy::Position;
use tokio::time::{Instant, timeout_at};

use super::Feed;
use super::deltas::Found;
use super::query::Asked;
use crate::problem::Problem;

pub(crate) async fn poll(State(feed): State<Feed>, request: Parts) -> Result<Response, Problem> {
    let access = feed.access(&request)?;
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&request.uri) else {
        return Err(Problem::bad_query("write it as `name=value&name=value`"));
    };
    let asked = Asked::read(&pairs)?;
    access.covers(&asked.edge)?;
    // Thousands wait below, and none of them needs its head any more.
    drop((request, pairs));
    tracing::debug!(edge.id = asked.edge, instance = asked.instance, from = ?asked.from.map(|from| from.revision), "feed");
    let answer = match asked.from {
        Some(from) => feed.changes(from, Instant::now() + asked.wait).await,
        None => feed.manifest().await,
    }?;
    feed.still(&access)?;
    Ok(answer)
}

impl Feed {
    /// What leads on from `from`, as soon as there is something; 204 at `deadline`.
    async fn changes(&self, from: Position, deadline: Instant) -> Result<Response, Problem> {
        let (mut head, mut ending) = (self.store.head(), self.ending.clone());
        loop {
            let seen = *head.borrow_and_update();
            if seen != from {
                match self.deltas.find(&self.store, from).await? {
                    Found::Delta(bytes) => return Ok(self.message(bytes, "no-store")),
                    Found::Unknown => return self.manifest().await,
                    // The disk is ahead of what was published a moment ago: it will be published now.
                    Found::Nothing => {}
                }
            }
            let woken = tokio::select! {
                woken = timeout_at(deadline, head.changed()) => woken,
                _ = ending.wait_for(|ending| *ending) => return Ok(self.nothing_new()),
            };
            match woken {
                Ok(Ok(())) => {}
                // The store is closed, so nothing can come any more.
                Ok(Err(_)) => return Ok(self.nothing_new()),
                // A 204 says that `from` is the head, so look once more.
                Err(_) if *head.borrow() == from => return Ok(self.nothing_new()),
                Err(_) => {}
            }
        }
    }

    /// The manifest of a snapshot, from which the edge goes on.
    async fn manifest(&self) -> Result<Response, Problem> {
        let snapshot = self.snapshots.current(&self.store).await?;
        Ok(self.message(snapshot.manifest.clone(), "no-store"))
    }
}
