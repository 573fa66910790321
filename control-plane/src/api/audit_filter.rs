//! The filter of audit events in a query.

use ipnet::IpNet;
use policy::allowlist::{AllowlistError, Networks};
use policy::{Revision, UnixSeconds};
use serde_json::Value;

use super::fields::{Fields, Refused};
use super::values;
use crate::instant;
use crate::store::{AuditActor, AuditFilter};

/// The maximum length of an action, an id or a name, in characters.
const MAX_TEXT: usize = 100;

/// Takes the fields of a filter. A refused field counts as absent here; `Fields::finish` reports it.
pub(super) fn read(fields: &mut Fields) -> AuditFilter {
    let (since, from) = End::parts(fields.optional("since", end));
    let (until, before) = End::parts(fields.optional("until", end));
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
enum End {
    Revision(Revision),
    Instant(UnixSeconds),
}

impl End {
    fn parts(end: Option<Self>) -> (Option<Revision>, Option<UnixSeconds>) {
        match end {
            None => (None, None),
            Some(Self::Revision(revision)) => (Some(revision), None),
            Some(Self::Instant(at)) => (None, Some(at)),
        }
    }
}

fn end(value: Value) -> Result<End, Refused> {
    let text = values::string(value)?;
    let number = text.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok());
    let end = number.map(|number| End::Revision(Revision(number))).or_else(|| instant::parse(&text).map(End::Instant));
    let message = "must be a revision, a number from 0 on, or an instant like \"2026-11-23T08:00:00Z\"";
    end.ok_or_else(|| Refused::new("out-of-range", message))
}

fn text(value: Value) -> Result<String, Refused> {
    let text = values::string(value)?;
    if text.chars().count() > MAX_TEXT {
        return Err(Refused::new("too-long", format!("must have at most {MAX_TEXT} characters")));
    }
    Ok(text)
}

/// An address or a range.
fn network(value: Value) -> Result<IpNet, Refused> {
    let text = values::string(value)?;
    match Networks::parse(&[&text]) {
        Ok(networks) => networks.as_slice().first().copied().ok_or_else(|| Refused::new("not-a-network", "is empty")),
        Err(AllowlistError::HostBits { meant, .. }) => {
            Err(Refused::new("host-bits", format!("has bits of a host set; the range is `{meant}`")))
        }
        Err(AllowlistError::Empty | AllowlistError::TooMany { .. } | AllowlistError::NotANetwork { .. }) => {
            Err(Refused::new("not-a-network", "must be an address or a range, like 192.0.2.7 or 2001:db8::/32"))
        }
    }
}
