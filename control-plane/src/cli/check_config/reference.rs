//! The output of `latchkey envoy-config`, as the reference for files that are checked.

use anyhow::Context as _;
use serde_json::Value;

use super::chain::Chains;
use super::field_names::with_canonical_names;
use super::guard::{RBAC, policies};
use crate::cli::envoy_config::empty_template;
use crate::cli::json::{list, part, string};

/// The parts of envoy/sidecar.yaml that a file is compared with.
pub(super) struct ReferenceConfig {
    /// Each policy of the guard, in a form that can be compared.
    pub policies: Vec<Value>,
    /// The requests that may reach the control plane: the match of its one route.
    pub retire: Value,
}

impl ReferenceConfig {
    pub(super) fn read() -> anyhow::Result<Self> {
        let file: Value = serde_saphyr::from_str(&empty_template()).context("envoy/sidecar.yaml")?;
        let file = with_canonical_names(file)?;
        let chains = Chains::read(&file);
        let filters = chains.managers.iter().flat_map(|manager| &manager.chains).flat_map(|chain| &chain.filters);
        let guard = filters
            .filter_map(|filter| filter.message.as_ref())
            .find(|message| message.is(RBAC) && message.contains_text("wasm.latchkey_verdict"))
            .context("envoy/sidecar.yaml has no guard")?;
        let policies = policies(guard.fields).into_iter().map(|(_, policy)| policy).collect();
        let retire = chains
            .managers
            .iter()
            .flat_map(|manager| list(part(manager.fields, &["route_config"]), "virtual_hosts"))
            .flat_map(|host| list(host, "routes"))
            .find(|route| string(part(route, &["route"]), "cluster") == "latchkey")
            .context("envoy/sidecar.yaml has no route to the control plane")?;
        Ok(Self { policies, retire: part(retire, &["match"]).clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::ReferenceConfig;

    #[test]
    fn the_shipped_guard_and_route_are_found() {
        let shipped = ReferenceConfig::read().unwrap();
        assert!(!shipped.policies.is_empty());
        assert!(shipped.policies.iter().all(|policy| policy.to_string().contains("wasm.latchkey_rule")));
        assert!(shipped.retire.to_string().contains("DELETE"), "{}", shipped.retire);
    }
}
