//! A key's use in the last 30 days: bars of a chart that needs no script or style, and the same numbers as text.

use std::collections::BTreeMap;

use policy::UnixSeconds;

use crate::console::display::day;
use crate::store::Usage;
use crate::usage::{ALLOWED, DAY_SECS};

/// Days in the chart, including today.
const DAYS: i64 = 30;

/// The chart's size, in its own units.
const BAR: i64 = 18;
const GAP: i64 = 6;
const HEIGHT: i64 = 96;

/// The content of the chart.
pub(super) struct Chart {
    pub(super) width: i64,
    pub(super) height: i64,
    pub(super) bars: Vec<Bar>,
    pub(super) from: String,
    /// The tallest bar's requests.
    pub(super) most: u64,
    pub(super) allowed: u64,
    pub(super) denied: u64,
    /// Denied requests by code, the most frequent first.
    pub(super) codes: Vec<(String, u64)>,
}

/// The bar of a day.
pub(super) struct Bar {
    pub(super) day: String,
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) x: i64,
    pub(super) width: i64,
    pub(super) allowed_y: i64,
    pub(super) allowed_height: i64,
    pub(super) denied_y: i64,
    pub(super) denied_height: i64,
}

impl Chart {
    pub(super) fn of(usage: &Usage, now: UnixSeconds) -> Self {
        let today = now.0.div_euclid(DAY_SECS);
        let first = today.saturating_sub(DAYS.saturating_sub(1));
        let mut days: BTreeMap<i64, (u64, u64)> = (first..=today).map(|day| (day, (0, 0))).collect();
        let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
        for period in usage.days.iter().chain(&usage.hours) {
            let Some((allowed, denied)) = days.get_mut(&period.at.0.div_euclid(DAY_SECS)) else { continue };
            for (outcome, count) in &period.counts {
                let total = if outcome == ALLOWED {
                    &mut *allowed
                } else {
                    let of_code = codes.entry(outcome).or_default();
                    *of_code = of_code.saturating_add(*count);
                    &mut *denied
                };
                *total = total.saturating_add(*count);
            }
        }
        let most = days.values().map(|(allowed, denied)| allowed.saturating_add(*denied)).max().unwrap_or_default();
        let bars: Vec<_> = days.iter().zip(0..).map(|((day, counts), at)| bar(*day, *counts, at, most)).collect();
        let sum = |of: fn(&(u64, u64)) -> u64| days.values().map(of).fold(0_u64, u64::saturating_add);
        let mut codes: Vec<_> = codes.into_iter().map(|(code, count)| (code.to_owned(), count)).collect();
        codes.sort_by(|(code, count), (other, others)| others.cmp(count).then(code.cmp(other)));
        Self {
            width: DAYS * (BAR + GAP) - GAP,
            height: HEIGHT,
            bars,
            from: day(UnixSeconds(first.saturating_mul(DAY_SECS))),
            most,
            allowed: sum(|(allowed, _)| *allowed),
            denied: sum(|(_, denied)| *denied),
            codes,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.most == 0
    }
}

/// Allowed below, denied on top. Any count above 0 is visible.
fn bar(at_day: i64, (allowed, denied): (u64, u64), at: i64, most: u64) -> Bar {
    let height = |count: u64| match count {
        0 => 0,
        _ => {
            let share = u128::from(count).saturating_mul(96).checked_div(u128::from(most)).unwrap_or_default();
            i64::try_from(share).unwrap_or(HEIGHT).clamp(2, HEIGHT)
        }
    };
    let denied_height = height(denied);
    let allowed_height = height(allowed).min(HEIGHT.saturating_sub(denied_height));
    let allowed_y = HEIGHT.saturating_sub(allowed_height);
    Bar {
        day: day(UnixSeconds(at_day.saturating_mul(DAY_SECS))),
        allowed,
        denied,
        x: at.saturating_mul(BAR + GAP),
        width: BAR,
        allowed_y,
        allowed_height,
        denied_y: allowed_y.saturating_sub(denied_height),
        denied_height,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Period;

    #[test]
    fn hours_and_days_are_drawn_as_days_and_nothing_leaves_the_drawing() {
        let now = UnixSeconds(1_795_420_800);
        let period = |days: i64, counts: &[(&str, u64)]| Period {
            at: UnixSeconds(now.0 - days * DAY_SECS),
            counts: counts.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect(),
        };
        let usage = Usage {
            hours: vec![period(0, &[("allowed", 7)]), period(0, &[("allowed", 3), ("expired-key", 1)])],
            days: vec![period(29, &[("rotated-key", 1_000_000)]), period(30, &[("allowed", 9)])],
            denials: Vec::new(),
        };
        let chart = Chart::of(&usage, now);
        assert_eq!((chart.bars.len(), chart.allowed, chart.denied, chart.most), (30, 10, 1_000_001, 1_000_000));
        assert_eq!(chart.codes, [("rotated-key".to_owned(), 1_000_000), ("expired-key".to_owned(), 1)]);
        let last = chart.bars.last().unwrap();
        assert_eq!((last.allowed, last.denied, last.allowed_height, last.denied_height), (10, 1, 2, 2));
        for bar in &chart.bars {
            assert!(bar.denied_y >= 0 && bar.x + bar.width <= chart.width, "{}", bar.day);
            assert_eq!(bar.denied_y + bar.denied_height, bar.allowed_y);
        }
        assert!(Chart::of(&Usage::default(), now).is_empty());
    }
}
