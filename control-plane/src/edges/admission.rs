//! Limits how many instances an edge token may have.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use super::rules::LEASE;
use super::{Contact, Edges, Known, Refused, START_TOKEN};
use crate::config::TokenKind;
use crate::problem::Limit;
use crate::store::Instance;

/// How many silent instances a token may have for each connected one that it may have.
const SILENT: u64 = 4;

/// The percentage of a limit from which on an operator is warned.
const NEARLY: u64 = 80;

/// How many retired instances of a token are kept if it may have any number of instances.
const RETIRED: u64 = 80_000;

/// The instances of one token.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    connected: u64,
    /// Those whose lease has expired, including those past their bound, which are forgotten after a day.
    silent: u64,
    /// Kept for a day, so that each learns that it has ended.
    retired: u64,
}

impl Held {
    fn add(&mut self, known: &Known, now: Duration) {
        let count = match (known.instance.ended_at, known.is_heard(now)) {
            (Some(_), _) => &mut self.retired,
            (None, true) => &mut self.connected,
            (None, false) => &mut self.silent,
        };
        *count = count.saturating_add(1);
    }

    /// How much of its limits the token uses, in percent.
    fn percent(self, Limit { maximum, .. }: Limit) -> u64 {
        let of = |count: u64, maximum: u64| count.saturating_mul(100).checked_div(maximum).unwrap_or(100);
        of(self.connected, maximum).max(of(self.silent, maximum.saturating_mul(SILENT)))
    }
}

impl Edges {
    /// Whether a token is valid now.
    pub(super) fn is_live(&self, token: &str) -> bool {
        token == START_TOKEN || self.store.is_live_edge_token(token)
    }

    /// Records that an instance uses a token. It counts for the first of its tokens that is still valid.
    pub(super) fn vouch(&self, known: &mut Known, token: &str) {
        if known.instance.tokens.iter().any(|own| own == token) {
            return;
        }
        known.instance.tokens.retain(|own| self.is_live(own));
        known.instance.tokens.push(token.to_owned());
        known.must_save();
    }

    /// Checks that the token has room for a new instance. Returns the retired ones that are no longer kept, each with
    /// the number of its row's last change. Costs a pass over all instances.
    pub(super) fn admit(
        &self,
        all: &HashMap<String, Known>,
        contact: &Contact<'_>,
    ) -> Result<Vec<(String, i64)>, Refused> {
        let (token, now) = (contact.token, self.clock.monotonic());
        let mut held = Held::default();
        let of_it = || all.values().filter(|known| self.is_of_token(&known.instance, token));
        of_it().for_each(|known| held.add(known, now));
        let limit = self.limits.instances(kind(token));
        if let Some(limit) = limit {
            let silent = limit.maximum.saturating_mul(SILENT);
            if held.connected >= limit.maximum || held.silent >= silent {
                return Err(Refused::TooMany(limit));
            }
            self.warn(token, contact.edge, Held { connected: held.connected.saturating_add(1), ..held }, limit);
        }
        let kept = limit.map_or(RETIRED, |limit| limit.maximum.saturating_mul(SILENT));
        if held.retired < kept {
            return Ok(Vec::new());
        }
        // Half of them, so that this happens rarely: those that were silent longest.
        let mut retired: Vec<_> = of_it().filter(|known| known.is_told()).collect();
        retired.sort_by_key(|known| known.last_heard());
        retired.truncate(usize::try_from(kept.div_ceil(2)).unwrap_or(usize::MAX));
        Ok(retired.into_iter().map(Known::name).collect())
    }

    /// How much of its limit the fullest token uses: 1 when the limit is reached.
    pub(crate) fn fullest(&self) -> f64 {
        let now = self.clock.monotonic();
        let mut held: HashMap<String, Held> = HashMap::new();
        for known in self.lock().values() {
            if let Some(token) = known.instance.tokens.iter().find(|token| self.is_live(token)) {
                match held.get_mut(token) {
                    Some(held) => held.add(known, now),
                    None => held.entry(token.clone()).or_default().add(known, now),
                }
            }
        }
        let percent =
            |(token, held): (&String, &Held)| self.limits.instances(kind(token)).map(|limit| held.percent(limit));
        let most = held.iter().filter_map(percent).max().unwrap_or_default();
        f64::from(u32::try_from(most).unwrap_or(u32::MAX)) / 100.0
    }

    /// Warns once each time that a token comes near its limit.
    fn warn(&self, token: &str, edge: &str, held: Held, limit: Limit) {
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        let Held { connected, silent, .. } = held;
        if held.percent(limit) < NEARLY {
            near.remove(token);
        } else if near.insert(token.to_owned()) {
            let Limit { name, maximum } = limit;
            tracing::warn!(
                edge_token.id = token,
                edge.id = edge,
                connected,
                silent,
                maximum,
                "an edge token comes near the limit of its instances: remove the dead ones with `latchkey edges remove --edge`, \
                 or raise `{name}`"
            );
        }
    }

    /// Whether an instance counts for this token.
    fn is_of_token(&self, instance: &Instance, token: &str) -> bool {
        match instance.tokens.iter().position(|own| own == token) {
            Some(at) => !instance.tokens.iter().take(at).any(|before| self.is_live(before)),
            None => false,
        }
    }
}

fn kind(token: &str) -> TokenKind {
    if token == START_TOKEN { TokenKind::File } else { TokenKind::Made }
}

impl Known {
    /// When any replica received its last request. Another replica's write counts as a request until it expires.
    pub(super) fn last_heard(&self) -> Duration {
        self.heard_at.max(self.shared.others_until)
    }

    fn is_heard(&self, now: Duration) -> bool {
        now <= self.last_heard().saturating_add(LEASE)
    }

    /// Its id, with the number of its row's last change.
    pub(super) fn name(&self) -> (String, i64) {
        (self.instance.id.clone(), self.shared.row)
    }
}

/// Tokens for which a warning was logged.
pub(super) type Near = HashSet<String>;
