//! Limits how many instances an edge token may have.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use super::enforcement::LEASE;
use super::{Contact, Edges, InstanceError, TOKEN_FILE_ID, TrackedInstance};
use crate::base::config::TokenKind;
use crate::base::limit::Limit;
use crate::store::Instance;

/// How many silent instances a token may have for each connected one that it may have.
const SILENT_PER_CONNECTED: u64 = 4;

/// The percentage of a limit from which on an operator is warned.
const WARNING_PERCENT: u64 = 80;

/// How many retired instances of a token are kept if it may have any number of instances.
const MAX_RETIRED: u64 = 80_000;

/// The instances of one token.
#[derive(Clone, Copy, Debug, Default)]
struct InstanceCounts {
    connected: u64,
    /// Those whose lease has expired, including those past their bound, which are forgotten after a day.
    silent: u64,
    /// Kept for a day, so that each can be notified that it has ended.
    retired: u64,
}

impl InstanceCounts {
    fn add(&mut self, tracked: &TrackedInstance, now: Duration) {
        let count = match (tracked.instance.ended_at, tracked.has_lease(now)) {
            (Some(_), _) => &mut self.retired,
            (None, true) => &mut self.connected,
            (None, false) => &mut self.silent,
        };
        *count = count.saturating_add(1);
    }

    /// How much of its limits the token uses, in percent.
    fn percent(self, Limit { maximum, .. }: Limit) -> u64 {
        let of = |count: u64, maximum: u64| count.saturating_mul(100).checked_div(maximum).unwrap_or(100);
        of(self.connected, maximum).max(of(self.silent, maximum.saturating_mul(SILENT_PER_CONNECTED)))
    }
}

impl Edges {
    /// Whether a token is valid now.
    pub(super) fn is_valid_token(&self, token: &str) -> bool {
        token == TOKEN_FILE_ID || self.store.is_live_edge_token(token)
    }

    /// Records that an instance uses a token. The instance counts against the first of its tokens that is still valid.
    pub(super) fn record_token(&self, tracked: &mut TrackedInstance, token: &str) {
        if tracked.instance.tokens.iter().any(|own| own == token) {
            return;
        }
        tracked.instance.tokens.retain(|own| self.is_valid_token(own));
        tracked.instance.tokens.push(token.to_owned());
        tracked.mark_unsaved();
    }

    /// Checks that the token's limit permits a new instance. Returns the retired instances that are no longer kept,
    /// each with the number of its row's last change. Costs a pass over all instances.
    pub(super) fn admit(
        &self,
        all: &HashMap<String, TrackedInstance>,
        contact: &Contact<'_>,
    ) -> Result<Vec<(String, i64)>, InstanceError> {
        let (token, now) = (contact.token, self.clock.monotonic());
        let mut counts = InstanceCounts::default();
        let of_it = || all.values().filter(|tracked| self.is_of_token(&tracked.instance, token));
        of_it().for_each(|tracked| counts.add(tracked, now));
        let limit = self.limits.instances(kind(token));
        if let Some(limit) = limit {
            let silent = limit.maximum.saturating_mul(SILENT_PER_CONNECTED);
            if counts.connected >= limit.maximum || counts.silent >= silent {
                return Err(InstanceError::TooMany(limit));
            }
            self.warn(
                token,
                contact.edge,
                InstanceCounts { connected: counts.connected.saturating_add(1), ..counts },
                limit,
            );
        }
        let kept = limit.map_or(MAX_RETIRED, |limit| limit.maximum.saturating_mul(SILENT_PER_CONNECTED));
        if counts.retired < kept {
            return Ok(Vec::new());
        }
        // Half of them, so that this happens rarely: those that were silent longest.
        let mut retired: Vec<_> = of_it().filter(|tracked| tracked.has_left()).collect();
        retired.sort_by_key(|tracked| tracked.last_contact());
        retired.truncate(usize::try_from(kept.div_ceil(2)).unwrap_or(usize::MAX));
        Ok(retired.into_iter().map(TrackedInstance::id_and_row).collect())
    }

    /// How much of its limit the fullest token uses: 1 when the limit is reached.
    pub(crate) fn highest_token_use(&self) -> f64 {
        let now = self.clock.monotonic();
        let mut counts: HashMap<String, InstanceCounts> = HashMap::new();
        for tracked in self.lock().values() {
            if let Some(token) = tracked.instance.tokens.iter().find(|token| self.is_valid_token(token)) {
                match counts.get_mut(token) {
                    Some(counts) => counts.add(tracked, now),
                    None => counts.entry(token.clone()).or_default().add(tracked, now),
                }
            }
        }
        let percent = |(token, counts): (&String, &InstanceCounts)| {
            self.limits.instances(kind(token)).map(|limit| counts.percent(limit))
        };
        let most = counts.iter().filter_map(percent).max().unwrap_or_default();
        f64::from(u32::try_from(most).unwrap_or(u32::MAX)) / 100.0
    }

    /// Warns once each time that a token approaches its limit.
    fn warn(&self, token: &str, edge: &str, counts: InstanceCounts, limit: Limit) {
        let mut warned_tokens = self.warned_tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let InstanceCounts { connected, silent, .. } = counts;
        if counts.percent(limit) < WARNING_PERCENT {
            warned_tokens.remove(token);
        } else if warned_tokens.insert(token.to_owned()) {
            let Limit { name, maximum } = limit;
            tracing::warn!(
                edge_token.id = token,
                edge.id = edge,
                connected,
                silent,
                maximum,
                "an edge token is near its limit of instances: remove the disconnected ones with \
                 `latchkey edges remove --edge`, or raise `{name}`"
            );
        }
    }

    /// Whether an instance counts against this token's limit.
    fn is_of_token(&self, instance: &Instance, token: &str) -> bool {
        match instance.tokens.iter().position(|own| own == token) {
            Some(at) => !instance.tokens.iter().take(at).any(|before| self.is_valid_token(before)),
            None => false,
        }
    }
}

fn kind(token: &str) -> TokenKind {
    if token == TOKEN_FILE_ID { TokenKind::File } else { TokenKind::Created }
}

impl TrackedInstance {
    /// When any replica received its last request. Another replica's write counts as a request until it expires.
    pub(super) fn last_contact(&self) -> Duration {
        self.last_contact_at.max(self.shared.others_answer_until)
    }

    fn has_lease(&self, now: Duration) -> bool {
        now <= self.last_contact().saturating_add(LEASE)
    }

    /// Its id, with the number of its row's last change.
    pub(super) fn id_and_row(&self) -> (String, i64) {
        (self.instance.id.clone(), self.shared.row)
    }
}

/// Tokens for which a warning was logged.
pub(super) type WarnedTokens = HashSet<String>;
