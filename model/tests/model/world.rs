//! The control plane, the Envoys and the network of a run, and how each step changes them.

mod envoys;

use std::path::PathBuf;

use axum::Router;
use axum::http::Method;
use policy::{Epoch, Position, Revision};

use crate::control_plane::{ControlPlane, directory, never_issued};
use crate::envoy::{Envoy, Kind, Line};
use crate::network::{Place, Question};
use crate::schema::Schema;
use crate::server::Server;
use crate::steps::Step;
use crate::time::Time;
use crate::truth::Truth;

const TURN_MS: u64 = 100;

/// Calls that still move after so many rounds never stop.
const RESTLESS: usize = 1_000;

/// The staleness bound with which Envoys start.
const BOUND_SECS: u64 = 60;

/// After this time, Envoys that have ended are forgotten: a day, and any bound.
const FORGOTTEN_MS: u64 = 100_000_000;

/// What a run begins with.
pub enum Begin {
    /// One control plane, with a file of these bytes.
    File(Vec<u8>),
    /// Two over a new schema in this PostgreSQL.
    Server(Server),
}

impl Begin {
    /// Describes a run with these Envoys.
    pub fn named(&self, kinds: &[Kind]) -> String {
        let control_planes = match self {
            Self::File(_) => "one control plane",
            Self::Server(_) => "two control planes over one PostgreSQL",
        };
        format!("{control_planes} and Envoys of {kinds:?}")
    }
}

pub struct World {
    pub time: Time,
    /// `None` while it restarts.
    control_planes: Vec<Option<ControlPlane>>,
    /// The number of the one that admins use.
    by_admins: usize,
    schema: Option<Schema>,
    _directory: tempfile::TempDir,
    pub envoys: Vec<Envoy>,
    next_vm: u32,
    pub truth: Truth,
    /// All secrets that were ever issued, and one that never was.
    pub secrets: Vec<String>,
    backup: Option<(PathBuf, Position)>,
    backups: usize,
    /// Ids of processes that ended.
    gone: Vec<String>,
    copies: Vec<Question>,
    /// The newest revision of this epoch that was reported as enforced.
    pub enforced: Option<(Epoch, Revision)>,
    /// The revision of each answered change of this epoch.
    pub answered: Vec<u64>,
    /// The newest revision whose truth is known.
    pub recorded: Revision,
    /// Which probe comes next.
    pub turn: usize,
    /// What was wrong with the decision of the step.
    pub decided: Option<String>,
}

impl World {
    pub async fn new(begin: &Begin, kinds: &[Kind]) -> Self {
        let (time, directory) = (Time::default(), directory());
        let (schema, control_planes) = match begin {
            Begin::File(template) => {
                let path = directory.path().join("latchkey.db");
                std::fs::write(&path, template).expect("the database is written");
                (None, vec![ControlPlane::start(path.into(), time.clone()).await])
            }
            Begin::Server(server) => {
                let schema = Schema::make(server, directory.path());
                let first = ControlPlane::start(schema.database(0), time.clone()).await;
                first.make_workspace().await;
                let second = ControlPlane::start(schema.database(1), time.clone()).await;
                (Some(schema), vec![first, second])
            }
        };
        let head = control_planes[0].head();
        let mut next_vm = 1;
        let envoys = kinds.iter().map(|kind| Envoy::start(*kind, BOUND_SECS, &time, &mut next_vm)).collect();
        let truth = Truth::new(head);
        Self {
            time,
            control_planes: control_planes.into_iter().map(Some).collect(),
            by_admins: 0,
            schema,
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

    /// Begins another run with the same control planes and their history, but without keys and with other Envoys.
    pub async fn begin_anew(&mut self, kinds: &[Kind]) {
        self.envoys.iter_mut().for_each(Envoy::end);
        while !self.truth.keys.is_empty() {
            self.delete(0).await;
        }
        self.time.advance(FORGOTTEN_MS).await;
        self.control_plane().tidy().await;
        let (time, next_vm) = (&self.time, &mut self.next_vm);
        self.envoys = kinds.iter().map(|kind| Envoy::start(*kind, BOUND_SECS, time, next_vm)).collect();
        self.secrets.truncate(1);
        self.answered.clear();
        self.gone.clear();
        self.copies.clear();
        self.backup = None;
    }

    pub async fn end(mut self) {
        self.envoys.iter_mut().for_each(Envoy::end);
        let ending: Vec<_> =
            self.control_planes.into_iter().flatten().map(|control_plane| tokio::spawn(control_plane.stop())).collect();
        for ended in ending {
            ended.await.expect("it shuts down gracefully");
        }
        if let Some(schema) = self.schema {
            schema.remove();
        }
    }

    /// The one that admins use.
    pub fn control_plane(&self) -> &ControlPlane {
        self.control_plane_of(self.by_admins)
    }

    pub fn control_plane_of(&self, number: usize) -> &ControlPlane {
        let chosen = &self.control_planes[number % self.control_planes.len()];
        chosen.as_ref().expect("there is one between restarts")
    }

    pub fn control_planes(&self) -> impl Iterator<Item = &ControlPlane> {
        (0..self.control_planes.len()).map(|number| self.control_plane_of(number))
    }

    pub fn is_alone(&self) -> bool {
        self.control_planes.len() == 1
    }

    fn routers(&self) -> Vec<Router> {
        self.control_planes().map(ControlPlane::router).collect()
    }

    /// The newest position of any control plane: that of the last answered change, which the others soon reach.
    pub fn head(&self) -> Position {
        let heads = self.control_planes().map(ControlPlane::head);
        heads.max_by_key(|head| head.revision).expect("there are control planes")
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
            Step::Restart { replica, orderly } => self.restart(replica, orderly).await,
            Step::Tidy => self.control_plane().tidy().await,
            Step::BackUp => {
                self.backups += 1;
                let (copy, head) = (self.control_plane().back_up(self.backups), self.head());
                self.backup = copy.map(|copy| (copy, head));
            }
            Step::Restore => self.restore().await,
            Step::Turn { replica } => {
                self.by_admins = usize::from(replica) % self.control_planes.len();
                // An admin may change something at one, and then read it at another.
                self.control_plane().hears_of(self.head()).await;
            }
            Step::Asks { envoy, replica } => self.envoy(envoy).asks = replica,
            Step::Cut { replica } => {
                if let Some(schema) = &self.schema {
                    schema.cut(usize::from(replica) % self.control_planes.len());
                }
            }
        }
        self.settle().await;
    }

    /// Advances time, and lets everything react to it.
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

    /// Moves all calls of an Envoy on, until nothing moves.
    async fn move_on(&mut self, at: usize) {
        for _ in 0..RESTLESS {
            let (routers, now_ms) = (self.routers(), self.time.elapsed_ms());
            let mut moved = false;
            let asks = self.envoys[at].asks;
            for call in &mut self.envoys[at].calls {
                moved |= matches!(call.place, Place::Leaving);
                call.arrives(&routers, asks, now_ms);
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
        panic!("calls between an Envoy and the control plane never stop");
    }

    /// Lets the control plane get as far as it can without another event.
    async fn settle(&mut self) {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let (head, now_ms, asks_a_server) = (self.head(), self.time.elapsed_ms(), !self.is_alone());
        for call in self.envoys.iter_mut().flat_map(|envoy| &mut envoy.calls) {
            call.settle(head, now_ms, asks_a_server).await;
        }
    }

    /// Breaks all connections of Envoys to a control plane that is about to end.
    fn cut_off(&mut self, replica: usize) -> ControlPlane {
        for call in self.envoys.iter_mut().flat_map(|envoy| &mut envoy.calls) {
            if matches!(call.place, Place::AtControlPlane { .. }) && call.replica == replica {
                call.breaks();
            }
        }
        self.control_planes[replica].take().expect("there is one between restarts")
    }

    async fn restart(&mut self, replica: u8, orderly: bool) {
        let (replica, head) = (usize::from(replica) % self.control_planes.len(), self.head());
        let control_plane = self.cut_off(replica);
        self.control_planes[replica] = Some(control_plane.restart(orderly, head).await);
    }

    async fn restore(&mut self) {
        let Some((path, position)) = self.backup.clone() else { return };
        let control_plane = self.cut_off(0);
        // The replaced database is kept under a name with the current second.
        self.time.advance(1_000).await;
        let control_plane = control_plane.restore(&path).await;
        self.truth.keys = self.truth.at(position).expect("the backup has a known position").clone();
        let head = control_plane.head();
        self.truth.record(head.epoch, head.revision);
        self.control_planes[0] = Some(control_plane);
        (self.enforced, self.answered, self.recorded) = (None, Vec::new(), head.revision);
    }
}

/// The element that a number chooses.
pub fn chosen<T>(all: &[T], number: u8) -> Option<&T> {
    all.get(usize::from(number).checked_rem(all.len())?)
}
