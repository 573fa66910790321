//! How steps change the Envoys and what they send.

use axum::http::Method;

use super::{TURN_MS, World};
use crate::control_plane::{EDGE, send};
use crate::envoy::{Envoy, Line};
use crate::network::Place;
use crate::steps::Fate;

impl World {
    pub(super) fn envoy(&mut self, number: u8) -> &mut Envoy {
        let count = self.envoys.len();
        &mut self.envoys[usize::from(number) % count]
    }

    pub(super) fn fate(&mut self, envoy: u8, call: u8, fate: Fate) {
        let (routers, now_ms) = (self.routers(), self.time.elapsed_ms());
        let envoy = self.envoy(envoy);
        let asks = envoy.asks;
        if envoy.calls.is_empty() {
            return;
        }
        let at = usize::from(call) % envoy.calls.len();
        match fate {
            Fate::Arrives => envoy.calls[at].arrives(&routers, asks, now_ms),
            Fate::IsAnswered => drop(envoy.deliver(at)),
            Fate::IsLost => envoy.calls[at].lose(),
            Fate::Breaks => envoy.calls[at].breaks(),
            Fate::IsCopied => {
                let question = envoy.calls[at].question.clone();
                self.copies.push(question);
            }
        }
    }

    pub(super) async fn copy_arrives(&mut self, number: u8) {
        if self.copies.is_empty() {
            return;
        }
        let question = self.copies.swap_remove(usize::from(number) % self.copies.len());
        let (control_plane, head) = (self.control_plane(), self.head());
        let answers = question.ask(control_plane.router());
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        if question.may_wait_ms(head) > 0 {
            answers.abort();
        } else {
            answers.await.expect("no request makes the control plane panic");
        }
    }

    /// A process ends, and another of its kind starts in its place.
    pub(super) fn replace(&mut self, number: u8, bound_secs: u64) {
        let mut next = self.next_vm;
        let time = self.time.clone();
        let envoy = self.envoy(number);
        envoy.end();
        let fresh = Envoy::start(envoy.kind(), bound_secs, &time, &mut next);
        let gone = std::mem::replace(envoy, fresh);
        self.gone.extend(gone.instances);
        self.next_vm = next;
    }

    /// Retires an Envoy, under each id that it has or had.
    pub(super) async fn retire(&mut self, number: u8) {
        let router = self.control_plane().router();
        for id in self.envoy(number).instances.clone() {
            let (router, path) = (router.clone(), format!("/edge/v1/instances/{id}"));
            // Answered once the instance doesn't count any more, or after a while.
            tokio::spawn(async move { send(router, Method::DELETE, &path, EDGE, "").await });
        }
        self.settle().await;
    }

    /// Retires an Envoy that continues. Only a healthy one, which learns of it immediately.
    pub(super) async fn renew(&mut self, number: u8) {
        let envoy = self.envoy(number);
        let is_held_up = !envoy.delivers_wakes || envoy.workers.iter().any(|worker| !worker.runs);
        // One whose request was lost wouldn't learn of it, either.
        let has_lost = envoy.calls.iter().any(|call| matches!(call.place, Place::Lost));
        if envoy.line != Line::Prompt || is_held_up || has_lost {
            return;
        }
        for _ in 0..5 {
            self.turn(TURN_MS).await;
        }
        self.retire(number).await;
        for _ in 0..30 {
            self.turn(TURN_MS).await;
        }
    }
}
