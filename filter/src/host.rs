//! The host over proxy-wasm: all calls to Envoy. No other file contains a host call.
//!
//! The SDK's functions panic on a status that they don't expect, and a panic stops the worker. So each method below
//! lists the statuses that Envoy 1.40 can return in the callbacks where it is called.

use std::time::{Duration, UNIX_EPOCH};

use coarsetime::{Duration as Ticks, Instant};
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType};

use edge::host::{Call, CallAnswer, FilterState, Header, Host, LifeSpan, LogLevel, NotSent, PropertyError};

/// The CAS number of no write: with it, Envoy sets a value only if there is none.
const NO_WRITE: u32 = u32::MAX;

/// The real Envoy.
pub(crate) struct Envoy;

impl Envoy {
    /// The plugin configuration. Statuses in `on_configure`: Ok.
    pub(crate) fn plugin_configuration(&self) -> Vec<u8> {
        hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
    }

    /// Declares a filter state. Returns whether Envoy accepted it.
    /// Statuses: Ok, BadArgument (declared before in this root context), all returned by the SDK.
    pub(crate) fn declare(&self, state: &FilterState) -> bool {
        // DeclarePropertyArguments {name = 1, type = 3, span = 5}: String and DownstreamRequest are 1, the defaults,
        // Bytes and FilterChain, are 0.
        // A length of up to 127 is one byte of protobuf's.
        let Some(length) = u8::try_from(state.name.len()).ok().filter(u8::is_ascii) else { return false };
        let mut arguments = vec![0x0a, length];
        arguments.extend_from_slice(state.name.as_bytes());
        arguments.extend_from_slice(match state.life_span {
            LifeSpan::Pass => &[0x18, 0x01],
            LifeSpan::Request => &[0x28, 0x01],
        });
        hostcalls::call_foreign_function("declare_property", Some(&arguments)).is_ok()
    }

    /// Removes all messages from a queue: their number has no meaning. Statuses: Ok, Empty, NotFound.
    pub(crate) fn empty_queue(&self, queue: u32) {
        while let Ok(Some(_)) = hostcalls::dequeue_shared_queue(queue) {}
    }
}

impl Host for Envoy {
    /// Statuses in `on_request_headers`: Ok. Values are bytes, so none is checked for UTF-8.
    fn request_headers(&self) -> Vec<Header> {
        hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default()
    }

    /// Statuses: Ok, NotFound, SerializationFailure, InternalFailure, all returned by the SDK.
    fn route_metadata(&self) -> Result<Option<Vec<u8>>, PropertyError> {
        hostcalls::get_property(vec!["xds", "route_metadata", "filter_metadata", "latchkey"]).map_err(|_| PropertyError)
    }

    /// Statuses: as for the route's metadata.
    fn source_address(&self) -> Option<Vec<u8>> {
        hostcalls::get_property(vec!["source", "address"]).ok().flatten()
    }

    /// Statuses in `on_request_headers`: Ok.
    fn remove_request_header(&self, name: &str) {
        // A failure would leak the credential to the upstream, but the only possible failure is a panic, which denies.
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

    /// Statuses while a stream exists: Ok, for a property that was declared writable. Without the value, the guard
    /// denies.
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
        // The standard library's `Instant` hides its origin, so two workers couldn't compare their values.
        Ticks::from_ticks(Instant::now_without_cache_update().as_ticks()).as_millis()
    }

    #[expect(clippy::disallowed_methods, reason = "the filter's only source of the system's randomness")]
    fn random(&self) -> Option<[u8; 16]> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok().map(|()| bytes)
    }

    /// Statuses: Ok, BadArgument (unknown cluster), InternalFailure (no host), all returned by the SDK.
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

    /// Statuses in `on_http_call_response`: Ok. Without headers, nothing is read.
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

    /// Statuses: as for the route's metadata. If the property can't be read, the id counts as empty, and nothing is
    /// shared.
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

    /// Statuses: Ok, NotFound, returned by the SDK.
    fn wake(&self, queue: u32) {
        // To the reader, an empty message would look like an empty queue.
        let _ = hostcalls::enqueue_shared_queue(queue, Some(b"!"));
    }

    /// Statuses: Ok, NotFound and BadArgument, all returned by the SDK.
    fn add(&self, metric: u32, by: u64) {
        let _ = hostcalls::increment_metric(metric, i64::try_from(by).unwrap_or(i64::MAX));
    }

    /// Statuses: Ok, NotFound, returned by the SDK.
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
