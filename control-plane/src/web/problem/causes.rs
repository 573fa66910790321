//! Errors of the store and the random source, as problems.

use axum::http::{StatusCode, header};

use super::{LineErrors, MAX_SHOWN_LINES, Problem};
use crate::base::entropy::EntropyError;
use crate::operations::fields::FieldError;
use crate::operations::{OperationError, Resource};
use crate::store::{StoreError, Unwritable};

impl From<StoreError> for Problem {
    /// `NotFound` becomes an unknown path; code that looks up something else maps it before.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::unknown_path(),
            error @ StoreError::SlugTaken => Self::slug_taken(field_errors(error)),
            StoreError::AlreadyMade => Self::made_before(),
            StoreError::InProgress => Self::in_progress(),
            StoreError::ExpiredKey => Self::new(
                StatusCode::CONFLICT,
                "expired-key",
                "an expired key can't be rotated; create another key",
            ),
            StoreError::Stale { current } => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "stale",
                format!(
                    "it was changed in the meantime, and is at revision {current}; read it again, and send its new \
                     ETag in `If-Match`"
                ),
            ),
            StoreError::LimitReached(limit) => Self::limit_of_workspace(limit),
            error @ StoreError::MetadataTooLarge { .. } => Self::invalid(field_errors(error)),
            StoreError::Unavailable(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "storage-unavailable",
                "the storage is unavailable, so the request may not have been completed; try again, and see the control \
                 plane's log for the cause",
            )
            .with_header(header::RETRY_AFTER, "1"),
            StoreError::Damaged(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "storage-unavailable",
                "nothing was changed: the database is damaged; have an operator read the control plane's log, and \
                 restore a backup",
            )
            .with_header(header::RETRY_AFTER, "10"),
            StoreError::Unwritable(unwritable) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "storage-unavailable",
                match unwritable {
                    Unwritable::Moved { .. } => {
                        "nothing was changed: the database's file was moved, replaced or removed while the control \
                         plane serves it; have an operator put it back, as the control plane's log states"
                    }
                    Unwritable::ForeignCommit { .. } => {
                        "nothing was changed: another program has written to the database's file; have an operator \
                         end that program and restart the control plane, as its log states"
                    }
                },
            )
            .with_header(header::RETRY_AFTER, "10"),
            // A generated secret exists already: the random source repeats itself.
            StoreError::SecretTaken => {
                tracing::error!("a new secret's digest exists already: the random source can't be trusted");
                Self::fault()
            }
            // The response doesn't reveal whose keys have these digests.
            StoreError::DigestsTaken { lines } => {
                let refused = lines.len();
                let taken = |(line, _)| LineErrors { line, errors: vec![FieldError::refused_digest()] };
                Self::refused_lines(lines.into_iter().take(MAX_SHOWN_LINES).map(taken).collect(), refused)
            }
            StoreError::Fault(_) => Self::fault(),
        }
    }
}

/// The fields that a refusal of the store is about.
fn field_errors(error: StoreError) -> Vec<FieldError> {
    OperationError::Store(error).into_fields().unwrap_or_default()
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Invalid(errors) => Self::invalid(errors),
            OperationError::NotFound(Resource::Workspace) => Self::unknown_workspace(),
            OperationError::NotFound(Resource::Key) => Self::unknown_key(),
            OperationError::NotFound(Resource::Token) => Self::unknown_token(),
            OperationError::NotFound(Resource::Secret) => Self::unknown_secret(),
            OperationError::RoleNotIncluded => Self::role_not_included(),
            OperationError::Store(error) => error.into(),
            OperationError::Entropy(error) => error.into(),
            OperationError::Incomplete => Self::fault(),
        }
    }
}

impl From<EntropyError> for Problem {
    fn from(cause: EntropyError) -> Self {
        tracing::error!(%cause, "entropy");
        Self::fault()
    }
}
