//! GET /edge/v1/feed: answers when there is something new for the edge, or when it has waited long enough.

use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::response::Response;
use jiff::Timestamp;
use policy::protocol::feed::FeedRequest;
use policy::{Position, Revision, UnixSeconds};
use tokio::time::{Instant, timeout_at};

use super::Feed;
use super::access::Shown;
use super::deltas::Found;
use super::query;
use crate::edges::{Bound, Contact};
use crate::guesses::address;
use crate::problem::Problem;

pub(crate) async fn poll(State(feed): State<Feed>, request: Request) -> Result<Response, Problem> {
    // Taken apart here: as an argument, `Parts` would be a copy.
    let (request, _) = request.into_parts();
    let at = feed.clock.monotonic();
    let shown = feed.shown(&request)?;
    let asked = query::read(request.uri.query().unwrap_or_default());
    let access = match (shown, &asked) {
        (Shown::Live(access), _) => access,
        (Shown::Revoked(revoked), Ok(asked)) => return Err(feed.disowned(revoked, &asked.edge, &asked.instance).await),
        (Shown::Revoked(_), Err(_)) => return Err(feed.wrong(address(&request.extensions))),
    };
    let asked = asked?;
    access.covers(&asked.edge)?;
    let (edge, instance, address) = (&asked.edge, &asked.instance, address(&request.extensions));
    let contact =
        Contact { edge, instance, token: &access.id, address, bound: Bound::of(asked.max_staleness_secs), at };
    feed.edges.heard(&contact).await.map_err(|refused| feed.refused(instance, refused))?;
    if let (Some(applied), Some(from)) = (asked.applied, asked.position) {
        feed.edges.applied(instance, from.epoch, applied).await?;
    }
    // Thousands wait below, and none of them needs its head any more.
    drop(request);
    tracing::debug!(edge.id = %asked.edge, instance = %asked.instance, from = ?asked.position.map(|from| from.revision), "feed");
    let answer = async {
        match asked.position {
            Some(from) => feed.changes(&asked, from, Instant::now() + query::wait(&asked)).await,
            None => feed.manifest().await,
        }
    };
    let answer = tokio::select! {
        answer = answer => Some(answer?),
        () = feed.edges.gone(&asked.instance) => None,
    };
    if let Err(revoked) = feed.still(&access) {
        return Err(feed.disowned(revoked, &asked.edge, &asked.instance).await);
    }
    feed.edges.still(&asked.instance).map_err(|refused| feed.refused(&asked.instance, refused))?;
    answer.ok_or_else(Problem::retired_instance)
}

impl Feed {
    /// What leads on from `from`, as soon as there is something; 204 at `deadline`.
    async fn changes(&self, asked: &FeedRequest<'_>, from: Position, deadline: Instant) -> Result<Response, Problem> {
        let (mut head, mut ending) = (self.store.head(), self.ending.clone());
        let known = *head.borrow();
        if from.epoch == known.epoch && from.revision > known.revision {
            // Another replica has told it what isn't known here yet: only what the database lacks has gone back.
            self.store.look().await?;
        }
        loop {
            let seen = *head.borrow_and_update();
            if seen != from {
                match self.deltas.find(&self.store, from).await? {
                    Found::Delta(bytes) => {
                        let FeedRequest { edge, instance, .. } = asked;
                        tracing::debug!(edge.id = %edge, %instance, revision = seen.revision.0, "a delta is answered");
                        return Ok(self.message(bytes, "no-store"));
                    }
                    Found::Unknown => return self.manifest().await,
                    Found::WentBack { head, changed_at } => {
                        self.report_gone_back(asked, from.revision, head, changed_at);
                        // The store has logged the cause, if it can't.
                        let _ = self.store.note_reported(from.revision).await;
                        return self.manifest().await;
                    }
                    // The disk is ahead of what was published a moment ago: it will be published now.
                    Found::Nothing => {}
                }
            }
            // Whoever is cut from the database sends its edges to another replica.
            self.store.fresh()?;
            let until = self.store.fresh_for().map_or(deadline, |left| deadline.min(Instant::now() + left));
            let woken = tokio::select! {
                woken = timeout_at(until, head.changed()) => woken,
                _ = ending.wait_for(|ending| *ending) => return self.nothing_new(),
            };
            match woken {
                Ok(Ok(())) => {}
                // The store is closed, so nothing can come any more.
                Ok(Err(_)) => return self.nothing_new(),
                // A 204 says that `from` is the head, so look once more.
                Err(_) if *head.borrow() == from && deadline <= Instant::now() => return self.nothing_new(),
                Err(_) => {}
            }
        }
    }

    /// Somebody must act, and once is enough to say it: edges that ask the same come by the thousand.
    fn report_gone_back(
        &self,
        asked: &FeedRequest<'_>,
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
            edge.id = %asked.edge,
            instance = %asked.instance,
            edge_revision = theirs.0,
            revision = ours.0,
            "the database went back: this edge holds a revision that the file doesn't, or holds another one. The file is an \
             older copy of the one that served before. Changes made after {last_change} are lost: secrets revoked since \
             are valid again, keys made since are unknown. All edges now load what the file says. Stop the control plane \
             and put the newest copy in place with `latchkey restore`, with --replay-audit if an audit log was exported \
             since, or make the lost changes again, revocations first"
        );
    }

    /// The manifest of a snapshot, from which the edge goes on.
    async fn manifest(&self) -> Result<Response, Problem> {
        // Whoever asks may have had something newer of another replica.
        self.store.look().await?;
        let snapshot = self.snapshots.current(&self.store).await?;
        Ok(self.message(snapshot.manifest.clone(), "no-store"))
    }
}
