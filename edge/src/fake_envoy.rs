//! A fake Envoy for tests: a worker with one request and its outcome. Several workers can share a process.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::host::{Call, CallAnswer, Header, Host, LifeSpan, LogLevel, NotSent, PropertyError};
use crate::keys::Clocks;
use crate::source::TICK;

/// A response that the filter sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalReply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// One worker, with one request that passes the filter.
pub(crate) struct FakeEnvoy {
    pub headers: RefCell<Vec<Header>>,
    pub trailers: RefCell<Vec<Header>>,
    pub metadata: Result<Option<Vec<u8>>, PropertyError>,
    pub source: Option<&'static str>,
    pub filter_state: RefCell<BTreeMap<String, Vec<u8>>>,
    pub answer: RefCell<Option<LocalReply>>,
    pub addresses_read: Cell<u32>,
    pub process: Rc<FakeProcess>,
    /// The worker's number, unique in its process.
    pub worker: u8,
    pub vm_id: &'static str,
    /// Feed requests in flight: number and path.
    pub calls: RefCell<VecDeque<(u32, String)>>,
    /// Acknowledgements in flight: number and JSON.
    pub acknowledged: RefCell<VecDeque<(u32, String)>>,
    /// Usage batches in flight: number and JSON.
    pub reported: RefCell<VecDeque<(u32, String)>>,
    /// How many calls were sent.
    pub call_count: Cell<u32>,
    pub logged: RefCell<Vec<String>>,
    pub tick: Cell<Duration>,
    pub random_draws: Cell<u32>,
}

/// The state that the workers of one Envoy share.
pub(crate) struct FakeProcess {
    pub clocks: Cell<Clocks>,
    pub shared: RefCell<BTreeMap<String, (Vec<u8>, u32)>>,
    writes: Cell<u32>,
    queues: RefCell<Vec<String>>,
    /// The time that all readings of the microsecond clock took together. Each reading advances it by `clock_read_us`.
    clock_reads_us: Cell<u64>,
    pub clock_read_us: Cell<u64>,
    /// Wakes that were not delivered yet.
    pub wakes: RefCell<VecDeque<u32>>,
}

impl Default for FakeProcess {
    fn default() -> Self {
        Self {
            clocks: Cell::new(Clocks { wall_ms: 1_000_000, monotonic_ms: 50_000 }),
            shared: RefCell::default(),
            writes: Cell::new(0),
            queues: RefCell::default(),
            clock_reads_us: Cell::new(0),
            clock_read_us: Cell::new(350),
            wakes: RefCell::default(),
        }
    }
}

/// A map in Envoy's encoding: see `RouteMetadata::read`.
pub(crate) fn map(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut bytes = u32::try_from(pairs.len()).unwrap().to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend(length(name.as_bytes()));
        bytes.extend(length(value));
    }
    for (name, value) in pairs {
        bytes.extend([name.as_bytes(), &[0], value, &[0]].concat());
    }
    bytes
}

impl FakeEnvoy {
    pub(crate) fn new(method: &str, path: &str, headers: &[(&str, &[u8])]) -> Self {
        let mut all: Vec<Header> =
            vec![(":method".to_owned(), method.as_bytes().to_vec()), (":path".to_owned(), path.as_bytes().to_vec())];
        all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())));
        Self {
            headers: RefCell::new(all),
            trailers: RefCell::default(),
            metadata: Ok(None),
            source: Some("192.0.2.7:40000"),
            filter_state: RefCell::default(),
            answer: RefCell::default(),
            addresses_read: Cell::new(0),
            process: Rc::default(),
            worker: 0,
            vm_id: "latchkey",
            calls: RefCell::default(),
            acknowledged: RefCell::default(),
            reported: RefCell::default(),
            call_count: Cell::new(0),
            logged: RefCell::default(),
            tick: Cell::new(TICK),
            random_draws: Cell::new(0),
        }
    }

    /// The values of this header that the upstream would receive.
    pub(crate) fn forwarded(&self, name: &str) -> Vec<String> {
        let headers = self.headers.borrow();
        let values = headers.iter().filter(|(own, _)| own == name);
        values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    pub(crate) fn state(&self, name: &str) -> Option<String> {
        self.filter_state.borrow().get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// An internal redirect: a new pass, which keeps the filter state that lives as long as the request.
    pub(crate) fn redirect(&self, path: &str) {
        let lives_on = |name: &str| {
            crate::request::FILTER_STATE.iter().any(|own| own.name == name && own.life_span == LifeSpan::Request)
        };
        self.filter_state.borrow_mut().retain(|name, _| lives_on(name));
        self.answer.replace(None);
        self.set_request_header(":path", path.as_bytes());
    }
}

impl Host for FakeEnvoy {
    fn request_headers(&self) -> Vec<Header> {
        self.headers.borrow().clone()
    }

    fn route_metadata(&self) -> Result<Option<Vec<u8>>, PropertyError> {
        self.metadata.clone()
    }

    fn source_address(&self) -> Option<Vec<u8>> {
        self.addresses_read.set(self.addresses_read.get() + 1);
        self.source.map(|source| source.as_bytes().to_vec())
    }

    fn remove_request_header(&self, name: &str) {
        self.headers.borrow_mut().retain(|(own, _)| own != name);
    }

    fn set_request_header(&self, name: &str, value: &[u8]) {
        self.remove_request_header(name);
        self.headers.borrow_mut().push((name.to_owned(), value.to_vec()));
    }

    fn request_trailers(&self) -> Vec<Header> {
        self.trailers.borrow().clone()
    }

    fn remove_request_trailer(&self, name: &str) {
        self.trailers.borrow_mut().retain(|(own, _)| own != name);
    }

    fn set_filter_state(&self, name: &str, value: &[u8]) {
        self.filter_state.borrow_mut().insert(name.to_owned(), value.to_vec());
    }

    fn filter_state(&self, name: &str) -> Option<Vec<u8>> {
        self.filter_state.borrow().get(name).cloned()
    }

    fn respond(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let earlier = self.answer.replace(Some(LocalReply { status, headers, body }));
        assert_eq!(earlier, None, "a request is answered once");
    }

    fn wall_clock_ms(&self) -> i64 {
        self.process.clocks.get().wall_ms
    }

    fn monotonic_ms(&self) -> u64 {
        self.process.clocks.get().monotonic_ms
    }

    fn monotonic_us(&self) -> u64 {
        self.process.clock_reads_us.set(self.process.clock_reads_us.get() + self.process.clock_read_us.get());
        self.monotonic_ms() * 1_000 + self.process.clock_reads_us.get()
    }

    fn random(&self) -> Option<[u8; 16]> {
        let mut bytes = [self.worker; 16];
        self.random_draws.set(self.random_draws.get() + 1);
        bytes[12..].copy_from_slice(&self.random_draws.get().to_be_bytes());
        Some(bytes)
    }

    fn dispatch(&self, call: &Call<'_>) -> Result<u32, NotSent> {
        self.call_count.set(self.call_count.get() + 1);
        match call.body {
            Some(body) if call.path == policy::protocol::USAGE_PATH => {
                self.reported.borrow_mut().push_back((self.call_count.get(), body.to_owned()));
            }
            Some(body) => self.acknowledged.borrow_mut().push_back((self.call_count.get(), body.to_owned())),
            None => self.calls.borrow_mut().push_back((self.call_count.get(), call.path.to_owned())),
        }
        Ok(self.call_count.get())
    }

    fn call_answer(&self, _headers: usize, _body_bytes: usize) -> CallAnswer {
        CallAnswer::default()
    }

    fn add(&self, _metric: u32, _by: u64) {}

    fn record(&self, _metric: u32, _value: u64) {}

    fn define_counter(&self, _name: &str) -> u32 {
        0
    }

    fn define_gauge(&self, _name: &str) -> u32 {
        0
    }

    fn log(&self, _level: LogLevel, message: &str) {
        self.logged.borrow_mut().push(message.to_owned());
    }

    fn vm_id_is_empty(&self) -> bool {
        self.vm_id.is_empty()
    }

    fn shared(&self, name: &str) -> Option<(Vec<u8>, u32)> {
        self.process.shared.borrow().get(name).cloned()
    }

    fn set_shared(&self, name: &str, value: &[u8], last_write: Option<u32>) -> bool {
        let mut shared = self.process.shared.borrow_mut();
        if shared.get(name).map(|(_, write)| *write) != last_write {
            return false;
        }
        self.process.writes.set(self.process.writes.get() + 1);
        shared.insert(name.to_owned(), (value.to_vec(), self.process.writes.get()));
        true
    }

    fn register_queue(&self, name: &str) -> u32 {
        let mut queues = self.process.queues.borrow_mut();
        assert!(!queues.iter().any(|own| own == name), "two queues with one name would steal each other's wakes");
        queues.push(name.to_owned());
        u32::try_from(queues.len()).unwrap()
    }

    fn set_tick(&self, period: Duration) -> bool {
        self.tick.set(period);
        true
    }

    fn wake(&self, queue: u32) {
        self.process.wakes.borrow_mut().push_back(queue);
    }
}
