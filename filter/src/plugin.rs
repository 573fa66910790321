//! Envoy's callbacks, handed on to the files that know what to do.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel as SdkLogLevel};

use crate::edge::Edge;
use crate::host::{Call, Envoy, Host, LogLevel};
use crate::metrics::Metrics;
use crate::request::{self, Outcome};
use crate::subscription::{Answer, Clocks, Failure, Progress};
use crate::vm::{self, SharedSource};

/// How often a worker looks whether there is something to do, when nothing else wakes it.
const TICK: Duration = Duration::from_millis(100);

/// Gauges are shown once a second.
const TICKS_A_REPORT: u32 = 10;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(SdkLogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(Root::new(id)));
}}

/// One configuration in one worker.
struct Root {
    id: u32,
    host: Rc<Envoy>,
    serving: OnceCell<Serving>,
    last_failure: Option<Failure>,
    ticks: u32,
}

/// A configuration that was taken.
#[derive(Clone)]
struct Serving {
    edge: Rc<Edge>,
    source: SharedSource,
    metrics: Rc<Metrics>,
}

impl Root {
    fn new(id: u32) -> Self {
        Self { id, host: Rc::new(Envoy), serving: OnceCell::new(), last_failure: None, ticks: 0 }
    }

    fn clocks(&self) -> Clocks {
        Clocks { wall_ms: self.host.wall_clock_ms(), monotonic_ms: self.host.monotonic_ms() }
    }

    fn random(&self) -> u8 {
        self.host.random().map_or(0, |[byte, ..]| byte)
    }

    /// Sends what the subscription wants to know next, if it is time.
    fn ask(&mut self) {
        let Some(Serving { edge, source, .. }) = self.serving.get().cloned() else { return };
        let now = self.clocks();
        let Ok(mut source) = source.try_borrow_mut() else { return };
        let Some(fetch) = source.subscription.next_fetch(now) else { return };
        let call = Call {
            cluster: &edge.config.control_plane.cluster,
            authority: &edge.config.control_plane.authority,
            path: &fetch.path,
            token: edge.token.as_deref(),
            timeout: Duration::from_millis(fetch.timeout_ms),
        };
        match self.host.dispatch(&call) {
            Ok(number) => source.caller = Some((self.id, number)),
            Err(_) => {
                let progress = source.subscription.not_sent(now, self.random());
                drop(source);
                self.report(&progress);
            }
        }
    }

    /// Says what an answer led to: each failure once until it changes, so that an outage doesn't fill the log.
    fn report(&mut self, progress: &Progress) {
        match progress {
            Progress::Quiet => self.last_failure = None,
            Progress::Serves(_) => {
                self.last_failure = None;
                self.show_gauges();
            }
            Progress::Failed(failure) => {
                if self.last_failure.as_ref() != Some(failure) {
                    self.host.log(LogLevel::Warn, &failure.to_string());
                    self.last_failure = Some(failure.clone());
                }
            }
        }
    }

    fn show_gauges(&self) {
        let Some(Serving { edge, source, metrics }) = self.serving.get() else { return };
        let Ok(source) = source.try_borrow() else { return };
        metrics.report(&*self.host, source.subscription.report(self.clocks(), edge.config.max_staleness_secs));
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token_id: u32, num_headers: usize, body_size: usize, _num_trailers: usize) {
        let Some(Serving { source, .. }) = self.serving.get().cloned() else { return };
        let received = self.host.call_answer(num_headers, body_size);
        let header = |name: &str| {
            let found = received.headers.iter().find(|(own, _)| own == name);
            found.and_then(|(_, value)| str::from_utf8(value).ok())
        };
        let answer = Answer {
            status: header(":status").and_then(|status| status.parse().ok()),
            time_ms: header("latchkey-time").and_then(|time| time.parse().ok()),
            body: received.body,
        };
        let (now, random) = (self.clocks(), self.random());
        let progress = {
            let Ok(mut source) = source.try_borrow_mut() else { return };
            if source.caller.take_if(|caller| *caller == (self.id, token_id)).is_none() {
                return;
            }
            source.subscription.answered(now, random, answer)
        };
        self.report(&progress);
        self.ask();
    }

    fn on_done(&mut self) -> bool {
        self.host.set_tick_period(Duration::ZERO);
        if let Some(Serving { metrics, .. }) = self.serving.get() {
            metrics.tell(&*self.host);
        }
        // Envoy drops this context's calls: another configuration with the same source asks again.
        if let Some(Serving { source, .. }) = self.serving.get()
            && let Ok(mut source) = source.try_borrow_mut()
            && source.caller.take_if(|(root, _)| *root == self.id).is_some()
        {
            source.subscription.abandon();
        }
        true
    }
}

impl RootContext for Root {
    /// Parses, declares and sets the tick. False only for a configuration that is wrong in itself: a false or a trap in a
    /// worker, after the main thread took the configuration, would make Envoy skip the filter.
    fn on_configure(&mut self, _plugin_configuration_size: usize) -> bool {
        let mut edge = match Edge::parse(&self.host.plugin_configuration()) {
            Ok(edge) => edge,
            Err(error) => {
                self.host.log(LogLevel::Error, &error.to_string());
                return false;
            }
        };
        if let Some(name) = &edge.config.control_plane.token_env {
            match std::env::var(name) {
                Ok(token) if !token.is_empty() => edge.token = Some(token),
                Ok(_) | Err(_) => {
                    let hint =
                        "list it under `environment_variables.host_env_keys` of the wasm filter and set it for Envoy";
                    self.host.log(LogLevel::Error, &format!("no edge token in `{name}`: {hint}"));
                }
            }
        }
        let declared = request::FILTER_STATE.iter().all(|state| self.host.declare(state));
        if !(declared && self.host.set_tick_period(TICK)) {
            self.host.log(LogLevel::Error, "Envoy refused filter state or timer; every request is denied");
            edge.deny_all();
        }
        let source = vm::source(&edge.config);
        let metrics = vm::metrics(&*self.host);
        self.serving.set(Serving { edge: Rc::new(edge), source, metrics }).is_ok()
    }

    fn on_tick(&mut self) {
        let named = self.serving.get().and_then(|Serving { source, .. }| {
            let mut source = source.try_borrow_mut().ok()?;
            source.subscription.tidy();
            // Not in `on_configure`, which must do the same on every worker.
            Some(source.subscription.name(|| instance(&*self.host)))
        });
        if let Some(failed @ Progress::Failed(_)) = named {
            self.report(&failed);
        }
        self.ask();
        if let Some(Serving { metrics, .. }) = self.serving.get() {
            metrics.tell(&*self.host);
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_A_REPORT) {
            self.show_gauges();
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { host: Rc::clone(&self.host), serving: self.serving.get().cloned() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request.
struct Stream {
    host: Rc<Envoy>,
    serving: Option<Serving>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        let Some(Serving { edge, source, metrics }) = &self.serving else {
            request::refuse(&*self.host);
            return Action::Pause;
        };
        let source = source.try_borrow().ok();
        let subscription = source.as_deref().map(|source| &source.subscription);
        match request::on_request_headers(&*self.host, edge, subscription, metrics) {
            Outcome::Passes => Action::Continue,
            Outcome::Answered => Action::Pause,
        }
    }
}

/// A name for this worker that no other has.
fn instance(host: &dyn Host) -> Option<String> {
    Some(host.random()?.iter().map(|byte| format!("{byte:02x}")).collect())
}
