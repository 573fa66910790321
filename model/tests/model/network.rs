//! Calls between an Envoy and the control plane, which may be delayed, lost or duplicated.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::Method;
use edge::host::{Call, CallAnswer};
use policy::{Position, Revision};
use tokio::task::JoinHandle;

use crate::control_plane::{Answer, pause, send};

/// How long a control plane may take, in real time, to query a database server or to end a wait.
const SERVED: Duration = Duration::from_millis(100);

/// A VM's request.
#[derive(Clone, Debug)]
pub struct Question {
    path: String,
    body: Option<String>,
    token: String,
    timeout: Duration,
    /// Of a feed request: the edge's position, and how many seconds the answer may be held if nothing is newer.
    waits: Option<(Position, u64)>,
}

/// A request in flight, and its state.
pub struct Sent {
    /// The number of the VM in the run, and of the call in the VM.
    pub vm: u32,
    pub number: u32,
    pub question: Question,
    sent_ms: u64,
    /// The number of the control plane that it reached.
    pub replica: usize,
    pub place: Place,
}

/// Where a call is.
pub enum Place {
    Leaving,
    AtControlPlane {
        since_ms: u64,
        answers: JoinHandle<CallAnswer>,
    },
    Coming(CallAnswer),
    /// Envoy reports the loss at the timeout.
    Lost,
}

impl Question {
    pub fn of(call: &Call<'_>) -> Self {
        Self {
            path: call.path.to_owned(),
            body: call.body.map(str::to_owned),
            token: call.token.unwrap_or_default().to_owned(),
            timeout: call.timeout,
            waits: waits(call.path),
        }
    }

    /// Whether it contains this text.
    pub fn holds(&self, text: &str) -> bool {
        self.path.contains(text) || self.body.as_ref().is_some_and(|body| body.contains(text))
    }

    /// Sends it to the control plane.
    pub fn ask(&self, router: Router) -> JoinHandle<CallAnswer> {
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
    pub fn may_wait_ms(&self, head: Position) -> u64 {
        self.waits.filter(|(had, _)| *had == head).map_or(0, |(_, secs)| secs * 1_000)
    }
}

fn waits(path: &str) -> Option<(Position, u64)> {
    let query = path.strip_prefix("/edge/v1/feed?")?;
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let (epoch, revision, head) = (value("epoch")?, value("since")?, value("head")?);
    let had =
        Position { epoch: epoch.parse().ok()?, revision: Revision(revision.parse().ok()?), head: head.parse().ok()? };
    Some((had, value("wait")?.parse().ok()?))
}

impl Sent {
    pub fn new(vm: u32, number: u32, question: Question, now_ms: u64) -> Self {
        Self { vm, number, question, sent_ms: now_ms, replica: 0, place: Place::Leaving }
    }

    /// Reaches the control plane with the number `asks`, or each in turn.
    pub fn arrives(&mut self, routers: &[Router], asks: Option<u8>, now_ms: u64) {
        if matches!(self.place, Place::Leaving) {
            let chosen = asks.map_or(self.number as usize, usize::from);
            self.replica = chosen % routers.len();
            let answers = self.question.ask(routers[self.replica].clone());
            self.place = Place::AtControlPlane { since_ms: now_ms, answers };
        }
    }

    /// Takes the answer if the control plane has it, or is about to. One that queries a database server, or that has
    /// waited, gets only [`SERVED`] of real time for now: its wait may have begun later than the request arrived, after
    /// its database had answered.
    pub async fn settle(&mut self, head: Position, now_ms: u64, asks_a_server: bool) {
        let Place::AtControlPlane { since_ms, answers } = &mut self.place else { return };
        let wait_ms = self.question.may_wait_ms(head);
        let (waits, may_be_late) = (now_ms < *since_ms + wait_ms, asks_a_server || wait_ms > 0);
        let began = Instant::now();
        while may_be_late && !waits && !answers.is_finished() && began.elapsed() < SERVED {
            tokio::task::yield_now().await;
            pause();
        }
        if answers.is_finished() || !(waits || may_be_late) {
            self.place = Place::Coming(answers.await.expect("no request makes the control plane panic"));
        }
    }

    /// Neither side gets anything more of it.
    pub fn lose(&mut self) {
        if let Place::AtControlPlane { answers, .. } = &self.place {
            answers.abort();
        }
        self.place = Place::Lost;
    }

    /// The connection breaks, and the VM learns of it.
    pub fn breaks(&mut self) {
        self.lose();
        self.place = Place::Coming(CallAnswer::default());
    }

    /// Envoy gives up at the timeout.
    pub fn expires(&mut self, now_ms: u64) {
        let timeout_ms = u64::try_from(self.question.timeout.as_millis()).expect("a time");
        if now_ms >= self.sent_ms + timeout_ms && !matches!(self.place, Place::Coming(_)) {
            self.breaks();
        }
    }
}
