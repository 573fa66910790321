//! The filter for audit events, from the query parameters.

use ipnet::IpNet;
use policy::allowlist::{AllowlistError, Networks};
use policy::{Revision, UnixSeconds};
use serde_json::Value;

use super::fields::{Fields, InvalidValue};
use super::values;
use crate::base::instant;
use crate::store::{AuditActor, AuditFilter};

/// The maximum length of an action, an id or a name, in characters.
pub(crate) const MAX_TEXT: usize = 100;

/// Parses the fields of a filter. A refused field counts as absent here; `Fields::finish` reports it.
pub(super) fn parse(fields: &mut Fields) -> AuditFilter {
    let (since, from) = Boundary::split(fields.optional("since", boundary));
    let (until, before) = Boundary::split(fields.optional("until", boundary));
    AuditFilter {
        target: fields.optional("target", text),
        action: fields.optional("action", text),
        actor: fields.optional("actor", text).map(AuditActor::new),
        address: fields.optional("address", network),
        since,
        until,
        from,
        before,
    }
}

/// Where a part of the log begins or ends.
enum Boundary {
    Revision(Revision),
    Instant(UnixSeconds),
}

impl Boundary {
    fn split(boundary: Option<Self>) -> (Option<Revision>, Option<UnixSeconds>) {
        match boundary {
            None => (None, None),
            Some(Self::Revision(revision)) => (Some(revision), None),
            Some(Self::Instant(at)) => (None, Some(at)),
        }
    }
}

fn boundary(value: Value) -> Result<Boundary, InvalidValue> {
    let text = values::string(value)?;
    let number = text.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok());
    let boundary = number
        .map(|number| Boundary::Revision(Revision(number)))
        .or_else(|| instant::parse(&text).map(Boundary::Instant));
    let message = "must be a revision (a number from 0) or an instant like \"2026-11-23T08:00:00Z\"";
    boundary.ok_or_else(|| InvalidValue::new("out-of-range", message))
}

fn text(value: Value) -> Result<String, InvalidValue> {
    let text = values::string(value)?;
    if text.chars().count() > MAX_TEXT {
        return Err(InvalidValue::new("too-long", format!("must have at most {MAX_TEXT} characters")));
    }
    Ok(text)
}

/// An address or a range.
fn network(value: Value) -> Result<IpNet, InvalidValue> {
    let text = values::string(value)?;
    match Networks::parse(&[&text]) {
        Ok(networks) => {
            networks.as_slice().first().copied().ok_or_else(|| InvalidValue::new("not-a-network", "is empty"))
        }
        Err(AllowlistError::HostBits { meant, .. }) => {
            Err(InvalidValue::new("host-bits", format!("has host bits set; the range is `{meant}`")))
        }
        Err(AllowlistError::Empty | AllowlistError::TooMany { .. } | AllowlistError::NotANetwork { .. }) => {
            Err(InvalidValue::new("not-a-network", "must be an address or a range, like 192.0.2.7 or 2001:db8::/32"))
        }
    }
}
