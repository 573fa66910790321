//! The state that all configurations in one worker share: the sources of keys, by name, and the metrics.
//!
//! A new configuration starts with the table of the old one, and open connections on the old one get each change that
//! the new one receives.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use edge::host::Host;
use edge::metrics::Metrics;
use edge::source::Source;
use edge::source_name::SourceName;

/// A source that configurations share.
pub(crate) type SharedSource = Rc<RefCell<Source>>;

type Sources = RefCell<Vec<(SourceName, Weak<RefCell<Source>>)>>;

thread_local! {
    static SOURCES: Sources = const { RefCell::new(Vec::new()) };
    static METRICS: RefCell<Option<Rc<Metrics>>> = const { RefCell::new(None) };
}

/// The source with this name: the one that a live configuration uses, else a new one.
pub(crate) fn source(name: &SourceName) -> SharedSource {
    let fresh = || Rc::new(RefCell::new(Source::new(name.clone())));
    SOURCES.with(|sources| {
        let Ok(mut sources) = sources.try_borrow_mut() else { return fresh() };
        sources.retain(|(_, source)| source.strong_count() > 0);
        let existing = sources.iter().find(|(own, _)| own == name).and_then(|(_, source)| source.upgrade());
        existing.unwrap_or_else(|| {
            let source = fresh();
            sources.push((name.clone(), Rc::downgrade(&source)));
            source
        })
    })
}

/// This worker's metrics, defined once, since Envoy never frees any.
pub(crate) fn metrics(host: &dyn Host) -> Rc<Metrics> {
    METRICS.with(|metrics| {
        let Ok(mut metrics) = metrics.try_borrow_mut() else { return Rc::new(Metrics::define(host)) };
        Rc::clone(metrics.get_or_insert_with(|| Rc::new(Metrics::define(host))))
    })
}
