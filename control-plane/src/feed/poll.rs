//! GET /edge/v1/feed: answers when there is something new for the edge, or when it has waited long enough.

use crate::base::staleness_bound::StalenessBound;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::response::Response;
use jiff::Timestamp;
use policy::protocol::feed::FeedRequest;
use policy::{Position, Revision, UnixSeconds};
use tokio::time::{Instant, timeout_at};

use super::delta_cache::DeltaLookup;
use super::{Feed, query};
use crate::edges::Contact;
use crate::web::auth_failures::address;
use crate::web::problem::Problem;

pub(crate) async fn poll(State(feed): State<Feed>, request: Request) -> Result<Response, Problem> {
    // Taken apart here: as an argument, `Parts` would be a copy.
    let (request, _) = request.into_parts();
    let at = feed.clock.monotonic();
    let presented = feed.presented_token(&request)?;
    let query = query::read(request.uri.query().unwrap_or_default());
    let named = query.as_ref().ok().map(|query| (&*query.edge, &*query.instance));
    let access = feed.admit(presented, named).await?;
    let query = query?;
    access.covers(&query.edge)?;
    let (edge, instance, address) = (&query.edge, &query.instance, address(&request.extensions));
    let contact =
        Contact { edge, instance, token: &access.id, address, bound: StalenessBound::of(query.max_staleness_secs), at };
    feed.edges.record_request(&contact).await.map_err(|refused| feed.instance_problem(instance, refused))?;
    if let (Some(applied), Some(from)) = (query.applied, query.position) {
        feed.edges.applied(instance, from.epoch, applied).await?;
    }
    // Thousands of requests wait below, and none of them needs its headers any more.
    drop(request);
    tracing::debug!(edge.id = %query.edge, instance = %query.instance, from = ?query.position.map(|from| from.revision), "feed");
    let answer = async {
        match query.position {
            Some(from) => feed.changes(&query, from, Instant::now() + query::wait(&query)).await,
            None => feed.manifest().await,
        }
    };
    let answer = tokio::select! {
        answer = answer => Some(answer?),
        () = feed.edges.wait_until_ended(&query.instance) => None,
    };
    if let Err(revoked) = feed.check_not_revoked(&access) {
        return Err(feed.refuse_revoked(revoked, &query.edge, &query.instance).await);
    }
    feed.edges.check_not_ended(&query.instance).map_err(|refused| feed.instance_problem(&query.instance, refused))?;
    answer.ok_or_else(Problem::retired_instance)
}

impl Feed {
    /// The changes after `from`, as soon as there are any; 204 at `deadline`.
    async fn changes(&self, query: &FeedRequest<'_>, from: Position, deadline: Instant) -> Result<Response, Problem> {
        let (mut head, mut ending) = (self.store.head(), self.ending.clone());
        let known = *head.borrow();
        if from.epoch == known.epoch && from.revision > known.revision {
            // Another replica may have sent the edge a revision that isn't known here yet. The database has gone back
            // only if it lacks that revision too.
            self.store.refresh().await?;
        }
        loop {
            let seen = *head.borrow_and_update();
            if seen != from {
                match self.deltas.find(&self.store, from).await? {
                    DeltaLookup::Delta(bytes) => {
                        let FeedRequest { edge, instance, .. } = query;
                        tracing::debug!(edge.id = %edge, %instance, revision = seen.revision.0, "a delta is answered");
                        return Ok(self.message(bytes, "no-store"));
                    }
                    DeltaLookup::Unknown => return self.manifest().await,
                    DeltaLookup::WentBack { head, changed_at } => {
                        self.report_gone_back(query, from.revision, head, changed_at);
                        // The store has logged the cause of a failure.
                        let _ = self.store.record_reported_revision(from.revision).await;
                        return self.manifest().await;
                    }
                    // The disk was ahead of the published head, which follows now.
                    DeltaLookup::Nothing => {}
                }
            }
            // A replica without its database sends its edges to another one.
            self.store.check_freshness()?;
            let until = self.store.fresh_for().map_or(deadline, |left| deadline.min(Instant::now() + left));
            let woken = tokio::select! {
                woken = timeout_at(until, head.changed()) => woken,
                _ = ending.wait_for(|ending| *ending) => return self.nothing_new(),
            };
            match woken {
                Ok(Ok(())) => {}
                // The store is closed, so there are no more changes.
                Ok(Err(_)) => return self.nothing_new(),
                // A 204 states that `from` is the head, so check it again.
                Err(_) if *head.borrow() == from && deadline <= Instant::now() => return self.nothing_new(),
                Err(_) => {}
            }
        }
    }

    /// Logs once that the operator must act: thousands of edges may show the same.
    fn report_gone_back(
        &self,
        query: &FeedRequest<'_>,
        theirs: Revision,
        ours: Revision,
        changed_at: Option<UnixSeconds>,
    ) {
        if self.went_back.swap(true, Ordering::Relaxed) {
            return;
        }
        let last_change = changed_at.and_then(|at| Timestamp::from_second(at.0).ok());
        let last_change = last_change.map_or_else(|| "an unknown time".to_owned(), |at| at.to_string());
        tracing::error!(
            edge.id = %query.edge,
            instance = %query.instance,
            edge_revision = theirs.0,
            revision = ours.0,
            "the database went back: this edge has a revision that the file lacks, or a different one. The file is an \
             older copy of the one that served before. Changes made after {last_change} are lost: secrets revoked \
             since are valid again, keys made since are unknown. All edges now load what the file contains. Stop the \
             control plane and put the newest copy in place with `latchkey restore`, with --replay-audit if an audit \
             log was exported since, or make the lost changes again, revocations first"
        );
    }

    /// The manifest of a snapshot, from which the edge continues.
    async fn manifest(&self) -> Result<Response, Problem> {
        // The edge may have received a newer revision from another replica.
        self.store.refresh().await?;
        let snapshot = self.snapshots.current(&self.store).await?;
        Ok(self.message(snapshot.manifest.clone(), "no-store"))
    }
}
