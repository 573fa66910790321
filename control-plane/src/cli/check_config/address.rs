//! Checks of the addresses that Envoy listens on or takes for the client's.

use std::net::IpAddr;

use serde_json::Value;

use super::Finding;
use super::chain::{NetworkFilter, Reach};
use super::message::below;
use super::values::{count, may_be_true};
use crate::cli::json::{is_true, list, part, string};

const PROXY_PROTOCOL: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";

/// True for an address that is reachable only from this machine: loopback, a file, another listener of this Envoy.
pub(super) fn is_local_address(address: &Value) -> bool {
    let socket = part(address, &["socket_address"]);
    if !socket.is_object() {
        return ["pipe", "envoy_internal_address"].iter().any(|name| address.get(name).is_some());
    }
    string(socket, "address").parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Envoy's admin pages are for its operator only.
pub(super) fn check_admin(file: &Value, findings: &mut Vec<Finding>) {
    let address = part(file, &["admin", "address"]);
    if address.is_object() && !is_local_address(address) {
        let message = "is not loopback: anyone who reaches it can shut this Envoy down and read its configuration; bind it to 127.0.0.1";
        findings.push(Finding::refused("admin.address", message));
    }
}

/// Checks that a client can't choose the address that allowlists are compared with. `hops` is `trusted_hops` of the
/// plugin configuration. A patch, as in a mesh's manifest, contains only the fields that it changes.
pub(super) fn check_client_address(
    place: &str,
    manager: &Value,
    hops: u32,
    is_patch: bool,
    findings: &mut Vec<Finding>,
) {
    let mut refuse = |name: &str, message: String| findings.push(Finding::refused(below(place, name), message));
    let is_unset = is_patch && manager.get("use_remote_address").is_none();
    if !is_unset && !is_true(manager, "use_remote_address") {
        refuse(
            "use_remote_address",
            "is not true: a client can choose its address, and so be on any allowlist; set it to true".to_owned(),
        );
    }
    let configured = count(manager, "xff_num_trusted_hops");
    if configured != Some(u64::from(hops)) {
        let configured = configured.map_or_else(|| "no number".to_owned(), |configured| configured.to_string());
        refuse(
            "xff_num_trusted_hops",
            format!(
                "is {configured}, and `trusted_hops` in the plugin configuration is {hops}: the filter and Envoy would take different entries of x-forwarded-for for the client; \
                 set both to the number of your own proxies in front, as `latchkey envoy-config --trusted-hops` does"
            ),
        );
    }
    if may_be_true(manager, "skip_xff_append") {
        refuse(
            "skip_xff_append",
            "leaves the peer out of x-forwarded-for, whose entries are counted from the right: the client then chooses the one that is used; remove it".to_owned(),
        );
    }
    if !list(manager, "original_ip_detection_extensions").is_empty() {
        refuse(
            "original_ip_detection_extensions",
            "takes the client's address from the request, and not by `trusted_hops`: remove it, and set `use_remote_address: true`, `xff_num_trusted_hops` and `trusted_hops`".to_owned(),
        );
    }
}

/// With this filter, any client that reaches the listener chooses its own address in the first line that it sends.
pub(super) fn check_proxy_protocol(filters: &[NetworkFilter<'_>], findings: &mut Vec<Finding>) {
    for NetworkFilter { message, reach } in filters {
        if message.is(PROXY_PROTOCOL) && *reach == Reach::Anyone {
            let text =
                "any client that connects here chooses its own address: only your own proxies may reach this listener";
            findings.push(Finding::warning(&message.place, text));
        }
    }
}
