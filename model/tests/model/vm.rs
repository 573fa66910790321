//! A wasm VM's view of its Envoy: shared data, clocks, calls, and the request that it decides.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use edge::host::{Call, CallAnswer, Header, Host, LogLevel, NotSent, PropertyError};
use edge::source::TICK;

use crate::network::CallRequest;
use crate::time::Time;

/// What the VMs of one Envoy share.
#[derive(Default)]
pub(crate) struct Shared {
    values: RefCell<BTreeMap<String, (Vec<u8>, u32)>>,
    writes: Cell<u32>,
    queues: Cell<u32>,
    /// Wakes that were not delivered yet.
    pub wakes: RefCell<VecDeque<u32>>,
    /// By how much the machine's wall clock is wrong.
    pub clock_error_ms: Cell<i64>,
}

/// A VM's side of Envoy.
pub(crate) struct Vm {
    shared: Rc<Shared>,
    time: Time,
    /// Unique in the run.
    number: u32,
    has_no_vm_id: bool,
    draws: Cell<u32>,
    clock_readings: Cell<u64>,
    called: Cell<u32>,
    /// Calls that were not collected yet, by their numbers.
    pub calls: RefCell<Vec<(u32, CallRequest)>>,
    pub tick: Cell<Duration>,
    request: RefCell<Vec<Header>>,
    address: Cell<&'static str>,
    verdict: RefCell<Vec<u8>>,
}

impl Vm {
    pub(crate) fn new(shared: Rc<Shared>, time: Time, number: u32, has_no_vm_id: bool) -> Self {
        Self {
            shared,
            time,
            number,
            has_no_vm_id,
            clock_readings: Cell::new(0),
            draws: Cell::new(0),
            called: Cell::new(0),
            calls: RefCell::default(),
            tick: Cell::new(TICK),
            request: RefCell::default(),
            address: Cell::new(""),
            verdict: RefCell::default(),
        }
    }

    /// Begins the next request.
    pub(crate) fn begin_request(&self, method: &str, path: &str, secret: &str, address: &'static str) {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        self.request.replace(vec![header(":method", method), header(":path", path), header("x-api-key", secret)]);
        self.address.set(address);
        self.verdict.replace(Vec::new());
    }

    /// The decision: `allowed`, or the code of a denial.
    pub(crate) fn verdict(&self) -> String {
        let verdict = String::from_utf8(self.verdict.borrow().clone()).expect("a verdict is text");
        verdict.strip_prefix("denied:").map(str::to_owned).unwrap_or(verdict)
    }
}

impl Host for Vm {
    fn request_headers(&self) -> Vec<Header> {
        self.request.borrow().clone()
    }

    fn route_metadata(&self) -> Result<Option<Vec<u8>>, PropertyError> {
        Ok(None)
    }

    fn source_address(&self) -> Option<Vec<u8>> {
        Some(self.address.get().as_bytes().to_vec())
    }

    fn remove_request_header(&self, name: &str) {
        self.request.borrow_mut().retain(|(own, _)| own != name);
    }

    fn set_request_header(&self, name: &str, value: &[u8]) {
        self.remove_request_header(name);
        self.request.borrow_mut().push((name.to_owned(), value.to_vec()));
    }

    fn request_trailers(&self) -> Vec<Header> {
        Vec::new()
    }

    fn remove_request_trailer(&self, _name: &str) {}

    fn set_filter_state(&self, name: &str, value: &[u8]) {
        if name == "latchkey_verdict" {
            self.verdict.replace(value.to_vec());
        }
    }

    fn filter_state(&self, _name: &str) -> Option<Vec<u8>> {
        None
    }

    fn respond(&self, _status: u16, _headers: &[(&str, &str)], _body: &[u8]) {}

    fn wall_clock_ms(&self) -> i64 {
        i64::try_from(self.time.wall_ms()).expect("a time") + self.shared.clock_error_ms.get()
    }

    fn monotonic_ms(&self) -> u64 {
        self.time.elapsed_ms() + 50_000
    }

    fn monotonic_us(&self) -> u64 {
        // Each reading takes some time, so that a turn ends after a few of them.
        self.clock_readings.set(self.clock_readings.get() + 350);
        self.monotonic_ms() * 1_000 + self.clock_readings.get()
    }

    fn random(&self) -> Option<[u8; 16]> {
        let draws = self.draws.get();
        self.draws.set(draws + 1);
        let mut bytes = [0; 16];
        // The first byte decides how long retries wait, the others make names unique.
        bytes[0] = self.number.wrapping_mul(41).wrapping_add(draws.wrapping_mul(97)).to_le_bytes()[0];
        bytes[4..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[12..].copy_from_slice(&draws.to_be_bytes());
        Some(bytes)
    }

    fn dispatch(&self, call: &Call<'_>) -> Result<u32, NotSent> {
        self.called.set(self.called.get() + 1);
        self.calls.borrow_mut().push((self.called.get(), CallRequest::of(call)));
        Ok(self.called.get())
    }

    fn call_answer(&self, _headers: usize, _body_bytes: usize) -> CallAnswer {
        CallAnswer::default()
    }

    fn vm_id_is_empty(&self) -> bool {
        self.has_no_vm_id
    }

    fn shared(&self, name: &str) -> Option<(Vec<u8>, u32)> {
        self.shared.values.borrow().get(name).cloned()
    }

    fn set_shared(&self, name: &str, value: &[u8], last_write: Option<u32>) -> bool {
        let mut values = self.shared.values.borrow_mut();
        if values.get(name).map(|(_, write)| *write) != last_write {
            return false;
        }
        self.shared.writes.set(self.shared.writes.get() + 1);
        values.insert(name.to_owned(), (value.to_vec(), self.shared.writes.get()));
        true
    }

    fn register_queue(&self, _name: &str) -> u32 {
        self.shared.queues.set(self.shared.queues.get() + 1);
        self.shared.queues.get()
    }

    fn set_tick(&self, period: Duration) -> bool {
        self.tick.set(period);
        true
    }

    fn wake(&self, queue: u32) {
        self.shared.wakes.borrow_mut().push_back(queue);
    }

    fn add(&self, _metric: u32, _by: u64) {}

    fn record(&self, _metric: u32, _value: u64) {}

    fn define_counter(&self, _name: &str) -> u32 {
        0
    }

    fn define_gauge(&self, _name: &str) -> u32 {
        0
    }

    fn log(&self, _level: LogLevel, _message: &str) {}
}
