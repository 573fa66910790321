//! The entry point for the fuzz targets, compiled only into their builds.

use policy::{Allowlist, UnixSeconds};

use super::body::object;
use crate::base::config::Config;
use crate::operations::OperationError;
use crate::operations::admin_tokens::CreateAdminToken;
use crate::operations::edge_tokens::CreateEdgeToken;
use crate::operations::identify::IdentifySecret;
use crate::operations::keys::clean_up::MatchingKeys;
use crate::operations::keys::create::CreateKey;
use crate::operations::keys::rotate::RotateKey;
use crate::operations::keys::update::UpdateKey;
use crate::operations::principal::Principal;
use crate::operations::request::{RequestBody, RequestContext, WorkspaceOfRequest};
use crate::operations::workspaces::{CreateWorkspace, UpdateWorkspace};
use crate::store::Rotation;

/// An arbitrary instant.
const NOW: UnixSeconds = UnixSeconds(1_795_420_800);

/// Reads these bytes as the body of each request.
pub fn body(bytes: &[u8]) {
    if let Some(CreateKey { expiration, ip_allowlist, .. }) = read(bytes) {
        assert!(expiration.0.is_none_or(|at| at > NOW), "a new key has not expired");
        if let Some(Allowlist::Only(networks)) = ip_allowlist {
            assert!(!networks.as_slice().is_empty(), "an empty list is no allowlist");
        }
    }
    if let Some(RotateKey { rotation: Rotation::Overlap { secs } }) = read(bytes) {
        assert!((1..=7 * 86_400).contains(&secs), "an overlap of {secs} s");
    }
    read::<UpdateKey>(bytes);
    read::<MatchingKeys>(bytes);
    read::<CreateWorkspace>(bytes);
    read::<UpdateWorkspace>(bytes);
    read::<CreateAdminToken>(bytes);
    read::<CreateEdgeToken>(bytes);
    read::<IdentifySecret>(bytes);
}

fn read<T: RequestBody>(bytes: &[u8]) -> Option<T> {
    let (config, principal) = (Config::default(), Principal::token_file());
    let workspace = WorkspaceOfRequest::Body(None);
    let context = RequestContext { config: &config, now: NOW, principal: &principal, workspace };
    match T::parse(object(bytes).ok()?, &context) {
        Ok(body) => Some(body),
        Err(OperationError::Invalid(errors)) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(!error.code.is_empty() && !error.message.is_empty());
            }
            None
        }
        Err(other) => panic!("parsing ends with a body or with invalid fields, not with {other:?}"),
    }
}
