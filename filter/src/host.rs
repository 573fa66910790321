//! All contact with Envoy. No other file names a host call.
//!
//! The SDK's functions panic on a status that they don't expect, and a panic stops the worker. So each method below names
//! the statuses that Envoy 1.40 can answer with in the callbacks where it is called.

use std::time::Duration;

/// A header as it came: names are lower-case tokens (Envoy's codec checks them), values any bytes.
pub type Header = (String, Vec<u8>);

/// A property that Envoy couldn't give; whoever asked must take it for the worst.
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

/// What came of a call. No headers at all mean that the connection broke or the time ran out.
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
    /// One pass through the filters: text. An internal redirect starts anew.
    Pass,
    /// The whole request, internal redirects included: bytes.
    Request,
}

/// How loud a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Envoy, as the filter sees it. Tests have one of their own.
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

#[cfg(not(test))]
pub use envoy::Envoy;

#[cfg(not(test))]
mod envoy {
    use std::time::{Duration, UNIX_EPOCH};

    use coarsetime::{Duration as Ticks, Instant};
    use proxy_wasm::hostcalls;
    use proxy_wasm::types::{BufferType, MapType, MetricType};

    use super::{Call, CallAnswer, FilterState, Header, Host, Life, LogLevel, NotSent, PropertyError};

    /// The number of a write that never was: with it, Envoy sets a value only where there is none.
    const NO_WRITE: u32 = u32::MAX;

    /// The real Envoy.
    pub struct Envoy;

    impl Envoy {
        /// The plugin configuration. Statuses in `on_configure`: Ok.
        pub fn plugin_configuration(&self) -> Vec<u8> {
            hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
        }

        /// Declares a filter state. Answers whether Envoy took it.
        /// Statuses: Ok, BadArgument (declared before in this root context), all handed on by the SDK.
        pub fn declare(&self, state: &FilterState) -> bool {
            // DeclarePropertyArguments {name = 1, type = 3, span = 5}: String and DownstreamRequest are 1, the defaults, Bytes
            // and FilterChain, are 0.
            let Ok(length) = u8::try_from(state.name.len()) else { return false };
            let mut arguments = vec![0x0a, length];
            arguments.extend_from_slice(state.name.as_bytes());
            arguments.extend_from_slice(match state.life {
                Life::Pass => &[0x18, 0x01],
                Life::Request => &[0x28, 0x01],
            });
            hostcalls::call_foreign_function("declare_property", Some(&arguments)).is_ok()
        }

        /// Takes all that is in a queue: how often it was put there says nothing. Statuses: Ok, Empty, NotFound.
        pub fn empty_queue(&self, queue: u32) {
            while let Ok(Some(_)) = hostcalls::dequeue_shared_queue(queue) {}
        }
    }

    impl Host for Envoy {
        /// Statuses in `on_request_headers`: Ok. Values are bytes, so none is checked for UTF-8.
        fn request_headers(&self) -> Vec<Header> {
            hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default()
        }

        /// Statuses: Ok, NotFound, SerializationFailure, InternalFailure, all handed on by the SDK.
        fn route_metadata(&self) -> Result<Option<Vec<u8>>, PropertyError> {
            hostcalls::get_property(vec!["xds", "route_metadata", "filter_metadata", "latchkey"])
                .map_err(|_| PropertyError)
        }

        /// Statuses: as for the route's metadata.
        fn source_address(&self) -> Option<Vec<u8>> {
            hostcalls::get_property(vec!["source", "address"]).ok().flatten()
        }

        /// Statuses in `on_request_headers`: Ok.
        fn remove_request_header(&self, name: &str) {
            // A failure would leave the credential for the upstream; it can only be a panic, which denies.
            let _ = hostcalls::remove_map_value(MapType::HttpRequestHeaders, name);
        }

        /// Statuses in `on_request_headers`: Ok.
        fn set_request_header(&self, name: &str, value: &[u8]) {
            let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value));
        }

        /// Statuses in `on_request_trailers`: Ok.
        fn request_trailers(&self) -> Vec<Header> {
            hostcalls::get_map_bytes(MapType::HttpRequestTrailers).unwrap_or_default()
        }

        /// Statuses in `on_request_trailers`: Ok.
        fn remove_request_trailer(&self, name: &str) {
            let _ = hostcalls::remove_map_value(MapType::HttpRequestTrailers, name);
        }

        /// Statuses while a stream is there: Ok, for a property that was declared writable. Without it the guard denies.
        fn set_filter_state(&self, name: &str, value: &[u8]) {
            let _ = hostcalls::set_property(vec![name], Some(value));
        }

        /// Statuses: as for the route's metadata.
        fn filter_state(&self, name: &str) -> Option<Vec<u8>> {
            hostcalls::get_property(vec![name]).ok().flatten()
        }

        /// Statuses in `on_request_headers`: Ok.
        fn respond(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
            let _ = hostcalls::send_http_response(u32::from(status), headers.to_vec(), Some(body));
        }

        /// Statuses: Ok.
        fn wall_clock_ms(&self) -> i64 {
            let since_1970 = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
            // Without a clock every key counts as expired.
            since_1970.and_then(|length| i64::try_from(length.as_millis()).ok()).unwrap_or(i64::MAX)
        }

        fn monotonic_us(&self) -> u64 {
            Ticks::from_ticks(Instant::now_without_cache_update().as_ticks()).as_micros()
        }

        fn monotonic_ms(&self) -> u64 {
            // The standard library's `Instant` hides its origin, so two workers couldn't compare theirs.
            Ticks::from_ticks(Instant::now_without_cache_update().as_ticks()).as_millis()
        }

        #[expect(clippy::disallowed_methods, reason = "this is the filter's one door to the system's randomness")]
        fn random(&self) -> Option<[u8; 16]> {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).ok().map(|()| bytes)
        }

        /// Statuses: Ok, BadArgument (unknown cluster), InternalFailure (no host), all handed on by the SDK.
        fn dispatch(&self, call: &Call<'_>) -> Result<u32, NotSent> {
            let authorization = call.token.map(|token| format!("Bearer {token}"));
            let method = if call.body.is_some() { "POST" } else { "GET" };
            let mut headers =
                vec![(":method", method), (":path", call.path), (":authority", call.authority), (":scheme", "http")];
            if let Some(authorization) = &authorization {
                headers.push(("authorization", authorization));
            }
            if call.body.is_some() {
                headers.push(("content-type", "application/json"));
            }
            let body = call.body.map(str::as_bytes);
            hostcalls::dispatch_http_call(call.cluster, headers, body, Vec::new(), call.timeout).map_err(|_| NotSent)
        }

        /// Statuses in `on_http_call_response`: Ok. Without headers nothing is asked for.
        fn call_answer(&self, headers: usize, body_bytes: usize) -> CallAnswer {
            if headers == 0 {
                return CallAnswer::default();
            }
            let headers = hostcalls::get_map_bytes(MapType::HttpCallResponseHeaders).unwrap_or_default();
            let body = match body_bytes {
                0 => None,
                size => hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok().flatten(),
            };
            CallAnswer { headers, body: body.unwrap_or_default() }
        }

        /// Statuses: as for the route's metadata. Without an answer the id counts as empty: then nothing is shared.
        fn vm_id_is_empty(&self) -> bool {
            hostcalls::get_property(vec!["plugin_vm_id"]).ok().flatten().is_none_or(|id| id.is_empty())
        }

        /// Statuses: Ok, NotFound.
        fn shared(&self, name: &str) -> Option<(Vec<u8>, u32)> {
            let (bytes, write) = hostcalls::get_shared_data(name).ok()?;
            Some((bytes.unwrap_or_default(), write?))
        }

        /// Statuses: Ok, CasMismatch.
        fn set_shared(&self, name: &str, value: &[u8], last_write: Option<u32>) -> bool {
            hostcalls::set_shared_data(name, Some(value), Some(last_write.unwrap_or(NO_WRITE))).is_ok()
        }

        /// Statuses: Ok.
        fn register_queue(&self, name: &str) -> u32 {
            hostcalls::register_shared_queue(name).unwrap_or_default()
        }

        /// Statuses: Ok.
        fn set_tick(&self, period: Duration) -> bool {
            hostcalls::set_tick_period(period).is_ok()
        }

        /// Statuses: Ok, NotFound, handed on by the SDK.
        fn wake(&self, queue: u32) {
            // An empty message would look like an empty queue to the one that takes it out.
            let _ = hostcalls::enqueue_shared_queue(queue, Some(b"!"));
        }

        /// Statuses: Ok, NotFound and BadArgument, all handed on by the SDK.
        fn add(&self, metric: u32, by: u64) {
            let _ = hostcalls::increment_metric(metric, i64::try_from(by).unwrap_or(i64::MAX));
        }

        /// Statuses: Ok, NotFound, handed on by the SDK.
        fn record(&self, metric: u32, value: u64) {
            let _ = hostcalls::record_metric(metric, value);
        }

        /// Statuses: Ok.
        fn define_counter(&self, name: &str) -> u32 {
            hostcalls::define_metric(MetricType::Counter, name).unwrap_or_default()
        }

        /// Statuses: Ok.
        fn define_gauge(&self, name: &str) -> u32 {
            hostcalls::define_metric(MetricType::Gauge, name).unwrap_or_default()
        }

        /// Statuses: Ok.
        fn log(&self, level: LogLevel, message: &str) {
            let level = match level {
                LogLevel::Debug => proxy_wasm::types::LogLevel::Debug,
                LogLevel::Info => proxy_wasm::types::LogLevel::Info,
                LogLevel::Warn => proxy_wasm::types::LogLevel::Warn,
                LogLevel::Error => proxy_wasm::types::LogLevel::Error,
            };
            let _ = hostcalls::log(level, message);
        }
    }
}
