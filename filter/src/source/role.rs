//! A source's part among the workers: signing the roster, following, taking over and leading.

use policy::Table;

use super::trust::CatchUp;
use super::{HURRY, Part, Shares, Source, TAKE_OVER_MS, TICK, change_roster, hex};
use crate::host::{Host, LogLevel};
use crate::keys::Clocks;
use crate::process::follower::{Follower, Step};
use crate::process::head::Head;
use crate::process::publisher::Publisher;
use crate::process::roster::Role;
use crate::process::shelf::Deposed;

/// What a new leader begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// The table and all that was published.
    Over,
    Nothing,
}

impl Source {
    /// Signs the roster, when it is time; learns this worker's part from it.
    pub(super) fn sign(&mut self, host: &dyn Host, now: Clocks) {
        let is_due = self.signs_ms.is_none_or(|due| now.monotonic_ms >= due);
        let (Some(me), true) = (self.me.clone(), is_due) else { return };
        if !matches!(self.shares, Shares::Roster | Shares::Everything) {
            return;
        }
        if self.queue.is_none()
            && let Some(root) = self.roots.keys().next_back()
        {
            self.queue = Some((*root, host.register_queue(&self.shelf.queue(&me, *root))));
        }
        let name = self.shelf.roster();
        let leads = self.shares == Shares::Everything;
        let another = hex(host.random());
        let signed = change_roster(host, &name, |roster| {
            // Struck out while it was held up: that worker has ended for the control plane, so this is another one.
            let was_struck_out = self.signed_ms.is_some() && roster.workers.iter().all(|worker| worker.id != me);
            let id = another.as_ref().filter(|_| was_struck_out).unwrap_or(&me);
            let role = roster.sign(self.entry(now, id), &me, now.monotonic_ms);
            if !leads && roster.leader == *id {
                // Each worker asks by itself: nobody leads.
                roster.leader.clear();
            }
            (role, id.clone())
        });
        let Some((roster, (role, me))) = signed else { return };
        // What it holds may be old, whatever its part was, and whatever had it sign.
        let is_late = self.is_late(now);
        self.was_held_up |= is_late;
        self.signed_ms = Some(now.monotonic_ms);
        if is_late && leads {
            // Read after it has signed: what is published later is enforced only once this worker says that it has it.
            self.catches_up_to = Head::read(host, &self.shelf).map(CatchUp::of);
        }
        self.leader = roster.workers.iter().find(|worker| worker.id == roster.leader).and_then(|worker| worker.queue);
        self.signs_ms = Some(roster.next_signature_ms(self.has_requests, now.monotonic_ms));
        self.others = roster.queues_but_mine(&me).collect();
        self.bounds = roster.bounds();
        self.instance = Some(roster.instance);
        self.me = Some(me);
        if !leads {
            return;
        }
        match (role, &self.part) {
            (Role::Leads { term }, Part::Leads(publisher)) if publisher.term() == term => {
                // Nobody else has led meanwhile.
                self.was_held_up &= !publisher.has_published();
                let generation = Some(publisher.reached().0);
                self.is_asked_again =
                    roster.workers.iter().any(|worker| worker.broken.is_some() && worker.broken == generation);
            }
            (Role::Leads { term }, Part::TakesOver { term: own, .. }) if *own == term => {}
            (Role::Leads { term }, _) => {
                self.step_down();
                self.part = Part::TakesOver { term, since_ms: now.monotonic_ms };
            }
            (Role::Follows, Part::Leads(_) | Part::TakesOver { .. }) => self.step_down(),
            (Role::Follows, Part::Follows | Part::Alone) => {}
        }
    }

    /// Does the next piece of work of this worker's part, in a callback of `root`; has that one's timer run soon when there is
    /// more.
    pub(super) fn advance(&mut self, host: &dyn Host, root: u32, now: Clocks) {
        let before = self.keys.holding.position();
        let more = match &mut self.part {
            Part::Alone => self.is_heavy(),
            Part::Follows => {
                let step = self.follower.step(host, &self.shelf, &mut self.keys);
                self.was_held_up &= step != Step::InStep && !self.has_caught_up();
                step == Step::More || self.is_heavy()
            }
            Part::TakesOver { term, since_ms } => {
                let (term, waited) = (*term, now.monotonic_ms.saturating_sub(*since_ms));
                match self.follower.step(host, &self.shelf, &mut self.keys) {
                    Step::More => true,
                    Step::InStep => self.lead(host, term, Takes::Over),
                    Step::Waits if Head::read(host, &self.shelf).is_none() => self.lead(host, term, Takes::Nothing),
                    Step::Waits | Step::Broken if waited > TAKE_OVER_MS => self.lead(host, term, Takes::Nothing),
                    Step::Waits | Step::Broken => false,
                }
            }
            Part::Leads(publisher) => match publisher.tidy(host, &self.shelf, &mut self.keys, self.is_asked_again) {
                Ok(more) => more,
                Err(Deposed) => {
                    self.step_down();
                    false
                }
            },
        };
        if matches!(self.part, Part::Follows) && self.keys.holding.position() != before {
            if let Some(reached) = self.keys.holding.position() {
                host.log(LogLevel::Debug, &format!("revision {} is applied", reached.revision));
            }
            // The leader learns at once what this worker has now, and tells the control plane.
            self.signs_ms = None;
            self.sign(host, now);
            if let Some(leader) = self.leader {
                host.wake(leader);
            }
        }
        // By the timer, because Envoy handles all wakes of a queue, those in between too, before it looks at its sockets again.
        match (more, self.hurries) {
            (true, None) => {
                host.set_tick(HURRY);
                self.hurries = Some(root);
            }
            (false, Some(hurries)) if hurries == root => {
                host.set_tick(TICK);
                self.hurries = None;
            }
            (true | false, _) => {}
        }
    }

    /// Whether the table has so many changes that it should be rebased soon.
    fn is_heavy(&self) -> bool {
        self.keys.holding.table().is_some_and(Table::is_heavy)
    }

    /// Begins to lead. Answers whether there is more to do at once.
    fn lead(&mut self, host: &dyn Host, term: u64, takes: Takes) -> bool {
        let head = Head::read(host, &self.shelf);
        let publisher = match (takes, head) {
            (Takes::Over, Some(head)) => Publisher::over(term, &head, &self.keys.holding),
            (_, head) => Publisher::fresh(term, head.as_ref()),
        };
        self.subscription.take_up(&mut self.keys);
        if takes == Takes::Nothing {
            self.subscription.want_snapshot();
        }
        match publisher.announce(host, &self.shelf, &self.keys) {
            Ok(()) => {
                self.was_held_up &= takes != Takes::Over;
                self.part = Part::Leads(Box::new(publisher));
                let message = format!("this worker asks the control plane for all of this Envoy (term {term})");
                host.log(LogLevel::Info, &message);
            }
            Err(Deposed) => self.step_down(),
        }
        false
    }

    /// Somebody else leads: what is in flight is for nobody, and this worker follows from where it stands.
    pub(super) fn step_down(&mut self) {
        if let Part::Leads(publisher) = &self.part {
            let (generation, delta) = publisher.reached();
            // A snapshot that it had begun isn't one that others publish.
            self.follower =
                if self.keys.holding.is_loading() { Follower::default() } else { Follower::at(generation, delta) };
        }
        self.part = Part::Follows;
        self.caller = None;
        self.subscription.abandon();
        // The roster says who leads now.
        self.signs_ms = None;
    }
}
