//! Each connection manager with its ordered chains of filters.

use serde_json::Value;

use super::address::is_local_address;
use super::clusters::address_of;
use super::latchkey_filter::{LatchkeyFilter, as_latchkey_filter};
use super::message::{Message, below, walk};
use super::values::may_be_true;
use crate::cli::json::{list, part, string};

const CONNECTION_MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const WITH_MATCHER: &str = "envoy.extensions.common.matching.v3.ExtensionWithMatcher";

/// The network filters of a file, in file order.
pub(super) struct Chains<'a> {
    pub managers: Vec<Manager<'a>>,
    /// Network, UDP and listener filters other than connection managers.
    pub others: Vec<NetworkFilter<'a>>,
}

/// A network filter, with the reach of its listener.
pub(super) struct NetworkFilter<'a> {
    pub message: Message<'a>,
    pub reach: Reach,
}

/// Who can open a connection to a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Only this machine: the listener is on loopback, a file or another listener of this Envoy.
    Local,
    Anyone,
}

/// A connection manager.
pub(super) struct Manager<'a> {
    pub place: String,
    pub fields: &'a Value,
    pub reach: Reach,
    /// The addresses of its listener.
    pub addresses: Vec<String>,
    /// The chain for requests first, then the chains of upgrades that have their own.
    pub chains: Vec<Chain<'a>>,
}

/// Filters that a request goes through.
pub(super) struct Chain<'a> {
    pub place: String,
    pub filters: Vec<HttpFilter<'a>>,
}

/// A filter of a chain.
pub(super) struct HttpFilter<'a> {
    pub place: String,
    pub name: &'a str,
    pub value: &'a Value,
    /// Its configuration; `None` if Envoy fetches it (ECDS).
    pub message: Option<Message<'a>>,
    /// True if a matcher decides for each request whether it runs.
    pub is_matched: bool,
}

impl<'a> Chains<'a> {
    pub(super) fn read(file: &'a Value) -> Self {
        let mut chains = Self { managers: Vec::new(), others: Vec::new() };
        chains.visit(file, "", &Listener { reach: Reach::Anyone, addresses: Vec::new() });
        chains
    }

    fn visit(&mut self, value: &'a Value, place: &str, enclosing: &Listener) {
        let is_listener =
            ["filter_chains", "default_filter_chain", "listener_filters"].iter().any(|name| value.get(name).is_some());
        let own = is_listener.then(|| Listener::read(value));
        let listener = own.as_ref().unwrap_or(enclosing);
        if let Some(message) = Message::read(place, value) {
            if message.is(CONNECTION_MANAGER) {
                self.managers.push(Manager::read(message, listener));
                return;
            }
            let kinds = [
                "envoy.extensions.filters.network.",
                "envoy.extensions.filters.udp.",
                "envoy.extensions.filters.listener.",
            ];
            if kinds.iter().any(|kind| message.kind.starts_with(kind)) {
                self.others.push(NetworkFilter { message, reach: listener.reach });
            }
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.visit(value, &below(place, name), listener);
                }
            }
            Value::Array(items) => {
                for (at, value) in items.iter().enumerate() {
                    self.visit(value, &format!("{place}[{at}]"), listener);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// A listener, judged by all of its addresses.
struct Listener {
    reach: Reach,
    addresses: Vec<String>,
}

impl Listener {
    fn read(value: &Value) -> Self {
        let more = list(value, "additional_addresses").iter().map(|more| part(more, &["address"]));
        let all: Vec<&Value> = std::iter::once(part(value, &["address"])).chain(more).collect();
        let reach = if all.iter().all(|address| is_local_address(address)) { Reach::Local } else { Reach::Anyone };
        Self { reach, addresses: all.into_iter().filter_map(address_of).collect() }
    }
}

impl<'a> Manager<'a> {
    fn read(message: Message<'a>, listener: &Listener) -> Self {
        let Message { place, fields, .. } = message;
        let mut chains = Vec::new();
        if fields.get("http_filters").is_some() {
            chains.push(Chain::read(format!("{place}.http_filters"), list(fields, "http_filters")));
        }
        for (at, upgrade) in list(fields, "upgrade_configs").iter().enumerate() {
            let own = list(upgrade, "filters");
            if !own.is_empty() {
                chains.push(Chain::read(format!("{place}.upgrade_configs[{at}].filters"), own));
            }
        }
        Self { place, fields, reach: listener.reach, addresses: listener.addresses.clone(), chains }
    }

    /// True if one of its chains contains our filter, whether or not Envoy runs it.
    pub(super) fn has_ours(&self) -> bool {
        self.chains.iter().any(|chain| chain.filters.iter().any(HttpFilter::is_ours))
    }
}

impl<'a> Chain<'a> {
    fn read(place: String, filters: &'a [Value]) -> Self {
        let read = |(at, value)| HttpFilter::read(format!("{place}[{at}]"), value);
        let filters = filters.iter().enumerate().map(read).collect();
        Self { place, filters }
    }
}

impl<'a> HttpFilter<'a> {
    fn read(place: String, value: &'a Value) -> Self {
        let message = Message::read(&format!("{place}.typed_config"), part(value, &["typed_config"]));
        let (message, is_matched) = match message {
            Some(message) if message.is(WITH_MATCHER) => {
                let inner = part(message.fields, &["extension_config", "typed_config"]);
                (Message::read(&format!("{}.extension_config.typed_config", message.place), inner), true)
            }
            message => (message, false),
        };
        Self { place, name: string(value, "name"), value, message, is_matched }
    }

    /// Our filter, if this is it.
    pub(super) fn ours(&self) -> Option<LatchkeyFilter<'a>> {
        self.message.as_ref().and_then(as_latchkey_filter)
    }

    /// True for our filter, or a placeholder for it.
    pub(super) fn is_ours(&self) -> bool {
        self.ours().is_some() || (self.is_discovered() && is_named_as_ours(self.name, self.value))
    }

    /// True if Envoy fetches its configuration (ECDS).
    pub(super) fn is_discovered(&self) -> bool {
        self.value.get("config_discovery").is_some()
    }

    pub(super) fn is_disabled(&self) -> bool {
        may_be_true(self.value, "disabled")
    }

    /// The name of its type; empty if it isn't known.
    pub(super) fn kind(&self) -> &'a str {
        self.message.as_ref().map_or("", |message| message.kind)
    }
}

/// Whether a discovered filter may be ours, by its name and its possible types.
fn is_named_as_ours(name: &str, value: &Value) -> bool {
    let types = list(part(value, &["config_discovery"]), "type_urls");
    let may_be_wasm = types.iter().any(|kind| kind.as_str().is_some_and(|kind| kind.ends_with(".wasm.v3.Wasm")));
    name.contains("latchkey") && !name.contains("guard") && (may_be_wasm || types.is_empty())
}

/// True for a file that has a placeholder for our filter instead of the filter.
pub(super) fn has_placeholder(file: &Value) -> bool {
    let mut found = false;
    walk(file, "", &mut |_, value| {
        found |= value.get("config_discovery").is_some() && is_named_as_ours(string(value, "name"), value);
    });
    found
}
