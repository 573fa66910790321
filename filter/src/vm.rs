//! What all configurations in one worker share: a subscription for each source of keys.
//!
//! A new configuration starts with the table that the old one had, and open connections on the old one see each change
//! that the new one learns of.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use policy::Config;

use crate::host::Host;
use crate::metrics::Metrics;
use crate::subscription::Subscription;

/// What a table belongs to. Two configurations that differ in any of it never share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName {
    cluster: String,
    authority: String,
    environment: String,
    edge: String,
}

impl SourceName {
    /// The source that a configuration asks for.
    pub fn of(config: &Config) -> Self {
        Self {
            cluster: config.control_plane.cluster.clone(),
            authority: config.control_plane.authority.clone(),
            environment: config.environment.to_string(),
            edge: config.edge.clone(),
        }
    }
}

/// A subscription, and which root context's calls it waits for.
pub struct Source {
    pub subscription: Subscription,
    /// The root context that sent the call in flight, and the call's number.
    pub caller: Option<(u32, u32)>,
}

/// A source that configurations share.
pub type SharedSource = Rc<RefCell<Source>>;

type Sources = RefCell<Vec<(SourceName, Weak<RefCell<Source>>)>>;

thread_local! {
    static SOURCES: Sources = const { RefCell::new(Vec::new()) };
    static METRICS: RefCell<Option<Rc<Metrics>>> = const { RefCell::new(None) };
}

/// The source of this name: the one that a living configuration uses, else a new one.
pub fn source(config: &Config) -> SharedSource {
    let name = SourceName::of(config);
    let fresh = || {
        let subscription = Subscription::new(&config.edge, config.max_staleness_secs);
        Rc::new(RefCell::new(Source { subscription, caller: None }))
    };
    SOURCES.with(|sources| {
        let Ok(mut sources) = sources.try_borrow_mut() else { return fresh() };
        sources.retain(|(_, source)| source.strong_count() > 0);
        let known = sources.iter().find(|(own, _)| *own == name).and_then(|(_, source)| source.upgrade());
        known.unwrap_or_else(|| {
            let source = fresh();
            sources.push((name, Rc::downgrade(&source)));
            source
        })
    })
}

/// This worker's metrics; defined once, since Envoy frees none.
pub fn metrics(host: &dyn Host) -> Rc<Metrics> {
    METRICS.with(|metrics| {
        let Ok(mut metrics) = metrics.try_borrow_mut() else { return Rc::new(Metrics::define(host)) };
        Rc::clone(metrics.get_or_insert_with(|| Rc::new(Metrics::define(host))))
    })
}
