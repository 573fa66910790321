//! Gives a key a new secret.

use policy::KeyId;
use policy::key_text::Kind;
use utoipa::openapi::schema::ObjectBuilder;

use crate::operations::expiration::Overlap;
use crate::operations::fields::{Fields, InvalidValue};
use crate::operations::principal::InWorkspace;
use crate::operations::request::{BodyField, NamedSchemas, OrNull, RequestContext, request_body};
use crate::operations::{OperationError, Operations, Resource, WithSecret};
use crate::store::{Key, NewSecret, Precondition, Rotation};

request_body! {
    /// How to rotate.
    pub(crate) struct RotateKey {
        pub(crate) rotation: Rotation,
    }
}

/// The fields `overlap` and `replace`: what happens to the secrets that the key has now.
impl BodyField for Rotation {
    fn take(fields: &mut Fields, _: &str, context: &RequestContext<'_>) -> Option<Self> {
        let overlap = <Option<OrNull<Overlap>> as BodyField>::take(fields, "overlap", context);
        let replaces = <Option<bool> as BodyField>::take(fields, "replace", context);
        match (overlap?.and_then(|OrNull(overlap)| overlap), replaces?.unwrap_or(false)) {
            (Some(_), true) => {
                let message =
                    "ends the current secret at once, and so can't be combined with `overlap`; send one of them";
                fields.refuse("replace", InvalidValue::new("ambiguous", message));
                None
            }
            (None, true) => Some(Self::Replace),
            (Some(Overlap(secs)), false) => Some(Self::Overlap { secs }),
            (None, false) => Some(Self::EndAll),
        }
    }

    fn describe(_: &str, _: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        let overlap = "How long the old secret keeps working: `30m`, `12h`, `7d`, at most 7 days. Left out or `null`: not \
                       at all.";
        let replace = "Replace only the current secret, at once, and leave a previous one in its overlap: if the \
                       response to a rotation was lost. Not with `overlap`.";
        let body = <Option<OrNull<Overlap>> as BodyField>::describe("overlap", Some(overlap), body);
        <Option<bool> as BodyField>::describe("replace", Some(replace), body)
    }

    fn schemas(_: &mut NamedSchemas) {}
}

impl Operations<'_> {
    /// Gives a key a new secret, and ends the present one as the request specifies.
    pub(crate) async fn rotate_key(
        &self,
        at: &InWorkspace,
        id: KeyId,
        precondition: Precondition,
        request: RotateKey,
    ) -> Result<WithSecret<Key>, OperationError> {
        // The secret's text contains the environment, which a key keeps.
        let key = self.key(at, id).await?;
        let secret = self.entropy.secret(&Kind::Key(key.environment))?;
        let (new, context) = (NewSecret::from(&secret), at.principal.change_context(self.clock));
        let rotated = self.store.rotate_key(at.workspace.id, id, new, request.rotation, precondition, context).await;
        Ok(WithSecret { changed: rotated.map_err(OperationError::about(Resource::Key))?, secret })
    }
}
