//! The test oracle: what is allowed, derived from the admins' changes without the code under test.

use std::collections::BTreeMap;

use policy::{Epoch, Position, Revision};

/// A request to `/v1/reviews`.
pub(crate) struct Probe {
    pub method: &'static str,
    /// Client address and port.
    pub address: &'static str,
    /// Whether it needs `write`, and comes from the networks that keys here may be restricted to.
    is_write: bool,
    is_inside: bool,
}

/// The requests that are tried with each secret.
pub(crate) const PROBES: [Probe; 3] = [
    Probe { method: "GET", address: "192.0.2.7:40000", is_write: false, is_inside: true },
    Probe { method: "POST", address: "192.0.2.7:40000", is_write: true, is_inside: true },
    Probe { method: "GET", address: "198.51.100.7:40000", is_write: false, is_inside: false },
];

/// How much of the API a key may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grant {
    Nothing,
    Read,
    Write,
}

/// A key, as its admins see it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// Under `/v1/workspaces/acme/keys/`.
    pub id: String,
    pub grant: Grant,
    /// Only from 192.0.2.0/24.
    pub is_restricted: bool,
    pub is_active: bool,
    /// In Unix seconds.
    pub expires_at: Option<i64>,
    /// Each with its end in Unix seconds, if it has one; the last is the current one.
    pub secrets: Vec<(String, Option<i64>)>,
}

/// All keys at each revision of each history.
pub(crate) struct Oracle {
    past: BTreeMap<(Epoch, Revision), Vec<Key>>,
    /// As they are now.
    pub keys: Vec<Key>,
}

impl Key {
    /// Ends all secrets but the current one now, unless they ended before.
    pub(crate) fn end_overlap(&mut self, now: i64) {
        let previous = self.secrets.len() - 1;
        for (_, until) in &mut self.secrets[..previous] {
            *until = Some(until.map_or(now, |until| until.min(now)));
        }
    }

    pub(crate) fn rotate(&mut self, fresh: String, now: i64, overlap_secs: i64) {
        self.end_overlap(now);
        if let Some((_, until)) = self.secrets.last_mut() {
            *until = Some(now + overlap_secs);
        }
        self.secrets.push((fresh, None));
    }

    fn verdict(&self, until: Option<i64>, probe: &Probe, now: i64) -> &'static str {
        let needed = if probe.is_write { Grant::Write } else { Grant::Read };
        if until.is_some_and(|until| until <= now) {
            "rotated-key"
        } else if !self.is_active {
            "inactive-key"
        } else if self.expires_at.is_some_and(|at| at <= now) {
            "expired-key"
        } else if self.is_restricted && !probe.is_inside {
            "address-not-allowed"
        } else if self.grant < needed {
            "missing-scope"
        } else {
            "allowed"
        }
    }
}

impl Oracle {
    /// An oracle that begins at `position`, without keys.
    pub(crate) fn new(position: Position) -> Self {
        Self { past: BTreeMap::from([((position.epoch, position.revision), Vec::new())]), keys: Vec::new() }
    }

    /// Records the current keys as those from this position on.
    pub(crate) fn record(&mut self, epoch: Epoch, revision: Revision) {
        self.past.insert((epoch, revision), self.keys.clone());
    }

    /// The keys at a position; `None` if nothing was recorded in its epoch up to there.
    pub(crate) fn at(&self, position: Position) -> Option<&Vec<Key>> {
        let of_epoch = self.past.range((position.epoch, Revision(0))..=(position.epoch, position.revision));
        of_epoch.last().map(|(_, keys)| keys)
    }

    /// All verdicts that a request may get, by the keys at a position, at some time from `earliest` to `latest`.
    pub(crate) fn verdicts(
        &self,
        position: Position,
        secret: &str,
        probe: &Probe,
        (earliest, latest): (i64, i64),
    ) -> Vec<&'static str> {
        let Some(keys) = self.at(position) else { return Vec::new() };
        let found =
            keys.iter().find_map(|key| key.secrets.iter().find(|(own, _)| own == secret).map(|own| (key, own.1)));
        let Some((key, until)) = found else { return vec!["unknown-key"] };
        let events = [Some(earliest), Some(latest), until, key.expires_at];
        let times = events.into_iter().flatten().filter(|at| (earliest..=latest).contains(at));
        times.map(|now| key.verdict(until, probe, now)).collect()
    }
}
