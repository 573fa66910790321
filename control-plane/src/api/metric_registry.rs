//! All metrics, by their names and labels. Nothing that a client can choose becomes a label.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::feed::Feed;
use crate::operations::choice::Choice as _;
use crate::store::{Store, StoreStats};

/// Histogram buckets of latencies, in seconds: from a look-up to a request that reached its time limit.
const LATENCIES: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The control plane's metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram>,
    panics: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

impl Metrics {
    /// Metrics of a control plane on this store, with this feed. `lines_lost` counts lines of the log that were lost.
    pub fn new(store: Store, feed: Feed, lines_lost: Counter) -> Self {
        let mut registry = Registry::with_prefix("latchkey");
        let requests = Family::default();
        let latency = Family::new_with_constructor((|| Histogram::new(LATENCIES)) as fn() -> Histogram);
        registry.register("http_requests", "Requests of REST that were answered", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "How long requests of REST took",
            Unit::Seconds,
            latency.clone(),
        );
        registry.register_with_unit(
            "time_to_enforced",
            "How long changes took from their commit until they were enforced everywhere",
            Unit::Seconds,
            feed.edges().time_to_enforced(),
        );
        let panics = Counter::default();
        registry.register("panics", "Requests whose handler panicked, answered with 500", panics.clone());
        registry.register("log_lines_lost", "Lines of the log that couldn't be written", lines_lost);
        registry.register_collector(Box::new(StatsCollector { store, feed }));
        Self { registry: Arc::new(registry), requests, latency, panics }
    }

    /// Counts a request. `route` is one of the router's templates.
    pub(crate) fn record_request(&self, method: &Method, route: &str, status: u16, elapsed: Duration) {
        let method = method_label(method);
        self.requests.get_or_create(&RequestLabels { method, route: route.to_owned(), status }).inc();
        self.latency.get_or_create(&RouteLabels { method, route: route.to_owned() }).observe(elapsed.as_secs_f64());
    }

    /// Counts a handler that panicked.
    pub(crate) fn record_panic(&self) {
        self.panics.inc();
    }

    /// All of them, in OpenMetrics' text format.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// One of a few fixed words, because a client can send any word as its method.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Collects the counts that store and feed maintain, at each scrape.
struct StatsCollector {
    store: Store,
    feed: Feed,
}

impl fmt::Debug for StatsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatsCollector")
    }
}

impl Collector for StatsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let StoreStats { revision, changes, commits, refused, queued } = self.store.stats();
        let (states, lag) = self.feed.edges().count_by_state();
        let mut edges = encoder.encode_descriptor("edges", "Known instances, by state", None, MetricType::Gauge)?;
        for (state, count) in states {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(edges.encode_family(&[("state", state.as_str())])?)?;
        }
        let help = "Denials without a right secret that edges reported, by code";
        let mut denied = encoder.encode_descriptor("usage_denied", help, None, MetricType::Counter)?;
        for (code, count) in self.feed.usage().denied() {
            let counter = ConstCounter::new(count);
            counter.encode(denied.encode_family(&[("code", code)])?)?;
        }
        let help = "Entries of usage that were left out, by reason";
        let mut left_out = encoder.encode_descriptor("usage_refused", help, None, MetricType::Counter)?;
        for (why, count) in self.feed.usage().skipped().each() {
            let counter = ConstCounter::new(count);
            counter.encode(left_out.encode_family(&[("why", why.label())])?)?;
        }
        let help = "Instances of the edge token that comes nearest to its limit, as a part of it; 1: it is reached";
        let fullest = ConstGauge::new(self.feed.edges().highest_token_use());
        let name = "edge_token_instances_ratio";
        fullest.encode(encoder.encode_descriptor(name, help, None, fullest.metric_type())?)?;
        let mut gauge = |name, help, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("revision", "The newest revision", revision.0)?;
        gauge("writer_queue_depth", "Changes that wait for the writer", queued)?;
        gauge("edges_worst_lag", "Revisions that the worst of the connected instances lacks", lag)?;
        let went_back = u64::from(self.feed.went_back());
        gauge("database_went_back", "1: an edge holds a revision that the database doesn't", went_back)?;
        let mut counter = |name, help, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        counter("writes", "Changes that were committed, notes of a token's last use included", changes)?;
        counter("commits", "Transactions that were committed, each a group of changes", commits)?;
        counter("writes_refused", "Changes that the storage couldn't take", refused)?;
        let (batches, dropped) = self.feed.usage().totals();
        counter("usage_batches", "Batches of usage that were folded", batches)?;
        counter("usage_dropped", "Requests that edges had no room to count by key", dropped)
    }
}
