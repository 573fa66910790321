//! Calls between an Envoy and the control plane, which may be delayed, lost or duplicated.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::Method;
use edge::host::{Call, CallAnswer};
use policy::{Position, Revision};
use tokio::task::JoinHandle;

use crate::control_plane::{Answer, pause, send};

/// How long a control plane may take, in real time, to query a database server or to end a wait.
const SERVE_TIME: Duration = Duration::from_millis(100);

/// A VM's request.
#[derive(Clone, Debug)]
pub(crate) struct CallRequest {
    path: String,
    body: Option<String>,
    token: String,
    timeout: Duration,
    /// Of a feed request: the edge's position, and how many seconds the answer may be held if nothing is newer.
    long_poll: Option<(Position, u64)>,
}

/// A request in flight, and its state.
pub(crate) struct InFlightCall {
    /// The number of the VM in the run, and of the call in the VM.
    pub vm: u32,
    pub number: u32,
    pub request: CallRequest,
    sent_ms: u64,
    /// The number of the control plane that it reached.
    pub replica: usize,
    pub state: CallState,
}

/// The state of a call.
pub(crate) enum CallState {
    Sending,
    AtControlPlane {
        since_ms: u64,
        answers: JoinHandle<CallAnswer>,
    },
    Answered(CallAnswer),
    /// Envoy reports the loss at the timeout.
    Lost,
}

impl CallRequest {
    pub(crate) fn of(call: &Call<'_>) -> Self {
        Self {
            path: call.path.to_owned(),
            body: call.body.map(str::to_owned),
            token: call.token.unwrap_or_default().to_owned(),
            timeout: call.timeout,
            long_poll: long_poll(call.path),
        }
    }

    /// Whether it contains this text.
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.path.contains(text) || self.body.as_ref().is_some_and(|body| body.contains(text))
    }

    /// Sends it to the control plane.
    pub(crate) fn send(&self, router: Router) -> JoinHandle<CallAnswer> {
        let Self { path, body, token, .. } = self.clone();
        let method = if body.is_some() { Method::POST } else { Method::GET };
        tokio::spawn(async move {
            let Answer { status, headers, bytes } =
                send(router, method, &path, &token, body.as_deref().unwrap_or_default()).await;
            let headers = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            let status = (":status".to_owned(), status.to_string().into_bytes());
            CallAnswer { headers: [status].into_iter().chain(headers).collect(), body: bytes }
        })
    }

    /// How long the control plane may hold the answer, in milliseconds, because nothing is newer than `head`; 0: not at
    /// all.
    pub(crate) fn max_wait_ms(&self, head: Position) -> u64 {
        self.long_poll.filter(|(had, _)| *had == head).map_or(0, |(_, secs)| secs * 1_000)
    }
}

fn long_poll(path: &str) -> Option<(Position, u64)> {
    let query = path.strip_prefix("/edge/v1/feed?")?;
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let (epoch, revision, head) = (value("epoch")?, value("since")?, value("head")?);
    let had =
        Position { epoch: epoch.parse().ok()?, revision: Revision(revision.parse().ok()?), head: head.parse().ok()? };
    Some((had, value("wait")?.parse().ok()?))
}

impl InFlightCall {
    pub(crate) fn new(vm: u32, number: u32, request: CallRequest, now_ms: u64) -> Self {
        Self { vm, number, request, sent_ms: now_ms, replica: 0, state: CallState::Sending }
    }

    /// Reaches the control plane with the number `target`, or each in turn.
    pub(crate) fn arrive(&mut self, routers: &[Router], target: Option<u8>, now_ms: u64) {
        if matches!(self.state, CallState::Sending) {
            let number = target.map_or(self.number as usize, usize::from);
            self.replica = number % routers.len();
            let answers = self.request.send(routers[self.replica].clone());
            self.state = CallState::AtControlPlane { since_ms: now_ms, answers };
        }
    }

    /// Takes the answer if the control plane has it, or is about to have it. A request that queries a database server,
    /// or that has waited, gets only [`SERVE_TIME`] of real time for now: its wait may have begun after the request
    /// arrived, once its database had answered.
    pub(crate) async fn settle(&mut self, head: Position, now_ms: u64, uses_server: bool) {
        let CallState::AtControlPlane { since_ms, answers } = &mut self.state else { return };
        let wait_ms = self.request.max_wait_ms(head);
        let (is_waiting, may_be_late) = (now_ms < *since_ms + wait_ms, uses_server || wait_ms > 0);
        let began = Instant::now();
        while may_be_late && !is_waiting && !answers.is_finished() && began.elapsed() < SERVE_TIME {
            tokio::task::yield_now().await;
            pause();
        }
        if answers.is_finished() || !(is_waiting || may_be_late) {
            self.state = CallState::Answered(answers.await.expect("no request makes the control plane panic"));
        }
    }

    /// Neither side receives anything more of it.
    pub(crate) fn lose(&mut self) {
        if let CallState::AtControlPlane { answers, .. } = &self.state {
            answers.abort();
        }
        self.state = CallState::Lost;
    }

    /// The connection breaks, and Envoy reports that to the VM.
    pub(crate) fn break_connection(&mut self) {
        self.lose();
        self.state = CallState::Answered(CallAnswer::default());
    }

    /// Envoy gives up at the timeout.
    pub(crate) fn check_timeout(&mut self, now_ms: u64) {
        let timeout_ms = u64::try_from(self.request.timeout.as_millis()).expect("a time");
        if now_ms >= self.sent_ms + timeout_ms && !matches!(self.state, CallState::Answered(_)) {
            self.break_connection();
        }
    }
}
