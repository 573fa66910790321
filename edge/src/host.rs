//! The host: everything that an edge needs from the Envoy that it runs in, as one trait.

use std::time::Duration;

/// A header as it came: names are lower-case tokens (Envoy's codec checks them), values any bytes.
pub type Header = (String, Vec<u8>);

/// A property that Envoy couldn't provide; the caller must assume the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PropertyError;

/// A call that Envoy didn't send: the cluster is unknown, or has no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSent;

/// A request to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'a> {
    pub cluster: &'a str,
    pub authority: &'a str,
    pub path: &'a str,
    pub token: Option<&'a str>,
    /// JSON to POST; without it the call is a GET.
    pub body: Option<&'a str>,
    pub timeout: Duration,
}

/// The answer to a call. No headers at all: the connection broke, or the call timed out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallAnswer {
    pub headers: Vec<Header>,
    pub body: Vec<u8>,
}

/// A value that other filters and the access log find as `wasm.<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterState {
    pub name: &'static str,
    pub life: Life,
}

/// How long filter state lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// One pass through the filters: text. An internal redirect begins another one.
    Pass,
    /// The whole request, internal redirects included: bytes.
    Request,
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Envoy, as an edge sees it. Tests have one of their own.
pub trait Host {
    /// All headers of the request, each occurrence by itself. One call that returns bytes.
    fn request_headers(&self) -> Vec<Header>;
    /// The route's `filter_metadata.latchkey`, a map in the form that `RouteMetadata` reads; `None` where the route has none.
    fn route_metadata(&self) -> Result<Option<Vec<u8>>, PropertyError>;
    /// The trusted client address with its port, as Envoy's hop settings make it.
    fn source_address(&self) -> Option<Vec<u8>>;
    /// Removes all occurrences. Makes Envoy choose the route anew.
    fn remove_request_header(&self, name: &str);
    /// Replaces all occurrences. Makes Envoy choose the route anew.
    fn set_request_header(&self, name: &str, value: &[u8]);
    /// All trailers of the request, each occurrence by itself. They come behind its body, when it is on its way.
    fn request_trailers(&self) -> Vec<Header>;
    /// Removes all occurrences.
    fn remove_request_trailer(&self, name: &str);
    /// Sets `wasm.<name>` for the filters behind this one and for the access log.
    fn set_filter_state(&self, name: &str, value: &[u8]);
    /// What `wasm.<name>` was set to, by this pass of the request or by an earlier one.
    fn filter_state(&self, name: &str) -> Option<Vec<u8>>;
    /// Answers the request here and now.
    fn respond(&self, status: u16, headers: &[(&str, &str)], body: &[u8]);
    /// Milliseconds since 1970 by the wall clock.
    fn wall_clock_ms(&self) -> i64;
    /// Milliseconds since some instant, the same for all workers of this Envoy, by a clock that is never set back.
    fn monotonic_ms(&self) -> u64;
    /// The same in microseconds, to measure how long something takes.
    fn monotonic_us(&self) -> u64;
    /// Random bytes of the operating system; `None` when it has none.
    fn random(&self) -> Option<[u8; 16]>;
    /// Sends a call; the answer comes as a callback with the number that this returns.
    fn dispatch(&self, call: &Call<'_>) -> Result<u32, NotSent>;
    /// The answer to the call whose callback is running.
    fn call_answer(&self, headers: usize, body_bytes: usize) -> CallAnswer;
    /// Whether this worker's VM has no id, and so shares its data with any other plugin that has none.
    fn vm_id_is_empty(&self) -> bool;
    /// A value that workers with the same VM id share, and the number of its last write.
    fn shared(&self, name: &str) -> Option<(Vec<u8>, u32)>;
    /// Sets a shared value, if its last write is still the one of this number; `None`: if there is no such value yet.
    /// Answers whether it did.
    fn set_shared(&self, name: &str, value: &[u8], last_write: Option<u32>) -> bool;
    /// A queue that wakes this root context; `name` must be one that nobody else uses.
    fn register_queue(&self, name: &str) -> u32;
    /// Has the timer of the root context whose callback is running go off again and again. Zero stops it. Answers whether Envoy
    /// took it.
    fn set_tick(&self, period: Duration) -> bool;
    /// Wakes the worker that registered this queue: soon, but not within this callback.
    fn wake(&self, queue: u32);
    /// Adds to a counter that [`Self::define_counter`] gave.
    fn add(&self, metric: u32, by: u64);
    /// Sets a gauge that [`Self::define_gauge`] gave.
    fn record(&self, metric: u32, value: u64);
    fn define_counter(&self, name: &str) -> u32;
    fn define_gauge(&self, name: &str) -> u32;
    fn log(&self, level: LogLevel, message: &str);
}
