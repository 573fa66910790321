//! The host trait: everything that an edge needs from the Envoy that it runs in.

use std::time::Duration;

/// A header as received: names are lower-case tokens (Envoy's codec checks them), values any bytes.
pub type Header = (String, Vec<u8>);

/// Envoy couldn't provide a property. The caller must fail closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PropertyError;

/// Envoy didn't send a call: the cluster is unknown, or has no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSent;

/// A request to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'a> {
    /// The name of the Envoy cluster.
    pub cluster: &'a str,
    /// The value of `:authority`.
    pub authority: &'a str,
    /// The value of `:path`, with the query.
    pub path: &'a str,
    /// The edge token, sent as `authorization: Bearer …`; `None`: the filter adds no such header.
    pub token: Option<&'a str>,
    /// JSON to POST; without a body the call is a GET.
    pub body: Option<&'a str>,
    /// How long Envoy waits for the whole answer, in whole milliseconds.
    pub timeout: Duration,
}

/// The answer to a call. Without any header, the connection broke or the call timed out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallAnswer {
    /// One entry for each occurrence, with `:status`.
    pub headers: Vec<Header>,
    /// The whole body; empty if there is none.
    pub body: Vec<u8>,
}

/// A value that other filters and the access log read as `wasm.<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterState {
    /// Without the prefix `wasm.`, which Envoy adds.
    pub name: &'static str,
    /// Declared to Envoy once for each root context, before the first value is set.
    pub life_span: LifeSpan,
}

/// How long filter state lives, as in Envoy's `LifeSpan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeSpan {
    /// One pass through the filters; the value is text. An internal redirect begins another pass.
    Pass,
    /// The whole request, internal redirects included; the value is bytes.
    Request,
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Why something happened.
    Debug,
    /// What happened.
    Info,
    /// Something is degraded.
    Warn,
    /// Someone must act.
    Error,
}

/// Envoy, as an edge uses it. Tests have their own implementation.
pub trait Host {
    /// All headers of the request, one entry for each occurrence. One call, which returns bytes.
    fn request_headers(&self) -> Vec<Header>;
    /// The route's `filter_metadata.latchkey`, a map in the format that `RouteMetadata` reads; `None` if the route has
    /// none.
    fn route_metadata(&self) -> Result<Option<Vec<u8>>, PropertyError>;
    /// The trusted client address with its port, by Envoy's hop settings.
    fn source_address(&self) -> Option<Vec<u8>>;
    /// Removes all occurrences. Makes Envoy select the route again.
    fn remove_request_header(&self, name: &str);
    /// Replaces all occurrences. Makes Envoy select the route again.
    fn set_request_header(&self, name: &str, value: &[u8]);
    /// All trailers of the request, one entry for each occurrence. They arrive after the body, when the headers have
    /// been sent on.
    fn request_trailers(&self) -> Vec<Header>;
    /// Removes all occurrences.
    fn remove_request_trailer(&self, name: &str);
    /// Sets `wasm.<name>` for the filters after this one and for the access log.
    fn set_filter_state(&self, name: &str, value: &[u8]);
    /// The value of `wasm.<name>`, set by this pass of the request or by an earlier one.
    fn filter_state(&self, name: &str) -> Option<Vec<u8>>;
    /// Sends a local response to the request.
    fn respond(&self, status: u16, headers: &[(&str, &str)], body: &[u8]);
    /// Milliseconds since 1970 by the wall clock.
    fn wall_clock_ms(&self) -> i64;
    /// Milliseconds since an arbitrary instant, the same for all workers of this Envoy, by a monotonic clock.
    fn monotonic_ms(&self) -> u64;
    /// The monotonic clock in microseconds, to measure durations.
    fn monotonic_us(&self) -> u64;
    /// Random bytes of the operating system; `None` when it has none.
    fn random(&self) -> Option<[u8; 16]>;
    /// Sends a call. The answer arrives as a callback with the number that this returns.
    fn dispatch(&self, call: &Call<'_>) -> Result<u32, NotSent>;
    /// The answer to the call whose callback is running.
    fn call_answer(&self, headers: usize, body_bytes: usize) -> CallAnswer;
    /// Whether this worker's VM id is empty, so that it shares its data with any other plugin whose VM id is empty.
    fn vm_id_is_empty(&self) -> bool;
    /// A value in the shared data of workers with the same VM id, and the number of its last write (the CAS value).
    fn shared(&self, name: &str) -> Option<(Vec<u8>, u32)>;
    /// Compare-and-swap: sets a shared value if its last write still has this number; `None`: if there is no such value
    /// yet. Returns whether it was set.
    fn set_shared(&self, name: &str, value: &[u8], last_write: Option<u32>) -> bool;
    /// Registers a queue that wakes this root context. `name` must be unique.
    fn register_queue(&self, name: &str) -> u32;
    /// Sets the period of the timer of the root context whose callback is running. Zero stops it. Returns whether Envoy
    /// accepted it.
    fn set_tick(&self, period: Duration) -> bool;
    /// Wakes the worker that registered this queue: soon, but not within this callback.
    fn wake(&self, queue: u32);
    /// Adds to a counter that [`Self::define_counter`] returned.
    fn add(&self, metric: u32, by: u64);
    /// Sets a gauge that [`Self::define_gauge`] returned.
    fn record(&self, metric: u32, value: u64);
    /// Defines a counter and returns its id in this worker. Envoy never frees one: call this once for each name.
    fn define_counter(&self, name: &str) -> u32;
    /// Defines a gauge and returns its id in this worker, under the same rule as [`Self::define_counter`].
    fn define_gauge(&self, name: &str) -> u32;
    /// Writes a line to Envoy's log. The message must contain no secret, digest, header or body.
    fn log(&self, level: LogLevel, message: &str);
}
