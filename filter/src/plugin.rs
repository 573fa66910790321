//! Envoy's callbacks, routed to the source, the request path and the metrics.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use edge::edge::Edge;
use edge::host::{Host as _, LogLevel};
use edge::metrics::Metrics;
use edge::request::{self, RequestOutcome};
use edge::source::{self, Root as SourceRoot, TICK};
use edge::source_name::SourceName;
use edge::subscription::FeedProgress;
use edge::trailers;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel as SdkLogLevel};

#[cfg(feature = "faults")]
use crate::faults;
use crate::host::Envoy;
use crate::vm::{self, SharedSource};

/// Ticks between two updates of the gauges: a second.
const TICKS_PER_REPORT: u32 = 10;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(SdkLogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(Root::new(id)));
}}

/// One configuration in one worker.
struct Root {
    id: u32,
    host: Rc<Envoy>,
    active: OnceCell<ActiveConfiguration>,
    ticks: u32,
}

/// A configuration that Envoy accepted.
#[derive(Clone)]
struct ActiveConfiguration {
    edge: Rc<Edge>,
    source: SharedSource,
    metrics: Rc<Metrics>,
}

impl Root {
    fn new(id: u32) -> Self {
        Self { id, host: Rc::new(Envoy), active: OnceCell::new(), ticks: 0 }
    }

    /// Sets the gauges, if this worker sets them for its Envoy.
    fn update_gauges(&self) {
        let Some(ActiveConfiguration { source, metrics, .. }) = self.active.get() else { return };
        let Ok(source) = source.try_borrow() else { return };
        if let Some(report) = source.report(&*self.host) {
            metrics.report(&*self.host, report);
        }
    }

    /// Lets the source handle an event, and records the outcome in the metrics.
    fn handle(&self, event: impl FnOnce(&mut source::Source, &Envoy) -> FeedProgress) {
        let Some(ActiveConfiguration { source, metrics, .. }) = self.active.get() else { return };
        let progress = {
            let Ok(mut source) = source.try_borrow_mut() else { return };
            let progress = event(&mut source, &self.host);
            metrics.count_history_changes(&*self.host, source.take_history_changes());
            metrics.count_dropped_usage(&*self.host, source.usage.take_dropped());
            progress
        };
        if let FeedProgress::Updated(_) = progress {
            self.update_gauges();
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token_id: u32, num_headers: usize, body_size: usize, _num_trailers: usize) {
        let received = self.host.call_answer(num_headers, body_size);
        self.handle(|source, host| source.answered(host, self.id, token_id, received));
    }
}

/// Envoy called [`proxy_on_delete`], or rejected this configuration. The clean-up is here, not in `proxy_on_done`,
/// because that callback would cost each request another entry into the VM.
///
/// [`proxy_on_delete`]: https://github.com/proxy-wasm/spec
impl Drop for Root {
    fn drop(&mut self) {
        let Some(ActiveConfiguration { source, metrics, .. }) = self.active.get() else { return };
        self.host.set_tick(Duration::ZERO);
        metrics.flush(&*self.host);
        if let Ok(mut source) = source.try_borrow_mut() {
            source.leave(&*self.host, self.id);
        }
    }
}

impl RootContext for Root {
    /// Parses the configuration, declares filter state and sets the tick. False only if the configuration itself is
    /// invalid: a false or a trap in a worker, after the main thread accepted the configuration, would make Envoy skip
    /// the filter.
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
        if !(declared && self.host.set_tick(TICK)) {
            self.host.log(LogLevel::Error, "Envoy refused filter state or timer; every request is denied");
            edge.deny_all();
        }
        let source = vm::source(&SourceName::of(&edge.config));
        let root = SourceRoot {
            id: self.id,
            token: edge.token.clone(),
            max_staleness_secs: edge.config.max_staleness_secs,
            feed: edge.config.feed,
        };
        match source.try_borrow_mut() {
            Ok(mut source) => source.join(root),
            Err(_) => {
                self.host.log(LogLevel::Error, "the source of keys is in use; every request is denied");
                edge.deny_all();
            }
        }
        let metrics = vm::metrics(&*self.host);
        self.active.set(ActiveConfiguration { edge: Rc::new(edge), source, metrics }).is_ok()
    }

    fn on_tick(&mut self) {
        self.handle(|source, host| {
            #[cfg(feature = "faults")]
            faults::on_tick(host, source.is_leader());
            source.tick(host, self.id);
            FeedProgress::NoChange
        });
        if let Some(ActiveConfiguration { metrics, .. }) = self.active.get() {
            metrics.flush(&*self.host);
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_REPORT) {
            self.update_gauges();
        }
    }

    fn on_queue_ready(&mut self, queue_id: u32) {
        self.host.empty_queue(queue_id);
        self.handle(|source, host| {
            source.woken(host, queue_id);
            FeedProgress::NoChange
        });
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { host: Rc::clone(&self.host), active: self.active.get().cloned() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request.
struct Stream {
    host: Rc<Envoy>,
    active: Option<ActiveConfiguration>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        let Some(ActiveConfiguration { edge, source, metrics }) = &self.active else {
            request::refuse(&*self.host);
            return Action::Pause;
        };
        #[cfg(feature = "faults")]
        faults::on_request(&self.host);
        match request::on_request(&*self.host, edge, source, metrics) {
            RequestOutcome::Passes => Action::Continue,
            RequestOutcome::Answered => Action::Pause,
        }
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let Some(ActiveConfiguration { edge, .. }) = &self.active else { return Action::Pause };
        trailers::on_request_trailers(&*self.host, &edge.config);
        Action::Continue
    }
}
