//! The control plane, the Envoys and the network of a run, and how each step changes them.

use std::path::PathBuf;

use axum::http::Method;
use policy::{Epoch, Position, Revision};

use crate::control_plane::{ControlPlane, EDGE, directory, never_issued, send};
use crate::envoy::{Envoy, Kind, Line};
use crate::network::{Place, Question};
use crate::steps::{Fate, Step};
use crate::time::Time;
use crate::truth::Truth;

const TURN_MS: u64 = 100;

/// What doesn't come to rest in so many rounds of calls never does.
const RESTLESS: usize = 1_000;

/// The staleness bound with which Envoys start.
const BOUND_SECS: u64 = 60;

pub struct World {
    pub time: Time,
    control_plane: Option<ControlPlane>,
    _directory: tempfile::TempDir,
    pub envoys: Vec<Envoy>,
    next_vm: u8,
    pub truth: Truth,
    /// All secrets that ever were, and one that never was.
    pub secrets: Vec<String>,
    backup: Option<(PathBuf, Position)>,
    backups: usize,
    /// Ids of processes that ended.
    gone: Vec<String>,
    copies: Vec<Question>,
    /// The newest revision that was called enforced, of this history.
    pub enforced: Option<(Epoch, Revision)>,
    /// Each change that was answered, of this history.
    pub answered: Vec<u64>,
    /// The newest revision whose truth is known.
    pub recorded: Revision,
    /// Which probe comes next.
    pub turn: usize,
    /// What was wrong with the decision of the step.
    pub decided: Option<String>,
}

impl World {
    pub async fn new(template: &[u8], kinds: &[Kind]) -> Self {
        let (time, directory) = (Time::default(), directory());
        std::fs::write(directory.path().join("latchkey.db"), template).expect("the database is written");
        let control_plane = ControlPlane::start(directory.path().to_owned(), time.clone()).await;
        let mut next_vm = 1;
        let envoys = kinds.iter().map(|kind| Envoy::start(*kind, BOUND_SECS, &time, &mut next_vm)).collect();
        let head = control_plane.head();
        let truth = Truth::new(head);
        Self {
            time,
            control_plane: Some(control_plane),
            _directory: directory,
            envoys,
            next_vm,
            truth,
            secrets: vec![never_issued()],
            backup: None,
            backups: 0,
            gone: Vec::new(),
            copies: Vec::new(),
            enforced: None,
            answered: Vec::new(),
            recorded: head.revision,
            turn: 0,
            decided: None,
        }
    }

    pub async fn end(mut self) {
        self.envoys.iter_mut().for_each(Envoy::end);
        if let Some(control_plane) = self.control_plane.take() {
            control_plane.stop().await;
        }
    }

    pub fn control_plane(&self) -> &ControlPlane {
        self.control_plane.as_ref().expect("there is one between restarts")
    }

    pub async fn take(&mut self, step: &Step) {
        match step.clone() {
            Step::Create { .. }
            | Step::Update { .. }
            | Step::Rotate { .. }
            | Step::EndOverlap { .. }
            | Step::Activate { .. }
            | Step::Deactivate { .. }
            | Step::Delete { .. } => self.change(step).await,
            Step::Turns(turns) => {
                for _ in 0..turns {
                    self.turn(TURN_MS).await;
                }
            }
            Step::Passes(secs) => self.time.advance(secs * 1_000).await,
            Step::Line { envoy, line } => self.envoy(envoy).line = line,
            Step::Wakes { envoy, arrive } => self.envoy(envoy).delivers_wakes = arrive,
            Step::Call { envoy, call, fate } => self.fate(envoy, call, fate),
            Step::Copy(number) => self.copy_arrives(number).await,
            Step::Hangs { envoy, vm } => self.envoy(envoy).worker(vm).runs = false,
            Step::GoesOn { envoy, vm } => self.envoy(envoy).worker(vm).runs = true,
            Step::Traps { envoy, vm } => {
                let mut next = self.next_vm;
                self.envoy(envoy).replace(vm, &mut next);
                self.next_vm = next;
            }
            Step::Killed { envoy, bound } => self.replace(envoy, bound),
            Step::Leaves { envoy } => {
                self.retire(envoy).await;
                self.replace(envoy, BOUND_SECS);
            }
            Step::Renews { envoy } => self.renew(envoy).await,
            Step::Reconfigured { envoy } => self.envoy(envoy).reconfigure(),
            Step::WrongClock { envoy, hours } => {
                self.envoy(envoy).shared.wrong_by_ms.set(i64::from(hours) * 3_600_000);
            }
            Step::Request { envoy, vm, secret, probe } => self.request(envoy, vm, secret, probe),
            Step::Removed { instance } => {
                if let Some(id) = chosen(&self.gone, instance).cloned() {
                    self.control_plane().call(Method::DELETE, &format!("/v1/edges/{id}"), "").await;
                }
            }
            Step::Restart => {
                let control_plane = self.cut_off();
                self.control_plane = Some(control_plane.restart().await);
            }
            Step::Tidy => self.control_plane().tidy().await,
            Step::BackUp => {
                self.backups += 1;
                self.backup = Some((self.control_plane().back_up(self.backups), self.control_plane().head()));
            }
            Step::Restore => self.restore().await,
        }
        self.settle().await;
    }

    /// Time passes, and everybody does what it brings.
    pub async fn turn(&mut self, ms: u64) {
        self.time.advance(ms).await;
        let now_ms = self.time.elapsed_ms();
        for at in 0..self.envoys.len() {
            let envoy = &mut self.envoys[at];
            envoy.calls.iter_mut().for_each(|call| call.expires(now_ms));
            envoy.tick();
            envoy.wake();
            if envoy.line != Line::Held {
                self.move_on(at).await;
            }
        }
    }

    /// Has all calls of an Envoy get on, until nothing moves.
    async fn move_on(&mut self, at: usize) {
        for _ in 0..RESTLESS {
            let (router, now_ms) = (self.control_plane().router(), self.time.elapsed_ms());
            let mut moved = false;
            for call in &mut self.envoys[at].calls {
                moved |= matches!(call.place, Place::Leaving);
                call.arrives(router.clone(), now_ms);
            }
            self.settle().await;
            let envoy = &mut self.envoys[at];
            let mut call = 0;
            while call < envoy.calls.len() {
                if envoy.deliver(call) {
                    moved = true;
                } else {
                    call += 1;
                }
            }
            envoy.wake();
            if !moved {
                return;
            }
        }
        panic!("an Envoy and the control plane never come to rest");
    }

    /// Lets the control plane come as far as it comes without another event.
    async fn settle(&mut self) {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let (head, now_ms) = (self.control_plane().head(), self.time.elapsed_ms());
        for call in self.envoys.iter_mut().flat_map(|envoy| &mut envoy.calls) {
            call.settle(head, now_ms).await;
        }
    }

    fn envoy(&mut self, number: u8) -> &mut Envoy {
        let count = self.envoys.len();
        &mut self.envoys[usize::from(number) % count]
    }

    fn fate(&mut self, envoy: u8, call: u8, fate: Fate) {
        let (router, now_ms) = (self.control_plane().router(), self.time.elapsed_ms());
        let envoy = self.envoy(envoy);
        if envoy.calls.is_empty() {
            return;
        }
        let at = usize::from(call) % envoy.calls.len();
        match fate {
            Fate::Arrives => envoy.calls[at].arrives(router, now_ms),
            Fate::IsAnswered => drop(envoy.deliver(at)),
            Fate::IsLost => envoy.calls[at].lose(),
            Fate::Breaks => envoy.calls[at].breaks(),
            Fate::IsCopied => {
                let question = envoy.calls[at].question.clone();
                self.copies.push(question);
            }
        }
    }

    async fn copy_arrives(&mut self, number: u8) {
        if self.copies.is_empty() {
            return;
        }
        let question = self.copies.swap_remove(usize::from(number) % self.copies.len());
        let (control_plane, head) = (self.control_plane(), self.control_plane().head());
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

    /// A process ends, and another of its kind begins in its place.
    fn replace(&mut self, number: u8, bound_secs: u64) {
        let mut next = self.next_vm;
        let time = self.time.clone();
        let envoy = self.envoy(number);
        envoy.end();
        let fresh = Envoy::start(envoy.kind(), bound_secs, &time, &mut next);
        let gone = std::mem::replace(envoy, fresh);
        self.gone.extend(gone.instances);
        self.next_vm = next;
    }

    /// Says for an Envoy that it leaves, under each id that it has or had.
    async fn retire(&mut self, number: u8) {
        let router = self.control_plane().router();
        for id in self.envoy(number).instances.clone() {
            let (router, path) = (router.clone(), format!("/edge/v1/instances/{id}"));
            // Answered when it was heard under another id, or after a while.
            tokio::spawn(async move { send(router, Method::DELETE, &path, EDGE, "").await });
        }
        self.settle().await;
    }

    /// An Envoy says that it leaves, and goes on: possible for one that is well, as it then hears of it at once.
    async fn renew(&mut self, number: u8) {
        let envoy = self.envoy(number);
        let is_held_up = !envoy.delivers_wakes || envoy.workers.iter().any(|worker| !worker.runs);
        // Nor would one hear whose question was lost on the way.
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

    /// All connections to the control plane break, for it ends.
    fn cut_off(&mut self) -> ControlPlane {
        for call in self.envoys.iter_mut().flat_map(|envoy| &mut envoy.calls) {
            if matches!(call.place, Place::AtControlPlane { .. }) {
                call.breaks();
            }
        }
        self.control_plane.take().expect("there is one between restarts")
    }

    async fn restore(&mut self) {
        let Some((path, position)) = self.backup.clone() else { return };
        let control_plane = self.cut_off();
        // What is replaced is kept under the second's name.
        self.time.advance(1_000).await;
        let control_plane = control_plane.restore(&path).await;
        self.truth.keys = self.truth.at(position).expect("the backup has a known position").clone();
        let head = control_plane.head();
        self.truth.record(head.epoch, head.revision);
        self.control_plane = Some(control_plane);
        (self.enforced, self.answered, self.recorded) = (None, Vec::new(), head.revision);
    }
}

/// The one of all that a number chooses.
pub fn chosen<T>(all: &[T], number: u8) -> Option<&T> {
    all.get(usize::from(number).checked_rem(all.len())?)
}
