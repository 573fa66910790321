//! A load on control planes that are killed and restarted: clients that change keys, and an edge that follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use latchkey::store::{Database, verify_audit};
use policy::table::{Loading, Table};
use policy::wire::Delta;
use policy::{Digest, Position};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::Service;
use crate::start::{Running, command};

const CLIENTS: usize = 8;

/// A request that has no answer after this time gets none.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Control planes on one database, each a process of its own, under load.
pub(crate) struct Load {
    directory: Arc<TempDir>,
    database: String,
    processes: Vec<Running>,
    control_planes: Arc<ControlPlanes>,
    clients: JoinSet<Vec<ConfirmedChange>>,
    edge: JoinHandle<Edge>,
}

/// A change that was answered.
struct ConfirmedChange {
    action: &'static str,
    key: String,
    revision: u64,
    secret: String,
}

impl Load {
    /// Starts with this number of control planes.
    pub(crate) async fn start(directory: TempDir, database: String, count: usize) -> Self {
        let processes: Vec<_> = (0..count).map(|_| process(&directory, &database)).collect();
        let control_planes = Arc::new(ControlPlanes::of(&processes, &directory));
        let client = client();
        let body = json!({"name": "Acme", "slug": "acme"});
        let made = control_planes.change(&client, 0, "/v1/workspaces", &body).await;
        made.expect("a workspace for all keys");
        let edge = tokio::spawn(Edge::load(Arc::clone(&control_planes)).await.follow());
        let mut clients = JoinSet::new();
        for turn in 0..CLIENTS {
            clients.spawn(change_keys(Arc::clone(&control_planes), turn));
        }
        Self { directory: Arc::new(directory), database, processes, control_planes, clients, edge }
    }

    /// Waits until each control plane has answered this many further changes.
    pub(crate) async fn wait_for_changes(&self, changes: usize) {
        let targets = self
            .control_planes
            .all
            .iter()
            .map(|control_plane| (control_plane, *control_plane.answered.borrow() + changes));
        for (control_plane, target) in targets.collect::<Vec<_>>() {
            let mut answered = control_plane.answered.subscribe();
            let reached = answered.wait_for(|answered| *answered >= target);
            let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
            reached.expect("a control plane that answers").unwrap();
        }
    }

    /// Kills one of the control planes, and starts another in its place.
    pub(crate) fn kill(&mut self, turn: usize) {
        let number = turn % self.processes.len();
        let (process, control_plane) = (&mut self.processes[number], &self.control_planes.all[number]);
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        control_plane.address.send_replace(None);
        *process = self::process(&self.directory, &self.database);
        control_plane.address.send_replace(Some(process.address.clone()));
    }

    /// Ends the load, and asserts that everything that was answered is there, whole and once, and nothing in part.
    /// Returns a summary.
    pub(crate) async fn end(self) -> String {
        self.control_planes.is_over.store(true, Ordering::SeqCst);
        let answered: Vec<_> = self.clients.join_all().await.into_iter().flatten().collect();
        let mut edge = self.edge.await.unwrap();
        drop(self.processes);
        let service = Service::start_at(&self.database, self.directory, Config::default(), Entropy::system()).await;
        let (head, database) = (*service.store.head().borrow(), self.database.parse::<Database>().unwrap());
        let verified = tokio::task::spawn_blocking(|| verify_audit(database, None)).await.unwrap().unwrap();
        assert_eq!(verified.events, head.revision.0, "each revision has its event");
        let events = all(&service, "/v1/audit-events?limit=200").await;
        let events: BTreeMap<_, _> = events.iter().map(|event| (event["revision"].as_u64().unwrap(), event)).collect();
        let mut revisions = BTreeSet::new();
        for ConfirmedChange { action, key, revision, .. } in &answered {
            assert!(revisions.insert(revision), "{revision} was given twice");
            let event = events.get(revision).unwrap_or_else(|| panic!("{action} of {key} is lost, or its event"));
            assert_eq!((&event["action"], &event["target"]["id"]), (&json!(action), &json!(key)), "{revision}");
        }

        // The newest event of each key.
        let of_keys = events.values().filter(|event| event["target"]["kind"] == "key");
        let events: BTreeMap<_, _> = of_keys.map(|event| (event["target"]["id"].as_str().unwrap(), *event)).collect();
        let is_active = |key: &str| events[key]["action"] == "key.create";
        let keys = all(&service, "/v1/workspaces/acme/keys?limit=200").await;
        assert_eq!(keys.len(), events.len(), "a key without its event, or an event without its key");
        for key in &keys {
            let id = key["id"].as_str().unwrap();
            assert_eq!((&key["revision"], &key["active"]), (&events[id]["revision"], &json!(is_active(id))), "{id}");
        }
        service.catch_up(&mut edge.table).await;
        assert_eq!(edge.table.position(), head);
        for ConfirmedChange { key, secret, .. } in &answered {
            let record = edge.table.find(&Digest::of(secret.as_bytes()));
            assert_eq!(record.map(|record| record.is_active()), Some(is_active(key)), "{key} at the edge");
        }
        let refused = self.control_planes.refused.load(Ordering::SeqCst);
        format!("{} changes answered, none lost; {refused} refused; {} deltas at the edge", answered.len(), edge.deltas)
    }
}

/// A client may never learn that its connection broke while it sent a request: hyperium/hyper#4122.
fn client() -> Client {
    Client::builder().timeout(TIMEOUT).build().unwrap()
}

fn process(directory: &TempDir, database: &str) -> Running {
    let mut command = command(directory.path(), &["--database", database]);
    // Nobody reads its log.
    command.env("LATCHKEY_LOG", "off");
    Running::start(command)
}

/// All items of a list.
async fn all(service: &Service, path: &str) -> Vec<Value> {
    let (mut all, mut page) = (Vec::new(), service.get(path).await.json());
    loop {
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => page = service.get(&format!("{path}&cursor={cursor}")).await.json(),
            None => return all,
        }
    }
}

/// The control planes that clients can reach.
struct ControlPlanes {
    all: Vec<ControlPlane>,
    refused: AtomicUsize,
    /// Held by the client that may retry: of all clients without an answer, one at a time.
    turn: Mutex<()>,
    is_over: AtomicBool,
    admin_token: String,
    edge_token: String,
}

struct ControlPlane {
    /// `None` while the control plane is down.
    address: watch::Sender<Option<String>>,
    /// The number of changes that it answered.
    answered: watch::Sender<usize>,
}

impl ControlPlanes {
    fn of(processes: &[Running], directory: &TempDir) -> Self {
        let control_plane = |process: &Running| ControlPlane {
            address: watch::Sender::new(Some(process.address.clone())),
            answered: watch::Sender::new(0),
        };
        let token = |name| std::fs::read_to_string(directory.path().join(name)).unwrap().trim_end().to_owned();
        Self {
            all: processes.iter().map(control_plane).collect(),
            refused: AtomicUsize::new(0),
            turn: Mutex::new(()),
            is_over: AtomicBool::new(false),
            admin_token: token("admin.token"),
            edge_token: token("edge.token"),
        }
    }

    /// The control plane whose turn it is, or else the next one that runs.
    async fn open(&self, turn: usize) -> (&ControlPlane, String) {
        let (after, from) = self.all.split_at(turn % self.all.len());
        loop {
            let is_open = |control_plane: &ControlPlane| control_plane.address.borrow().clone();
            if let Some(open) =
                from.iter().chain(after).find_map(|control_plane| Some((control_plane, is_open(control_plane)?)))
            {
                return open;
            }
            from[0].address.subscribe().wait_for(Option::is_some).await.unwrap();
        }
    }

    /// The revision of a change and its answer, if all of it arrived.
    async fn change(&self, client: &Client, turn: usize, path: &str, body: &Value) -> Option<(u64, Value)> {
        let (control_plane, address) = self.open(turn).await;
        let request = client.post(format!("http://{address}{path}")).bearer_auth(&self.admin_token);
        let answer = request.json(body).send().await.ok()?;
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        let revision = answer.headers().get("latchkey-revision").map(|revision| revision.to_str().unwrap().parse());
        let (status, json) = (answer.status(), answer.json::<Value>().await.ok()?);
        assert!(status.is_success(), "{status} {json}");
        control_plane.answered.send_modify(|answered| *answered += 1);
        Some((revision.unwrap().unwrap(), json))
    }

    /// The response that an edge gets.
    async fn edge(&self, client: &Client, turn: usize, path: &str) -> Option<Response> {
        let (_, address) = self.open(turn).await;
        client.get(format!("http://{address}{path}")).bearer_auth(&self.edge_token).send().await.ok()
    }
}

/// Makes keys until the load ends, and deactivates every other one at another control plane.
async fn change_keys(control_planes: Arc<ControlPlanes>, first: usize) -> Vec<ConfirmedChange> {
    let (client, keys, mut answered) = (client(), "/v1/workspaces/acme/keys", Vec::new());
    let body = json!({"name": "key", "expires_in": "none"});
    let (mut turn, mut waited) = (first, None);
    while !control_planes.is_over.load(Ordering::SeqCst) {
        turn += 1;
        let Some((revision, made)) = control_planes.change(&client, turn, keys, &body).await else {
            if waited.is_none() {
                waited = Some(control_planes.turn.lock().await);
            }
            continue;
        };
        waited = None;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (key, secret) = (text(&made["key"]["id"]), text(&made["secret"]));
        answered.push(ConfirmedChange { action: "key.create", key: key.clone(), revision, secret: secret.clone() });
        if answered.len() % 3 == 1 {
            let deactivate = format!("{keys}/{key}/deactivate");
            if let Some((revision, _)) = control_planes.change(&client, turn + 1, &deactivate, &json!({})).await {
                answered.push(ConfirmedChange { action: "key.deactivate", key, revision, secret });
            }
        }
    }
    answered
}

/// An edge that polls any control plane that runs.
struct Edge {
    control_planes: Arc<ControlPlanes>,
    client: Client,
    table: Table,
    deltas: usize,
}

impl Edge {
    /// Loads the first table, before any control plane is killed.
    async fn load(control_planes: Arc<ControlPlanes>) -> Self {
        let client = client();
        let bytes =
            async |path: &str| control_planes.edge(&client, 0, path).await.unwrap().bytes().await.unwrap().to_vec();
        let mut loading = Loading::start(&bytes(&feed(None)).await).unwrap();
        let Position { epoch, revision, .. } = loading.position();
        while let Some(page) = loading.wanted() {
            loading.add(bytes(&format!("/edge/v1/snapshots/{epoch}/{revision}/{page}")).await).unwrap();
        }
        let table = loading.finish().unwrap();
        Self { control_planes, client, table, deltas: 0 }
    }

    /// Follows until the load ends. Its revision never decreases, whichever control plane it polls. If it starts from
    /// nothing it may get an older snapshot, with the head that it has to reach.
    async fn follow(mut self) -> Self {
        let mut turn = 0;
        while !self.control_planes.is_over.load(Ordering::SeqCst) {
            turn += 1;
            let from = self.table.position();
            let is_fresh = turn % 50 == 0;
            let Some(bytes) = self.poll(turn, from, is_fresh).await else { continue };
            if is_fresh {
                assert_eq!(Loading::start(&bytes).unwrap().position().epoch, from.epoch);
            } else {
                assert!(Delta::is_delta(&bytes), "it is sent back from {from:?}");
                self.table.apply(&bytes).unwrap();
                self.deltas += 1;
            }
        }
        self
    }

    /// The body that it is sent, if all of it arrived.
    async fn poll(&self, turn: usize, from: Position, is_fresh: bool) -> Option<Vec<u8>> {
        let answer = self.control_planes.edge(&self.client, turn, &feed((!is_fresh).then_some(from))).await?;
        match answer.status() {
            StatusCode::SERVICE_UNAVAILABLE => return None,
            StatusCode::OK | StatusCode::NO_CONTENT => {}
            status => panic!("{status} {}", answer.text().await.unwrap()),
        }
        let head: u64 = answer.headers()["latchkey-head"].to_str().unwrap().parse().unwrap();
        assert!(head >= from.revision.0, "the head is {head} after {from:?}");
        let is_sent = answer.status() == StatusCode::OK;
        answer.bytes().await.ok().filter(|_| is_sent).map(|bytes| bytes.to_vec())
    }
}

fn feed(from: Option<Position>) -> String {
    let position =
        from.map(|Position { epoch, revision, head }| format!("&epoch={epoch}&since={revision}&head={head}"));
    format!("/edge/v1/feed?format=1&edge=edge-1&instance=i1&wait=1{}", position.unwrap_or_default())
}
