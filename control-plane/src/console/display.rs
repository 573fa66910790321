//! Values formatted for people: instants, roles, levels, networks.

use jiff::Timestamp;
use policy::{Allowlist, Level, Scopes, UnixSeconds};

use crate::base::instant;
use crate::store::{Role, RoleName, Status};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How many networks a summary shows; it counts the rest.
const SHOWN_NETWORKS: usize = 2;

/// An instant in three forms: RFC 3339 for machines, in full, and relative to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) iso: String,
    pub(super) full: String,
    pub(super) text: String,
}

impl Moment {
    pub(super) fn new(at: UnixSeconds, now: UnixSeconds) -> Self {
        Self { iso: instant::text(at), full: date_time(at), text: relative(at, now) }
    }

    pub(super) fn optional(at: Option<UnixSeconds>, now: UnixSeconds) -> Option<Self> {
        at.map(|at| Self::new(at, now))
    }
}

/// `24 Nov 2026, 13:20 UTC`
pub(super) fn date_time(at: UnixSeconds) -> String {
    Timestamp::from_second(at.0)
        .map_or_else(|_| instant::text(at), |at| at.strftime("%-d %b %Y, %H:%M UTC").to_string())
}

/// `24 Nov`
pub(super) fn day(at: UnixSeconds) -> String {
    Timestamp::from_second(at.0).map_or_else(|_| instant::text(at), |at| at.strftime("%-d %b").to_string())
}

/// `3 minutes ago`, `in 3 days`: one number, rounded down for the past, and to the nearest for the future.
fn relative(at: UnixSeconds, now: UnixSeconds) -> String {
    let secs = now.0.saturating_sub(at.0);
    let units = |unit: i64| {
        let more = if secs > 0 { 0 } else { unit / 2 };
        secs.saturating_abs().saturating_add(more) / unit
    };
    let duration = match secs.saturating_abs() {
        0..2 => return "just now".to_owned(),
        secs @ 2..MINUTE => plural(secs, "second"),
        MINUTE..HOUR if units(MINUTE) < 60 => plural(units(MINUTE), "minute"),
        MINUTE..DAY if units(HOUR) < 24 => plural(units(HOUR), "hour"),
        _ => match units(DAY) {
            days @ ..100 => plural(days, "day"),
            days @ 100..730 => plural(days / 30, "month"),
            days => plural(days / 365, "year"),
        },
    };
    if secs > 0 { format!("{duration} ago") } else { format!("in {duration}") }
}

/// `1 day`, `3 days`
pub(super) fn plural(number: i64, unit: &str) -> String {
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// A number with thousands separators: `23,879`.
pub(super) fn grouped(number: &u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// As [`plural`], for a count of items.
pub(super) fn item_count(number: usize, unit: &str) -> String {
    plural(i64::try_from(number).unwrap_or(i64::MAX), unit)
}

/// A length of time in the largest unit that divides it.
pub(super) fn duration(secs: u64) -> String {
    let secs = i64::try_from(secs).unwrap_or(i64::MAX);
    for (unit, name) in [(DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")] {
        if secs >= unit && secs % unit == 0 {
            return plural(secs / unit, name);
        }
    }
    plural(secs, "second")
}

pub(super) fn role(role: Role) -> &'static str {
    match role.name() {
        RoleName::PlatformAdmin => "Platform admin",
        RoleName::PlatformViewer => "Platform viewer",
        RoleName::Responder => "Responder",
        RoleName::EdgeOperator => "Edge operator",
        RoleName::Metrics => "Metrics",
        RoleName::WorkspaceAdmin => "Workspace admin",
        RoleName::WorkspaceMember => "Workspace member",
    }
}

pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Active => "Active",
        Status::Inactive => "Inactive",
        Status::Expired => "Expired",
    }
}

/// The scopes, each as a text like `reviews: read`.
pub(super) fn scopes(scopes: &Scopes) -> Vec<String> {
    scopes.iter().map(|(scope, level)| format!("{}: {level}", scope_label(scope.as_str()))).collect()
}

/// A scope's name without its underscores.
pub(super) fn scope_label(scope: &str) -> String {
    scope.replace('_', " ")
}

/// Whether any scope may write.
pub(super) fn may_write(scopes: &Scopes) -> bool {
    scopes.values().any(|level| *level == Level::Write)
}

/// The networks, each as a text; empty if any address is allowed.
pub(super) fn networks(allowlist: &Allowlist) -> Vec<String> {
    match allowlist {
        Allowlist::Any => Vec::new(),
        Allowlist::Only(networks) => networks
            .as_slice()
            .iter()
            .map(|network| {
                // A single address without its prefix length.
                let is_one = network.prefix_len() == network.max_prefix_len();
                if is_one { network.addr().to_string() } else { network.to_string() }
            })
            .collect(),
    }
}

/// The first networks, and the number of the rest.
pub(super) fn networks_summary(allowlist: &Allowlist) -> String {
    let all = networks(allowlist);
    match all.get(..SHOWN_NETWORKS) {
        _ if all.is_empty() => "Any address".to_owned(),
        Some(first) if all.len() > SHOWN_NETWORKS => {
            format!("{}, and {} more", first.join(", "), all.len().saturating_sub(SHOWN_NETWORKS))
        }
        Some(_) | None => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_shown_relative_to_now() {
        let now = UnixSeconds(1_795_420_800);
        for (secs, expected) in [
            (0, "just now"),
            (-3, "3 seconds ago"),
            (-60, "1 minute ago"),
            (-3_599, "59 minutes ago"),
            (-86_400, "1 day ago"),
            (-90 * 86_400, "90 days ago"),
            (-200 * 86_400, "6 months ago"),
            (-800 * 86_400, "2 years ago"),
            (3_600, "in 1 hour"),
            (90 * 86_400 - 5, "in 90 days"),
            (86_400 - 5, "in 1 day"),
            (3_599, "in 1 hour"),
        ] {
            assert_eq!(Moment::new(UnixSeconds(now.0 + secs), now).text, expected, "{secs}");
        }
        assert_eq!(date_time(now), "23 Nov 2026, 08:00 UTC");
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (23_879_041, "23,879,041")] {
            assert_eq!(grouped(&number), expected);
        }
    }

    #[test]
    fn networks_are_summarized() {
        let of = |entries: &[&str]| {
            let entries = (!entries.is_empty()).then(|| entries.iter().map(|entry| (*entry).to_owned()).collect());
            networks_summary(&Allowlist::try_from(entries).unwrap())
        };
        for (entries, expected) in [
            (&[][..], "Any address"),
            (&["192.0.2.7"], "192.0.2.7"),
            (&["192.0.2.0/24", "2001:db8::1"], "192.0.2.0/24, 2001:db8::1"),
            (&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], "192.0.2.1, 192.0.2.2, and 2 more"),
        ] {
            assert_eq!(of(entries), expected);
        }
    }
}
