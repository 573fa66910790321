//! How steps change the Envoys and what they send.

use axum::http::Method;

use super::{TURN_MS, World};
use crate::control_plane::{EDGE, send};
use crate::envoy::{Envoy, LinkState};
use crate::network::CallState;
use crate::steps::CallEvent;

impl World {
    pub(super) fn envoy(&mut self, number: u8) -> &mut Envoy {
        let count = self.envoys.len();
        &mut self.envoys[usize::from(number) % count]
    }

    pub(super) fn call_event(&mut self, envoy: u8, call: u8, event: CallEvent) {
        let (routers, now_ms) = (self.routers(), self.time.elapsed_ms());
        let envoy = self.envoy(envoy);
        let target = envoy.target;
        if envoy.calls.is_empty() {
            return;
        }
        let at = usize::from(call) % envoy.calls.len();
        match event {
            CallEvent::Arrive => envoy.calls[at].arrive(&routers, target, now_ms),
            CallEvent::DeliverAnswer => drop(envoy.deliver(at)),
            CallEvent::Lose => envoy.calls[at].lose(),
            CallEvent::Break => envoy.calls[at].break_connection(),
            CallEvent::Duplicate => {
                let request = envoy.calls[at].request.clone();
                self.copies.push(request);
            }
        }
    }

    pub(super) async fn copy_arrives(&mut self, number: u8) {
        if self.copies.is_empty() {
            return;
        }
        let request = self.copies.swap_remove(usize::from(number) % self.copies.len());
        let (control_plane, head) = (self.control_plane(), self.head());
        let answers = request.send(control_plane.router());
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        if request.max_wait_ms(head) > 0 {
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
        let fresh = Envoy::start(envoy.sharing(), bound_secs, &time, &mut next);
        let gone = std::mem::replace(envoy, fresh);
        self.ended_instances.extend(gone.instances);
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

    /// Retires an Envoy that continues. Only a healthy one, which gets the 410 immediately.
    pub(super) async fn renew(&mut self, number: u8) {
        let envoy = self.envoy(number);
        let is_suspended = !envoy.delivers_wakes || envoy.workers.iter().any(|worker| !worker.runs);
        // One whose request was lost wouldn't get it, either.
        let has_lost = envoy.calls.iter().any(|call| matches!(call.state, CallState::Lost));
        if envoy.link != LinkState::Prompt || is_suspended || has_lost {
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
