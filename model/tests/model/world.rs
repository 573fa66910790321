//! The control plane, the Envoys and the network of a run, and how each step changes them.

mod envoys;

use std::path::PathBuf;

use axum::Router;
use axum::http::Method;
use policy::{Epoch, Position, Revision};

use crate::control_plane::{ControlPlane, directory, never_issued};
use crate::envoy::{Envoy, FeedSharing, LinkState};
use crate::network::{CallRequest, CallState};
use crate::oracle::Oracle;
use crate::schema::Schema;
use crate::steps::Step;
use crate::time::Time;
use test_support::server::Server;

const TURN_MS: u64 = 100;

/// Calls that still progress after this many rounds never stop.
const MAX_ROUNDS: usize = 1_000;

/// The staleness bound with which Envoys start.
const BOUND_SECS: u64 = 60;

/// After this time, Envoys that have ended are forgotten: a day, and any bound.
const RETENTION_MS: u64 = 100_000_000;

/// The initial state of a run.
pub(crate) enum Setup {
    /// One control plane, with a file of these bytes.
    File(Vec<u8>),
    /// Two over a new schema in this PostgreSQL.
    Server(Server),
}

impl Setup {
    /// Describes a run with these Envoys.
    pub(crate) fn description(&self, kinds: &[FeedSharing]) -> String {
        let control_planes = match self {
            Self::File(_) => "one control plane",
            Self::Server(_) => "two control planes over one PostgreSQL",
        };
        format!("{control_planes} and Envoys of {kinds:?}")
    }
}

pub(crate) struct World {
    pub time: Time,
    /// `None` while it restarts.
    control_planes: Vec<Option<ControlPlane>>,
    /// The number of the one that admins use.
    by_admins: usize,
    schema: Option<Schema>,
    _directory: tempfile::TempDir,
    pub envoys: Vec<Envoy>,
    next_vm: u32,
    pub oracle: Oracle,
    /// All secrets that were ever issued, and one that never was.
    pub secrets: Vec<String>,
    backup: Option<(PathBuf, Position)>,
    backups: usize,
    /// Ids of processes that ended.
    ended_instances: Vec<String>,
    copies: Vec<CallRequest>,
    /// The newest revision of this epoch that was reported as enforced.
    pub enforced: Option<(Epoch, Revision)>,
    /// The revision of each answered change of this epoch.
    pub answered: Vec<u64>,
    /// The newest revision that the oracle has recorded.
    pub recorded: Revision,
    /// Which probe comes next.
    pub turn: usize,
    /// What was wrong with the decision of the step.
    pub decided: Option<String>,
}

impl World {
    pub(crate) async fn new(setup: &Setup, kinds: &[FeedSharing]) -> Self {
        let (time, directory) = (Time::default(), directory());
        let (schema, control_planes) = match setup {
            Setup::File(template) => {
                let path = directory.path().join("latchkey.db");
                std::fs::write(&path, template).expect("the database is written");
                (None, vec![ControlPlane::start(path.into(), time.clone()).await])
            }
            Setup::Server(server) => {
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
        let oracle = Oracle::new(head);
        Self {
            time,
            control_planes: control_planes.into_iter().map(Some).collect(),
            by_admins: 0,
            schema,
            _directory: directory,
            envoys,
            next_vm,
            oracle,
            secrets: vec![never_issued()],
            backup: None,
            backups: 0,
            ended_instances: Vec::new(),
            copies: Vec::new(),
            enforced: None,
            answered: Vec::new(),
            recorded: head.revision,
            turn: 0,
            decided: None,
        }
    }

    /// Begins another run with the same control planes and their history, but without keys and with other Envoys.
    pub(crate) async fn reset(&mut self, kinds: &[FeedSharing]) {
        self.envoys.iter_mut().for_each(Envoy::end);
        while !self.oracle.keys.is_empty() {
            self.delete(0).await;
        }
        self.time.advance(RETENTION_MS).await;
        self.control_plane().tidy().await;
        let (time, next_vm) = (&self.time, &mut self.next_vm);
        self.envoys = kinds.iter().map(|kind| Envoy::start(*kind, BOUND_SECS, time, next_vm)).collect();
        self.secrets.truncate(1);
        self.answered.clear();
        self.ended_instances.clear();
        self.copies.clear();
        self.backup = None;
    }

    pub(crate) async fn end(mut self) {
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
    pub(crate) fn control_plane(&self) -> &ControlPlane {
        self.control_plane_of(self.by_admins)
    }

    pub(crate) fn control_plane_of(&self, number: usize) -> &ControlPlane {
        let control_plane = &self.control_planes[number % self.control_planes.len()];
        control_plane.as_ref().expect("there is one between restarts")
    }

    pub(crate) fn control_planes(&self) -> impl Iterator<Item = &ControlPlane> {
        (0..self.control_planes.len()).map(|number| self.control_plane_of(number))
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.control_planes.len() == 1
    }

    fn routers(&self) -> Vec<Router> {
        self.control_planes().map(ControlPlane::router).collect()
    }

    /// The newest position of any control plane: that of the last answered change, which the others soon reach.
    pub(crate) fn head(&self) -> Position {
        let heads = self.control_planes().map(ControlPlane::head);
        heads.max_by_key(|head| head.revision).expect("there are control planes")
    }

    pub(crate) async fn apply(&mut self, step: &Step) {
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
            Step::Idle(secs) => self.time.advance(secs * 1_000).await,
            Step::Link { envoy, state } => self.envoy(envoy).link = state,
            Step::Wakes { envoy, arrive } => self.envoy(envoy).delivers_wakes = arrive,
            Step::Call { envoy, call, event } => self.call_event(envoy, call, event),
            Step::Copy(number) => self.copy_arrives(number).await,
            Step::Hangs { envoy, vm } => self.envoy(envoy).worker(vm).runs = false,
            Step::Resumes { envoy, vm } => self.envoy(envoy).worker(vm).runs = true,
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
                self.envoy(envoy).shared.clock_error_ms.set(i64::from(hours) * 3_600_000);
            }
            Step::Request { envoy, vm, secret, probe } => self.request(envoy, vm, secret, probe),
            Step::Removed { instance } => {
                if let Some(id) = pick(&self.ended_instances, instance).cloned() {
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
            Step::SwitchAdmins { replica } => {
                self.by_admins = usize::from(replica) % self.control_planes.len();
                // An admin may change something at one, and then read it at another.
                self.control_plane().wait_for_head(self.head()).await;
            }
            Step::Route { envoy, replica } => self.envoy(envoy).target = replica,
            Step::Cut { replica } => {
                if let Some(schema) = &self.schema {
                    schema.cut(usize::from(replica) % self.control_planes.len());
                }
            }
        }
        self.settle().await;
    }

    /// Advances time, and lets everything react to it.
    pub(crate) async fn turn(&mut self, ms: u64) {
        self.time.advance(ms).await;
        let now_ms = self.time.elapsed_ms();
        for at in 0..self.envoys.len() {
            let envoy = &mut self.envoys[at];
            envoy.calls.iter_mut().for_each(|call| call.check_timeout(now_ms));
            envoy.tick();
            envoy.wake();
            if envoy.link != LinkState::Paused {
                self.progress_calls(at).await;
            }
        }
    }

    /// Progresses all calls of an Envoy, until nothing changes.
    async fn progress_calls(&mut self, at: usize) {
        for _ in 0..MAX_ROUNDS {
            let (routers, now_ms) = (self.routers(), self.time.elapsed_ms());
            let mut has_progressed = false;
            let target = self.envoys[at].target;
            for call in &mut self.envoys[at].calls {
                has_progressed |= matches!(call.state, CallState::Sending);
                call.arrive(&routers, target, now_ms);
            }
            self.settle().await;
            let envoy = &mut self.envoys[at];
            let mut call = 0;
            while call < envoy.calls.len() {
                if envoy.deliver(call) {
                    has_progressed = true;
                } else {
                    call += 1;
                }
            }
            envoy.wake();
            if !has_progressed {
                return;
            }
        }
        panic!("calls between an Envoy and the control plane never stop");
    }

    /// Lets the control plane progress as far as it can without another event.
    async fn settle(&mut self) {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let (head, now_ms, uses_server) = (self.head(), self.time.elapsed_ms(), !self.is_alone());
        for call in self.envoys.iter_mut().flat_map(|envoy| &mut envoy.calls) {
            call.settle(head, now_ms, uses_server).await;
        }
    }

    /// Breaks all connections of Envoys to a control plane that is about to end.
    fn disconnect(&mut self, replica: usize) -> ControlPlane {
        for call in self.envoys.iter_mut().flat_map(|envoy| &mut envoy.calls) {
            if matches!(call.state, CallState::AtControlPlane { .. }) && call.replica == replica {
                call.break_connection();
            }
        }
        self.control_planes[replica].take().expect("there is one between restarts")
    }

    async fn restart(&mut self, replica: u8, orderly: bool) {
        let (replica, head) = (usize::from(replica) % self.control_planes.len(), self.head());
        let control_plane = self.disconnect(replica);
        self.control_planes[replica] = Some(control_plane.restart(orderly, head).await);
    }

    async fn restore(&mut self) {
        let Some((path, position)) = self.backup.clone() else { return };
        let control_plane = self.disconnect(0);
        // The replaced database is kept under a name with the current second.
        self.time.advance(1_000).await;
        let control_plane = control_plane.restore(&path).await;
        self.oracle.keys = self.oracle.at(position).expect("the backup has a known position").clone();
        let head = control_plane.head();
        self.oracle.record(head.epoch, head.revision);
        self.control_planes[0] = Some(control_plane);
        (self.enforced, self.answered, self.recorded) = (None, Vec::new(), head.revision);
    }
}

/// The element that a number chooses.
pub(crate) fn pick<T>(all: &[T], number: u8) -> Option<&T> {
    all.get(usize::from(number).checked_rem(all.len())?)
}
