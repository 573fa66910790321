//! Identifies a text that somebody found by its digest, without storing the text.

use policy::key_text::MAX_FOREIGN_BYTES;
use policy::{Digest, UnixSeconds};
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::fields::InvalidValue;
use super::principal::Principal;
use super::request::{BodyValue, RequestContext, request_body, string_schema};
use super::{OperationError, Operations, Resource, values};
use crate::base::secret::{LastCharacters, Secret};
use crate::store::{AdminToken, DigestOwner, EdgeToken, SecretRecord};

request_body! {
    /// A text that somebody found.
    pub(crate) struct IdentifySecret {
        pub(crate) secret: Secret,
    }
}

impl BodyValue for Secret {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        let secret = Self::new(values::string(value)?);
        match secret.expose().len() {
            0 => Err(InvalidValue::new("empty", "must be the text of a key or token")),
            1..=MAX_FOREIGN_BYTES => Ok(secret),
            _ => Err(InvalidValue::new("too-long", format!("must have at most {MAX_FOREIGN_BYTES} bytes"))),
        }
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(string_schema().min_length(Some(1)).max_length(Some(MAX_FOREIGN_BYTES)).build()).into()
    }
}

/// What a text belongs to.
pub(crate) enum Identified {
    Secret(SecretRecord),
    AdminToken(AdminToken),
    EdgeToken(EdgeToken),
    /// The token of a token file, which isn't in the database.
    AdminTokenFile(LastCharacters),
    EdgeTokenFile(LastCharacters),
}

impl Operations<'_> {
    /// Identifies a text within the principal's reach. Also returns the instant as of which the result holds.
    pub(crate) async fn identify(
        &self,
        principal: &Principal,
        request: IdentifySecret,
    ) -> Result<(Identified, UnixSeconds), OperationError> {
        let (digest, now): (Digest, _) = (request.secret.digest(), self.clock.now());
        if principal.reach().is_none() {
            if self.admin_token.has(&digest) {
                return Ok((Identified::AdminTokenFile(request.secret.last_characters()), now));
            }
            if self.edge_token.has(&digest) {
                return Ok((Identified::EdgeTokenFile(request.secret.last_characters()), now));
            }
        }
        let found = self.store.identify(digest, now).await?;
        // A secret outside the principal's reach is answered like one that doesn't exist.
        let within = |found: &DigestOwner| principal.reach().is_none_or(|own| found.workspace() == Some(own));
        match found.filter(within) {
            Some(DigestOwner::Secret(secret)) => Ok((Identified::Secret(secret), now)),
            Some(DigestOwner::AdminToken(token)) => Ok((Identified::AdminToken(token), now)),
            Some(DigestOwner::EdgeToken(token)) => Ok((Identified::EdgeToken(token), now)),
            None => Err(OperationError::NotFound(Resource::Secret)),
        }
    }
}
